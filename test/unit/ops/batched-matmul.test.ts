import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { ndarray, numel } from '../../oracle/array.js';
import { batchedMatmulLoop } from '../../oracle/batched-matmul.js';
import { expectRefused, testGolden } from './golden.js';
import { normals, type OpCase, onDevice, runOp, tensor, testDevices, testOp } from './test-op.js';

const spec = { activations: ['a', 'b'] };

testOp('batchedMatmul', {
  oracle: batchedMatmulLoop,
  ...spec,
  differentiable: ['a', 'b'],
  cases: (random) => {
    const one = (name: string, [batches, m, k, n]: [number, number, number, number]): OpCase => ({
      name,
      inputs: {
        a: normals(random, [batches, m, k]),
        b: normals(random, [batches, k, n]),
      },
    });
    return [
      one('the first product of a dynamic convolution', [3, 49, 256, 64]),
      one('its second', [3, 49, 64, 256]),
      one('a row and a column', [4, 1, 9, 1]),
      one('a column and a row', [4, 9, 1, 9]),
      one('a number', [1, 1, 1, 1]),
      one('odd sizes', [5, 13, 7, 19]),
      one('pairs of bf16, but no sixteen bytes', [2, 30, 34, 38]),
      one('just beyond tiles', [2, 65, 33, 129]),
      one('some rows of a block more', [1, 113, 40, 24]),
      one('one large product', [1, 150, 90, 200]),
      one('many small ones', [70, 3, 4, 8]),
      one('long sums', [1, 5, 900, 6]),
      one('nothing to sum', [2, 3, 0, 4]),
      one('no rows', [2, 0, 3, 4]),
      one('no columns', [2, 3, 4, 0]),
      one('no batches', [0, 3, 4, 5]),
    ];
  },
});

testGolden('batchedMatmul', 'batched-matmul', spec);

for (const device of testDevices) {
  test(`what is no number stays in its row, its column and its batch${onDevice(device)}`, async () => {
    const shapes = { a: [2, 20, 5], b: [2, 5, 21] };
    const a = ndarray(shapes.a, new Float64Array(numel(shapes.a)).fill(1));
    const b = ndarray(shapes.b, new Float64Array(numel(shapes.b)).fill(2));
    a.data[100 + 5 * 3] = Number.NaN; // batch 1, row 3
    b.data[7] = Number.POSITIVE_INFINITY; // batch 0, column 7
    for (const dtype of ['f32', 'bf16'] as const) {
      const { output } = await runOp(
        'batchedMatmul',
        { name: '', inputs: { a, b } },
        { spec, dtype, device },
      );
      output.forEach((v, i) => {
        const [batch, row, column] = [Math.floor(i / 420), Math.floor((i % 420) / 21), i % 21];
        if (batch === 1 && row === 3) expect(v).toBeNaN();
        else expect(v).toBe(batch === 0 && column === 7 ? Number.POSITIVE_INFINITY : 10);
      });
    }
  });

  test(`a batch is its products one by one, to the bit${onDevice(device)}`, async () => {
    const random = new Random(5);
    const a = normals(random, [6, 49, 24]);
    const b = normals(random, [6, 24, 40]);
    const run = (inputs: OpCase['inputs']) =>
      runOp('batchedMatmul', { name: '', inputs }, { spec, device });
    const { output } = await run({ a, b });
    for (let i = 0; i < 6; i++) {
      const part = (t: typeof a) => {
        const size = numel(t.shape) / 6;
        return ndarray([1, ...t.shape.slice(1)], t.data.slice(i * size, (i + 1) * size));
      };
      const alone = await run({ a: part(a), b: part(b) });
      expect(alone.output).toEqual(output.slice(i * 49 * 40, (i + 1) * 49 * 40));
    }
  });
}

describe('says what was wrong', () => {
  const f = (...shape: number[]) => tensor(ndarray(shape, new Float64Array(numel(shape))));
  const op = 'batchedMatmul';
  test.each([
    [[f(2, 3, 4)], 'ERR_SHAPE', `${op}: needs 2 tensors, got 1`],
    [[f(3, 4), f(4, 5)], 'ERR_SHAPE', `${op}: a must have 3 axes (B, M, K), got [3, 4]`],
    [[f(2, 3, 4), f(4, 5)], 'ERR_SHAPE', `${op}: b must have 3 axes (B, K, N), got [4, 5]`],
    [
      [f(2, 3, 4), f(3, 4, 5)],
      'ERR_SHAPE',
      `${op}: axis 0 of b must be 2 (batches of a), got [3, 4, 5]`,
    ],
    [
      [f(2, 3, 4), f(2, 5, 4)],
      'ERR_SHAPE',
      `${op}: axis 1 of b must be 4 (the last axis of a), got [2, 5, 4]`,
    ],
    [
      [f(1, 1, 1), tensor(ndarray([1, 1, 1], [0]), 'bf16')],
      'ERR_DTYPE',
      `${op}: b must be f32, got bf16`,
    ],
    [
      [tensor(ndarray([1, 1, 1], [0]), 'i32'), f(1, 1, 1)],
      'ERR_DTYPE',
      `${op}: a must be f32 or bf16, got i32`,
    ],
  ])('%#', async (inputs, code, message) => {
    await expectRefused(() => native.runOp(op, inputs, '{}'), code, message);
  });
});
