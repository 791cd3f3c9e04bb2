import { expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import type { Random } from '../../../lib/random.js';
import { type NdArray, ndarray, numel } from '../../oracle/array.js';
import {
  gaussianFocalLoop,
  probFocalLoop,
  probQualityFocalLoop,
} from '../../oracle/prob-losses.js';
import { expectRefused } from './golden.js';
import { normals, type OpCase, runOp, tensor, testOp, uniforms } from './test-op.js';

const zeros = (shape: number[]) => ndarray(shape, new Float64Array(numel(shape)));
const integers = (random: Random, shape: number[], low: number, high: number): NdArray =>
  ndarray(
    shape,
    Array.from({ length: numel(shape) }, () => random.integer(low, high)),
  );

const probSpec = { activations: [], integers: ['labels'] };
const probabilities = (random: Random, shape: number[]) => uniforms(random, shape, 0.01, 0.99);

testOp('probFocalLoss', {
  oracle: probFocalLoop,
  ...probSpec,
  differentiable: ['probabilities'],
  loss: true,
  cases: (random) => {
    const one = (name: string, shape: number[], classes: number, options = {}): OpCase => ({
      name,
      inputs: {
        probabilities: probabilities(random, [...shape, classes]),
        labels: integers(random, shape, -1, classes + 1),
      },
      options,
    });
    return [
      one('a dense head', [2, 9, 11], 20),
      one('several chunks', [3, 400], 7),
      one('gamma 0 is cross-entropy', [2, 15], 7, { gamma: 0 }),
      one('gamma 1.5', [2, 15], 7, { gamma: 1.5, alpha: 0.6 }),
      one('one class', [2, 4, 4], 1),
      one('no anchors', [0, 3], 5),
      one('one number', [], 1),
    ];
  },
});

testOp('probQualityFocalLoss', {
  oracle: probQualityFocalLoop,
  ...probSpec,
  differentiable: ['probabilities'],
  loss: true,
  cases: (random) => {
    const one = (name: string, shape: number[], classes: number, options = {}): OpCase => ({
      name,
      inputs: {
        probabilities: probabilities(random, [...shape, classes]),
        labels: integers(random, shape, -1, classes + 1),
        quality: uniforms(random, shape),
      },
      options,
    });
    return [
      one('a dense head', [2, 9, 11], 20),
      one('several chunks', [3, 400], 7),
      one('beta 1', [2, 15], 7, { beta: 1 }),
      one('beta 3', [2, 15], 7, { beta: 3 }),
      one('one class', [2, 4, 4], 1),
      one('no anchors', [0, 3], 5),
      one('one number', [], 1),
    ];
  },
});

test('losses of probabilities are finite at 0 and 1', async () => {
  const call = (label: number, p: number, op: string) =>
    runOp(
      op,
      {
        name: '',
        inputs: {
          probabilities: ndarray([1, 1], [p]),
          labels: ndarray([1], [label]),
          ...(op === 'probFocalLoss' ? {} : { quality: ndarray([1], [0.5]) }),
        },
      },
      { spec: probSpec, dout: ndarray([], [1]) },
    );
  for (const op of ['probFocalLoss', 'probQualityFocalLoss'])
    for (const p of [0, 1e-42, 1])
      for (const label of [-1, 0, 1]) {
        const got = await call(label, p, op);
        expect(got.output[0]).toBeGreaterThanOrEqual(0);
        expect(got.output[0]).toBeLessThan(90);
        expect(Number.isFinite(got.gradients.probabilities![0]!)).toBe(true);
        if (label === -1) expect([got.output[0], got.gradients.probabilities![0]]).toEqual([0, 0]);
      }
});

testOp('gaussianFocalLoss', {
  oracle: gaussianFocalLoop,
  activations: ['logits'],
  integers: ['positives'],
  differentiable: ['logits'],
  loss: true,
  cases: (random) => {
    const one = (
      name: string,
      shape: number[],
      positives: number,
      options = {},
      scale = 3,
    ): OpCase => {
      const classes = shape.at(-1)!;
      const rows = numel(shape) / Math.max(classes, 1);
      const heat = uniforms(random, shape, -1, 1);
      return {
        name,
        inputs: {
          logits: normals(random, shape, scale),
          heat: ndarray(
            shape,
            heat.data.map((v) => Math.max(v, 0)),
          ),
          positives: ndarray(
            [positives, 2],
            Array.from({ length: positives }, () => [
              random.integer(0, rows),
              random.integer(0, classes),
            ]).flat(),
          ),
        },
        options,
      };
    };
    const withGaps = (c: OpCase): OpCase => {
      const data = c.inputs.positives!.data.map((v, i) => (i % 6 === 0 ? -1 : v));
      return { ...c, inputs: { ...c.inputs, positives: ndarray([24, 2], data) } };
    };
    return [
      one('a dense head', [2, 9, 11, 20], 17),
      one('several blocks', [2, 400, 7], 60),
      one('positives twice', [2, 2], 30),
      one('no positives', [3, 5, 4], 0),
      withGaps(one('a list with gaps', [2, 9, 11, 5], 24)),
      one('held probabilities', [2, 9, 11, 3], 20, {}, 12),
      one('a wide clamp', [2, 9, 5], 20, { clamp: 0.2 }),
      one('other exponents and weights', [2, 40, 5], 9, {
        alpha: 1.5,
        gamma: 3,
        positiveWeight: 1,
        negativeWeight: 0.5,
      }),
      one('one class', [2, 4, 4, 1], 3),
      one('no cells', [0, 3, 5], 0),
      one('one number', [1, 1], 0),
      one('a remainder after the last full vector', [5, 3], 2),
    ];
  },
});

test('gaussianFocalLoss passes over positives without a row', async () => {
  const of = (...positives: number[]) => ({
    name: '',
    inputs: {
      logits: ndarray([2, 3], [1, -2, 0.5, 0, 3, -1]),
      heat: zeros([2, 3]),
      positives: ndarray([positives.length / 2, 2], positives),
    },
  });
  const run = (...positives: number[]) =>
    runOp('gaussianFocalLoss', of(...positives), {
      spec: { activations: ['logits'], integers: ['positives'] },
      dout: ndarray([], [1]),
    });
  expect(await run(-1, 0, 1, 2, -1, 7)).toEqual(await run(1, 2));
});

test('focal losses of heads without plain logits say what was wrong', async () => {
  const refused = (op: string, inputs: NdArray[], integers: number[], message: string) =>
    expectRefused(
      () =>
        native.runOp(
          op,
          inputs.map((v, i) => tensor(v, integers.includes(i) ? 'i32' : 'f32')),
          '{}',
        ),
      message.startsWith('labels must be in') || message.startsWith('positives must be below')
        ? 'ERR_RANGE'
        : 'ERR_SHAPE',
      `${op}: ${message}`,
    );
  await refused(
    'probFocalLoss',
    [zeros([2, 3]), ndarray([2], [0, 4])],
    [1],
    'labels must be in [-1, 3] (-1 ignored, 3 background), got 4',
  );
  await refused(
    'probFocalLoss',
    [zeros([2, 3]), zeros([3])],
    [1],
    'labels must hold one entry per 3 probabilities, got [3] for probabilities [2, 3]',
  );
  await refused(
    'probQualityFocalLoss',
    [zeros([2, 3]), zeros([2]), zeros([3])],
    [1],
    'quality must hold one number per label, got [3] for labels [2]',
  );
  await refused(
    'gaussianFocalLoss',
    [zeros([2, 3]), zeros([2, 3]), ndarray([1, 2], [2, 0])],
    [2],
    'positives must be below [2, 3] (rows, classes), got [2, 0]',
  );
  await refused(
    'gaussianFocalLoss',
    [zeros([2, 3]), zeros([2, 2]), zeros([0, 2])],
    [2],
    'heat must hold one number per logit, got [2, 2] for logits [2, 3]',
  );
  await refused(
    'gaussianFocalLoss',
    [zeros([2, 3]), zeros([2, 3]), zeros([4])],
    [2],
    'positives must have 2 axes (P, 2), got [4]',
  );
});
