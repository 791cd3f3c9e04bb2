import { expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { type NdArray, ndarray } from '../../oracle/array.js';
import { focalLossLoop } from '../../oracle/focal-loss.js';
import { expectRefused, testGolden } from './golden.js';
import { normals, type OpCase, runOp, tensor, testOp } from './test-op.js';

const spec = { activations: ['logits'], integers: ['labels'] };
const zeros = (shape: number[]) =>
  ndarray(shape, new Float64Array(shape.reduce((a, b) => a * b, 1)));

testOp('sigmoidFocalLoss', {
  oracle: focalLossLoop,
  ...spec,
  differentiable: ['logits'],
  loss: true,
  cases: (random) => {
    const labels = (shape: number[], classes: number): NdArray =>
      ndarray(
        shape,
        zeros(shape).data.map(() => random.integer(-1, classes + 1)),
      );
    const one = (name: string, shape: number[], classes: number, options = {}): OpCase => ({
      name,
      inputs: {
        logits: normals(random, [...shape, classes], 4),
        labels: labels(shape, classes),
      },
      options,
    });
    const anchors = labels([2, 5, 7, 9], 20);
    return [
      one('a dense head', [2, 9, 11], 20),
      one('more than one block of 1024', [3, 40], 91),
      one('gamma 0 is cross-entropy', [2, 3, 5], 7, { gamma: 0 }),
      one('gamma 1', [2, 3, 5], 7, { gamma: 1, alpha: 0.5 }),
      one('gamma 3.5', [2, 3, 5], 7, { gamma: 3.5, alpha: 1 }),
      one('gamma 0.5', [2, 3, 5], 7, { gamma: 0.5, alpha: 0 }),
      one('one class', [2, 4, 4], 1),
      one('one number', [], 1),
      one('no anchors', [0, 3, 4], 5),
      {
        name: 'anchors beside classes',
        inputs: { logits: normals(random, [2, 5, 7, 180], 4), labels: anchors },
      },
      {
        name: 'all ignored',
        inputs: { logits: normals(random, [3, 5], 4), labels: ndarray([3], [-1, -1, -1]) },
      },
      {
        name: 'classes as an option, other shapes',
        inputs: { logits: normals(random, [2, 30], 4), labels: labels([12], 5) },
        options: { classes: 5 },
      },
      {
        name: 'a factor an image',
        inputs: {
          logits: normals(random, [3, 5, 7, 13], 4),
          labels: labels([3, 5, 7], 13),
          weight: ndarray([3], [0.5, 0, 2]),
        },
      },
    ];
  },
});

testGolden('sigmoidFocalLoss', 'focal-loss', spec);

test('loss and gradient hold 2e-6 relative at every logit, and stay finite to the last', async () => {
  // One logit a call cannot be dense: use the gradient, which is per element, over a dense sample.
  const values: number[] = [];
  for (let x = -110; x <= 110; x += 0.0107) values.push(Math.fround(x));
  for (const x of [1e-30, 1e-8, 1e5, 3e38]) values.push(Math.fround(x), Math.fround(-x));
  for (const positive of [true, false])
    for (const gamma of [0, 1, 2]) {
      const logits = ndarray([values.length, 1], values);
      const labels = ndarray(
        [values.length],
        values.map(() => (positive ? 0 : 1)),
      );
      const call = { name: '', inputs: { logits, labels }, options: { gamma } };
      const { gradients } = await runOp('sigmoidFocalLoss', call, { spec, dout: ndarray([], [1]) });
      values.forEach((x, i) => {
        const got = gradients.logits![i]!;
        expect(Number.isFinite(got), `x = ${x}`).toBe(true);
        const z = positive ? x : -x;
        const p = 1 / (1 + Math.exp(-z));
        const q = 1 / (1 + Math.exp(z));
        const logP = z > 0 ? -Math.log1p(Math.exp(-z)) : z - Math.log1p(Math.exp(z));
        const slope = (positive ? 0.25 : 0.75) * q ** gamma * (gamma * p * logP - q);
        const want = positive ? slope : -slope;
        // Subnormal results have no relative accuracy.
        const limit = 2e-6 * Math.abs(want) + 1e-37;
        expect(Math.abs(got - want), `x = ${x}: got ${got}, want ${want}`).toBeLessThanOrEqual(
          limit,
        );
      });
    }
});

test('bf16 stays finite to the last logit', async () => {
  const values = [3e38, -3e38, 2e38, -2e38, 100, -100];
  for (const gamma of [0, 2]) {
    // Each is once its anchor's class, once another's.
    const call = {
      name: '',
      inputs: {
        logits: ndarray([12, 1], [...values, ...values]),
        labels: ndarray([12], [...values.map(() => 0), ...values.map(() => 1)]),
      },
      options: { gamma },
    };
    const got = await runOp('sigmoidFocalLoss', call, {
      ...{ spec, dtype: 'bf16' as const },
      dout: ndarray([], [1]),
    });
    got.gradients.logits!.forEach((slope, i) => {
      const x = values[i % 6]!;
      const wrong = i < 6 ? x < 0 : x > 0; // what it says of its class
      const side = i < 6 ? -0.25 : 0.75;
      expect(Math.abs(slope - (wrong ? side : 0)), `${x}, ${i}`).toBeLessThan(1e-6);
    });
  }
});

test('an ignored anchor is ignored whatever it holds', async () => {
  const call = {
    name: '',
    inputs: {
      logits: ndarray([2, 2], [Number.NaN, Number.POSITIVE_INFINITY, 0, 0]),
      labels: ndarray([2], [-1, 2]),
    },
  };
  const got = await runOp('sigmoidFocalLoss', call, { spec, dout: ndarray([], [1]) });
  expect(got.output[0]).toBeCloseTo(0.75 * 0.25 * Math.LN2 * 2, 6);
  expect(Array.from(got.gradients.logits!.slice(0, 2), Math.abs)).toEqual([0, 0]);
  expect(got.gradients.logits![2]).toBeGreaterThan(0);
});

test('a NaN logit makes the loss NaN', async () => {
  const inputs = { logits: ndarray([1, 2], [Number.NaN, 0]), labels: ndarray([1], [0]) };
  expect((await runOp('sigmoidFocalLoss', { name: '', inputs }, { spec })).output[0]).toBeNaN();
});

test('a batch is the sum of its images', async () => {
  const call = (rows: number[]) => ({
    name: '',
    inputs: {
      logits: ndarray(
        [rows.length, 3],
        rows.flatMap((r) => [r, -r, r / 2]),
      ),
      labels: ndarray(
        [rows.length],
        rows.map((r) => (r > 0 ? 1 : 3)),
      ),
    },
  });
  const loss = async (rows: number[]) =>
    (await runOp('sigmoidFocalLoss', call(rows), { spec })).output[0]!;
  const parts = (await loss([1, -2])) + (await loss([0.5, 3]));
  expect(await loss([1, -2, 0.5, 3])).toBeCloseTo(parts, 5);
});

const refused = (
  logits: number[],
  labels: NdArray,
  options: object,
  code: string,
  message: string,
) =>
  expectRefused(
    () =>
      native.runOp(
        'sigmoidFocalLoss',
        [tensor(zeros(logits)), tensor(labels, 'i32')],
        JSON.stringify(options),
      ),
    code,
    `sigmoidFocalLoss: ${message}`,
  );

test('says what was wrong', async () => {
  await refused(
    [2, 3, 3, 4],
    zeros([2, 3]),
    {},
    'ERR_SHAPE',
    'labels must be [2, 3, 3] (logits without the last axis), got [2, 3]',
  );
  await refused([], zeros([]), {}, 'ERR_SHAPE', 'logits must have a class axis, got a scalar');
  await refused(
    [6, 2],
    zeros([5]),
    { classes: 2 },
    'ERR_SHAPE',
    'labels must hold one entry per 2 logits, got [5] for logits [6, 2]',
  );
  await refused(
    [2, 4],
    zeros([2]),
    { alpha: 1.5 },
    'ERR_RANGE',
    'alpha must be in [0, 1], got 1.5',
  );
  await refused([2, 4], zeros([2]), { gamma: -1 }, 'ERR_RANGE', 'gamma must be >= 0, got -1');
  await refused([2, 4], zeros([2]), { classes: 0 }, 'ERR_RANGE', 'classes must be >= 1, got 0');
  await refused(
    [2, 4],
    ndarray([2], [5, 0]),
    {},
    'ERR_RANGE',
    'labels must be in [-1, 4] (-1 ignored, 4 background), got 5',
  );
  await refused(
    [2, 4],
    ndarray([2], [0, -2]),
    {},
    'ERR_RANGE',
    'labels must be in [-1, 4] (-1 ignored, 4 background), got -2',
  );
  await refused([2, 4], zeros([2]), { delta: 1 }, 'ERR_CONFIG', "unknown option 'delta'");
  const [x, i] = [tensor(zeros([2, 4])), tensor(zeros([2]), 'i32')];
  await expectRefused(
    () => native.runOp('sigmoidFocalLoss', [i, i], '{}'),
    'ERR_DTYPE',
    'sigmoidFocalLoss: logits must be f32 or bf16, got i32',
  );
  await expectRefused(
    () => native.runOp('sigmoidFocalLoss', [x, x], '{}'),
    'ERR_DTYPE',
    'sigmoidFocalLoss: labels must be i32, got f32',
  );
  await expectRefused(
    () => native.runOp('sigmoidFocalLoss', [x], '{}'),
    'ERR_SHAPE',
    'sigmoidFocalLoss: needs 2 or 3 tensors, got 1',
  );
  x.dispose();
  await expectRefused(
    () => native.runOp('sigmoidFocalLoss', [x, i], '{}'),
    'ERR_DISPOSED',
    'runOp: inputs was disposed',
  );
});
