import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { ndarray, numel } from '../../oracle/array.js';
import {
  patchesLoop,
  relativePositionBiasLoop,
  windowMaskLoop,
  windowMergeLoop,
  windowPartitionLoop,
} from '../../oracle/windows.js';
import { expectRefused } from './golden.js';
import { normals, onDevice, runOp, tensor, testDevices, testOp } from './test-op.js';

const zeros = (shape: readonly number[]) => ndarray(shape, new Float64Array(numel(shape)));

/** Name, map [N, H, W, C], size and shift of windows. */
const maps: [string, number[], number, number][] = [
  ['whole windows', [2, 8, 12, 16], 4, 0],
  ['shifted', [2, 8, 12, 16], 4, 2],
  ['padding', [2, 7, 10, 8], 4, 0],
  ['padding, shifted', [2, 7, 10, 8], 4, 2],
  ['windows of 7', [1, 15, 13, 24], 7, 3],
  ['windows larger than the map', [2, 5, 3, 8], 7, 3],
  ['a window as large as the map', [1, 7, 7, 8], 7, 3],
  ['the largest shift', [1, 9, 6, 8], 4, 3],
  ['a map of one cell', [3, 1, 1, 8], 4, 2],
  ['windows of one cell', [2, 3, 4, 8], 1, 0],
  ['odd channels', [2, 6, 5, 3], 3, 1],
  ['pairs of channels', [1, 6, 5, 2], 3, 1],
  ['channels of half a pack in bf16', [1, 6, 5, 4], 3, 1],
  ['no images', [0, 6, 5, 8], 3, 1],
  ['no rows', [2, 0, 5, 8], 3, 1],
  ['no channels', [2, 6, 5, 0], 3, 1],
  ['more than a block of bytes', [1, 30, 61, 16], 12, 6],
];

testOp('windowPartition', {
  oracle: windowPartitionLoop,
  activations: ['x'],
  differentiable: ['x'],
  cases: (random) =>
    maps.map(([name, shape, size, shift]) => ({
      ...{ name, options: { size, shift } },
      inputs: { x: normals(random, shape) },
    })),
});

testOp('windowMerge', {
  oracle: windowMergeLoop as never,
  activations: ['windows', 'residual'],
  differentiable: ['windows', 'residual'],
  cases: (random) =>
    maps.flatMap(([name, shape, size, shift]) => {
      const x = normals(random, shape);
      const { shape: cut } = windowPartitionLoop({ x }, { size, shift });
      const options = { size, shift, height: shape[1], width: shape[2] };
      const windows = normals(random, cut);
      // No windows do not tell how many images have none.
      const alone = shape[1] ? [{ name, options, inputs: { windows } }] : [];
      return [
        ...alone,
        {
          name: `${name}, residual`,
          options,
          inputs: { windows, residual: normals(random, shape) },
        },
      ];
    }),
});

for (const device of testDevices) {
  const mode = { compute: 'f32' as const, training: false, device };
  const maskOf = async (options: object) =>
    (await native.runOp('windowMask', [], JSON.stringify(options), mode)).outputs;

  describe(`windowMask${onDevice(device)}`, () => {
    test.each(maps.filter(([, , , shift]) => shift > 0))(
      '%s',
      async (_, [, height, width], size, shift) => {
        const options = { height: height!, width: width!, size, shift };
        const [mask] = await maskOf(options);
        const want = windowMaskLoop(options);
        expect(mask!.shape).toEqual(want.shape);
        expect(mask!.dtype).toBe('u8');
        expect(Array.from(await mask!.read())).toEqual(Array.from(want.data));
      },
    );

    test('there is none without a shift', async () =>
      expect(await maskOf({ height: 9, width: 9, size: 3 })).toEqual([]));
  });

  test(`windows keep what is no number where it is${onDevice(device)}`, async () => {
    const x = ndarray([1, 2, 2, 1], [Number.NaN, 1, Number.POSITIVE_INFINITY, 2]);
    const spec = { activations: ['x'] };
    const options = { size: 2, shift: 1 };
    const { output } = await runOp(
      'windowPartition',
      { name: '', inputs: { x }, options },
      { spec, device },
    );
    expect(Array.from(output)).toEqual([2, Number.POSITIVE_INFINITY, 1, Number.NaN]);
  });
}

testOp('patches', {
  oracle: patchesLoop,
  activations: ['x'],
  differentiable: ['x'],
  cases: (random) => {
    const one = (name: string, shape: number[], size: number) => ({
      ...{ name, options: { size } },
      inputs: { x: normals(random, shape) },
    });
    return [
      one('merging', [2, 6, 8, 16], 2),
      one('merging, odd sizes', [2, 5, 7, 16], 2),
      one('pictures', [2, 8, 12, 3], 4),
      one('pictures of odd sizes', [2, 7, 9, 3], 4),
      one('pictures of even width', [1, 9, 10, 3], 4),
      one('pairs of channels', [1, 5, 6, 2], 2),
      one('one channel', [1, 5, 5, 1], 3),
      one('one cell', [2, 1, 1, 8], 2),
      one('one cell of one channel', [1, 1, 1, 1], 4),
      one('patches of one cell', [2, 3, 4, 8], 1),
      one('no images', [0, 3, 4, 8], 2),
      one('no columns', [2, 3, 0, 8], 2),
      one('no channels', [2, 3, 4, 0], 2),
      one('more than a block of bytes', [1, 33, 63, 16], 2),
    ];
  },
});

testOp('relativePositionBias', {
  oracle: relativePositionBiasLoop,
  activations: [],
  differentiable: ['table'],
  cases: (random) => {
    const one = (size: number, heads: number) => ({
      ...{ name: `windows of ${size}, ${heads} heads`, options: { size } },
      inputs: { table: normals(random, [(2 * size - 1) ** 2, heads]) },
    });
    return [one(7, 3), one(2, 1), one(1, 5), one(4, 8), one(12, 2), one(5, 0)];
  },
});

test('the ops of windows say what was wrong', async () => {
  const refused = (
    op: string,
    inputs: Parameters<typeof native.runOp>[1],
    code: string,
    message: string,
    options = {},
  ) =>
    expectRefused(
      () => native.runOp(op, inputs, JSON.stringify(options)),
      code,
      `${op}: ${message}`,
    );
  const t = (...shape: number[]) => tensor(zeros(shape));

  const x = t(1, 4, 4, 2);
  await refused('windowPartition', [], 'ERR_SHAPE', 'needs 1 tensor, got 0');
  await refused(
    'windowPartition',
    [t(4, 4, 2)],
    'ERR_SHAPE',
    'x must have 4 axes (N, H, W, C), got [4, 4, 2]',
  );
  await refused(
    'windowPartition',
    [tensor(zeros([1, 4, 4, 2]), 'i32')],
    'ERR_DTYPE',
    'x must be f32 or bf16, got i32',
  );
  await refused('windowPartition', [x], 'ERR_RANGE', 'size must be in [1, 64], got 0', { size: 0 });
  await refused('windowPartition', [x], 'ERR_RANGE', 'shift must be in [0, 3], got 4', {
    ...{ size: 4, shift: 4 },
  });

  const options = { size: 2, height: 3, width: 4 };
  await refused('windowMerge', [x, x, x], 'ERR_SHAPE', 'needs 1 or 2 tensors, got 3');
  await refused(
    'windowMerge',
    [t(5, 4, 2)],
    'ERR_SHAPE',
    'axis 0 of windows must be a multiple of 4 (windows of a map), got [5, 4, 2]',
    options,
  );
  await refused(
    'windowMerge',
    [t(4, 3, 2)],
    'ERR_SHAPE',
    'windows must be [4, 4, 2] (N R S, size^2, C), got [4, 3, 2]',
    options,
  );
  await refused(
    'windowMerge',
    [t(4, 4, 2), x],
    'ERR_SHAPE',
    'residual must be [1, 3, 4, 2] (the merged map), got [1, 4, 4, 2]',
    options,
  );
  await refused(
    'windowMerge',
    [t(4, 4, 2), tensor(zeros([1, 3, 4, 2]), 'bf16')],
    'ERR_DTYPE',
    'residual must be f32, got bf16',
    options,
  );
  await refused('windowMerge', [t(4, 4, 2)], 'ERR_RANGE', 'height must be in [0, 524288], got -1', {
    ...options,
    height: -1,
  });
  await refused('windowMask', [], 'ERR_RANGE', 'shift must be in [0, 1], got 2', {
    ...{ size: 2, shift: 2 },
  });

  await refused(
    'patches',
    [t(4, 4, 2)],
    'ERR_SHAPE',
    'x must have 4 axes (N, H, W, C), got [4, 4, 2]',
  );
  await refused('patches', [x], 'ERR_RANGE', 'size must be in [1, 64], got 65', { size: 65 });

  await refused(
    'relativePositionBias',
    [t(9, 2)],
    'ERR_SHAPE',
    'axis 0 of table must be 25 ((2 size - 1)^2), got [9, 2]',
    { size: 3 },
  );
  await refused(
    'relativePositionBias',
    [tensor(zeros([9, 2]), 'bf16')],
    'ERR_DTYPE',
    'table must be f32, got bf16',
    { size: 2 },
  );
});
