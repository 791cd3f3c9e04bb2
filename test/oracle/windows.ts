// What a Swin Transformer has beside other transformers, as plain loops in float64 over maps that are
// padded, rolled and cut one step after the other.
import { type NdArray, ndarray, numel } from './array.js';

type Inputs = Record<string, NdArray>;
type Size4 = [number, number, number, number];
interface Windows {
  size?: number;
  shift?: number;
}

const zeros = (shape: number[]) => ({ shape, data: new Float64Array(numel(shape)) });
const up = (n: number, size: number) => Math.ceil(n / size) * size;

/** Calls f(from, to) for the offsets of each cell in an [N, H, W] array, and in its rolled, padded form. */
function forCells(
  [n, h, w]: readonly number[],
  { size = 7, shift = 0 }: Windows,
  f: (map: number, token: number) => void,
): void {
  const [rows, columns] = [up(h!, size), up(w!, size)];
  for (let image = 0; image < n!; image++)
    for (let y = 0; y < h!; y++)
      for (let x = 0; x < w!; x++) {
        const [py, px] = [(y - shift + rows) % rows, (x - shift + columns) % columns];
        const window =
          (image * (rows / size) + Math.floor(py / size)) * (columns / size) +
          Math.floor(px / size);
        const token = window * size * size + (py % size) * size + (px % size);
        f((image * h! + y) * w! + x, token);
      }
}

export function windowPartitionLoop({ x }: Inputs, options: Windows): NdArray {
  const { size = 7 } = options;
  const [n, h, w, c] = x!.shape as Size4;
  const out = zeros([(n * up(h, size) * up(w, size)) / size ** 2, size ** 2, c]);
  forCells(x!.shape, options, (map, token) => {
    out.data.set(x!.data.subarray(map * c, (map + 1) * c), token * c);
  });
  return out;
}

export function windowMergeLoop(
  { windows, residual }: Inputs,
  options: Windows & { height: number; width: number },
): NdArray {
  const { size = 7, height, width } = options;
  const c = windows!.shape[2]!;
  const perImage = (up(height, size) * up(width, size)) / size ** 2;
  const n = perImage ? windows!.shape[0]! / perImage : (residual?.shape[0] ?? 0);
  const out = zeros([n, height, width, c]);
  forCells(out.shape, options, (map, token) => {
    for (let k = 0; k < c; k++)
      out.data[map * c + k] = windows!.data[token * c + k]! + (residual?.data[map * c + k] ?? 0);
  });
  return out;
}

/**
 * By the regions of the reference: a rolled map is cut into three parts along each axis, and tokens of two
 * regions do not see each other.
 */
export function windowMaskLoop(options: Windows & { height: number; width: number }): NdArray {
  const { size = 7, shift = 0, height, width } = options;
  const [rows, columns] = [up(height, size), up(width, size)];
  const part = (i: number, n: number) => (i < n - size ? 0 : i < n - shift ? 1 : 2);
  const regions: number[][] = [];
  for (let down = 0; down < rows; down += size)
    for (let across = 0; across < columns; across += size)
      regions.push(
        Array.from(
          { length: size * size },
          (_, t) =>
            3 * part(down + Math.floor(t / size), rows) + part(across + (t % size), columns),
        ),
      );
  return ndarray(
    [regions.length, size ** 2, size ** 2],
    regions.flatMap((r) => r.flatMap((a) => r.map((b) => Number(a !== b)))),
  );
}

export function patchesLoop({ x }: Inputs, { size = 2 }: { size?: number }): NdArray {
  const [n, h, w, c] = x!.shape as Size4;
  const [down, across] = [up(h, size) / size, up(w, size) / size];
  const out = zeros([n, down, across, size * size * c]);
  for (let i = 0; i < x!.data.length; i++) {
    const k = i % c;
    const column = Math.floor(i / c) % w;
    const row = Math.floor(i / c / w) % h;
    const image = Math.floor(i / c / w / h);
    const patch = (image * down + Math.floor(row / size)) * across + Math.floor(column / size);
    out.data[((patch * size + (row % size)) * size + (column % size)) * c + k] = x!.data[i]!;
  }
  return out;
}

export function relativePositionBiasLoop(
  { table }: Inputs,
  { size = 7 }: { size?: number },
): NdArray {
  const heads = table!.shape[1]!;
  const tokens = size * size;
  const out: number[] = [];
  for (let head = 0; head < heads; head++)
    for (let q = 0; q < tokens; q++)
      for (let k = 0; k < tokens; k++) {
        const y = Math.floor(q / size) - Math.floor(k / size) + size - 1;
        const x = (q % size) - (k % size) + size - 1;
        out.push(table!.data[(y * (2 * size - 1) + x) * heads + head]!);
      }
  return ndarray([1, heads, tokens, tokens], out);
}
