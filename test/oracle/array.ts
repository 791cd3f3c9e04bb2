/** A dense float64 array for slow, obvious reference code. */
export interface NdArray {
  readonly shape: readonly number[];
  readonly data: Float64Array;
}

export function ndarray(shape: readonly number[], data: ArrayLike<number>): NdArray {
  if (data.length !== numel(shape))
    throw new Error(`[${shape.join(', ')}] needs ${numel(shape)} values, got ${data.length}`);
  return { shape, data: Float64Array.from(data) };
}

export const numel = (shape: readonly number[]): number => shape.reduce((n, size) => n * size, 1);

export const scalar = (value: number): NdArray => ndarray([], [value]);
