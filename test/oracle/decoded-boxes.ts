// Boxes that dense heads regress, from the formulas in float64.
import { type NdArray, ndarray } from './array.js';
import { type Box, type Deltas, decode } from './boxes.js';

type Inputs = Record<string, NdArray>;
const four = (data: Float64Array, i: number) =>
  Array.from(data.subarray(4 * i, 4 * i + 4)) as unknown as Box;

/** Deltas of N images against the same A anchors, decoded. */
export function boxesFromDeltasLoop(
  { deltas, anchors }: Inputs,
  { stds = [1, 1, 1, 1], bothSides = true }: { stds?: number[]; bothSides?: boolean } = {},
): NdArray {
  const count = anchors!.data.length / 4;
  const boxes = deltas!.data.length / 4;
  const out = Array.from({ length: boxes }, (_, i) => {
    const own = four(deltas!.data, i).map((d, k) => d * stds[k]!) as unknown as Deltas;
    return decode(four(anchors!.data, i % count), own, bothSides);
  });
  return ndarray([boxes, 4], out.flat());
}
