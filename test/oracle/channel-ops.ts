// Small ops over channels and cells, as plain loops in float64.
import { type NdArray, ndarray } from './array.js';

type Inputs = Record<string, NdArray>;

const logistic = (x: number) => 1 / (1 + Math.exp(-x));

/** All inputs side by side along the last axis. */
export function concatLoop(inputs: Inputs): NdArray {
  const parts = Object.values(inputs);
  const widths = parts.map((p) => p.shape.at(-1)!);
  const rows = parts[0]!.shape.slice(0, -1).reduce((a, b) => a * b, 1);
  const out: number[] = [];
  for (let row = 0; row < rows; row++)
    for (const [i, part] of parts.entries())
      for (let c = 0; c < widths[i]!; c++) out.push(part.data[row * widths[i]! + c]!);
  return ndarray([...parts[0]!.shape.slice(0, -1), widths.reduce((a, b) => a + b, 0)], out);
}

export function globalAveragePoolLoop({ x }: Inputs): NdArray {
  const [n, h, w, c] = x!.shape as [number, number, number, number];
  const out = new Float64Array(n * c);
  x!.data.forEach((v, i) => {
    out[Math.floor(i / (h * w * c)) * c + (i % c)]! += v / (h * w);
  });
  return ndarray([n, 1, 1, c], out);
}

export const sigmoidLoop = ({ x }: Inputs): NdArray => ndarray(x!.shape, x!.data.map(logistic));

/** sqrt(sigmoid(x) sigmoid(y)), y with one channel. */
export function sigmoidGeometricMeanLoop({ x, y }: Inputs): NdArray {
  const c = x!.shape.at(-1)!;
  return ndarray(
    x!.shape,
    x!.data.map((v, i) => Math.sqrt(logistic(v) * logistic(y!.data[Math.floor(i / c)]!))),
  );
}

export const scaledExpLoop = ({ x, scale }: Inputs): NdArray =>
  ndarray(
    x!.shape,
    x!.data.map((v) => scale!.data[0]! * Math.exp(v)),
  );

/** Distances of the cells' points to the sides -> boxes, in cells. */
export function gridBoxesLoop({ sides }: Inputs, { offset = 0 }: { offset?: number }): NdArray {
  const [, h, w] = sides!.shape as [number, number, number, number];
  return ndarray(
    sides!.shape,
    sides!.data.map((d, i) => {
      const cell = Math.floor(i / 4);
      const at = (i % 2 === 0 ? cell % w : Math.floor(cell / w) % h) + offset;
      return i % 4 < 2 ? at - d : at + d;
    }),
  );
}

/** The box, or the fallback where the box is inverted. */
export function validBoxesLoop({ boxes, fallback }: Inputs): NdArray {
  const out = Float64Array.from(boxes!.data);
  for (let i = 0; i < out.length; i += 4)
    if (out[i]! > out[i + 2]! || out[i + 1]! > out[i + 3]!)
      out.set(fallback!.data.subarray(i, i + 4), i);
  return ndarray([out.length / 4, 4], out);
}

/** A 1x1 convolution over weighted maps: the maps are weighted, then convolved. */
export function layerWeightedConvLoop({ x, weight, attention }: Inputs): NdArray {
  const [n, h, w, channels] = x!.shape as [number, number, number, number];
  const filters = weight!.shape[0]!;
  const layers = attention!.shape.at(-1)!;
  const out = new Float64Array(n * h * w * filters);
  for (let pixel = 0; pixel < n * h * w; pixel++)
    for (let k = 0; k < filters; k++)
      for (let c = 0; c < channels; c++) {
        const layer = Math.floor((c * layers) / channels);
        const a = attention!.data[Math.floor(pixel / (h * w)) * layers + layer]!;
        out[pixel * filters + k]! +=
          a * x!.data[pixel * channels + c]! * weight!.data[k * channels + c]!;
      }
  return ndarray([n, h, w, filters], out);
}

/** Each channel of each cell read at an offset (dy, dx) of its own; 0 outside the map. */
export function deformSamplingLoop({ values, offsets }: Inputs): NdArray {
  const [n, h, w, c] = values!.shape as [number, number, number, number];
  const at = (image: number, y: number, x: number, k: number) =>
    y < 0 || y >= h || x < 0 || x >= w ? 0 : values!.data[((image * h + y) * w + x) * c + k]!;
  const out = new Float64Array(n * h * w * c);
  for (let i = 0; i < out.length; i++) {
    const [k, cell] = [i % c, Math.floor(i / c)];
    const image = Math.floor(cell / (h * w));
    const y = (Math.floor(cell / w) % h) + offsets!.data[2 * i]!;
    const x = (cell % w) + offsets!.data[2 * i + 1]!;
    // The hat function of every neighbour, which is 0 from one cell's distance on.
    for (const row of [Math.floor(y), Math.floor(y) + 1])
      for (const column of [Math.floor(x), Math.floor(x) + 1])
        out[i]! += (1 - Math.abs(y - row)) * (1 - Math.abs(x - column)) * at(image, row, column, k);
  }
  return ndarray(values!.shape, out);
}
