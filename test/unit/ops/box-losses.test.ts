import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import type { Random } from '../../../lib/random.js';
import { type NdArray, ndarray } from '../../oracle/array.js';
import { type IouLossOptions, iouLossLoop } from '../../oracle/iou-loss.js';
import { smoothL1Loop } from '../../oracle/small-ops.js';
import { expectRefused, testGolden } from './golden.js';
import { normals, type OpCase, runOp, tensor, testOp, uniforms } from './test-op.js';

const zeros = (shape: number[]) =>
  ndarray(shape, new Float64Array(shape.reduce((a, b) => a * b, 1)));
const kinds = ['iou', 'giou', 'diou', 'ciou'] as const;
const iouSpec = { activations: [] };
const l1Spec = { activations: ['pred'] };

function boxes(random: Random, count: number, side: number): NdArray {
  const data = Array.from({ length: count }, () => {
    const [x, y] = [random.uniform(0, 200), random.uniform(0, 200)];
    return [x, y, x + random.uniform(1, side), y + random.uniform(1, side)].map(Math.fround);
  });
  return ndarray([count, 4], data.flat());
}

describe('iouLoss', () => {
  for (const kind of kinds)
    testOp('iouLoss', {
      oracle: (inputs, options, { base }) => iouLossLoop(inputs, options, base),
      ...iouSpec,
      differentiable: ['pred'],
      loss: true,
      cases: (random) => {
        const one = (name: string, pred: NdArray, target: NdArray, options = {}): OpCase => {
          const weight = uniforms(random, [pred.shape[0]!]);
          if (weight.data.length > 1) weight.data[1] = 0;
          return {
            name: `${kind}: ${name}`,
            inputs: { pred, target, weight },
            options: { kind, ...options },
          };
        };
        const target = boxes(random, 40, 120);
        const near = ndarray(
          [40, 4],
          target.data.map((v) => Math.fround(v + 3 * random.normal())),
        );
        return [
          one('overlapping', near, target),
          one('anywhere', boxes(random, 40, 60), boxes(random, 40, 60)),
          one('tiny against huge', boxes(random, 20, 2), boxes(random, 20, 5000)),
          one('another eps', near, target, { eps: 1e-3 }),
          one(
            'inverted predictions',
            ndarray([2, 4], [9, 2, 4, 8, 30, 9, 40, 3]),
            ndarray([2, 4], [1, 1, 10, 10, 2, 2, 9, 9]),
          ),
          one('none', zeros([0, 4]), zeros([0, 4])),
          one('one pair', boxes(random, 1, 60), boxes(random, 1, 60)),
        ];
      },
    });
});
testGolden('iouLoss', 'iou-loss', iouSpec);

/** -0 is as good as 0. */
const withoutSign = (values: Float32Array) => Array.from(values, (v) => v + 0);

const iou = async (kind: IouLossOptions['kind'], pred: number[], target: number[]) => {
  const inputs = {
    pred: ndarray([1, 4], pred),
    target: ndarray([1, 4], target),
    weight: ndarray([1], [1]),
  };
  const call = { name: '', inputs, options: { kind } };
  const got = await runOp('iouLoss', call, { spec: iouSpec, dout: ndarray([], [1]) });
  return { loss: got.output[0]!, gradient: withoutSign(got.gradients.pred!) };
};

describe('iouLoss of known pairs', () => {
  test('equal boxes: nothing to lose, nowhere to go', async () => {
    for (const kind of kinds) {
      const { loss, gradient } = await iou(kind, [10, 20, 50, 80], [10, 20, 50, 80]);
      expect(loss).toBeCloseTo(0, 6);
      for (const g of gradient) expect(g).toBeCloseTo(0, 6);
    }
  });
  test('a half overlap', async () => {
    // inter 50, union 150, hull 150; centres 5 apart, diagonal 15^2 + 10^2
    const pair = [
      [0, 0, 10, 10],
      [5, 0, 15, 10],
    ] as const;
    expect((await iou('iou', [...pair[0]], [...pair[1]])).loss).toBeCloseTo(2 / 3, 6);
    expect((await iou('giou', [...pair[0]], [...pair[1]])).loss).toBeCloseTo(2 / 3, 6);
    expect((await iou('diou', [...pair[0]], [...pair[1]])).loss).toBeCloseTo(2 / 3 + 25 / 325, 6);
    expect((await iou('ciou', [...pair[0]], [...pair[1]])).loss).toBeCloseTo(2 / 3 + 25 / 325, 6);
  });
  test('boxes apart: only the penalty pulls', async () => {
    expect((await iou('iou', [0, 0, 1, 1], [9, 0, 10, 1])).gradient).toEqual([0, 0, 0, 0]);
    const { loss, gradient } = await iou('giou', [0, 0, 1, 1], [9, 0, 10, 1]);
    expect(loss).toBeCloseTo(1 + 0.8, 6);
    expect(gradient[2]).toBeLessThan(0); // the loss falls as the box grows towards its target
  });
  test('degenerate boxes are finite', async () => {
    const odd = [
      [5, 5, 5, 5],
      [5, 5, 5, 9],
      [5, 5, 9, 5],
      [9, 9, 5, 5],
      [0, 0, 0, 0],
    ];
    for (const kind of kinds)
      for (const pred of odd)
        for (const target of [...odd, [1, 2, 30, 40]]) {
          const { loss, gradient } = await iou(kind, pred, target);
          const all = [loss, ...gradient].every(Number.isFinite);
          expect(all, `${kind} of ${pred} and ${target}: ${loss}, ${gradient}`).toBe(true);
        }
  });
  test('a NaN anywhere is a NaN loss with NaN gradients', async () => {
    for (const kind of kinds)
      for (let k = 0; k < 8; k++) {
        const numbers = [0, 0, 9, 9, 2, 3, 8, 12].with(k, Number.NaN);
        const { loss, gradient } = await iou(kind, numbers.slice(0, 4), numbers.slice(4));
        expect([loss, ...gradient].every(Number.isNaN), `${kind}, number ${k}`).toBe(true);
      }
  });
  test('a pair of weight 0 may hold anything', async () => {
    const inputs = {
      pred: ndarray([2, 4], [Number.NaN, 0, Number.POSITIVE_INFINITY, 0, 0, 0, 2, 2]),
      target: ndarray([2, 4], [0, 0, 1, 1, 0, 0, 1, 2]),
      weight: ndarray([2], [0, 3]),
    };
    const call = { name: '', inputs, options: { kind: 'iou' } };
    const got = await runOp('iouLoss', call, { spec: iouSpec, dout: ndarray([], [1]) });
    expect(got.output[0]).toBeCloseTo(1.5, 6);
    expect(Array.from(got.gradients.pred!.slice(0, 4))).toEqual([0, 0, 0, 0]);
  });
});

testOp('smoothL1Loss', {
  oracle: smoothL1Loop,
  ...l1Spec,
  differentiable: ['pred'],
  loss: true,
  cases: (random) => {
    const one = (name: string, shape: number[], options = {}): OpCase => {
      const pred = normals(random, shape);
      const weight = uniforms(random, [pred.data.length / 4]);
      if (weight.data.length > 1) weight.data[0] = 0;
      return { name, inputs: { pred, target: normals(random, shape), weight }, options };
    };
    return [
      one('L1', [30, 4]),
      one('beta 1/9', [30, 4], { beta: 1 / 9 }),
      one('beta 1', [2, 3, 5, 36], { beta: 1 }),
      one('none', [0, 4], { beta: 1 }),
      one('more than one chunk', [9000, 4], { beta: 0.5 }),
      one('one box', [4]),
    ];
  },
});
testGolden('smoothL1Loss', 'smooth-l1-loss', l1Spec);

test('smoothL1Loss has no slope at 0 and skips boxes of weight 0', async () => {
  const inputs = {
    pred: ndarray([2, 4], [1, 2, 3, 4, Number.NaN, Number.POSITIVE_INFINITY, 0, 0]),
    target: ndarray([2, 4], [1, 0, 4, 4, 0, 0, 0, 0]),
    weight: ndarray([2], [2, 0]),
  };
  const got = await runOp(
    'smoothL1Loss',
    { name: '', inputs },
    { spec: l1Spec, dout: ndarray([], [1]) },
  );
  expect(got.output[0]).toBe(6);
  expect(Array.from(got.gradients.pred!)).toEqual([0, 2, -2, 0, 0, 0, 0, 0]);
});

test('box losses say what was wrong', async () => {
  const refused = (
    op: string,
    shapes: number[][],
    options: object,
    code: string,
    message: string,
  ) =>
    expectRefused(
      () =>
        native.runOp(
          op,
          shapes.map((s) => tensor(zeros(s))),
          JSON.stringify(options),
        ),
      code,
      `${op}: ${message}`,
    );
  await refused(
    'iouLoss',
    [[2, 5], [2, 5], [2]],
    {},
    'ERR_SHAPE',
    'pred must be [B, 4] (x1 y1 x2 y2), got [2, 5]',
  );
  await refused(
    'iouLoss',
    [[2, 4], [3, 4], [2]],
    {},
    'ERR_SHAPE',
    'target must be [2, 4] (the shape of pred), got [3, 4]',
  );
  await refused(
    'iouLoss',
    [[2, 4], [2, 4], [8]],
    {},
    'ERR_SHAPE',
    'weight must be [2] (one per box of pred), got [8]',
  );
  await refused(
    'iouLoss',
    [[2, 4], [2, 4], [2]],
    { eps: -1 },
    'ERR_RANGE',
    'eps must be >= 0, got -1',
  );
  await refused(
    'iouLoss',
    [[2, 4], [2, 4], [2]],
    { kind: 'siou' },
    'ERR_CONFIG',
    "kind must be 'iou', 'giou', 'diou' or 'ciou', got 'siou'",
  );
  await refused(
    'iouLoss',
    [
      [2, 4],
      [2, 4],
    ],
    {},
    'ERR_SHAPE',
    'needs 3 tensors, got 2',
  );
  await refused(
    'smoothL1Loss',
    [[2, 3], [2, 3], [2]],
    {},
    'ERR_SHAPE',
    'pred must hold boxes of 4 numbers (x1 y1 x2 y2 or deltas), got [2, 3]',
  );
  await refused(
    'smoothL1Loss',
    [[2, 4], [3, 4], [2]],
    {},
    'ERR_SHAPE',
    'target must hold 8 numbers (the numbers of pred), got [3, 4]',
  );
  await refused(
    'smoothL1Loss',
    [[2, 4], [2, 4], [8]],
    {},
    'ERR_SHAPE',
    'weight must hold 2 numbers (one per box of pred), got [8]',
  );
  await refused(
    'smoothL1Loss',
    [[2, 4], [2, 4], [2]],
    { beta: -1 },
    'ERR_RANGE',
    'beta must be >= 0, got -1',
  );
  await refused('smoothL1Loss', [[2, 4]], {}, 'ERR_SHAPE', 'needs 3 tensors, got 1');
  const [b, w] = [tensor(zeros([1, 4])), tensor(zeros([1]))];
  const half = tensor(zeros([1, 4]), 'bf16');
  await expectRefused(
    () => native.runOp('iouLoss', [half, b, w], '{}'),
    'ERR_DTYPE',
    'iouLoss: pred must be f32, got bf16',
  );
  await expectRefused(
    () => native.runOp('smoothL1Loss', [b, half, w], '{}'),
    'ERR_DTYPE',
    'smoothL1Loss: target must be f32, got bf16',
  );
  await expectRefused(
    () => native.runOp('smoothL1Loss', [tensor(zeros([1, 4]), 'i32'), b, w], '{}'),
    'ERR_DTYPE',
    'smoothL1Loss: pred must be f32 or bf16, got i32',
  );
});
