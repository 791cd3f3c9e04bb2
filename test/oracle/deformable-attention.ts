import { type NdArray, ndarray } from './array.js';

type Inputs = Record<string, NdArray>;

/** Multi-scale deformable attention, place by place: Zhu et al. 2021, eq. 3, as mmcv samples. */
export function deformableAttentionLoop(
  { value, offsets, logits, references, ratios }: Inputs,
  { maps, heads }: { maps: number[]; heads: number },
): NdArray {
  const [n, cells, channels] = value!.shape as [number, number, number];
  const [queries, coordinates] = [offsets!.shape[1]!, references!.shape[2]!];
  const [levels, depth] = [maps.length / 2, channels / heads];
  const samples = logits!.shape[2]! / heads;
  const points = samples / levels;
  const out = new Float64Array(n * queries * channels);
  for (let row = 0; row < n * queries; row++)
    for (let head = 0; head < heads; head++) {
      const image = Math.floor(row / queries);
      const at = (row * heads + head) * samples;
      const scores = logits!.data.slice(at, at + samples);
      const largest = scores.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);
      const shares = scores.map((v) => Math.exp(v - largest));
      const total = shares.reduce((a, b) => a + b, 0);
      let first = 0;
      for (let level = 0; level < levels; level++) {
        const [h, w] = [maps[2 * level]!, maps[2 * level + 1]!];
        const place = (axis: 0 | 1, offset: number) => {
          const ratio = ratios!.data[(image * levels + level) * 2 + axis]!;
          const reference = references!.data[row * coordinates + axis]! * ratio;
          const size = axis === 0 ? w : h;
          if (coordinates === 2) return (reference + offset / size) * size - 0.5;
          const side = references!.data[row * 4 + 2 + axis]! * ratio;
          return (reference + ((offset / points) * side) / 2) * size - 0.5;
        };
        for (let point = 0; point < points; point++) {
          const i = at + level * points + point;
          const x = place(0, offsets!.data[2 * i]!);
          const y = place(1, offsets!.data[2 * i + 1]!);
          if (!Number.isFinite(x) || !Number.isFinite(y)) continue;
          // The hat function of every neighbour, which is 0 from one cell's distance on.
          for (const r of [Math.floor(y), Math.floor(y) + 1])
            for (const c of [Math.floor(x), Math.floor(x) + 1]) {
              if (r < 0 || r >= h || c < 0 || c >= w) continue;
              const share = (1 - Math.abs(y - r)) * (1 - Math.abs(x - c));
              const weight = (share * shares[i - at]!) / total;
              const cell = (image * cells + first + r * w + c) * channels + head * depth;
              for (let k = 0; k < depth; k++)
                out[row * channels + head * depth + k]! += weight * value!.data[cell + k]!;
            }
        }
        first += h * w;
      }
    }
  return ndarray([n, queries, channels], out);
}
