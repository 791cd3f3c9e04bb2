// One op over several maps: every map against the float64 loop, gradients against its differences.
import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { type NdArray, ndarray } from '../../oracle/array.js';
import { conv2dLoop } from '../../oracle/conv2d.js';
import { tolerances } from '../tolerances.js';
import { expectRefused } from './golden.js';
import {
  expectClose,
  normals,
  onDevice,
  otherwiseEmulated,
  tensor,
  testDevices,
  testSeed,
  toBf16,
} from './test-op.js';

interface LevelsCase {
  name: string;
  /** N, H, W, C of every map */
  maps: [number, number, number, number][];
  filters: number;
  kernel?: number;
  options?: { stride?: number; padding?: number; groups?: number; relu?: boolean; bias?: boolean };
}

const pyramid = (n: number, c: number): LevelsCase['maps'] => [
  [n, 6, 9, c],
  [n, 3, 5, c],
  [n, 2, 3, c],
  [n, 1, 2, c],
  [n, 1, 1, c],
];
const cases: LevelsCase[] = [
  {
    name: 'a tower of a head',
    maps: pyramid(2, 16),
    filters: 24,
    options: { padding: 1, bias: true, relu: true },
  },
  {
    name: 'an output of odd channels',
    maps: pyramid(1, 16),
    filters: 9,
    options: { padding: 1, bias: true },
  },
  {
    name: 'odd channels, no bias, relu',
    maps: pyramid(1, 5),
    filters: 8,
    options: { padding: 1, relu: true },
  },
  { name: '1x1', maps: pyramid(2, 8), filters: 3, kernel: 1, options: { bias: true } },
  {
    name: 'stride and groups',
    maps: pyramid(1, 8),
    filters: 6,
    options: { stride: 2, padding: 1, groups: 2, bias: true },
  },
  {
    name: 'more maps than a launch takes',
    maps: [...pyramid(1, 8), ...pyramid(2, 8), ...pyramid(1, 8), [1, 4, 4, 8], [1, 2, 2, 8]],
    filters: 9,
    options: { padding: 1, bias: true, relu: true },
  },
  { name: 'one map', maps: [[1, 3, 4, 8]], filters: 8, options: { padding: 1, bias: true } },
  {
    name: 'a map without output',
    maps: [
      [1, 2, 2, 8],
      [1, 5, 4, 8],
    ],
    filters: 8,
    options: { bias: true, relu: true },
  },
];

for (const dtype of ['f32', 'bf16'] as const)
  for (const device of testDevices)
    describe(`conv2dLevels, ${dtype}${onDevice(device)} (seed ${testSeed})`, () => {
      for (const c of cases) test(c.name, () => check(c, dtype, device));
    });

async function check(c: LevelsCase, dtype: 'f32' | 'bf16', device: string) {
  const random = new Random(testSeed).fork('conv2dLevels', c.name);
  const { filters, kernel = 3, options = {} } = c;
  const round = (a: NdArray) => (dtype === 'bf16' ? ndarray(a.shape, a.data.map(toBf16)) : a);
  const depth = c.maps[0]![3] / (options.groups ?? 1);
  const inputs: NdArray[] = c.maps.map((shape) => round(normals(random, shape)));
  inputs.push(round(normals(random, [filters, kernel, kernel, depth], 1 / Math.sqrt(depth))));
  if (options.bias) inputs.push(normals(random, [filters]));
  const oracle = (values: NdArray[]) =>
    c.maps.map((_, l) =>
      conv2dLoop(
        {
          x: values[l]!,
          weight: values[c.maps.length]!,
          ...(options.bias ? { bias: values.at(-1)! } : {}),
        },
        options,
      ),
    );
  const want = oracle(inputs);
  const douts = want.map((y) => round(normals(random, y.shape)));
  const run = async () => {
    const { outputs, gradients } = await native.runOp(
      'conv2dLevels',
      inputs.map((a, i) => tensor(a, i < c.maps.length ? dtype : 'f32', device)),
      JSON.stringify(options),
      { compute: dtype, training: true, device, douts: douts.map((d) => tensor(d, dtype, device)) },
    );
    return {
      shapes: outputs.map((t) => t.shape),
      outputs: await Promise.all(outputs.map((t) => t.read())),
      gradients: await Promise.all(gradients.map((t) => t!.read())),
    };
  };
  const got = await run();
  expect(got.shapes).toEqual(want.map((y) => [...y.shape]));
  for (const [l, y] of want.entries())
    expectClose(got.outputs[l]!, y.data, tolerances[dtype], `output ${l}`);
  expect(await run(), 'the same bits on a second run').toEqual(got);
  if (device !== 'cpu')
    await otherwiseEmulated(async () =>
      expect(await run(), 'the same bits in another order, from other garbage').toEqual(got),
    );

  const value = (values: NdArray[]) =>
    oracle(values).reduce(
      (sum, y, l) => sum + y.data.reduce((s, v, i) => s + v * douts[l]!.data[i]!, 0),
      0,
    );
  const h = 1e-6;
  for (const [i, input] of inputs.entries()) {
    const direction = Float64Array.from(input.data, () => random.normal());
    const moved = (step: number) =>
      inputs.map((a, j) =>
        i === j
          ? ndarray(
              a.shape,
              a.data.map((v, k) => v + step * direction[k]!),
            )
          : a,
      );
    const numeric = (value(moved(h)) - value(moved(-h))) / (2 * h);
    const gradient = got.gradients[i]!;
    const ours = direction.reduce((sum, d, k) => sum + d * gradient[k]!, 0);
    const inBf16 = dtype === 'bf16' && i < c.maps.length;
    const { relative } = inBf16 ? tolerances.gradientBf16 : tolerances.gradient;
    const limit = relative * Math.max(Math.abs(numeric), Math.hypot(...gradient)) + 1e-9;
    expect(Math.abs(ours - numeric), `gradient of input ${i}`).toBeLessThanOrEqual(limit);
  }
}

test('says what it takes', async () => {
  const map = tensor(normals(new Random(1), [1, 2, 2, 4]));
  const weight = tensor(normals(new Random(2), [4, 1, 1, 4]));
  const many = new Array(8).fill(map);
  const bf16 = tensor(normals(new Random(1), [1, 2, 2, 4]), 'bf16');
  await expectRefused(
    () => native.runOp('conv2dLevels', [...many, bf16, weight], '{}'),
    'ERR_DTYPE',
    'conv2d: x must be f32, got bf16',
  );
  await expectRefused(
    () => native.runOp('conv2dLevels', [map, bf16, weight], '{}'),
    'ERR_DTYPE',
    'conv2d: x must be f32, got bf16',
  );
});
