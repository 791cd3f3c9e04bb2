import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { type NdArray, ndarray, numel } from '../../oracle/array.js';
import { boxesFromDeltasLoop } from '../../oracle/decoded-boxes.js';
import { expectRefused } from './golden.js';
import { normals, type OpCase, runOp, tensor, testOp } from './test-op.js';

const zeros = (shape: number[]) => ndarray(shape, new Float64Array(numel(shape)));
const deltaSpec = { activations: ['deltas'], integers: [] };
testOp('boxesFromDeltas', {
  oracle: boxesFromDeltasLoop,
  ...deltaSpec,
  differentiable: ['deltas'],
  f32Output: true,
  cases: (random) => {
    const anchors = (count: number): NdArray => {
      const boxes = Array.from({ length: count }, () => {
        const [x, y] = [random.uniform(-50, 200), random.uniform(-50, 200)];
        return [x, y, x + random.uniform(4, 90), y + random.uniform(4, 90)].map(Math.fround);
      });
      return ndarray([count, 4], boxes.flat());
    };
    const one = (
      name: string,
      shape: number[],
      count: number,
      scale = 1,
      options = {},
    ): OpCase => ({
      name,
      inputs: { deltas: normals(random, shape, scale), anchors: anchors(count) },
      options,
    });
    const stds = [0.1, 0.1, 0.2, 0.2];
    return [
      one('a level of two images', [2, 5, 7, 4], 35, 2, { stds }),
      one('several anchors a cell', [2, 3, 4, 12], 36),
      one('beyond the limit on both sides', [1, 6, 6, 4], 36, 8),
      one('beyond the limit, upper side only', [1, 6, 6, 4], 36, 6, { bothSides: false }),
      one('more than a chunk', [3, 30, 50, 4], 1500, 2, { stds }),
      one('nothing', [2, 0, 7, 4], 0),
      one('one box', [4], 1),
    ];
  },
});

test('a box without a gradient has none, whatever its deltas are', async () => {
  const inputs = {
    deltas: ndarray([2, 4], [0, 0, Number.NaN, 1e30, 0, 0, 0, 0]),
    anchors: ndarray([1, 4], [0, 0, 8, 8]),
  };
  const dout = ndarray([2, 4], [0, 0, 0, 0, 1, 0, 2, 0]);
  const got = await runOp('boxesFromDeltas', { name: '', inputs }, { spec: deltaSpec, dout });
  expect(Array.from(got.output.slice(4))).toEqual([0, 0, 8, 8]);
  expect(Array.from(got.gradients.deltas!)).toEqual([0, 0, 0, 0, 24, 0, 4, 0]);
});

describe('says what was wrong', () => {
  const f = (...shape: number[]) => tensor(zeros(shape));
  test.each([
    [
      'boxesFromDeltas',
      [f(3, 4), f(2, 4)],
      {},
      'ERR_SHAPE',
      'boxesFromDeltas: deltas must hold 4 numbers for each anchor of [2, 4] and image, got [3, 4]',
    ],
    [
      'boxesFromDeltas',
      [f(3, 4), f(2, 3)],
      {},
      'ERR_SHAPE',
      'boxesFromDeltas: axis 1 of anchors must be 4 (xyxy), got [2, 3]',
    ],
    [
      'boxesFromDeltas',
      [f(4), f(1, 4)],
      { stds: [1, 1, 0, 1] },
      'ERR_RANGE',
      'boxesFromDeltas: stds must be > 0, got 0',
    ],
    ['boxesFromDeltas', [f(4)], {}, 'ERR_SHAPE', 'boxesFromDeltas: needs 2 tensors, got 1'],
  ] as const)('%s %#', async (op, inputs, options, code, message) => {
    await expectRefused(
      () => native.runOp(op, [...inputs], JSON.stringify(options)),
      code,
      message,
    );
  });
});
