import { expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import type { Random } from '../../../lib/random.js';
import { ndarray, numel } from '../../oracle/array.js';
import { deformableAttentionLoop } from '../../oracle/deformable-attention.js';
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

const activations = ['value', 'offsets', 'logits'];
const order = [...activations, 'references', 'ratios'];

interface Sizes {
  images?: number;
  queries?: number;
  heads?: number;
  depth?: number;
  points?: number;
  coordinates?: 2 | 4;
  /** Standard deviation of offsets. */
  reach?: number;
}

function attention(random: Random, name: string, maps: number[][], sizes: Sizes): OpCase {
  const { images: n = 2, queries: q = 5, heads: m = 2, depth: d = 32, points: p = 4 } = sizes;
  const { coordinates = 2, reach = 1.5 } = sizes;
  const cells = maps.reduce((sum, [h, w]) => sum + h! * w!, 0);
  const samples = m * maps.length * p;
  return {
    name,
    inputs: {
      value: normals(random, [n, cells, m * d]),
      offsets: normals(random, [n, q, samples * 2], reach),
      logits: normals(random, [n, q, samples]),
      references: uniforms(random, [n, q, coordinates], 0.05, 0.95),
      ratios: uniforms(random, [n, maps.length, 2], 0.6, 1),
    },
    options: { maps: maps.flat(), heads: m },
  };
}

const pyramid = [
  [7, 9],
  [4, 5],
  [2, 3],
  [1, 2],
];

testOp('deformableAttention', {
  oracle: (inputs, options) => deformableAttentionLoop(inputs as never, options as never),
  activations,
  differentiable: ['value', 'offsets', 'logits', 'references'],
  cases: (random) => {
    const one = (name: string, maps: number[][], sizes: Sizes) =>
      attention(random, name, maps, sizes);
    return [
      one('four maps, eight heads of 32', pyramid, { heads: 8, queries: 6 }),
      one('more queries than a block has', [[6, 6]], { heads: 1, queries: 70, images: 1 }),
      one('references with sides', pyramid, { coordinates: 4 }),
      one('far outside', pyramid, { reach: 12, queries: 9 }),
      one('one head of 8, three points', [[5, 6]], { heads: 1, depth: 8, points: 3 }),
      one('heads of 40', pyramid.slice(1), { depth: 40, coordinates: 4 }),
      one('heads of 20', pyramid.slice(2), { depth: 20, points: 1 }),
      one('odd heads', pyramid.slice(1), { heads: 3, depth: 13, points: 2 }),
      one('one channel', pyramid.slice(2), { heads: 3, depth: 1, points: 5 }),
      one('one cell', [[1, 1]], { heads: 1, depth: 8, points: 1, queries: 1, reach: 0.4 }),
      one('eight maps', [...pyramid, ...pyramid], { heads: 1, images: 1, points: 2 }),
      one('as many samples as there may be', pyramid.slice(2), {
        heads: 1,
        depth: 8,
        points: 192,
        queries: 2,
        images: 1,
      }),
      one('one cell for all', [[1, 1]], { heads: 1, images: 1, queries: 90, reach: 0.4 }),
      one('no queries', pyramid, { queries: 0 }),
      one('no images', pyramid, { images: 0 }),
    ];
  },
});
testOp('deformableAttention', {
  oracle: (inputs, options) => deformableAttentionLoop(inputs as never, options as never),
  activations: ['offsets', 'logits'],
  f32Output: true,
  differentiable: ['value', 'offsets', 'logits', 'references'],
  cases: (random) => [attention(random, 'values in f32', pyramid, { coordinates: 4 })],
});
testGolden('deformableAttention', 'deformable-attention', { activations: [] });

const infinity = Number.POSITIVE_INFINITY;

for (const device of testDevices) {
  test(`deformableAttention of places that are no numbers is 0 there${onDevice(device)}`, async () => {
    // One cell, whose place is its reference: 3 places of a weight of 1/4 each are lost.
    const call = {
      name: '',
      inputs: {
        value: ndarray([1, 1, 1], [8]),
        offsets: ndarray([1, 1, 8], [0, 0, Number.NaN, 0, 0, infinity, -infinity, 0]),
        logits: ndarray([1, 1, 4], [0, 0, 0, 0]),
        references: ndarray([1, 1, 2], [0.5, 0.5]),
        ratios: ndarray([1, 1, 2], [1, 1]),
      },
      options: { maps: [1, 1], heads: 1 },
    };
    const run = { spec: { activations: [] }, dout: ndarray([1, 1, 1], [1]), device };
    const got = await runOp('deformableAttention', call, run);
    expect(Array.from(got.output)).toEqual([2]);
    expect(Array.from(got.gradients.value!)).toEqual([0.25]);
    expect(Array.from(got.gradients.offsets!)).toEqual([-2, -2, 0, 0, 0, 0, 0, 0]);
    expect(Array.from(got.gradients.logits!)).toEqual([1.5, -0.5, -0.5, -0.5]);
  });

  test(`deformableAttention does not read what is no number outside its places${onDevice(device)}`, async () => {
    const value = ndarray([1, 4, 8], new Float64Array(32).fill(Number.NaN));
    value.data.fill(1, 0, 8);
    const call = {
      name: '',
      inputs: {
        value,
        offsets: ndarray([1, 1, 2], [-0.5, -0.5]),
        logits: ndarray([1, 1, 1], [3]),
        references: ndarray([1, 1, 2], [0.25, 0.25]),
        ratios: ndarray([1, 1, 2], [1, 1]),
      },
      options: { maps: [2, 2], heads: 1 },
    };
    const run = { spec: { activations: [] }, dout: ndarray([1, 1, 8], Array(8).fill(1)), device };
    const got = await runOp('deformableAttention', call, run);
    expect(Array.from(got.output)).toEqual(Array(8).fill(0.25));
    expect(Array.from(got.gradients.offsets!)).toEqual([4, 4]);
  });

  test(`deformableAttention hands on what is no number${onDevice(device)}`, async () => {
    const call = {
      name: '',
      inputs: {
        value: ndarray([1, 1, 2], [1, 1]),
        offsets: ndarray([1, 1, 4], [0, 0, 0, 0]),
        logits: ndarray([1, 1, 2], [Number.NaN, 0]),
        references: ndarray([1, 1, 2], [0.5, 0.5]),
        ratios: ndarray([1, 1, 2], [1, 1]),
      },
      options: { maps: [1, 1], heads: 2 },
    };
    const run = { spec: { activations: [] }, dout: ndarray([1, 1, 2], [1, 1]), device };
    const got = await runOp('deformableAttention', call, run);
    expect(Array.from(got.output)).toEqual([Number.NaN, 1]);
    expect(Array.from(got.gradients.value!)).toEqual([Number.NaN, 1]);
  });
}

test('deformableAttention sums gradients of very different sizes', async () => {
  // Cells of a second map get gradients 2^-14 of those of the first.
  for (const device of testDevices) {
    const queries = 64;
    const dout = ndarray(
      [1, queries, 8],
      Array.from({ length: queries * 8 }, (_, i) => (i < 8 ? 4096 : 0.25 + (i % 7) / 64)),
    );
    const references = Array.from({ length: queries }, (_, i) => [i === 0 ? 0.25 : 0.75, 0.5]);
    const call = {
      name: '',
      inputs: {
        value: ndarray([1, 2, 8], new Float64Array(16)),
        offsets: ndarray([1, queries, 2], new Float64Array(queries * 2)),
        logits: ndarray([1, queries, 1], new Float64Array(queries)),
        references: ndarray([1, queries, 2], references.flat()),
        ratios: ndarray([1, 1, 2], [1, 1]),
      },
      options: { maps: [1, 2], heads: 1 },
    };
    const got = await runOp('deformableAttention', call, {
      spec: { activations: [] },
      dout,
      device,
    });
    for (let c = 0; c < 8; c++) {
      let sum = 0;
      for (let q = 1; q < queries; q++) sum += dout.data[q * 8 + c]!;
      expect(got.gradients.value![c]).toBe(4096);
      expect(Math.abs(got.gradients.value![8 + c]! - sum)).toBeLessThan(1e-5 * sum);
    }
  }
});

test('deformableAttention says what it wanted', async () => {
  const good: Record<string, number[]> = {
    value: [2, 7, 8],
    offsets: [2, 3, 24],
    logits: [2, 3, 12],
    references: [2, 3, 2],
    ratios: [2, 2, 2],
  };
  const refused = (
    shapes: Record<string, number[]>,
    code: string,
    message: string,
    options: Record<string, unknown> = {},
  ) =>
    expectRefused(
      () =>
        native.runOp(
          'deformableAttention',
          order.map((name) => {
            const shape = shapes[name] ?? good[name]!;
            return tensor(ndarray(shape, new Float64Array(numel(shape))));
          }),
          JSON.stringify({ maps: [2, 3, 1, 1], heads: 2, ...options }),
          { compute: 'f32', training: false, device: testDevices[0]! },
        ),
      code,
      `deformableAttention: ${message}`,
    );
  await refused(
    { value: [2, 8, 8] },
    'ERR_SHAPE',
    'axis 1 of value must be 7 (cells of the maps), got [2, 8, 8]',
  );
  await refused(
    { value: [2, 7, 9] },
    'ERR_SHAPE',
    'axis 2 of value must be a multiple of 2 (heads), got [2, 7, 9]',
  );
  await refused(
    { value: [2, 56] },
    'ERR_SHAPE',
    'value must have 3 axes (N, S, M * D), got [2, 56]',
  );
  await refused(
    { offsets: [2, 3, 20] },
    'ERR_SHAPE',
    'axis 2 of offsets must be a multiple of 8 (heads, maps, x and y), got [2, 3, 20]',
  );
  await refused(
    { offsets: [1, 3, 24] },
    'ERR_SHAPE',
    'axis 0 of offsets must be 2 (images of value), got [1, 3, 24]',
  );
  await refused(
    { logits: [2, 3, 24] },
    'ERR_SHAPE',
    'logits must be [2, 3, 12] (one for each x and y of offsets), got [2, 3, 24]',
  );
  await refused(
    { references: [2, 3, 3] },
    'ERR_SHAPE',
    'references must be [2, 3, 2] (x y or x y w h of each query), got [2, 3, 3]',
  );
  await refused(
    { ratios: [2, 1, 2] },
    'ERR_SHAPE',
    'ratios must be [2, 2, 2] (x and y for each image and map), got [2, 1, 2]',
  );
  await refused({}, 'ERR_RANGE', 'heads must be in [1, 65536], got 0', { heads: 0 });
  await refused({}, 'ERR_RANGE', 'height of a map must be in [1, 1.67772e+07], got 0', {
    maps: [0, 3, 1, 1],
  });
  await refused({}, 'ERR_RANGE', 'the number of maps must be in [1, 8], got 0', { maps: [] });
  await refused(
    { offsets: [2, 3, 2 * 2 * 2 * 300], logits: [2, 3, 2 * 2 * 300] },
    'ERR_RANGE',
    'samples of a head must be in [1, 384], got 600',
  );
});
