import { rangesInTurns, unsetFloats } from '../turns.js';

/** Order of a convolution weight's axes: ours is OHWI (K R S C), PyTorch's OIHW (K C R S). */
export type AxisOrder = 'ohwi' | 'oihw';

/** Of a weight whose shape is OHWI, the shape in another order; other ranks stay as they are. */
export function shapeIn(order: AxisOrder, ohwi: readonly number[]): readonly number[] {
  if (order === 'ohwi' || ohwi.length !== 4) return ohwi;
  const [k, r, s, c] = ohwi as [number, number, number, number];
  return [k, c, r, s];
}

/** @param ohwi the shape of the result, if it is a convolution weight */
export async function toOhwi(
  values: Float32Array,
  order: AxisOrder,
  ohwi: readonly number[],
): Promise<Float32Array> {
  if (order === 'ohwi' || ohwi.length !== 4) return values;
  const [k, r, s, c] = ohwi as [number, number, number, number];
  return swapInner(values, { outer: k, rows: c, columns: r * s });
}

/** @param ohwi the shape of the values, if they are a convolution weight */
export async function fromOhwi(
  values: Float32Array,
  order: AxisOrder,
  ohwi: readonly number[],
): Promise<Float32Array> {
  if (order === 'ohwi' || ohwi.length !== 4) return values;
  const [k, r, s, c] = ohwi as [number, number, number, number];
  return swapInner(values, { outer: k, rows: r * s, columns: c });
}

/** [outer, rows, columns] -> [outer, columns, rows]. */
async function swapInner(
  values: Float32Array,
  { outer, rows, columns }: { outer: number; rows: number; columns: number },
): Promise<Float32Array> {
  if (rows === 1 || columns === 1) return values;
  const size = rows * columns;
  const out = unsetFloats(values.length);
  for await (const [first, end] of rangesInTurns(outer, size))
    for (let start = first * size, to = start; start < end * size; start += size)
      for (let j = 0; j < columns; j++)
        for (let i = 0; i < rows; i++) out[to++] = values[start + i * columns + j]!;
  return out;
}

/**
 * The order that the shapes of a file speak for: a kernel is square, so the two equal sizes are its own.
 * @returns null when no shape says so, or when they contradict each other
 */
export function axisOrderOf(shapes: Iterable<readonly number[]>): AxisOrder | null {
  const found = new Set<AxisOrder>();
  for (const [, a, b, c, more] of shapes) {
    if (c === undefined || more !== undefined || (a === b && b === c)) continue;
    if (b === c) found.add('oihw');
    if (a === b) found.add('ohwi');
  }
  return found.size === 1 ? [...found][0]! : null;
}
