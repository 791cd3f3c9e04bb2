import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import type { Random } from '../../../lib/random.js';
import { type NdArray, ndarray } from '../../oracle/array.js';
import {
  addLoop,
  dropoutLoop,
  dropPathLoop,
  geluLoop,
  layerNormLoop,
  philoxBlock,
} from '../../oracle/transformer-ops.js';
import { expectRefused, testGolden } from './golden.js';
import {
  normals,
  type OpCase,
  onDevice,
  runOp,
  tensor,
  testDevices,
  testOp,
  uniforms,
} from './test-op.js';

const filled = (shape: number[], value = 0) =>
  ndarray(shape, new Float64Array(shape.reduce((a, b) => a * b, 1)).fill(value));
const onlyX = { activations: ['x'] };

describe('add', () => {
  const spec = { oracle: addLoop, differentiable: ['a', 'b'] };
  const cases = (random: Random) => {
    const one = (name: string, a: number[], b: number[]): OpCase => ({
      name,
      inputs: { a: normals(random, a), b: normals(random, b) },
    });
    return [
      one('the same shape', [2, 3, 5, 7], [2, 3, 5, 7]),
      one('whole packs of the same shape', [3, 16], [3, 16]),
      one('a bias', [2, 5, 7, 24], [24]),
      one('a bias of odd length', [9, 5, 13], [13]),
      one('tokens of few images', [2, 19, 48], [19, 48]),
      one('more than a piece of columns', [3, 1100], [1100]),
      one('several chunks of rows', [1300, 8], [8]),
      one('several chunks of rows, odd', [700, 3], [3]),
      one('one number for all', [3, 4, 5], []),
      one('one column', [70, 1], [1]),
      one('scalars', [], []),
      one('no rows', [0, 4], [4]),
      one('no columns', [3, 0], [0]),
    ];
  };
  testOp('add', { ...spec, cases, activations: ['a', 'b'] });
  // Of two types: bf16 activations with f32 parameters, and the reverse.
  const renamed = (suffix: string) => (random: Random) =>
    cases(random).map((call) => ({ ...call, name: `${call.name}, ${suffix}` }));
  testOp('add', { ...spec, activations: ['a'], cases: renamed('b in f32') });
  testOp('add', { ...spec, activations: ['b'], f32Output: true, cases: renamed('a in f32') });
});

describe('layerNorm', () => {
  const spec = { activations: ['x', 'residual'] };
  const parameters = (random: Random, channels: number) => ({
    gamma: uniforms(random, [channels], -1.5, 1.5),
    beta: normals(random, [channels]),
  });
  testOp('layerNorm', {
    oracle: layerNormLoop,
    ...spec,
    differentiable: ['x', 'gamma', 'beta', 'residual'],
    cases: (random) => {
      const one = (name: string, shape: number[], options = {}, offset = 0.5): OpCase[] => {
        const x = normals(random, shape, 2);
        x.data.set(x.data.map((v) => Math.fround(v + offset)));
        const inputs = { x, ...parameters(random, shape.at(-1)!) };
        return [
          { name, inputs, options },
          {
            name: `${name}, residual`,
            inputs: { ...inputs, residual: normals(random, shape) },
            options,
          },
        ];
      };
      return [
        ...one('tokens', [2, 19, 256]),
        ...one('few channels', [3, 5, 8]),
        ...one('more packs than a warp', [5, 384]),
        ...one('a block a row', [3, 1024]),
        ...one('several packs a thread', [2, 2056]),
        ...one('as many channels as registers hold', [1, 4096]),
        ...one('more channels than registers hold', [2, 4104]),
        ...one('channels that fill no vector', [7, 45]),
        ...one('an odd number of channels, several chunks of rows', [90, 3]),
        ...one('several chunks of rows', [150, 16]),
        ...one('one row', [20]),
        ...one('a large eps', [6, 24], { eps: 0.5 }),
        ...one('a mean 100 times the deviation', [4, 64], {}, 200),
        ...one('no rows', [0, 24]),
        ...one('no channels', [3, 0]),
      ];
    },
  });
  testGolden('layerNorm', 'layer-norm', spec);

  for (const device of testDevices) {
    const run = (
      x: NdArray,
      dtype: 'f32' | 'bf16' = 'f32',
      inputs: Record<string, NdArray> = {},
    ) => {
      const channels = x.shape.at(-1)!;
      const call = {
        name: '',
        inputs: { x, gamma: filled([channels], 1.5), beta: filled([channels], 0.25), ...inputs },
      };
      return runOp('layerNorm', call, { spec, device, dtype, dout: filled([...x.shape], 1) });
    };

    test(`equal numbers normalise to beta, without a gradient${onDevice(device)}`, async () => {
      for (const channels of [1, 24, 47, 2056]) {
        const { output, gradients } = await run(filled([3, channels], Math.fround(12345.678)));
        expect(new Set(output)).toEqual(new Set([0.25]));
        expect(gradients.gamma!.every((v) => v === 0)).toBe(true);
        expect(new Set(gradients.beta)).toEqual(new Set([3]));
      }
      expect(Array.from((await run(filled([2, 1], 7))).gradients.x!, Math.abs)).toEqual([0, 0]);
    });

    test(`NaN and infinity spoil their own row alone${onDevice(device)}`, async () => {
      for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY])
        for (const at of [0, 17]) {
          const x = ndarray(
            [3, 20],
            Float64Array.from({ length: 60 }, (_, i) => Math.sin(i)),
          );
          x.data[20 + at] = bad;
          const { output } = await run(x, 'bf16');
          expect(Array.from(output, Number.isNaN)).toEqual(
            Array.from({ length: 60 }, (_, i) => i >= 20 && i < 40),
          );
        }
    });

    test(`the sum with the residual is not rounded${onDevice(device)}`, async () => {
      // 256 + 1 is no bf16.
      const x = ndarray([1, 2], [256, 256]);
      const { output } = await run(x, 'bf16', { residual: ndarray([1, 2], [1, 0]) });
      expect(Array.from(output)).toEqual([1.75, -1.25]);
    });

    test(`a batch is its rows one by one${onDevice(device)}`, async () => {
      const x = ndarray(
        [5, 264],
        Float64Array.from({ length: 1320 }, (_, i) => Math.sin(i)),
      );
      const whole = await run(x);
      for (let row = 0; row < 5; row++) {
        const part = await run(ndarray([1, 264], x.data.slice(264 * row, 264 * (row + 1))));
        expect(whole.output.slice(264 * row, 264 * (row + 1))).toEqual(part.output);
      }
    });
  }
});

describe('gelu', () => {
  testOp('gelu', {
    oracle: geluLoop,
    ...onlyX,
    differentiable: ['x'],
    cases: (random) => [
      { name: 'tokens', inputs: { x: normals(random, [2, 37, 61]) } },
      { name: 'more than one chunk', inputs: { x: normals(random, [9001], 3) } },
      { name: 'a scalar', inputs: { x: normals(random, []) } },
      { name: 'nothing', inputs: { x: filled([0, 3]) } },
    ],
  });
  testGolden('gelu', 'gelu', onlyX);

  for (const device of testDevices) {
    test(`keeps its digits in the far tail${onDevice(device)}`, async () => {
      const x = ndarray(
        [126],
        Float64Array.from({ length: 126 }, (_, i) => -i / 10),
      );
      const want = geluLoop({ x: ndarray([126], x.data.map(Math.fround)) });
      const { output } = await runOp('gelu', { name: '', inputs: { x } }, { spec: onlyX, device });
      output.forEach((v, i) => {
        expect(Math.abs(v - want.data[i]!)).toBeLessThanOrEqual(7e-7 * Math.abs(want.data[i]!));
      });
    });

    test(`has its limits at infinity and keeps NaN${onDevice(device)}`, async () => {
      const { POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: minus, NaN: nan } = Number;
      const values = [inf, minus, nan, 0, 3e38, -3e38, 30, -30];
      const want = [inf, 0, nan, 0, 3e38, 0, 30, 0];
      // Twice: in vectors, and in what is left over.
      for (const n of [8, 7]) {
        const x = ndarray([n], values.slice(0, n));
        const call = { name: '', inputs: { x } };
        for (const dtype of ['f32', 'bf16'] as const) {
          const got = await runOp('gelu', call, {
            spec: onlyX,
            device,
            dtype,
            dout: filled([n], 2),
          });
          expect(got.gradients.x!.map((g) => g + 0)).toEqual(
            Float32Array.from([2, 0, nan, 1, 2, 0, 2, 0].slice(0, n)),
          );
          Array.from(got.output).forEach((v, i) => {
            if (Math.abs(want[i]!) < 1e38 || !Number.isFinite(want[i]!))
              expect(v + 0).toBe(want[i]);
            else expect(v / want[i]!).toBeCloseTo(1, 2);
          });
        }
      }
    });
  }
});

test('the oracle draws Philox as its authors do', () => {
  // kat_vectors of Random123 1.14: philox4x32 10.
  expect(philoxBlock(0, 0, 0)).toEqual([0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
});

describe('dropout', () => {
  const cases = (random: Random): OpCase[] => {
    const one = (name: string, shape: number[], options = {}) => ({
      name,
      inputs: { x: normals(random, shape) },
      options: { seed: 7, stream: 3, ...options },
    });
    return [
      one('tokens', [3, 17, 40], { p: 0.1 }),
      one('the default, a half', [5, 33]),
      one('nearly everything', [1301], { p: 0.99 }),
      one('a negative seed and a large stream', [260], { p: 0.3, seed: -5, stream: 2 ** 31 - 1 }),
      one('nothing is dropped', [4, 5], { p: 0 }),
      one('one number a sample', [9, 1], { p: 0.5 }),
      one('nothing', [0, 3], { p: 0.5 }),
    ];
  };
  testOp('dropout', {
    oracle: dropoutLoop,
    ...onlyX,
    differentiable: ['x'],
    cases: (random) => [
      ...cases(random),
      { name: 'a scalar', inputs: { x: normals(random, []) }, options: { p: 0.25 } },
      {
        name: 'several threads',
        inputs: { x: normals(random, [9001]) },
        options: { p: 0.2, seed: 1 },
      },
    ],
  });
  testOp('dropPath', { oracle: dropPathLoop, ...onlyX, differentiable: ['x'], cases });

  for (const device of testDevices) {
    test(`drops a share of p, and others with another stream${onDevice(device)}`, async () => {
      const x = filled([40000], 1);
      const masks: boolean[][] = [];
      for (const stream of [1, 2]) {
        const call = { name: '', inputs: { x }, options: { p: 0.25, seed: 5, stream } };
        const { output } = await runOp('dropout', call, { spec: onlyX, device });
        const kept = Array.from(output, (v) => v !== 0);
        const share = 1 - kept.filter(Boolean).length / kept.length;
        expect(Math.abs(share - 0.25)).toBeLessThan(4 * Math.sqrt((0.25 * 0.75) / 40000));
        expect(new Set(output)).toEqual(new Set([0, Math.fround(1 / 0.75)]));
        masks.push(kept);
      }
      const same = masks[0]!.filter((kept, i) => kept === masks[1]![i]).length / 40000;
      expect(same).toBeCloseTo(0.75 ** 2 + 0.25 ** 2, 1);
    });

    test(`what is dropped is 0 whatever it was${onDevice(device)}`, async () => {
      const options = { p: 0.5, seed: 11 };
      for (const op of ['dropout', 'dropPath'])
        for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
          const run = async (value: number) => {
            const call = { name: '', inputs: { x: filled([64], value) }, options };
            return (await runOp(op, call, { spec: onlyX, device })).output;
          };
          const ones = await run(1);
          expect(ones).toContain(0);
          expect(await run(bad)).toEqual(ones.map((v) => (v === 0 ? 0 : bad)));
        }
    });
  }
});

describe('refusals', () => {
  const floats = (...shapes: number[][]) => shapes.map((shape) => tensor(filled(shape)));
  const refused = (
    op: string,
    inputs: ReturnType<typeof floats>,
    options: object,
    code: string,
    message: string,
  ) =>
    expectRefused(
      () => native.runOp(op, inputs, JSON.stringify(options)),
      code,
      `${op}: ${message}`,
    );
  const i32 = () => tensor(filled([4]), 'i32');
  const bf16 = (shape: number[]) => tensor(filled(shape), 'bf16');

  test('add says what was wrong', async () => {
    await refused('add', floats([2]), {}, 'ERR_SHAPE', 'needs 2 tensors, got 1');
    const wanted = 'b must be [2, 3] or its last axes (the shape of a), got';
    for (const [b, got] of [
      [[2], '[2]'],
      [[3, 3], '[3, 3]'],
      [[2, 1], '[2, 1]'],
      [[1, 2, 3], '[1, 2, 3]'],
    ] as [number[], string][])
      await refused('add', floats([2, 3], b), {}, 'ERR_SHAPE', `${wanted} ${got}`);
    await refused('add', [i32(), i32()], {}, 'ERR_DTYPE', 'a must be f32 or bf16, got i32');
    await refused(
      'add',
      [...floats([4]), i32()],
      {},
      'ERR_DTYPE',
      'b must be f32 or bf16, got i32',
    );
  });

  test('layerNorm says what was wrong', async () => {
    const refuse = (
      inputs: ReturnType<typeof floats>,
      code: string,
      message: string,
      options = {},
    ) => refused('layerNorm', inputs, options, code, message);
    await refuse(floats([2, 4], [4]), 'ERR_SHAPE', 'needs 3 or 4 tensors, got 2');
    await refuse(floats([], [1], [1]), 'ERR_SHAPE', 'x must have at least one axis, got []');
    await refuse(
      floats([2, 4], [3], [4]),
      'ERR_SHAPE',
      'gamma must be [4] (the last axis of x), got [3]',
    );
    await refuse(
      floats([2, 4], [4], [1, 4]),
      'ERR_SHAPE',
      'beta must be [4] (the last axis of x), got [1, 4]',
    );
    await refuse(
      floats([2, 4], [4], [4], [4]),
      'ERR_SHAPE',
      'residual must be [2, 4] (the shape of x), got [4]',
    );
    await refuse([i32(), ...floats([4], [4])], 'ERR_DTYPE', 'x must be f32 or bf16, got i32');
    await refuse(
      [bf16([2, 4]), bf16([4]), ...floats([4])],
      'ERR_DTYPE',
      'gamma must be f32, got bf16',
    );
    await refuse(
      [bf16([2, 4]), ...floats([4], [4], [2, 4])],
      'ERR_DTYPE',
      'residual must be bf16, got f32',
    );
    for (const eps of [0, -1])
      await refuse(floats([2, 4], [4], [4]), 'ERR_RANGE', `eps must be > 0, got ${eps}`, { eps });
  });

  test('gelu, dropout and dropPath say what was wrong', async () => {
    for (const op of ['gelu', 'dropout', 'dropPath']) {
      await refused(op, floats([2], [2]), {}, 'ERR_SHAPE', 'needs 1 tensor, got 2');
      await refused(op, [i32()], {}, 'ERR_DTYPE', 'x must be f32 or bf16, got i32');
    }
    for (const op of ['dropout', 'dropPath'])
      for (const p of [1, -0.5])
        await refused(op, floats([2]), { p }, 'ERR_RANGE', `p must be in [0, 1), got ${p}`);
    await refused('dropPath', floats([]), {}, 'ERR_SHAPE', 'x must have at least one axis, got []');
  });
});
