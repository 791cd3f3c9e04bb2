import { describe, expect, test } from 'vitest';

const { countInstructions, kindOf } = await import(
  new URL('../../../scripts/ptx.mjs', import.meta.url).href
);

describe('instructions of a PTX', () => {
  test.each([
    ['ld.global.v4.f32 \t{%f1, %f2, %f3, %f4}, [%rd4];', 'load16'],
    ['ld.global.nc.v4.u32 \t{%r1, %r2, %r3, %r4}, [%rd4+16];', 'load16'],
    ['@%p3 ld.global.v2.u64 \t{%rd1, %rd2}, [%rd4];', 'load16'],
    ['ld.global.v2.f32 \t{%f1, %f2}, [%rd4];', 'load'],
    ['ld.v4.f32 \t{%f1, %f2, %f3, %f4}, [%rd4];', 'load16'],
    ['ld.global.u16 \t%rs1, [%rd4];', 'load'],
    ['st.global.v4.u32 \t[%rd4], {%r1, %r2, %r3, %r4};', 'store16'],
    ['@!%p3 st.global.u8 \t[%rd4], %rs1;', 'store'],
    ['cp.async.cg.shared.global [%r1], [%rd2], 16, %r3;', 'copy16'],
    ['cp.async.ca.shared.global [%r1], [%rd2], 4, %r3;', 'copy'],
    ['cp.async.commit_group;', null],
    ['ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1, %r2, %r3, %r4}, [%r5];', 'ldmatrix'],
    [
      'mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1}, {%r1}, {%r2}, {%f1};',
      'mma.m16n8k16',
    ],
    ['{ wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {%f1}, %rd1, %rd2;', 'wgmma'],
    ['wgmma.fence.sync.aligned;', null],
    ['ld.param.u64 \t%rd1, [kernel_param_0];', null],
    ['ld.shared.v4.f32 \t{%f1, %f2, %f3, %f4}, [%r4];', null],
    ['st.local.u32 \t[%rd1], %r1;', null],
    ['add.s32 \t%r1, %r2, 16;', null],
    ['// ld.global.v4.f32', null],
  ])('%s is %s', (line, kind) => expect(kindOf(`\t${line}`)).toBe(kind));

  test('are counted by kernel', () => {
    const ptx = [
      '.visible .entry first(',
      '\tld.global.v4.f32 \t{%f1, %f2, %f3, %f4}, [%rd4];',
      '\tld.global.v4.f32 \t{%f1, %f2, %f3, %f4}, [%rd5];',
      '}',
      '.func helper()',
      '\tld.global.f32 \t%f1, [%rd4];',
      '.entry second(',
      '\tst.global.f32 \t[%rd4], %f1;',
    ].join('\n');
    expect(countInstructions(ptx)).toEqual([
      { name: 'first', counts: { load16: 2 } },
      { name: 'second', counts: { store: 1 } },
    ]);
  });
});
