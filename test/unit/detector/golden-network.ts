// What the golden files of whole networks hold, and how a detector of ours is compared with it.
import { expect } from 'vitest';
import { type Detector, type ImageBatch, native } from '../../../lib/index.js';
import { hashed, roundedToBf16 } from './formula.js';

/** Per parameter: L2 norm, and inner product with the numbers that its name stands for. */
export type GoldenGradients = Record<string, [norm: number, probe: number]>;

/** Of one image: the best, and how many there are in all. */
export interface GoldenDetections {
  boxes: number[][];
  scores: number[];
  labels: number[];
  count: number;
}

type Found = Awaited<ReturnType<Detector['predict']>>;

/**
 * @param numbersOf what gradients were multiplied with: `formula` or `hashed`
 * @param leastOf how far off a gradient may be beside 1e-3 of its norm (f32 against float64 through some fifty
 *   layers)
 */
export async function expectGradients(
  detector: Detector,
  golden: GoldenGradients,
  numbersOf: (name: string, count: number) => ArrayLike<number>,
  leastOf: (name: string) => number = () => 0,
): Promise<void> {
  const trained = detector.parameters().filter((p) => p.trainable);
  expect(trained.map((p) => p.name).sort()).toEqual(Object.keys(golden).sort());
  for (const { name } of trained) {
    const [norm, probe] = golden[name]!;
    // None where nothing depends on it: a level without a box leaves its scale alone.
    const gradient = (await detector.gradient(name)) ?? new Float32Array(1);
    const numbers = numbersOf(`${name}#`, gradient.length);
    const got = Math.sqrt(gradient.reduce((s, g) => s + g * g, 0));
    const product = gradient.reduce((s, g, i) => s + g * numbers[i]!, 0);
    const limit = Math.max(1e-3 * norm, leastOf(name)) + 1e-7;
    expect(Math.abs(got - norm), name).toBeLessThan(limit);
    expect(Math.abs(product - probe), name).toBeLessThan(limit);
  }
}

/** In the same order; sides within 1e-3 of themselves, or of a pixel. */
export function expectDetections(found: Found, golden: readonly GoldenDetections[]): void {
  golden.forEach((expected, n) => {
    const { boxes, scores, labels } = found[n]!;
    expect(scores.length).toBe(expected.count);
    expected.scores.forEach((score, i) => {
      expect(scores[i]!).toBeCloseTo(score, 4);
      expect(labels[i]).toBe(expected.labels[i]);
      expected.boxes[i]!.forEach((v, c) => {
        expect(Math.abs(boxes[4 * i + c]! - v)).toBeLessThan(1e-3 * Math.max(1, Math.abs(v)));
      });
    });
  });
}

/** In any order, as scores that differ by rounding change places; sides within `pixels`. */
export function expectDetectionsInAnyOrder(
  found: Found,
  golden: readonly GoldenDetections[],
  pixels: number,
): void {
  golden.forEach((expected, n) => {
    const { boxes, scores, labels } = found[n]!;
    expect(scores.length).toBe(expected.count);
    expect(scores).toEqual(scores.slice().sort().reverse());
    expected.scores.forEach((score, i) => {
      const same = [...scores.keys()].filter(
        (j) =>
          labels[j] === expected.labels[i] &&
          Math.abs(scores[j]! - score) < 1e-4 &&
          expected.boxes[i]!.every((v, c) => Math.abs(boxes[4 * j + c]! - v) < pixels),
      );
      expect(same.length, `image ${n}, detection ${i}`).toBe(1);
    });
  });
}

/** Pictures of several sizes in one batch, their pixels those that the name `image` stands for, padded with zeros. */
export function hashedBatch(
  o: {
    image: string;
    height: number;
    width: number;
    sizes: readonly (readonly [height: number, width: number])[];
  },
  dtype: 'fp32' | 'bf16',
): ImageBatch {
  const pixels = Float32Array.from(hashed(o.image, o.sizes.length * o.height * o.width * 3));
  o.sizes.forEach(([rows, columns], n) => {
    for (let y = 0; y < o.height; y++) {
      const row = (n * o.height + y) * o.width;
      pixels.fill(0, 3 * (row + (y < rows ? columns : 0)), 3 * (row + o.width));
    }
  });
  const shape = [o.sizes.length, o.height, o.width, 3];
  const tensor =
    dtype === 'fp32'
      ? native.createTensor(pixels, shape, 'f32')
      : native.createTensor(roundedToBf16(pixels), shape, 'bf16');
  const sizes = o.sizes.map(([height, width]) => ({ height, width }));
  const padSizes = sizes.map(() => ({ height: o.height, width: o.width }));
  return { tensor, sizes, padSizes, dispose: () => tensor.dispose() };
}
