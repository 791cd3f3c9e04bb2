import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import type { Random } from '../../../lib/random.js';
import { type NdArray, ndarray } from '../../oracle/array.js';
import { batchNormLoop, groupNormLoop } from '../../oracle/norm.js';
import { expectRefused, testGolden } from './golden.js';
import { normals, type OpCase, runOp, tensor, testOp, uniforms } from './test-op.js';

const spec = { activations: ['x', 'residual'] };
const zeros = (shape: number[]) =>
  ndarray(shape, new Float64Array(shape.reduce((a, b) => a * b, 1)));

interface Extra {
  residual?: boolean;
  running?: boolean;
  offset?: number;
}

function inputs(random: Random, shape: number[], extra: Extra = {}): Record<string, NdArray> {
  const channels = [shape.at(-1)!];
  const x = normals(random, shape, 2);
  x.data.forEach((v, i) => {
    x.data[i] = Math.fround(v + (extra.offset ?? 0.5));
  });
  return {
    x,
    gamma: uniforms(random, channels, -1.5, 1.5),
    beta: normals(random, channels),
    ...(extra.running && {
      runningMean: normals(random, channels),
      runningVar: uniforms(random, channels, 0.5, 2),
    }),
    ...(extra.residual && { residual: normals(random, shape) }),
  };
}

testOp('groupNorm', {
  oracle: groupNormLoop,
  ...spec,
  differentiable: ['x', 'gamma', 'beta', 'residual'],
  cases: (random) => {
    const one = (name: string, shape: number[], options: object, extra?: Extra): OpCase => ({
      name,
      inputs: inputs(random, shape, extra),
      options: { ...options },
    });
    return [
      one('a feature map, defaults', [2, 5, 7, 64], {}),
      one('several chunks of 256 pixels', [2, 19, 31, 16], { groups: 4, relu: true }),
      one('several chunks of packs of channels', [1, 3, 7, 1024], { groups: 8 }),
      one('relu and residual', [2, 5, 7, 24], { groups: 3, relu: true }, { residual: true }),
      one('residual alone', [3, 4, 4, 12], { groups: 6 }, { residual: true }),
      one('channels that fill no vector', [2, 6, 5, 15], { groups: 5, relu: true }),
      one('one group (layer norm)', [2, 3, 3, 20], { groups: 1 }),
      one('a group per channel (instance norm)', [2, 6, 3, 9], { groups: 9 }),
      one('pixels side by side that fill no row', [2, 21, 13, 6], { groups: 3, relu: true }),
      one('rows of registers and a rest', [1, 17, 16, 75], { groups: 25 }, { residual: true }),
      one('rows without space', [4, 32], { groups: 8 }),
      one('a large eps', [2, 3, 3, 8], { groups: 2, eps: 0.5 }),
      one('a mean 100 times the deviation', [1, 12, 12, 16], { groups: 4 }, { offset: 200 }),
      one('no images', [0, 4, 4, 8], { groups: 2 }, { residual: true }),
      one('no pixels', [2, 0, 4, 8], { groups: 2, relu: true }),
    ];
  },
});
testGolden('groupNorm', 'group-norm', spec);

describe('batchNorm', () => {
  for (const training of [true, false])
    testOp('batchNorm', {
      oracle: (arrays, options, context) => batchNormLoop(arrays, options, context.training),
      ...spec,
      differentiable: ['x', 'gamma', 'beta', 'residual'],
      cases: (random) => {
        const one = (name: string, shape: number[], options: object, extra?: Extra): OpCase => ({
          name: `${name}, ${training ? 'training' : 'evaluation'}`,
          inputs: inputs(random, shape, { running: true, ...extra }),
          options: { ...options },
          training,
        });
        return [
          one('a feature map', [2, 5, 7, 32], {}),
          one('several chunks, relu', [2, 15, 19, 10], { relu: true }),
          one('several chunks of packs of channels', [3, 1, 7, 1024], {}),
          one('one channel', [2, 9, 31, 1], { relu: true }),
          one('relu and residual', [2, 5, 7, 24], { relu: true }, { residual: true }),
          one('residual alone', [3, 4, 4, 5], {}, { residual: true }),
          one('two values a channel', [2, 1, 1, 8], { eps: 0.01 }),
          one('nothing', [0, 4, 4, 8], {}, { residual: true }),
        ];
      },
    });
});
testGolden('batchNorm', 'batch-norm', spec);

const ramp = ndarray([3, 1], [1, 2, 6]);
const ones = ndarray([1], [1]);
const batch = (x: NdArray, training: boolean, options = {}) =>
  runOp(
    'batchNorm',
    {
      name: '',
      inputs: {
        x,
        gamma: ones,
        beta: zeros([1]),
        runningMean: ndarray([1], [5]),
        runningVar: ones,
      },
      training,
      options,
    },
    { spec },
  );

test('batchNorm moves the running statistics with the unbiased variance, in training only', async () => {
  const trained = await batch(ramp, true, { momentum: 0.25 });
  expect(trained.outputs[1]![0]).toBeCloseTo(0.75 * 5 + 0.25 * 3, 6);
  expect(trained.outputs[2]![0]).toBeCloseTo(0.75 * 1 + 0.25 * 7, 6); // 14 / (3 - 1)
  const evaluated = await batch(ramp, false);
  expect([evaluated.outputs[1]![0], evaluated.outputs[2]![0]]).toEqual([5, 1]);
  const nothing = await batch(zeros([0, 1]), true);
  expect([nothing.outputs[1]![0], nothing.outputs[2]![0]]).toEqual([5, 1]);
});

test('batchNorm with momentum 1 keeps the last batch, with 0 the first statistics', async () => {
  expect((await batch(ramp, true, { momentum: 1 })).outputs[1]![0]).toBe(3);
  expect((await batch(ramp, true, { momentum: 0 })).outputs[1]![0]).toBe(5);
});

test('a constant input has no variance and normalises to beta', async () => {
  const x = ndarray([1, 300, 1, 4], new Float64Array(1200).fill(12345.678));
  const call = {
    name: '',
    inputs: { x, gamma: ndarray([4], [1, 2, 3, 4]), beta: ndarray([4], [0, 1, 2, 3]) },
    options: { groups: 2 },
  };
  const { output } = await runOp('groupNorm', call, { spec });
  expect(Array.from(output.slice(0, 4))).toEqual([0, 1, 2, 3]);
  expect(new Set(output).size).toBe(4);
});

test('groupNorm treats a batch as its images one by one', async () => {
  const x = ndarray(
    [2, 3, 3, 4],
    Array.from({ length: 72 }, (_, i) => Math.fround(Math.sin(i))),
  );
  const parameters = { gamma: ndarray([4], [1, 2, -1, 0.5]), beta: zeros([4]) };
  const norm = (part: NdArray) =>
    runOp(
      'groupNorm',
      { name: '', inputs: { x: part, ...parameters }, options: { groups: 2 } },
      { spec },
    );
  const whole = await norm(x);
  for (const n of [0, 1]) {
    const image = await norm(ndarray([1, 3, 3, 4], x.data.slice(36 * n, 36 * n + 36)));
    expect(whole.output.slice(36 * n, 36 * n + 36)).toEqual(image.output);
  }
});

test('gradients that the caller keeps are read, not written into', async () => {
  const shape = [2, 5, 7, 16];
  const wave = (step: number) =>
    ndarray(
      shape,
      Array.from({ length: 1120 }, (_, i) => Math.fround(Math.sin(i * step))),
    );
  const inputs = [wave(1), ndarray([16], new Float64Array(16).fill(1)), zeros([16]), wave(3)];
  const gradientsOf = async (keepsDouts: boolean) => {
    const dout = tensor(wave(2));
    const { gradients } = await native.runOp(
      'groupNorm',
      inputs.map((input) => tensor(input)),
      JSON.stringify({ groups: 4, relu: true }),
      { douts: [dout], keepsDouts },
    );
    expect(await dout.read()).toEqual(Float32Array.from(wave(2).data));
    return Promise.all(gradients.map((gradient) => gradient!.read()));
  };
  expect(await gradientsOf(true)).toEqual(await gradientsOf(false));
});

test('NaN does not hide behind the ReLU', async () => {
  const x = ndarray([1, 2, 2, 2], [Number.NaN, 1, 2, 3, 4, 5, 6, 7]);
  const call = {
    name: '',
    inputs: { x, gamma: ndarray([2], [1, 1]), beta: zeros([2]) },
    options: { groups: 2, relu: true },
  };
  expect((await runOp('groupNorm', call, { spec })).output[0]).toBeNaN();
});

test('groupNorm says what was wrong', async () => {
  const refused = (
    shapes: Record<string, number[]>,
    options: object,
    code: string,
    message: string,
  ) =>
    expectRefused(
      () =>
        native.runOp(
          'groupNorm',
          Object.values({ x: [1, 2, 2, 8], gamma: [8], beta: [8], ...shapes }).map((shape) =>
            tensor(zeros(shape)),
          ),
          JSON.stringify({ groups: 4, ...options }),
        ),
      code,
      `groupNorm: ${message}`,
    );
  await refused({ x: [8] }, {}, 'ERR_SHAPE', 'x must have 2 or more axes (N ... C), got [8]');
  await refused(
    {},
    { groups: 3 },
    'ERR_SHAPE',
    'groups must be a divisor of 8 (the channels of x), got 3',
  );
  await refused({}, { groups: 0 }, 'ERR_RANGE', 'groups must be >= 1, got 0');
  await refused({}, { eps: -1 }, 'ERR_RANGE', 'eps must be >= 0, got -1');
  await refused({ gamma: [4] }, {}, 'ERR_SHAPE', 'gamma must be [8] (the channels of x), got [4]');
  await refused(
    { beta: [8, 1] },
    {},
    'ERR_SHAPE',
    'beta must be [8] (the channels of x), got [8, 1]',
  );
  await refused(
    { residual: [1, 2, 8] },
    {},
    'ERR_SHAPE',
    'residual must be [1, 2, 2, 8] (the shape of x), got [1, 2, 8]',
  );
  await refused(
    { residual: [1, 2, 2, 8], more: [1] },
    {},
    'ERR_SHAPE',
    'needs 3 or 4 tensors, got 5',
  );
  const [x, c] = [tensor(zeros([1, 2, 2, 8])), tensor(zeros([8]))];
  await expectRefused(
    () => native.runOp('groupNorm', [tensor(zeros([1, 8]), 'i32'), c, c], '{}'),
    'ERR_DTYPE',
    'groupNorm: x must be f32 or bf16, got i32',
  );
  await expectRefused(
    () => native.runOp('groupNorm', [x, tensor(zeros([8]), 'bf16'), c], '{"groups":4}'),
    'ERR_DTYPE',
    'groupNorm: gamma must be f32, got bf16',
  );
  await expectRefused(
    () => native.runOp('groupNorm', [x, c, c, tensor(zeros([1, 2, 2, 8]), 'bf16')], '{"groups":4}'),
    'ERR_DTYPE',
    'groupNorm: residual must be f32, got bf16',
  );
});

test('batchNorm says what was wrong', async () => {
  const refused = (
    shapes: Record<string, number[]>,
    options: object,
    code: string,
    message: string,
    training = false,
  ) =>
    expectRefused(
      () =>
        native.runOp(
          'batchNorm',
          Object.values({
            x: [1, 2, 2, 8],
            gamma: [8],
            beta: [8],
            runningMean: [8],
            runningVar: [8],
            ...shapes,
          }).map((shape) => tensor(zeros(shape))),
          JSON.stringify(options),
          { training },
        ),
      code,
      `batchNorm: ${message}`,
    );
  await refused({ x: [8] }, {}, 'ERR_SHAPE', 'x must have 2 or more axes (N ... C), got [8]');
  await refused({}, { momentum: 2 }, 'ERR_RANGE', 'momentum must be in [0, 1], got 2');
  await refused({}, { eps: -1 }, 'ERR_RANGE', 'eps must be >= 0, got -1');
  for (const name of ['gamma', 'beta', 'runningMean', 'runningVar'])
    await refused(
      { [name]: [3] },
      {},
      'ERR_SHAPE',
      `${name} must be [8] (the channels of x), got [3]`,
    );
  await refused(
    { residual: [2, 2, 8] },
    {},
    'ERR_SHAPE',
    'residual must be [1, 2, 2, 8] (the shape of x), got [2, 2, 8]',
  );
  await refused(
    { x: [1, 1, 1, 8] },
    {},
    'ERR_SHAPE',
    'x must hold more than one value per channel (one value has no variance), ' +
      'got [1, 1, 1, 8]',
    true,
  );
  await refused(
    { residual: [1, 2, 2, 8], more: [1] },
    {},
    'ERR_SHAPE',
    'needs 5 or 6 tensors, got 7',
  );
});
