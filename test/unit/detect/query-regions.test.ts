import { expect, test } from 'vitest';
import { Random } from '../../../lib/random.js';
import { cornersOf } from '../../oracle/query-boxes.js';
import { expectRefused } from '../ops/golden.js';
import { type Input, run } from './run.js';

const of = (values: readonly number[], ...shape: number[]): Input => ({ f32: values, shape });

test('queryRegions are the boxes in pixels, image after image, not clipped', async () => {
  const random = new Random(7);
  const [n, q] = [3, 500];
  const boxes = Array.from({ length: 4 * n * q }, () => Math.fround(random.uniform(-0.5, 1.5)));
  const sizes = Array.from({ length: n }, () => [random.integer(30, 900), random.integer(30, 900)]);
  const [regions, image, counts] = await run('queryRegions', [
    of(boxes, n, q, 4),
    of(sizes.flat(), n, 2),
  ]);
  expect(regions!.shape).toEqual([n * q, 4]);
  for (let i = 0; i < n * q; i++) {
    const want = cornersOf(boxes.slice(4 * i, 4 * i + 4), sizes[Math.floor(i / q)]!);
    want.forEach((v, k) => {
      expect(Math.abs(regions!.data[4 * i + k]! - v)).toBeLessThan(1e-3);
    });
  }
  expect(image!.data).toEqual(Array.from({ length: n * q }, (_, i) => Math.floor(i / q)));
  expect(counts!.data).toEqual([q, q, q]);
});

test('a region ends where no map does, and is nothing where its box is no number', async () => {
  const inf = Number.POSITIVE_INFINITY;
  const boxes = [
    ...[0.5, 0.5, 1e9, 1],
    ...[Number.NaN, 0.5, 1, 1],
    ...[0, 0, inf, 1],
    ...[-1e7, 2, 1, 1],
  ];
  const [regions] = await run('queryRegions', [of(boxes, 1, 4, 4), of([100, 200], 1, 2)]);
  expect(regions!.data).toEqual([
    ...[-5e6, 0, 5e6, 100],
    ...[0, 0, 0, 0],
    ...[0, 0, 0, 0],
    ...[-5e6, 150, -5e6, 250],
  ]);
});

test('nothing has no regions', async () => {
  for (const [n, q] of [
    [0, 5],
    [2, 0],
  ] as const) {
    const [regions, image, counts] = await run('queryRegions', [
      of([], n, q, 4),
      {
        f32: Array(2 * n).fill(9),
        shape: [n, 2],
      },
    ]);
    expect([regions!.shape, image!.shape]).toEqual([[0, 4], [0]]);
    expect(counts!.data).toEqual(Array(n).fill(0));
  }
});

test('says what was wrong', async () => {
  const f = (...shape: number[]) => of(Array(shape.reduce((a, b) => a * b, 1)).fill(0), ...shape);
  const refused = (inputs: Input[], message: string) =>
    expectRefused(() => run('queryRegions', inputs), 'ERR_SHAPE', `queryRegions: ${message}`);
  await refused([f(1, 2, 4)], 'needs 2 tensors, got 1');
  await refused([f(2, 4), f(1, 2)], 'boxes must have 3 axes (N, Q, 4), got [2, 4]');
  await refused([f(1, 2, 3), f(1, 2)], 'axis 2 of boxes must be 4 (cx, cy, w, h), got [1, 2, 3]');
  await refused(
    [f(1, 2, 4), f(2, 2)],
    'sizes must be [1, 2] (height and width of each image), got [2, 2]',
  );
});
