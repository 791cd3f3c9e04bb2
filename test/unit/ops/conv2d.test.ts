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
  for (const key of ['stride', 'padding', 'dilation', 'groups', 'bias', 'relu', 'residual'] as const)
    if (c[key] !== undefined) options[key] = c[key];
  const inputs: Record<string, NdArray> = { x, weight };
  if (c.bias) inputs.bias = normals(random, [filters]);
  if (c.residual) inputs.residual = normals(random, conv2dLoop({ x, weight }, options).shape);
  // Weight gradients of groups are summed by oneDNN, thread by thread.
  return { name, inputs, options, dependsOnThreads: (c.groups ?? 1) > 1 };
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
      one('5x5 of one channel', { x: [1, 9, 9, 1], filters: [3, 5], padding: 2 }),
      one('channels that fill no vector', {
        x: [2, 5, 6, 37],
        filters: [36, 3],
        padding: 1,
        bias: true,
      }),
      one('groups', { x: [2, 6, 5, 32], filters: [48, 3], padding: 1, groups: 4, bias: true }),
      one('depthwise, relu', {
        x: [1, 7, 6, 24],
        filters: [24, 3],
        padding: 1,
        groups: 24,
        stride: 2,
        relu: true,
      }),
      one('one pixel', { x: [1, 1, 1, 16], filters: [16, 3], padding: 1, bias: true }),
      one('one pixel, 7x7, stride 2', { x: [2, 1, 1, 16], filters: [16, 7], padding: 3, stride: 2 }),
      one('one pixel, one channel', { x: [1, 1, 1, 1], filters: [1, 1] }),
      one('no images', { x: [0, 4, 5, 16], filters: [16, 3], padding: 1, bias: true, relu: true }),
      one('no output pixels', { x: [2, 2, 2, 16], filters: [16, 3], bias: true }),
      one('no channels', { x: [1, 3, 3, 0], filters: [4, 3], padding: 1, bias: true, relu: true }),
      one('no filters', { x: [1, 3, 3, 4], filters: [0, 3], padding: 1 }),
    ];
  },
});

// Shapes drawn at random; the gradients are compared in full with ours for a one-hot dout-free
// identity: <dy, conv(x, w)> is linear in x and in w, so <dx, x> = <dw, w> = <dy, y>.
describe(`conv2d, any shape (seed ${testSeed})`, () => {
  const random = new Random(testSeed).fork('conv2d shapes');
  const pick = <T>(values: readonly T[]): T => values[random.integer(0, values.length)]!;
  for (let i = 0; i < 40; i++) {
    const groups = pick([1, 1, 1, 2]);
    const c: ConvCase = {
      x: [pick([1, 2, 3]), pick([1, 3, 8, 13]), pick([2, 5, 12, 19]), groups * pick([3, 8, 16, 33, 64, 96])],
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
      const dot = (a: ArrayLike<number>, b: Float64Array) => b.reduce((sum, v, j) => sum + v * a[j]!, 0);
      const inner = dot(dout.data, want.data);
      const size = Math.hypot(...dout.data) * Math.hypot(...want.data);
      const { x, weight } = call.inputs;
      expect(Math.abs(dot(got.gradients.x!, x!.data) - inner)).toBeLessThanOrEqual(1e-6 * size);
      expect(Math.abs(dot(got.gradients.weight!, weight!.data) - inner)).toBeLessThanOrEqual(1e-6 * size);
    });
  }
});
