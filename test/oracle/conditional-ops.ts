/** What DAB-DETR's layers are made of beside attention. */
import { type NdArray, ndarray } from './array.js';

/** He et al. 2015, one slope for all channels. */
export const preluLoop = ({ x, slope }: Record<string, NdArray>): NdArray =>
  ndarray(
    x!.shape,
    x!.data.map((v) => (v > 0 ? v : slope!.data[0]! * v)),
  );

export const addProductLoop = ({ x, a, b }: Record<string, NdArray>): NdArray =>
  ndarray(
    x!.shape,
    x!.data.map((v, i) => v + a!.data[i]! * b!.data[i]!),
  );

/** Liu et al. 2022, section 4.4: y's half by heights, x's by widths. */
export function modulatedEncodingLoop({
  encoding,
  sizes,
  boxes,
  scale,
}: Record<string, NdArray>): NdArray {
  const [images, queries, both] = encoding!.shape as [number, number, number];
  const channels = both / 2;
  const out = new Float64Array(images * queries * channels);
  for (let row = 0; row < images * queries; row++)
    for (let c = 0; c < channels; c++) {
      const axis = 2 * c < channels ? 1 : 0;
      const wanted = 1 / (1 + Math.exp(-sizes!.data[2 * row + axis]!));
      const at = row * channels + c;
      out[at] =
        (encoding!.data[2 * row * channels + c]! * (scale?.data[at] ?? 1) * wanted) /
        boxes!.data[4 * row + 2 + axis]!;
    }
  return ndarray([images, queries, channels], out);
}
