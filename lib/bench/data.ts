/** Numbers for cases: the same on every machine, cheap to make. */
import { type NativeTensor, native } from '../native.js';
import type { BenchContext } from './case.js';

export const numelOf = (shape: readonly number[]) => shape.reduce((n, size) => n * size, 1);

/** Uniform in [-scale, scale), by a linear congruential generator. */
export function noise(count: number, scale: number, seed = 1): Float32Array {
  const out = new Float32Array(count);
  let x = Math.imul(seed, 747796405) >>> 0;
  for (let i = 0; i < count; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    out[i] = (x / 2 ** 31 - 1) * scale;
  }
  return out;
}

/** Cut off to bf16, so that both types hold the same numbers. */
export function rounded(values: Float32Array): Float32Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  for (let i = 0; i < words.length; i++) words[i]! &= 0xffff0000;
  return values;
}

/** A tensor of numbers that are bf16 already. */
export function tensorOf(
  values: Float32Array,
  shape: readonly number[],
  { device, dtype }: BenchContext,
): NativeTensor {
  if (dtype === 'f32') return native.createTensor(values, shape, 'f32', device);
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = Uint16Array.from(words, (word) => word >>> 16);
  return native.createTensor(halves, shape, 'bf16', device);
}

export const intsOf = (values: Int32Array, shape: readonly number[], device: string) =>
  native.createTensor(values, shape, 'i32', device);

/** Boxes of sides between 16 and a quarter of the picture, all inside. */
export function boxesIn(count: number, width: number, height: number, seed = 1): Float32Array {
  const random = noise(4 * count, 0.5, seed);
  const boxes = new Float32Array(4 * count);
  for (let i = 0; i < count; i++) {
    const [a, b, c, d] = Array.from(random.subarray(4 * i, 4 * i + 4), (v) => v + 0.5) as [
      number,
      number,
      number,
      number,
    ];
    const w = 16 + (c * width) / 4;
    const h = 16 + (d * height) / 4;
    const x = a * (width - w);
    const y = b * (height - h);
    boxes.set([x, y, x + w, y + h], 4 * i);
  }
  return boxes;
}
