import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { type NdArray, ndarray } from '../../oracle/array.js';
import { conv2dLoop, foldBatchNormLoop, linearLoop, maxPool2dLoop } from '../../oracle/conv2d.js';
import { tolerances } from '../tolerances.js';
import { expectRefused } from './golden.js';
import {
  expectClose,
  normals,
  type OpCase,
  runOp,
  tensor,
  testOp,
  testSeed,
  uniforms,
} from './test-op.js';

const zeros = (shape: readonly number[]) =>
  ndarray(shape, new Float64Array(shape.reduce((a, b) => a * b, 1)));

interface ConvCase {
  /** N, H, W, C */
  x: [number, number, number, number];
  /** K, R = S */
  filters: [number, number];
  stride?: number;
  padding?: number;
  dilation?: number;
  groups?: number;
  bias?: boolean;
  relu?: boolean;
  residual?: boolean;
}

function convCase(random: Random, name: string, c: ConvCase): OpCase {
  const [filters, kernel] = c.filters;
  const depth = c.x[3] / (c.groups ?? 1);
  const x = normals(random, c.x);
  const weight = normals(random, [filters, kernel, kernel, depth], 1 / Math.sqrt(depth));
  const options: Record<string, unknown> = {};
  for (const key of [
    'stride',
    'padding',
    'dilation',
    'groups',
    'bias',
    'relu',
    'residual',
  ] as const)
    if (c[key] !== undefined) options[key] = c[key];
  const inputs: Record<string, NdArray> = { x, weight };
  if (c.bias) inputs.bias = normals(random, [filters]);
  if (c.residual) inputs.residual = normals(random, conv2dLoop({ x, weight }, options).shape);
  // Some weight gradients are summed by oneDNN, thread by thread.
  return { name, inputs, options, dependsOnThreads: true };
}

testOp('conv2d', {
  oracle: conv2dLoop,
  activations: ['x', 'residual'],
  casts: ['weight'],
  differentiable: ['x', 'weight', 'bias', 'residual'],
  cases: (random) => {
    const one = (name: string, c: ConvCase) => convCase(random, name, c);
    return [
      one('1x1', { x: [2, 5, 7, 32], filters: [48, 1] }),
      one('1x1, bias, relu and residual', {
        x: [2, 6, 5, 64],
        filters: [32, 1],
        bias: true,
        relu: true,
        residual: true,
      }),
      one('1x1 with stride 2, odd size', { x: [1, 7, 9, 32], filters: [64, 1], stride: 2 }),
      one('1x1 with padding', { x: [1, 4, 3, 16], filters: [16, 1], padding: 1, bias: true }),
      one('3x3', { x: [2, 6, 7, 16], filters: [16, 3], padding: 1 }),
      one('3x3 over several channel blocks, relu', {
        x: [1, 6, 9, 80],
        filters: [20, 3],
        padding: 1,
        bias: true,
        relu: true,
      }),
      one('3x3 with stride 2, residual', {
        x: [2, 9, 8, 32],
        filters: [16, 3],
        stride: 2,
        padding: 1,
        residual: true,
        relu: true,
      }),
      one('3x3 without padding', { x: [1, 5, 6, 16], filters: [16, 3], bias: true }),
      one('3x3 with more padding than reach', { x: [1, 4, 4, 16], filters: [16, 3], padding: 3 }),
      one('dilation 2', { x: [1, 9, 8, 16], filters: [32, 3], padding: 2, dilation: 2 }),
      one('dilation 3, stride 2', {
        x: [1, 11, 10, 16],
        filters: [16, 3],
        padding: 3,
        dilation: 3,
        stride: 2,
      }),
      one('stride 3, odd everything', { x: [2, 10, 11, 17], filters: [13, 3], stride: 3 }),
      one('7x7 stem of three channels', {
        x: [2, 14, 17, 3],
        filters: [24, 7],
        stride: 2,
        padding: 3,
        bias: true,
        relu: true,
      }),
      one('7x7 stem, even width', {
        x: [1, 14, 18, 3],
        filters: [16, 7],
        stride: 2,
        padding: 3,
        bias: true,
        relu: true,
      }),
      one('5x5 of one channel', { x: [1, 9, 9, 1], filters: [3, 5], padding: 2 }),
      one('channels that fill no vector', {
        x: [2, 5, 6, 37],
        filters: [36, 3],
        padding: 1,
        bias: true,
      }),
      one('groups', { x: [2, 6, 5, 32], filters: [48, 3], padding: 1, groups: 4, bias: true }),
      one('groups of two filters, residual', {
        x: [2, 5, 4, 12],
        filters: [6, 3],
        stride: 2,
        padding: 1,
        groups: 3,
        bias: true,
        relu: true,
        residual: true,
      }),
      one('filters that fill no vector, residual', {
        x: [2, 5, 4, 12],
        filters: [6, 3],
        stride: 2,
        padding: 1,
        bias: true,
        relu: true,
        residual: true,
      }),
      one('depthwise, relu', {
        x: [1, 7, 6, 24],
        filters: [24, 3],
        padding: 1,
        groups: 24,
        stride: 2,
        relu: true,
      }),
      one('one pixel', { x: [1, 1, 1, 16], filters: [16, 3], padding: 1, bias: true }),
      one('one pixel, 7x7, stride 2', {
        x: [2, 1, 1, 16],
        filters: [16, 7],
        padding: 3,
        stride: 2,
      }),
      one('one pixel of three channels, 7x7, stride 2', {
        x: [2, 1, 1, 3],
        filters: [16, 7],
        padding: 3,
        stride: 2,
      }),
      one('three pixels, 7x7', { x: [1, 1, 3, 8], filters: [16, 7], padding: 3, bias: true }),
      one('one pixel, groups', { x: [2, 1, 1, 32], filters: [32, 5], padding: 2, groups: 2 }),
      one('one pixel, one channel', { x: [1, 1, 1, 1], filters: [1, 1] }),
      one('no images', { x: [0, 4, 5, 16], filters: [16, 3], padding: 1, bias: true, relu: true }),
      one('no output pixels', { x: [2, 2, 2, 16], filters: [16, 3], bias: true }),
      one('no channels', { x: [1, 3, 3, 0], filters: [4, 3], padding: 1, bias: true, relu: true }),
      one('no filters', { x: [1, 3, 3, 4], filters: [0, 3], padding: 1 }),
    ];
  },
});

// Shapes drawn at random: strides, paddings, dilations, groups and channels of every kind together.
describe(`conv2d, any shape (seed ${testSeed})`, () => {
  const random = new Random(testSeed).fork('conv2d shapes');
  const pick = <T>(values: readonly T[]): T => values[random.integer(0, values.length)]!;
  for (let i = 0; i < 40; i++) {
    const groups = pick([1, 1, 1, 2]);
    const c: ConvCase = {
      x: [
        pick([1, 2, 3]),
        pick([1, 3, 8, 13]),
        pick([2, 5, 12, 19]),
        groups * pick([3, 8, 16, 33, 64, 96]),
      ],
      filters: [groups * pick([1, 6, 16, 27, 64]), pick([1, 2, 3, 5])],
      stride: pick([1, 1, 2, 3]),
      padding: pick([0, 1, 2]),
      dilation: pick([1, 1, 2]),
      groups,
    };
    const name = JSON.stringify(c);
    test(name, async () => {
      const call = convCase(random.fork(name), name, c);
      const want = conv2dLoop(call.inputs, call.options as object);
      const dout = normals(random.fork(name, 'dout'), want.shape);
      const spec = { activations: ['x'] };
      const got = await runOp('conv2d', call, { spec, dout });
      expectClose(got.output, want.data, tolerances.f32, 'output');
      const dot = (a: ArrayLike<number>, b: Float64Array) =>
        b.reduce((sum, v, j) => sum + v * a[j]!, 0);
      // conv is linear in x and in the weight: <dx, x> = <dweight, weight> = <dy, y>.
      const inner = dot(dout.data, want.data);
      const size = Math.hypot(...dout.data) * Math.hypot(...want.data);
      const { x, weight } = call.inputs;
      expect(Math.abs(dot(got.gradients.x!, x!.data) - inner)).toBeLessThanOrEqual(1e-6 * size);
      expect(Math.abs(dot(got.gradients.weight!, weight!.data) - inner)).toBeLessThanOrEqual(
        1e-6 * size,
      );
    });
  }
});

test('conv2d with relu lets no gradient pass where the output is 0 or NaN', async () => {
  const call = {
    name: '',
    inputs: {
      x: ndarray([1, 1, 4, 1], [2, -3, Number.NaN, 0]),
      weight: ndarray([1, 1, 1, 1], [1]),
      bias: ndarray([1], [0]),
    },
    options: { bias: true, relu: true },
  };
  const dout = ndarray([1, 1, 4, 1], [5, 7, 11, 13]);
  for (const dtype of ['f32', 'bf16'] as const) {
    const got = await runOp('conv2d', call, { dtype, spec: { activations: ['x'] }, dout });
    expect(Array.from(got.gradients.x!)).toEqual([5, 0, 0, 0]);
    expect(Array.from(got.gradients.bias!)).toEqual([5]);
  }
});

test('packed weights follow a weight that changes', async () => {
  const x = tensor(ndarray([1, 1, 1, 16], new Float64Array(16).fill(1)));
  const run = async (value: number) => {
    const weight = tensor(ndarray([1, 1, 1, 16], new Float64Array(16).fill(value)));
    const { outputs } = await native.runOp('conv2d', [x, weight], '{}');
    return (await outputs[0]!.read())[0];
  };
  expect([await run(1), await run(2), await run(1)]).toEqual([16, 32, 16]);
});

const foldInputs = (random: Random, weight: number[]): Record<string, NdArray> => ({
  weight: normals(random, weight),
  gamma: uniforms(random, [weight[0]!], -1.5, 1.5),
  beta: normals(random, [weight[0]!]),
  mean: normals(random, [weight[0]!]),
  variance: uniforms(random, [weight[0]!], 0.1, 3),
});

// Both results at once: the folded weight, then the bias.
for (const part of [0, 1])
  describe(`foldBatchNorm, result ${part} (seed ${testSeed})`, () => {
    const random = new Random(testSeed).fork('foldBatchNorm', part);
    for (const weight of [
      [16, 3, 3, 8],
      [5, 1, 1, 7],
      [1, 1, 1, 1],
      [4, 0],
      [0, 3, 3, 2],
    ])
      for (const eps of [1e-5, 0.5])
        test(`[${weight.join(', ')}], eps ${eps}`, async () => {
          const inputs = foldInputs(random.fork(weight.join()), weight);
          const names = Object.keys(inputs);
          const want = foldBatchNormLoop(inputs, { eps })[part]!;
          const dout = normals(random.fork('dout', weight.join()), want.shape);
          const douts = [0, 1].map((i) => (i === part ? tensor(dout) : null));
          const got = await native.runOp(
            'foldBatchNorm',
            names.map((name) => tensor(inputs[name]!)),
            JSON.stringify({ eps }),
            { douts },
          );
          expectClose(await got.outputs[part]!.read(), want.data, tolerances.f32, 'result');
          const loss = (moved: Record<string, NdArray>) =>
            foldBatchNormLoop(moved, { eps })[part]!.data.reduce(
              (sum, v, i) => sum + v * dout.data[i]!,
              0,
            );
          for (const [i, name] of names.entries()) {
            const gradient = got.gradients[i] ? await got.gradients[i]!.read() : null;
            if (!['weight', 'gamma', 'beta'].includes(name)) {
              expect(gradient, name).toBeNull();
              continue;
            }
            const x = inputs[name]!;
            for (let j = 0; j < x.data.length; j += Math.ceil(x.data.length / 7)) {
              // Linear in each of the three: one difference is the derivative.
              const at = (step: number) =>
                loss({
                  ...inputs,
                  [name]: ndarray(
                    x.shape,
                    x.data.map((v, k) => v + (k === j ? step : 0)),
                  ),
                });
              const numeric = (at(1) - at(-1)) / 2;
              expect(Math.abs((gradient?.[j] ?? 0) - numeric)).toBeLessThanOrEqual(
                1e-5 * Math.max(1, Math.abs(numeric)),
              );
            }
          }
        });
  });

testOp('linear', {
  oracle: linearLoop,
  activations: ['x'],
  casts: ['weight'],
  differentiable: ['x', 'weight', 'bias'],
  cases: (random) => {
    const one = (name: string, x: number[], outputs: number, options: object = {}): OpCase => ({
      name,
      inputs: {
        x: normals(random, x),
        weight: normals(random, [outputs, x.at(-1)!], 1 / Math.sqrt(x.at(-1)! || 1)),
        ...('bias' in options && { bias: normals(random, [outputs]) }),
      },
      options: { ...options },
      dependsOnThreads: true,
    });
    return [
      one('rows', [24, 32], 48, { bias: true, relu: true }),
      one('no bias', [7, 16], 16),
      one('more axes', [2, 3, 5, 20], 9, { bias: true }),
      one('a vector', [37], 11, { bias: true, relu: true }),
      one('one number', [1], 1),
      one('no rows', [0, 8], 4, { bias: true }),
      one('no inputs', [3, 0], 4, { bias: true, relu: true }),
      one('no outputs', [3, 4], 0),
      one('scores of 81 classes', [12, 16], 81, { bias: true }),
    ];
  },
});

testOp('maxPool2d', {
  oracle: (inputs, options, { base }) => maxPool2dLoop(inputs, options, base.x),
  activations: ['x'],
  differentiable: ['x'],
  cases: (random) => {
    const one = (name: string, x: number[], options: object = {}): OpCase => ({
      name,
      inputs: { x: normals(random, x) },
      options: { ...options },
    });
    return [
      one('ResNet', [2, 10, 12, 64]),
      one('odd size, channels that fill no vector', [2, 9, 7, 5]),
      one('no padding', [1, 8, 8, 16], { kernel: 2, stride: 2, padding: 0 }),
      one('stride 1', [1, 6, 5, 19], { kernel: 3, stride: 1, padding: 1 }),
      one('every second pixel', [2, 5, 6, 8], { kernel: 1, stride: 2, padding: 0 }),
      one('windows apart', [1, 11, 9, 8], { kernel: 2, stride: 3, padding: 1 }),
      one('large windows', [1, 9, 9, 4], { kernel: 7, stride: 2, padding: 3 }),
      one('one pixel', [1, 1, 1, 3]),
      one('smaller than the window', [1, 2, 2, 3], { kernel: 3, stride: 1, padding: 0 }),
      one('no images', [0, 4, 4, 8]),
      one('no channels', [1, 4, 4, 0]),
    ];
  },
});

test('maxPool2d: the first of equal values wins, and NaN beats everything', async () => {
  const pool = async (values: number[], dtype: 'f32' | 'bf16') => {
    const x = ndarray([1, 1, values.length, 1], values);
    const options = { kernel: 3, stride: 3, padding: 1 };
    const call = { name: '', inputs: { x }, options };
    const dout = ndarray([1, 1, 2, 1], [1, 2]);
    const got = await runOp('maxPool2d', call, { dtype, spec: { activations: ['x'] }, dout });
    return [Array.from(got.output), Array.from(got.gradients.x!)];
  };
  const low = Number.NEGATIVE_INFINITY;
  for (const dtype of ['f32', 'bf16'] as const) {
    // Windows hold columns {0, 1} and {2, 3, 4}.
    expect(await pool([3, 3, 5, 5, 5], dtype)).toEqual([
      [3, 5],
      [1, 0, 2, 0, 0],
    ]);
    expect(await pool([low, low, -1, Number.NaN, 9], dtype)).toEqual([
      [low, Number.NaN],
      [1, 0, 0, 2, 0],
    ]);
  }
});

test('convolution, pooling and linear say what was wrong', async () => {
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
  const x = [1, 4, 4, 6];
  const w = [8, 3, 3, 6];
  const shape = 'ERR_SHAPE';
  const range = 'ERR_RANGE';
  await refused('conv2d', [x], {}, shape, 'needs 2 tensors, got 1');
  await refused('conv2d', [x, w], { bias: true }, shape, 'needs 3 tensors, got 2');
  await refused(
    'conv2d',
    [[4, 4, 6], w],
    {},
    shape,
    'x must have 4 axes (N, H, W, C), got [4, 4, 6]',
  );
  await refused(
    'conv2d',
    [x, [8, 6]],
    {},
    shape,
    'weight must have 4 axes (K, R, S, C / groups), got [8, 6]',
  );
  await refused(
    'conv2d',
    [x, [8, 3, 3, 5]],
    {},
    shape,
    'axis 3 of x must be 5 (groups times the last axis of weight), got [1, 4, 4, 6]',
  );
  await refused(
    'conv2d',
    [x, [8, 3, 3, 2]],
    { groups: 3 },
    shape,
    'groups must divide the output channels, got 3 groups and weight [8, 3, 3, 2]',
  );
  await refused(
    'conv2d',
    [x, w, [7]],
    { bias: true },
    shape,
    'bias must be [8] (one a filter), got [7]',
  );
  await refused(
    'conv2d',
    [x, w, [1, 4, 4, 8]],
    { residual: true },
    shape,
    "residual must be [1, 2, 2, 8] (the output's shape), got [1, 4, 4, 8]",
  );
  await refused('conv2d', [x, w], { stride: 0 }, range, 'stride must be >= 1, got 0');
  await refused('conv2d', [x, w], { dilation: 0 }, range, 'dilation must be >= 1, got 0');
  await refused('conv2d', [x, w], { padding: -1 }, range, 'padding must be >= 0, got -1');
  await refused('conv2d', [x, w], { groups: 0 }, range, 'groups must be >= 1, got 0');
  await refused(
    'conv2d',
    [x, [8, 0, 3, 6]],
    {},
    shape,
    'weight must have a kernel of one pixel at least, got [8, 0, 3, 6]',
  );
  await expectRefused(
    () => native.runOp('conv2d', [tensor(zeros(x), 'i32'), tensor(zeros(w))], '{}'),
    'ERR_DTYPE',
    'conv2d: x must be f32 or bf16, got i32',
  );
  await expectRefused(
    () => native.runOp('conv2d', [tensor(zeros(x)), tensor(zeros(w), 'bf16')], '{}'),
    'ERR_DTYPE',
    'conv2d: weight must be f32, got bf16',
  );
  const k = [8];
  await refused('foldBatchNorm', [w, k, k, k], {}, shape, 'needs 5 tensors, got 4');
  await refused(
    'foldBatchNorm',
    [w, k, k, [7], k],
    {},
    shape,
    'mean must be [8] (one a filter), got [7]',
  );
  await refused('foldBatchNorm', [w, k, k, k, k], { eps: -1 }, range, 'eps must be >= 0, got -1');
  await refused('linear', [[3, 4]], {}, shape, 'needs 2 tensors, got 1');
  await refused('linear', [[], [2, 1]], {}, shape, 'x must have at least one axis, got []');
  await refused('linear', [[3, 4], [5]], {}, shape, 'weight must have 2 axes (K, C), got [5]');
  await refused(
    'linear',
    [
      [3, 4],
      [2, 5],
    ],
    {},
    shape,
    'axis 1 of x must be 5 (the last axis of weight), got [3, 4]',
  );
  await refused(
    'linear',
    [[3, 4], [2, 4], [3]],
    { bias: true },
    shape,
    'bias must be [2] (one an output), got [3]',
  );
  await refused(
    'maxPool2d',
    [[4, 4, 6]],
    {},
    shape,
    'x must have 4 axes (N, H, W, C), got [4, 4, 6]',
  );
  await refused('maxPool2d', [x], { kernel: 16 }, range, 'kernel must be in [1, 15], got 16');
  await refused('maxPool2d', [x], { stride: 0 }, range, 'stride must be >= 1, got 0');
  await refused('maxPool2d', [x], { padding: 2 }, range, 'padding must be in [0, 1], got 2');
});
