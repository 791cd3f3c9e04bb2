/** What detectors take besides prepared batches: images, and arrays that are prepared already. */

import { checkKeys, nameOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import type { DecodedImage, ImageBatch, PreprocessOptions, Size } from '../image/index.js';
import { native } from '../native.js';

/** An array that is the network's input but for padding. */
export interface NormalizedImage {
  /** [H, W, 3], already (value - mean) / std, in the order of the network's channels. */
  data: Float32Array;
  height: number;
  width: number;
}

/** How much of the preprocessing has been done. */
export interface InputOptions {
  /** The data are Float32Arrays, already normalised; needs `resized`. @defaultValue false */
  normalized?: boolean;
  /** Images have the network's size: they are not resized. @defaultValue false */
  resized?: boolean;
}

/** What predict() takes besides. */
export interface PredictOptions extends InputOptions {
  /**
   * Aborting rejects with the signal's reason. A call whose turn has not come by then is never made; one that is
   * under way ends in the background.
   */
  signal?: AbortSignal | undefined;
}

/** An image, or an array; each may say for itself what has been done to it. */
export type InputImage = (DecodedImage | NormalizedImage) & InputOptions;

/**
 * What has been done to the images of a call: `options` for all, else what each says.
 * @throws MixplError ERR_CONFIG, ERR_SHAPE, ERR_DTYPE, ERR_RANGE (a number that is not finite)
 */
export function inputOptions(
  method: string,
  images: readonly InputImage[],
  options: InputOptions = {},
): { normalized: boolean; resized: boolean[] } {
  checkKeys(method, options, ['normalized', 'resized']);
  images.forEach((image, i) => {
    if (typeof image !== 'object' || image === null)
      throw new MixplError(
        'ERR_DTYPE',
        `${method}: image ${i} must be { data, height, width }, got ${nameOf(image)}`,
      );
  });
  const resized = images.map((image) => options.resized ?? image.resized ?? false);
  const kinds = images.map((image) => options.normalized ?? image.normalized ?? false);
  const [normalized = false] = kinds;
  const other = kinds.findIndex((kind) => kind !== normalized);
  if (other >= 0)
    throw new MixplError(
      'ERR_CONFIG',
      `${method}: images must be all of 8 bits or all normalised, got image 0 ` +
        `${normalized ? 'normalised' : 'not'} and image ${other} ${normalized ? 'not' : 'normalised'}`,
    );
  if (normalized && !resized.every(Boolean))
    throw new MixplError(
      'ERR_CONFIG',
      `${method}: resized must be true for normalised images (only 8-bit images are resized), got false`,
    );
  const expected = normalized ? Float32Array : Uint8Array;
  images.forEach(({ data, height, width }, i) => {
    // A Buffer is a Uint8Array.
    if (!(data instanceof expected))
      throw new MixplError(
        'ERR_DTYPE',
        `${method}: data of image ${i} must be a ${expected.name}${normalized ? ' (normalized)' : ', RGB'}, got ${nameOf(data)}`,
      );
    if (!(Number.isInteger(height) && Number.isInteger(width) && height > 0 && width > 0))
      throw new MixplError(
        'ERR_SHAPE',
        `${method}: image ${i} must have whole height and width >= 1, got ${height} and ${width}`,
      );
    if (data.length !== height * width * 3)
      throw new MixplError(
        'ERR_SHAPE',
        `${method}: data of image ${i} must hold height x width x 3 numbers (${height}x${width}x3), got ${data.length}`,
      );
    const bad = normalized ? firstNotFinite(data as Float32Array) : -1;
    if (bad >= 0)
      throw new MixplError(
        'ERR_RANGE',
        `${method}: data[${bad}] of image ${i} must be finite, got ${data[bad]}`,
      );
  });
  return { normalized, resized };
}

function firstNotFinite(data: Float32Array): number {
  for (let i = 0; i < data.length; i++) if (data[i]! - data[i]! !== 0) return i;
  return -1;
}

/** Arrays at the top left of a batch [N, H, W, 3], the rest zero. */
export function batchOfArrays(
  images: readonly NormalizedImage[],
  {
    padDivisor,
    dtype,
    device,
  }: Pick<PreprocessOptions, 'padDivisor'> & { dtype: 'f32' | 'bf16'; device: string },
): ImageBatch {
  const up = (n: number) => Math.ceil(n / padDivisor) * padDivisor;
  const height = up(Math.max(0, ...images.map((image) => image.height)));
  const width = up(Math.max(0, ...images.map((image) => image.width)));
  const values = new Float32Array(images.length * height * width * 3);
  images.forEach((image, n) => {
    const row = image.width * 3;
    for (let y = 0; y < image.height; y++)
      values.set(image.data.subarray(y * row, (y + 1) * row), (n * height + y) * width * 3);
  });
  const data = dtype === 'bf16' ? toBfloat16(values) : values;
  const tensor = native.createTensor(data, [images.length, height, width, 3], dtype, device);
  const sizes: Size[] = images.map((image) => ({ height: image.height, width: image.width }));
  const padSizes = sizes.map((s) => ({ height: up(s.height), width: up(s.width) }));
  return { tensor, sizes, padSizes, dispose: () => tensor.dispose() };
}

/** Rounded to nearest, ties to even; of finite numbers. */
function toBfloat16(values: Float32Array): Uint16Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(bits, (u) => (u + 0x7fff + ((u >>> 16) & 1)) >>> 16);
}
