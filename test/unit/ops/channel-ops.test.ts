import { expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import type { Random } from '../../../lib/random.js';
import { type NdArray, ndarray, numel } from '../../oracle/array.js';
import {
  concatLoop,
  deformSamplingLoop,
  globalAveragePoolLoop,
  gridBoxesLoop,
  layerWeightedConvLoop,
  scaledExpLoop,
  sigmoidGeometricMeanLoop,
  sigmoidLoop,
  validBoxesLoop,
} from '../../oracle/channel-ops.js';
import { expectRefused, testGolden } from './golden.js';
import { normals, runOp, tensor, testOp, uniforms } from './test-op.js';

const zeros = (shape: number[]) => ndarray(shape, new Float64Array(numel(shape)));

testOp('concatChannels', {
  oracle: concatLoop,
  activations: ['a', 'b', 'c'],
  differentiable: ['a', 'b', 'c'],
  cases: (random) => {
    const one = (name: string, ...shapes: number[][]) => ({
      name,
      inputs: Object.fromEntries(shapes.map((s, i) => ['abc'[i]!, normals(random, s)])),
    });
    return [
      one('three maps', [2, 3, 5, 8], [2, 3, 5, 16], [2, 3, 5, 1]),
      one('rows of 16 bytes', [2, 3, 5, 8], [2, 3, 5, 16]),
      one('one map', [2, 3, 4]),
      one('an empty one', [3, 4], [3, 0], [3, 2]),
      one('no rows', [0, 4], [0, 2]),
      one('many rows', [1, 60, 90, 3], [1, 60, 90, 5]),
    ];
  },
});

testOp('globalAveragePool', {
  oracle: globalAveragePoolLoop,
  activations: ['x'],
  differentiable: ['x'],
  cases: (random) => [
    { name: 'a map', inputs: { x: normals(random, [2, 7, 5, 13]) } },
    { name: 'several chunks', inputs: { x: normals(random, [2, 23, 31, 5]) } },
    { name: 'several chunks of packs', inputs: { x: normals(random, [2, 9, 11, 256]) } },
    { name: 'one pixel', inputs: { x: normals(random, [2, 1, 1, 4]) } },
    { name: 'no images', inputs: { x: zeros([0, 2, 2, 4]) } },
  ],
});

testOp('sigmoid', {
  oracle: sigmoidLoop,
  activations: ['x'],
  differentiable: ['x'],
  cases: (random) => [
    { name: 'around 0', inputs: { x: normals(random, [3, 5, 7], 3) } },
    { name: 'more than one chunk', inputs: { x: normals(random, [20001]) } },
    { name: 'a scalar', inputs: { x: normals(random, []) } },
    { name: 'nothing', inputs: { x: zeros([0, 3]) } },
  ],
});

test('sigmoid keeps NaN and ends at 0 and 1', async () => {
  const x = ndarray([4], [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 0]);
  const got = await runOp('sigmoid', { name: '', inputs: { x } }, { spec: { activations: ['x'] } });
  expect(Array.from(got.output)).toEqual([Number.NaN, 1, 0, 0.5]);
});

testOp('sigmoidGeometricMean', {
  oracle: sigmoidGeometricMeanLoop,
  activations: ['x', 'y'],
  differentiable: ['x', 'y'],
  f32Output: true,
  cases: (random) => {
    const one = (name: string, shape: number[], scale: number) => ({
      name,
      inputs: {
        x: normals(random, shape, scale),
        y: normals(random, [...shape.slice(0, -1), 1], scale),
      },
    });
    return [
      one('a head', [2, 5, 7, 20], 3),
      one('one class', [2, 3, 4, 1], 2),
      one('many cells', [1, 50, 60, 6], 4),
      one('no cells', [0, 3, 3, 5], 1),
    ];
  },
});

test('sigmoidGeometricMean of far logits has finite numbers and gradients', async () => {
  const inputs = { x: ndarray([1, 2], [-120, 120]), y: ndarray([1, 1], [-120]) };
  const spec = { activations: ['x', 'y'] };
  const got = await runOp(
    'sigmoidGeometricMean',
    { name: '', inputs },
    { spec, dout: ndarray([1, 2], [1e6, 1e6]) },
  );
  for (const v of [...got.output, ...got.gradients.x!, ...got.gradients.y!])
    expect(Number.isFinite(v)).toBe(true);
});

testOp('scaledExp', {
  oracle: scaledExpLoop,
  activations: ['x'],
  differentiable: ['x', 'scale'],
  f32Output: true,
  cases: (random) => {
    const one = (name: string, shape: number[], scale: number) => ({
      name,
      inputs: { x: normals(random, shape), scale: ndarray([], [Math.fround(scale)]) },
    });
    return [
      one('distances', [2, 5, 7, 4], 1.3),
      one('several chunks', [1, 40, 50, 4], 0.7),
      one('a negative scale', [9], -0.5),
      one('nothing', [0, 4], 1),
    ];
  },
});

testOp('gridBoxes', {
  oracle: gridBoxesLoop,
  activations: [],
  differentiable: ['sides'],
  cases: (random) => {
    const one = (name: string, shape: number[], options = {}) => ({
      name,
      inputs: { sides: uniforms(random, shape, 0.1, 9) },
      options,
    });
    return [
      one('corners of cells', [2, 5, 7, 4]),
      one('centres of cells', [3, 4, 2, 4], { offset: 0.5 }),
      one('no cells', [1, 0, 3, 4]),
    ];
  },
});

testOp('validBoxes', {
  oracle: validBoxesLoop,
  activations: [],
  differentiable: ['boxes', 'fallback'],
  cases: (random) => [
    {
      name: 'one in four is upright',
      inputs: { boxes: normals(random, [2, 6, 5, 4]), fallback: normals(random, [2, 6, 5, 4]) },
    },
    { name: 'none', inputs: { boxes: zeros([0, 4]), fallback: zeros([0, 4]) } },
  ],
});

const convSpec = {
  oracle: layerWeightedConvLoop,
  casts: ['weight'],
  differentiable: ['x', 'weight', 'attention'],
};
const convCase = (
  random: Random,
  name: string,
  x: number[],
  filters: number,
  layers: number,
  numbers: (shape: number[]) => NdArray,
) => ({
  name,
  inputs: {
    x: normals(random, x),
    weight: normals(random, [filters, 1, 1, x[3]!]),
    attention: numbers([x[0]!, 1, 1, layers]),
  },
});
testOp('layerWeightedConv', {
  ...convSpec,
  activations: [],
  cases: (random) => {
    const any = (shape: number[]) => uniforms(random, shape);
    return [
      convCase(random, 'six layers', [2, 5, 7, 48], 16, 6, any),
      convCase(random, 'one layer, one pixel', [3, 1, 1, 8], 4, 1, any),
      convCase(random, 'a layer a channel', [1, 4, 3, 5], 3, 5, any),
      convCase(random, 'no images', [0, 4, 3, 6], 3, 2, any),
    ];
  },
});
// Powers of two, so that weighting a filter does not round it once more in bf16.
testOp('layerWeightedConv', {
  ...convSpec,
  activations: ['x', 'attention'],
  cases: (random) => {
    const powers = (shape: number[]) =>
      ndarray(
        shape,
        Array.from({ length: numel(shape) }, () => 2 ** -random.integer(0, 4)),
      );
    return [convCase(random, 'six layers, halves', [2, 8, 9, 96], 32, 6, powers)];
  },
});

testOp('deformSampling', {
  oracle: deformSamplingLoop,
  activations: ['offsets'],
  differentiable: ['values', 'offsets'],
  f32Output: true,
  cases: (random) => {
    // Away from whole numbers, where the slope jumps; exact in bf16.
    const offsets = (shape: number[], reach: number) =>
      ndarray(
        shape,
        Array.from(
          { length: numel(shape) },
          () => random.integer(-reach, reach + 1) + random.integer(1, 16) / 16,
        ),
      );
    const one = (name: string, [n, h, w, c]: number[], reach: number) => ({
      name,
      inputs: {
        values: normals(random, [n!, h!, w!, c!], 5),
        offsets: offsets([n!, h!, w!, 2 * c!], reach),
      },
    });
    return [
      one('near', [2, 6, 5, 4], 1),
      one('beyond the map', [1, 4, 7, 4], 9),
      one('one cell', [3, 1, 1, 4], 1),
      one('other channels', [1, 5, 3, 3], 2),
      one('no images', [0, 3, 3, 4], 1),
    ];
  },
});
testGolden('deformSampling', 'deform-sampling', { activations: [] });

test('deformSampling at whole offsets reads cells, and nothing for what is no number', async () => {
  const values = ndarray([1, 2, 2, 1], [1, 2, 3, 4]);
  const { NaN: nan, POSITIVE_INFINITY: infinity } = Number;
  const offsets = ndarray([1, 2, 2, 2], [1, 1, 0, nan, infinity, 0, -1, 0]);
  const got = await runOp(
    'deformSampling',
    { name: '', inputs: { values, offsets } },
    { spec: { activations: [] }, dout: ndarray([1, 2, 2, 1], [1, 1, 1, 1]) },
  );
  expect(Array.from(got.output)).toEqual([4, 0, 0, 2]);
  expect(Array.from(got.gradients.values!)).toEqual([0, 1, 0, 1]);
  expect(got.gradients.offsets!.slice(2, 6).every((v) => v === 0)).toBe(true);
});

test('channel ops say what was wrong', async () => {
  const refused = (op: string, shapes: number[][], code: string, message: string) =>
    expectRefused(
      () =>
        native.runOp(
          op,
          shapes.map((s) => tensor(zeros(s))),
          '{}',
        ),
      code,
      `${op}: ${message}`,
    );
  await refused('concatChannels', [], 'ERR_SHAPE', 'needs 1 tensor or more, got 0');
  await refused('concatChannels', [[]], 'ERR_SHAPE', 'parts must have an axis, got a scalar');
  await refused(
    'concatChannels',
    [
      [2, 3],
      [1, 3],
    ],
    'ERR_SHAPE',
    'parts must be equal but for the last axis, got [2, 3] and [1, 3]',
  );
  await expectRefused(
    () => native.runOp('concatChannels', [tensor(zeros([2])), tensor(zeros([2]), 'bf16')], '{}'),
    'ERR_DTYPE',
    'concatChannels: parts must be f32, got bf16',
  );
  await refused(
    'globalAveragePool',
    [[1, 0, 3, 2]],
    'ERR_SHAPE',
    'x must have one pixel at least, got [1, 0, 3, 2]',
  );
  await refused('sigmoid', [], 'ERR_SHAPE', 'needs 1 tensor, got 0');
  await refused(
    'sigmoidGeometricMean',
    [
      [2, 3],
      [2, 3],
    ],
    'ERR_SHAPE',
    'y must be [2, 1] (x with a last axis of 1), got [2, 3]',
  );
  await refused('scaledExp', [[2], [2]], 'ERR_SHAPE', 'scale must be [] (a scalar), got [2]');
  await refused(
    'gridBoxes',
    [[1, 2, 2, 3]],
    'ERR_SHAPE',
    'axis 3 of sides must be 4 (left, top, right, bottom), got [1, 2, 2, 3]',
  );
  await refused(
    'validBoxes',
    [
      [2, 3],
      [2, 3],
    ],
    'ERR_SHAPE',
    'boxes must be [..., 4] (x1 y1 x2 y2), got [2, 3]',
  );
  await refused(
    'layerWeightedConv',
    [
      [2, 3, 3, 8],
      [4, 1, 1, 8],
      [2, 1, 1, 3],
    ],
    'ERR_SHAPE',
    'attention must be [2, ..., S] with one number per image and layer, S a divisor of 8 (the channels of x), got [2, 1, 1, 3]',
  );
  await refused(
    'layerWeightedConv',
    [
      [2, 3, 3, 8],
      [4, 3, 3, 8],
      [2, 1, 1, 2],
    ],
    'ERR_SHAPE',
    'weight must be [4, 1, 1, 8] (1x1 filters over the channels of x), got [4, 3, 3, 8]',
  );
  await refused(
    'deformSampling',
    [
      [1, 2, 2, 4],
      [1, 2, 2, 4],
    ],
    'ERR_SHAPE',
    'offsets must be [1, 2, 2, 8] (dy and dx for every value), got [1, 2, 2, 4]',
  );
});
