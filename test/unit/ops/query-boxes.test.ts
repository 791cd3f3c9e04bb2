import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import type { Random } from '../../../lib/random.js';
import { type NdArray, ndarray, numel } from '../../oracle/array.js';
import {
  boxesFromCentersLoop,
  centersFromDeltasLoop,
  refinedBoxesLoop,
} from '../../oracle/query-boxes.js';
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

const zeros = (shape: number[]) => ndarray(shape, new Float64Array(numel(shape)));
const refineSpec = { activations: ['deltas'], integers: [] };

/** In the picture, some left of it or right of it; not where the inverse sigmoid is steep or bends. */
const references = (random: Random, shape: number[]): NdArray =>
  ndarray(
    shape,
    Array.from({ length: numel(shape) }, () => {
      const where = random.integer(0, 10);
      if (where === 0) return Math.fround(random.uniform(-0.3, -0.01));
      if (where === 1) return Math.fround(random.uniform(1.01, 1.3));
      return Math.fround(random.uniform(0.02, 0.98));
    }),
  );

testOp('refinedBoxes', {
  oracle: refinedBoxesLoop,
  ...refineSpec,
  differentiable: ['deltas', 'references'],
  f32Output: true,
  cases: (random) => {
    const one = (name: string, [n, q]: [number, number], width: number, options = {}): OpCase => ({
      name,
      inputs: {
        deltas: normals(random, [n, q, 4], 2),
        references: references(random, [n, q, width]),
      },
      options,
    });
    return [
      one('boxes', [2, 30], 4),
      one('boxes, as DINO has it', [2, 30], 4, { eps: 1e-3 }),
      one('points', [3, 17], 2),
      one('points, a larger eps', [1, 17], 2, { eps: 0.015 }),
      one('one box', [1, 1], 4),
      one('no queries', [2, 0], 4),
      one('no images', [0, 5], 2),
      one('more than a chunk', [2, 600], 4),
      {
        name: 'logits',
        inputs: { deltas: normals(random, [2, 9, 4]), references: normals(random, [2, 9, 4], 3) },
        options: { eps: 0 },
      },
      {
        name: 'logits of points',
        inputs: { deltas: normals(random, [2, 9, 4]), references: normals(random, [2, 9, 2], 3) },
        options: { eps: 0 },
      },
    ];
  },
});

testGolden('refinedBoxes', 'refined-boxes', refineSpec);

const refine = async (deltas: number[], refs: number[], eps: number, device: string) => {
  const boxes = deltas.length / 4;
  const inputs = {
    deltas: ndarray([1, boxes, 4], deltas),
    references: ndarray([1, boxes, refs.length / boxes], refs),
  };
  const dout = ndarray([1, boxes, 4], new Float64Array(4 * boxes).fill(1));
  const call = { name: '', inputs, options: { eps } };
  const got = await runOp('refinedBoxes', call, { spec: refineSpec, dout, device });
  return {
    boxes: Array.from(got.output),
    deltas: Array.from(got.gradients.deltas!),
    references: Array.from(got.gradients.references!),
  };
};

for (const device of testDevices) {
  test(`refinedBoxes: logits may be infinite, and then nothing moves them${onDevice(device)}`, async () => {
    const inf = Number.POSITIVE_INFINITY;
    const got = await refine([1, -300, 3e38, 0], [inf, inf, -inf, -inf], 0, device);
    expect(got.boxes).toEqual([1, 1, 0, 0]);
    expect(got.deltas.map(Math.abs)).toEqual([0, 0, 0, 0]);
    expect(got.references.map(Math.abs)).toEqual([0, 0, 0, 0]);
  });

  test(`refinedBoxes: a part of the slope that eps holds falls away${onDevice(device)}`, async () => {
    const eps = 2 ** -10;
    const refs = [2 ** -12, 1 - 2 ** -12, 0, 1, -0.5, 1.5, eps, 0.5];
    const got = await refine(Array(8).fill(0), refs, eps, device);
    const inverse = refs.map((r) => {
      const c = Math.min(Math.max(r, 0), 1);
      return [Math.max(c, eps), Math.max(1 - c, eps)] as const;
    });
    const slopes = [1 / (1 - 2 ** -12), 1 / (1 - 2 ** -12), 1, 1, 0, 0, 1 / eps + 1 / (1 - eps), 4];
    for (const [i, [a, b]] of inverse.entries()) {
      const [p, q] = [a / (a + b), b / (a + b)];
      expect(got.boxes[i]).toBeCloseTo(p, 6);
      expect(got.deltas[i]! / (p * q)).toBeCloseTo(1, 5);
      expect(got.references[i]! / (p * q)).toBeCloseTo(slopes[i]!, 3);
    }
  });

  test(`refinedBoxes: keeps its digits far out, and a NaN to itself${onDevice(device)}`, async () => {
    const got = await refine([-80, 80, 3e38, -3e38], [0.5, 0.5, 0.2, 0.7], 1e-5, device);
    expect(got.boxes[0]! / Math.exp(-80)).toBeCloseTo(1, 5);
    expect(got.boxes.slice(1)).toEqual([1, 1, 0]);
    expect(got.deltas[0]! / Math.exp(-80)).toBeCloseTo(1, 5);
    expect(got.deltas[1]! / Math.exp(-80)).toBeCloseTo(1, 5);
    expect(got.deltas.slice(2).map(Math.abs)).toEqual([0, 0]);
    for (const eps of [0, 1e-5]) {
      const nan = Number.NaN;
      const odd = await refine(
        [nan, 0, 0, 0, 0, 0, 0, 0],
        [0.5, nan, 0.5, 0.5, 0, 0, 0, 0],
        eps,
        device,
      );
      expect(odd.boxes.map(Number.isNaN)).toEqual([true, true, ...Array(6).fill(false)]);
    }
  });
}

const centersSpec = { activations: [], integers: [] };
testOp('boxesFromCenters', {
  oracle: boxesFromCentersLoop,
  ...centersSpec,
  differentiable: ['boxes'],
  cases: (random) => {
    const one = (name: string, n: number, q: number): OpCase => ({
      name,
      inputs: {
        boxes: uniforms(random, [n, q, 4], -0.2, 1.2),
        sizes: uniforms(random, [n, 2], 30, 1300),
      },
    });
    return [
      one('a batch', 3, 25),
      one('one box', 1, 1),
      one('no queries', 2, 0),
      one('no images', 0, 7),
      one('more than a chunk', 2, 2060),
    ];
  },
});

testGolden('boxesFromCenters', 'boxes-from-centers', centersSpec);

const deltaSpec = { activations: ['deltas'], integers: [] };
testOp('centersFromDeltas', {
  oracle: centersFromDeltasLoop,
  ...deltaSpec,
  differentiable: ['deltas', 'references'],
  f32Output: true,
  cases: (random) => {
    const one = (name: string, n: number, q: number, scale = 1, options = {}): OpCase => ({
      name,
      inputs: {
        deltas: normals(random, [n, q, 4], scale),
        references: uniforms(random, [n, q, 4], -0.3, 1.2),
      },
      options,
    });
    return [
      one('as Sparse R-CNN has it', 2, 25, 1, { stds: [0.5, 0.5, 1, 1] }),
      one('beyond the limit on both sides', 2, 30, 5),
      one('beyond the limit, upper side only', 1, 30, 5, { bothSides: false }),
      one('one box', 1, 1),
      one('no queries', 2, 0),
      one('no images', 0, 7),
      one('more than a chunk', 2, 2060),
    ];
  },
});

for (const device of testDevices)
  test(`centersFromDeltas: a NaN stays one, and what has no gradient gives none${onDevice(device)}`, async () => {
    const nan = Number.NaN;
    const inputs = {
      deltas: ndarray([1, 2, 4], [nan, 0, nan, 0, 0.5, -1, 100, -100]),
      references: ndarray([1, 2, 4], [0.5, 0.5, 2, 1, 0.5, 0.5, 1, 2]),
    };
    const dout = ndarray([1, 2, 4], [0, 1, 0, 2, 1, 1, 1, 1]);
    const call = { name: '', inputs };
    const got = await runOp('centersFromDeltas', call, { spec: deltaSpec, dout, device });
    expect(Array.from(got.output.slice(0, 6))).toEqual([nan, 0.5, nan, 1, 1, -1.5]);
    expect(got.output[6]! / 62.5).toBeCloseTo(1, 5);
    expect(got.output[7]! * 31.25).toBeCloseTo(1, 5);
    // Held at the limit, a growth has no gradient; what it holds is still a factor of the reference.
    expect(Array.from(got.gradients.deltas!)).toEqual([0, 1, 0, 2, 1, 2, 0, 0]);
    const references = Array.from(got.gradients.references!);
    expect(references.slice(0, 6)).toEqual([0, 1, 0, 2, 1, 1]);
    expect(references[6]! - 63).toBeCloseTo(0, 4);
    expect(references[7]! + 1 - 1 / 62.5).toBeCloseTo(0, 5);
  });

describe('says what was wrong', () => {
  const f = (...shape: number[]) => tensor(zeros(shape));
  const i = (...shape: number[]) => tensor(zeros(shape), 'i32');
  const b = (...shape: number[]) => tensor(zeros(shape), 'bf16');
  const shapeOf =
    'references must be [2, 3, 4] (a box, or a point of 2 numbers, for each of deltas)';
  test.each([
    ['refinedBoxes', [f(2, 3, 4)], {}, 'ERR_SHAPE', 'needs 2 tensors, got 1'],
    [
      'refinedBoxes',
      [i(2, 3, 4), f(2, 3, 4)],
      {},
      'ERR_DTYPE',
      'deltas must be f32 or bf16, got i32',
    ],
    [
      'refinedBoxes',
      [f(3, 4), f(2, 3, 4)],
      {},
      'ERR_SHAPE',
      'deltas must have 3 axes (N, Q, 4), got [3, 4]',
    ],
    [
      'refinedBoxes',
      [f(2, 3, 5), f(2, 3, 4)],
      {},
      'ERR_SHAPE',
      'axis 2 of deltas must be 4 (cx, cy, w, h), got [2, 3, 5]',
    ],
    ['refinedBoxes', [f(2, 3, 4), b(2, 3, 4)], {}, 'ERR_DTYPE', 'references must be f32, got bf16'],
    [
      'refinedBoxes',
      [f(2, 3, 4), f(3, 4)],
      {},
      'ERR_SHAPE',
      'references must have 3 axes (N, Q, 4 or 2), got [3, 4]',
    ],
    ['refinedBoxes', [f(2, 3, 4), f(2, 3, 3)], {}, 'ERR_SHAPE', `${shapeOf}, got [2, 3, 3]`],
    ['refinedBoxes', [f(2, 3, 4), f(2, 2, 4)], {}, 'ERR_SHAPE', `${shapeOf}, got [2, 2, 4]`],
    [
      'refinedBoxes',
      [f(2, 3, 4), f(2, 3, 4)],
      { eps: -1 },
      'ERR_RANGE',
      'eps must be in [0, 0.5], got -1',
    ],
    ['boxesFromCenters', [f(2, 3, 4)], {}, 'ERR_SHAPE', 'needs 2 tensors, got 1'],
    ['boxesFromCenters', [b(2, 3, 4), f(2, 2)], {}, 'ERR_DTYPE', 'boxes must be f32, got bf16'],
    [
      'boxesFromCenters',
      [f(6, 4), f(2, 2)],
      {},
      'ERR_SHAPE',
      'boxes must have 3 axes (N, Q, 4), got [6, 4]',
    ],
    [
      'boxesFromCenters',
      [f(2, 3, 2), f(2, 2)],
      {},
      'ERR_SHAPE',
      'axis 2 of boxes must be 4 (cx, cy, w, h), got [2, 3, 2]',
    ],
    ['boxesFromCenters', [f(2, 3, 4), i(2, 2)], {}, 'ERR_DTYPE', 'sizes must be f32, got i32'],
    [
      'boxesFromCenters',
      [f(2, 3, 4), f(3, 2)],
      {},
      'ERR_SHAPE',
      'sizes must be [2, 2] (height and width of each image), got [3, 2]',
    ],
    ['centersFromDeltas', [f(2, 3, 4)], {}, 'ERR_SHAPE', 'needs 2 tensors, got 1'],
    [
      'centersFromDeltas',
      [i(2, 3, 4), f(2, 3, 4)],
      {},
      'ERR_DTYPE',
      'deltas must be f32 or bf16, got i32',
    ],
    [
      'centersFromDeltas',
      [f(3, 4), f(3, 4)],
      {},
      'ERR_SHAPE',
      'deltas must have 3 axes (N, Q, 4), got [3, 4]',
    ],
    [
      'centersFromDeltas',
      [f(2, 3, 5), f(2, 3, 5)],
      {},
      'ERR_SHAPE',
      'axis 2 of deltas must be 4 (cx, cy, w, h), got [2, 3, 5]',
    ],
    [
      'centersFromDeltas',
      [f(2, 3, 4), b(2, 3, 4)],
      {},
      'ERR_DTYPE',
      'references must be f32, got bf16',
    ],
    [
      'centersFromDeltas',
      [f(2, 3, 4), f(2, 2, 4)],
      {},
      'ERR_SHAPE',
      'references must be [2, 3, 4] (a box for each of deltas), got [2, 2, 4]',
    ],
    [
      'centersFromDeltas',
      [f(2, 3, 4), f(2, 3, 4)],
      { stds: [1, 1, 0, 1] },
      'ERR_RANGE',
      'stds must be > 0, got 0',
    ],
  ] as const)('%s %#', async (op, inputs, options, code, message) => {
    await expectRefused(
      () => native.runOp(op, [...inputs], JSON.stringify(options), {}),
      code,
      `${op}: ${message}`,
    );
  });
});
