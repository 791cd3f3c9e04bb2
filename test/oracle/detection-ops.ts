/** The slow truth of the ops that dense and two-stage heads add, in float64, from their contracts. */
import { type NdArray, ndarray } from './array.js';

const scalar = (value: number): NdArray => ndarray([], [value]);

export function learnedScaleLoop({ x, scale }: Record<string, NdArray>): NdArray {
  return ndarray(
    x!.shape,
    Array.from(x!.data, (v) => v * scale!.data[0]!),
  );
}

export function sigmoidBceLoop({ logits, target, weight }: Record<string, NdArray>): NdArray {
  let sum = 0;
  logits!.data.forEach((x, i) => {
    const w = weight!.data[i]!;
    if (w === 0) return;
    const t = target!.data[i]!;
    // -t ln p - (1 - t) ln(1 - p)
    sum +=
      w *
      (t * Math.log1p(Math.exp(-x)) +
        (1 - t) * (Math.log1p(Math.exp(-Math.abs(x))) + Math.max(x, 0)));
  });
  return scalar(sum);
}

export function boxesFromSidesLoop({ sides }: Record<string, NdArray>): NdArray {
  return ndarray(
    [sides!.data.length / 4, 4],
    Array.from(sides!.data, (v, i) => (i % 4 < 2 ? -v : v)),
  );
}

export function softmaxCrossEntropyLoop({ logits, labels }: Record<string, NdArray>): NdArray {
  const classes = logits!.shape.at(-1)!;
  let sum = 0;
  labels!.data.forEach((label, r) => {
    if (label < 0) return;
    const row = Array.from(logits!.data.slice(r * classes, (r + 1) * classes));
    const most = Math.max(...row);
    sum += Math.log(row.reduce((s, x) => s + Math.exp(x - most), 0)) + most - row[label]!;
  });
  return scalar(sum);
}

/** One level; every sample is interpolated by itself. */
export function roiAlignLoop(
  { map, boxes, places }: Record<string, NdArray>,
  options: { size?: number; samplingRatio?: number; aligned?: boolean; scales?: number[] },
): NdArray {
  const { size = 7, samplingRatio = 0, aligned = true, scales = [1] } = options;
  const [, height, width, channels] = map!.shape as [number, number, number, number];
  const count = boxes!.shape[0]!;
  const out = new Float64Array(count * size * size * channels);
  const pixel = (n: number, y: number, x: number, c: number) =>
    map!.data[((n * height + y) * width + x) * channels + c]!;
  const sample = (n: number, y: number, x: number, c: number) => {
    if (y < -1 || y > height || x < -1 || x > width) return 0;
    const v = Math.min(Math.max(y, 0), height - 1);
    const u = Math.min(Math.max(x, 0), width - 1);
    const [y0, x0] = [Math.floor(v), Math.floor(u)];
    const [y1, x1] = [Math.min(y0 + 1, height - 1), Math.min(x0 + 1, width - 1)];
    const [b, a] = [v - y0, u - x0];
    return (
      (1 - b) * ((1 - a) * pixel(n, y0, x0, c) + a * pixel(n, y0, x1, c)) +
      b * ((1 - a) * pixel(n, y1, x0, c) + a * pixel(n, y1, x1, c))
    );
  };
  for (let r = 0; r < count; r++) {
    const n = places!.data[2 * r]!;
    const offset = aligned ? 0.5 : 0;
    const [x1, y1, x2, y2] = [0, 1, 2, 3].map((k) => boxes!.data[4 * r + k]! * scales[0]! - offset);
    let [w, h] = [x2! - x1!, y2! - y1!];
    if (!aligned) [w, h] = [Math.max(w, 1), Math.max(h, 1)];
    const ny = samplingRatio || Math.ceil(h / size);
    const nx = samplingRatio || Math.ceil(w / size);
    for (let by = 0; by < size; by++)
      for (let bx = 0; bx < size; bx++)
        for (let c = 0; c < channels; c++) {
          let sum = 0;
          for (let sy = 0; sy < ny; sy++)
            for (let sx = 0; sx < nx; sx++)
              sum += sample(
                n,
                y1! + ((by + (sy + 0.5) / ny) * h) / size,
                x1! + ((bx + (sx + 0.5) / nx) * w) / size,
                c,
              );
          out[((r * size + by) * size + bx) * channels + c] = sum / Math.max(1, nx * ny);
        }
  }
  return ndarray([count, size, size, channels], out);
}
