/** Numbers for cases: the same on every machine, cheap to make. */
import { type NativeTensor, native } from '../native.js';
import { type BenchContext, sizeOf } from './case.js';

export const numelOf = (shape: readonly number[]) => shape.reduce((n, size) => n * size, 1);

/** A prime: no row, channel or tap is so many numbers away from another that both hold the same. */
const period = 65_537;

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

/** Noise for tensors of any size: one period is drawn, cut off to bf16 so that both types hold the same. */
export class RepeatedNoise {
  readonly block: Float32Array;

  constructor(scale: number, seed = 1) {
    this.block = noise(period, scale, seed);
    const words = new Uint32Array(this.block.buffer);
    for (let i = 0; i < period; i++) words[i]! &= 0xffff0000;
  }

  at(i: number): number {
    return this.block[i % period]!;
  }

  /** Of `term` over the first `count` numbers. */
  sum(count: number, term: (value: number) => number): number {
    const [repeats, rest] = [Math.floor(count / period), count % period];
    let total = 0;
    for (let i = 0; i < period; i++)
      total += (i < rest ? repeats + 1 : repeats) * term(this.block[i]!);
    return total;
  }

  tensor(shape: readonly number[], { device, dtype }: BenchContext): NativeTensor {
    const count = numelOf(shape);
    const bytes = count * sizeOf(dtype);
    if (scratch.byteLength < bytes) scratch = new ArrayBuffer(bytes);
    const data =
      dtype === 'f32'
        ? fillWith(new Float32Array(scratch, 0, count), this.block)
        : fillWith(new Uint16Array(scratch, 0, count), upperHalves(this.block));
    return native.createTensor(data, shape, dtype, device);
  }
}

/** Where tensors are laid out before they are copied: fresh memory would cost more than filling it. */
let scratch = new ArrayBuffer(0);

/** Fills `out` with `block`, over and over. */
export function fillWith<T extends Float32Array | Uint16Array | Uint8Array>(out: T, block: T): T {
  out.set(block.subarray(0, out.length));
  for (let done = block.length; done < out.length; done *= 2) out.copyWithin(done, 0, done);
  return out;
}

/** Of numbers that are bf16 already. */
function upperHalves(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(words.length);
  for (let i = 0; i < words.length; i++) out[i] = words[i]! >>> 16;
  return out;
}

/** A tensor of numbers that are bf16 already. */
export function tensorOf(
  values: Float32Array,
  shape: readonly number[],
  { device, dtype }: BenchContext,
): NativeTensor {
  const data = dtype === 'f32' ? values : upperHalves(values);
  return native.createTensor(data, shape, dtype, device);
}

export const intsOf = (values: Int32Array, shape: readonly number[], device: string) =>
  native.createTensor(values, shape, 'i32', device);

/** Boxes of sides between 16 and a quarter of the image, all inside. */
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
