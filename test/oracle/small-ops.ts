import { type NdArray, ndarray, scalar } from './array.js';

export const reluLoop = ({ x }: Record<string, NdArray>): NdArray =>
  ndarray(
    x!.shape,
    x!.data.map((v) => Math.max(v, 0)),
  );

/** lateral + nearest neighbour of top, both [N, H, W, C]. */
export function upsampleAddLoop({ lateral, top }: Record<string, NdArray>): NdArray {
  const [images, height, width, channels] = lateral!.shape as [number, number, number, number];
  const [, topHeight, topWidth] = top!.shape as [number, number, number, number];
  const out = Float64Array.from(lateral!.data);
  for (let n = 0; n < images; n++)
    for (let y = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        for (let c = 0; c < channels; c++) {
          const row = n * topHeight + Math.floor((y * topHeight) / height);
          const column = Math.floor((x * topWidth) / width);
          out[((n * height + y) * width + x) * channels + c]! +=
            top!.data[(row * topWidth + column) * channels + c]!;
        }
  return ndarray(lateral!.shape, out);
}

export function scaledSumLoop(
  { divisor, ...terms }: Record<string, NdArray>,
  options: { scale?: number; divisor?: number } = {},
): NdArray {
  const values = Object.values(terms).map((v) => v.data[0]!);
  const sum = values.reduce((total, v) => total + v, 0) * (options.scale ?? 1);
  return scalar(sum / (divisor?.data[0] ?? options.divisor ?? 1));
}

/** Girshick 2015, eq. 3, with the corner at `beta`, weighted per box of four. */
export function smoothL1Loop(
  { pred, target, weight }: Record<string, NdArray>,
  options: { beta?: number } = {},
): NdArray {
  const beta = options.beta ?? 0;
  let sum = 0;
  pred!.data.forEach((p, i) => {
    const w = weight!.data[Math.floor(i / 4)]!;
    const d = Math.abs(p - target!.data[i]!);
    if (w !== 0) sum += w * (d < beta ? (d * d) / (2 * beta) : d - beta / 2);
  });
  return scalar(sum);
}
