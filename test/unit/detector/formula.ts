// Weights and pixels that follow from formulas: the same stand in scripts/golden/retinanet.py.
import { type Detector, type ImageBatch, native } from '../../../lib/index.js';

/** Numbers in (-1, 1) that look random. */
export function formula(name: string, count: number): Float64Array {
  let h = 7;
  for (const c of Buffer.from(name)) h = (h * 31 + c) % 65521;
  return Float64Array.from(
    { length: count },
    (_, i) => Math.sin((i + 1) * 12.9898 + h * 0.618) * Math.cos((i + 1) * 0.7321 + h),
  );
}

/** The same from integers: no matrix of them is of low rank, as one of products of waves is. */
export function hashed(name: string, count: number): Float64Array {
  let h = 7;
  for (const c of Buffer.from(name)) h = (h * 31 + c) % 65521;
  return Float64Array.from({ length: count }, (_, i) => {
    let x = (Math.imul(i, 2654435761) + Math.imul(h, 40503)) >>> 0;
    for (let k = 0; k < 2; k++) x = Math.imul(x ^ (x >>> 16), 0x45d9f3b) >>> 0;
    return ((x ^ (x >>> 16)) >>> 0) / 2 ** 31 - 1;
  });
}

function weightOf(name: string, shape: readonly number[]): Float32Array {
  const count = shape.reduce((a, b) => a * b, 1);
  const v = formula(name, count);
  const fanIn = shape.length === 4 ? count / shape[0]! : 0;
  return Float32Array.from(v, (x) => {
    if (name.endsWith('running_var')) return 1 + 0.5 * x;
    if (name.endsWith('running_mean')) return 0.1 * x;
    if (shape.length === 1 && name.endsWith('weight')) return 1 + 0.2 * x;
    if (/(_cls|cls_prob_module\.2)\.bias$/.test(name)) return -2.0 + 0.3 * x;
    if (shape.length === 0) return 1 + 0.2 * x;
    if (shape.length === 1) return 0.1 * x;
    return x * Math.sqrt(6 / fanIn);
  });
}

/** Gives every parameter the numbers that its name stands for. */
export async function fillByFormula(detector: Detector): Promise<void> {
  for (const { name, shape } of detector.parameters())
    await detector.writeTensor(name, weightOf(name, shape));
}

export function roundedToBf16(numbers: Float32Array): Uint16Array {
  const bits = new Uint32Array(numbers.buffer);
  return Uint16Array.from(bits, (b) => (b + 0x7fff + ((b >> 16) & 1)) >>> 16);
}

/** Images of noise, of the numbers that the name `image` stands for, none of them padded. */
export function formulaBatch(
  o: { images: number; image: string; height: number; width: number },
  dtype: 'fp32' | 'bf16',
): ImageBatch {
  const { images, height, width } = o;
  const pixels = Float32Array.from(formula(o.image, images * height * width * 3));
  const data = dtype === 'fp32' ? pixels : roundedToBf16(pixels);
  const tensor = native.createTensor(
    data,
    [images, height, width, 3],
    dtype === 'fp32' ? 'f32' : 'bf16',
  );
  const sizes = Array.from({ length: images }, () => ({ height, width }));
  return { tensor, sizes, padSizes: sizes, dispose: () => tensor.dispose() };
}
