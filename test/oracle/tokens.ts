// Sequences of tokens [N, T, C], as plain loops in float64.
import { type NdArray, ndarray, numel } from './array.js';

type Inputs = Record<string, NdArray>;

/** Each image's tokens of all inputs, one input after another; maps count row by row. */
export function concatTokensLoop(inputs: Inputs): NdArray {
  const parts = Object.values(inputs);
  const [n, c] = [parts[0]!.shape[0]!, parts[0]!.shape.at(-1)!];
  const counts = parts.map((p) => numel(p.shape.slice(1, -1)));
  const lengths = counts.map((count) => count * c);
  const out: number[] = [];
  for (let image = 0; image < n; image++)
    for (const [i, part] of parts.entries())
      out.push(...part.data.subarray(image * lengths[i]!, (image + 1) * lengths[i]!));
  const sum = counts.reduce((a, b) => a + b, 0);
  return ndarray([n, sum, c], out);
}

export function takeTokensLoop(
  { x }: Inputs,
  { first = 0, count = 1 }: { first?: number; count?: number },
): NdArray {
  const [n, t, c] = x!.shape as [number, number, number];
  const out = Array.from({ length: n }, (_, image) =>
    Array.from(x!.data.subarray((image * t + first) * c, (image * t + first + count) * c)),
  );
  return ndarray([n, count, c], out.flat());
}

export function maskTokensLoop({ x, mask }: Inputs): NdArray {
  const c = x!.shape[2]!;
  return ndarray(
    x!.shape,
    x!.data.map((v, i) => (mask?.data[Math.floor(i / c)] ? 0 : v)),
  );
}

export function addLevelRowsLoop(
  { x, rows }: Inputs,
  { counts = [] }: { counts?: number[] },
): NdArray {
  const [, t, c] = x!.shape as [number, number, number];
  const levels = counts.flatMap((count, level) => Array<number>(count).fill(level));
  return ndarray(
    x!.shape,
    x!.data.map((v, i) => v + rows!.data[levels[Math.floor(i / c) % t]! * c + (i % c)]!),
  );
}
