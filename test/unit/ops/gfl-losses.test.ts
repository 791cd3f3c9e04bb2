import { expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import type { Random } from '../../../lib/random.js';
import { type NdArray, ndarray, numel } from '../../oracle/array.js';
import {
  distributionFocalLoop,
  expectedSidesLoop,
  gatherRowsLoop,
  qualityFocalLoop,
} from '../../oracle/gfl.js';
import { expectRefused, testGolden } from './golden.js';
import { normals, type OpCase, runOp, tensor, testOp, uniforms } from './test-op.js';

const zeros = (shape: number[]) => ndarray(shape, new Float64Array(numel(shape)));
const qualitySpec = { activations: ['logits'], integers: ['labels'] };

testOp('qualityFocalLoss', {
  oracle: qualityFocalLoop,
  ...qualitySpec,
  differentiable: ['logits'],
  loss: true,
  cases: (random) => {
    const one = (name: string, shape: number[], classes: number, options = {}): OpCase => ({
      name,
      inputs: {
        logits: normals(random, [...shape, classes], 4),
        labels: ndarray(
          shape,
          Array.from({ length: numel(shape) }, () => random.integer(-1, classes + 1)),
        ),
        quality: uniforms(random, shape),
      },
      options,
    });
    return [
      one('a dense head', [2, 9, 11], 20),
      one('several blocks', [3, 400], 7),
      one('rows across blocks', [40], 91),
      one('beta 1', [2, 15], 7, { beta: 1 }),
      one('beta 3', [2, 15], 7, { beta: 3 }),
      one('beta 0 is cross-entropy', [2, 15], 7, { beta: 0 }),
      one('one class', [2, 4, 4], 1),
      one('no anchors', [0, 3], 5),
      one('one number', [], 1),
      {
        name: 'classes as an option, other shapes',
        inputs: {
          logits: normals(random, [2, 30], 4),
          labels: ndarray([12], [0, 5, 2, -1, 4, 5, 5, 1, 3, 3, -1, 5]),
          quality: uniforms(random, [12]),
        },
        options: { classes: 5 },
      },
    ];
  },
});

test('qualityFocalLoss is finite to the last logit, 0 at its target, and lets ignored rows be', async () => {
  const call = async (x: number, label: number, quality: number) => {
    const inputs = {
      logits: ndarray([1, 1], [x]),
      labels: ndarray([1], [label]),
      quality: ndarray([1], [quality]),
    };
    const got = await runOp(
      'qualityFocalLoss',
      { name: '', inputs },
      { spec: qualitySpec, dout: ndarray([], [1]) },
    );
    return [got.output[0]!, got.gradients.logits![0]!] as const;
  };
  for (const x of [-3e38, -200, -1e-30, 0, 1e-8, 200, 3e38])
    for (const [label, quality] of [
      [0, 0],
      [0, 0.3],
      [0, 1],
      [1, 0],
    ] as const)
      for (const value of await call(x, label, quality)) expect(Number.isFinite(value)).toBe(true);
  expect((await call(0, 0, 0.5)).map(Math.abs)).toEqual([0, 0]);
  expect((await call(Number.NaN, -1, 0.5)).map(Math.abs)).toEqual([0, 0]);
  expect((await call(Number.NaN, 0, 0.5))[0]).toBeNaN();
});

const rising = (random: Random, count: number, of: number) =>
  ndarray(
    [count],
    random
      .permutation(of)
      .slice(0, count)
      .sort((a, b) => a - b),
  );

testOp('gatherRows', {
  oracle: gatherRowsLoop,
  activations: ['x'],
  integers: ['rows'],
  differentiable: ['x'],
  f32Output: true,
  cases: (random) => [
    {
      name: 'some of a map',
      inputs: { x: normals(random, [2, 5, 7, 12]), rows: rising(random, 9, 70) },
    },
    { name: 'many', inputs: { x: normals(random, [900, 4]), rows: rising(random, 700, 900) } },
    {
      name: 'in any order',
      inputs: {
        x: normals(random, [2, 300, 6]),
        rows: ndarray([500], random.permutation(600).slice(0, 500)),
      },
    },
    {
      name: 'columns as an option',
      inputs: { x: normals(random, [3, 20]), rows: rising(random, 4, 12) },
      options: { columns: 5 },
    },
    { name: 'all', inputs: { x: normals(random, [4, 3]), rows: ndarray([4], [0, 1, 2, 3]) } },
    { name: 'none', inputs: { x: normals(random, [4, 3]), rows: zeros([0]) } },
  ],
});

const distributions = (random: Random, boxes: number, bins: number, scale = 2) => ({
  logits: normals(random, [boxes, 4 * bins], scale),
});

testOp('expectedSides', {
  oracle: expectedSidesLoop,
  activations: [],
  differentiable: ['logits'],
  f32Output: true,
  cases: (random) => {
    const one = (name: string, boxes: number, bins: number, scale = 2): OpCase => ({
      name,
      inputs: {
        ...distributions(random, boxes, bins, scale),
        values: ndarray(
          [bins],
          Array.from({ length: bins }, (_, j) => j),
        ),
      },
    });
    return [
      one('17 bins', 40, 17),
      one('many boxes', 900, 17),
      one('peaks', 30, 17, 40),
      one('two bins', 5, 2),
      one('no boxes', 0, 17),
      one('one box', 1, 9),
    ];
  },
});

testOp('distributionFocalLoss', {
  oracle: distributionFocalLoop,
  activations: [],
  differentiable: ['logits'],
  loss: true,
  cases: (random) => {
    const one = (name: string, boxes: number, bins: number, low = 0, scale = 2): OpCase => ({
      name,
      inputs: {
        ...distributions(random, boxes, bins, scale),
        sides: uniforms(random, [boxes, 4], low, bins - 1.1),
        weight: ndarray(
          [boxes],
          uniforms(random, [boxes]).data.map((w) => (w < 0.2 ? 0 : w)),
        ),
      },
    });
    return [
      one('17 bins', 40, 17),
      one('many boxes', 3000, 17),
      one('distances outside are held', 30, 5, -3),
      one('peaks', 30, 17, 0, 40),
      one('two bins', 5, 2),
      one('no boxes', 0, 17),
      one('one box', 1, 9),
      {
        name: 'whole distances, the last bin too',
        inputs: {
          ...distributions(random, 2, 3),
          sides: ndarray([2, 4], [0, 1, 2, 7, 2, 0, 1, 1]),
          weight: ndarray([2], [1, 0.5]),
        },
      },
    ];
  },
});

test('distributionFocalLoss: a box of weight 0 is left out whatever it holds', async () => {
  const nan = (shape: number[]) => ndarray(shape, zeros(shape).data.fill(Number.NaN));
  const inputs = { logits: nan([1, 8]), sides: nan([1, 4]), weight: zeros([1]) };
  const got = await runOp(
    'distributionFocalLoss',
    { name: '', inputs },
    { spec: { activations: [] }, dout: ndarray([], [1]) },
  );
  expect(got.output[0]).toBeCloseTo(0);
  expect(Array.from(got.gradients.logits!)).toEqual(new Array(8).fill(0));
  // A wanted distance of NaN alone reads no bin beyond the ends.
  const wanted = { logits: zeros([1, 8]), sides: nan([1, 4]), weight: ndarray([1], [1]) };
  const other = await runOp(
    'distributionFocalLoss',
    { name: '', inputs: wanted },
    { spec: { activations: [] } },
  );
  expect(other.output[0]).toBeCloseTo(4 * Math.LN2, 6);
});

test('ops of GFL say what was wrong', async () => {
  const refused = (
    op: string,
    inputs: NdArray[],
    integers: number[],
    code: string,
    message: string,
    options: object = {},
  ) =>
    expectRefused(
      () =>
        native.runOp(
          op,
          inputs.map((v, i) => tensor(v, integers.includes(i) ? 'i32' : 'f32')),
          JSON.stringify(options),
        ),
      code,
      `${op}: ${message}`,
    );
  const quality = (inputs: NdArray[], code: string, message: string, options = {}) =>
    refused('qualityFocalLoss', inputs, [1], code, message, options);
  await quality(
    [zeros([2, 3]), ndarray([2], [0, 4]), zeros([2])],
    'ERR_RANGE',
    'labels must be in [-1, 3] (-1 ignored, 3 background), got 4',
  );
  await quality(
    [zeros([2, 3]), zeros([3]), zeros([3])],
    'ERR_SHAPE',
    'labels must hold one entry per 3 logits, got [3] for logits [2, 3]',
  );
  await quality(
    [zeros([2, 3]), zeros([2]), zeros([3])],
    'ERR_SHAPE',
    'quality must hold one number per label, got [3] for labels [2]',
  );
  await quality(
    [zeros([2, 3]), zeros([2]), zeros([2])],
    'ERR_RANGE',
    'beta must be >= 1, got 0.5',
    { beta: 0.5 },
  );
  const gather = (rows: number[]) =>
    refused(
      'gatherRows',
      [zeros([3, 2]), ndarray([rows.length], rows)],
      [1],
      'ERR_RANGE',
      `rows must be in [0, 2], none of them twice, got ${rows.at(-1)} at ${rows.length - 1}`,
    );
  await gather([0, 3]);
  await gather([-1]);
  await gather([1, 1]);
  await gather([2, 0, 2]);
  await refused(
    'gatherRows',
    [zeros([3, 2]), zeros([0])],
    [1],
    'ERR_SHAPE',
    'x must hold rows of 4 numbers, got [3, 2]',
    { columns: 4 },
  );
  await refused(
    'expectedSides',
    [zeros([3, 4]), zeros([1])],
    [],
    'ERR_SHAPE',
    'logits must be [P, 4 B] with B >= 2 bins a side, got [3, 4]',
  );
  await refused(
    'expectedSides',
    [zeros([3, 8]), zeros([3])],
    [],
    'ERR_SHAPE',
    'values must be [2] (one a bin), got [3]',
  );
  await refused(
    'distributionFocalLoss',
    [zeros([3, 8]), zeros([3, 2]), zeros([3])],
    [],
    'ERR_SHAPE',
    'sides must be [3, 4] (four per box), got [3, 2]',
  );
});

const sideSpec = { activations: [], integers: [] };
testGolden('qualityFocalLoss', 'quality-focal-loss', qualitySpec);
testGolden('expectedSides', 'expected-sides', sideSpec);
testGolden('distributionFocalLoss', 'distribution-focal-loss', sideSpec);
