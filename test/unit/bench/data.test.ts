import { expect, test } from 'vitest';
import { fillWith, RepeatedNoise } from '../../../lib/bench/data.js';

const shape = [3, 70_001];
const count = 3 * 70_001; // more than three periods

test.each(['f32', 'bf16'] as const)(
  'noise in %s has at every place the number that checks are told',
  async (dtype) => {
    const noise = new RepeatedNoise(2, 5);
    const tensor = noise.tensor(shape, { device: 'cpu', dtype });
    const next = new RepeatedNoise(1).tensor(shape, { device: 'cpu', dtype }); // leaves the first alone
    const values = (await tensor.read()) as Float32Array;
    expect(values).toHaveLength(count);
    expect(values.every((value, i) => value === noise.at(i))).toBe(true);
    expect(new Set(values.subarray(0, 65_536)).size).toBeGreaterThan(1000);
    const square = (v: number) => v * v;
    const total = values.reduce((sum, v) => sum + square(v), 0);
    expect(noise.sum(count, square) / total).toBeCloseTo(1, 9);
    tensor.dispose();
    next.dispose();
  },
);

test('rows of a tensor are never the same numbers', () => {
  const noise = new RepeatedNoise(1);
  for (const row of [2, 64, 256, 256 * 168, 512 * 50 * 84, 65_536]) {
    let same = 0;
    for (let i = 0; i < 1000; i++) if (noise.at(i) === noise.at(i + row)) same++;
    expect(same, String(row)).toBeLessThan(20);
  }
});

test.each([3, 7, 8, 100])('a block fills %i places', (length) => {
  const out = fillWith(new Uint8Array(length), Uint8Array.of(1, 2, 3));
  expect(Array.from(out)).toEqual(Array.from({ length }, (_, i) => 1 + (i % 3)));
});
