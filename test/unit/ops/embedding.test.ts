import { expect, test } from 'vitest';
import type { Random } from '../../../lib/index.js';
import { native } from '../../../lib/native.js';
import { type NdArray, ndarray, numel } from '../../oracle/array.js';
import { expectRefused } from './golden.js';
import { normals, onDevice, tensor, testDevices, testOp } from './test-op.js';

function embeddingLoop({ table, index }: Record<string, NdArray>): NdArray {
  const columns = table!.shape[1]!;
  const out = [...index!.data].flatMap((row) =>
    Array.from({ length: columns }, (_, c) => (row < 0 ? 0 : table!.data[row * columns + c]!)),
  );
  return ndarray([...index!.shape, columns], out);
}

/** From -1 on, most rows several times. */
const indices = (random: Random, shape: number[], rows: number) =>
  ndarray(
    shape,
    Array.from({ length: numel(shape) }, () => Math.floor(random.uniform(-1, rows))),
  );

testOp('embedding', {
  oracle: embeddingLoop,
  activations: [],
  integers: ['index'],
  differentiable: ['table'],
  f32Output: true,
  cases: (random) => {
    const one = (name: string, table: [number, number], index: number[]) => ({
      name,
      inputs: { table: normals(random, table), index: indices(random, index, table[0]) },
    });
    return [
      one('labels of a batch', [6, 32], [2, 40]),
      one('odd columns', [5, 7], [3, 11]),
      one('more rows than indices', [300, 4], [9]),
      one('one row', [1, 8], [2, 3]),
      one('one index', [4, 8], []),
      one('no indices', [4, 8], [2, 0]),
      {
        name: 'none but -1',
        inputs: { table: normals(random, [3, 4]), index: ndarray([5], Array(5).fill(-1)) },
      },
    ];
  },
});

for (const device of testDevices)
  test(`embedding in bf16 is rounded, and its gradient is f32${onDevice(device)}`, async () => {
    const table = tensor(ndarray([2, 2], [1.001, 2, -3.003, 4]), 'f32', device);
    const index = tensor(ndarray([3], [1, -1, 1]), 'i32', device);
    const dout = tensor(ndarray([3, 2], [1, 2, 3, 4, 5, 6]), 'bf16', device);
    const got = await native.runOp('embedding', [table, index], '{"dtype": "bf16"}', {
      device,
      compute: 'bf16',
      douts: [dout],
    });
    expect(got.outputs[0]!.dtype).toBe('bf16');
    expect([...(await got.outputs[0]!.read())]).toEqual([-3, 4, 0, 0, -3, 4]);
    const gradient = got.gradients[0]!;
    expect(gradient.dtype).toBe('f32');
    expect([...(await gradient.read())]).toEqual([0, 0, 6, 8]);
  });

test('embedding refuses what is no row', async () => {
  const refused = (index: number[], message: string) =>
    expectRefused(
      () =>
        native.runOp(
          'embedding',
          [
            tensor(ndarray([3, 2], new Float64Array(6)), 'f32'),
            tensor(ndarray([index.length], index), 'i32'),
          ],
          '{}',
          {},
        ),
      'ERR_RANGE',
      `embedding: ${message}`,
    );
  await refused([0, 3], 'index must be in [-1, 2], got 3 at 1');
  await refused([-2], 'index must be in [-1, 2], got -2 at 0');
});
