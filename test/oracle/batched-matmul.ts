import { type NdArray, ndarray } from './array.js';

/** y[i] = a[i] b[i], a [B, M, K], b [B, K, N]. */
export function batchedMatmulLoop({ a, b }: Record<string, NdArray>): NdArray {
  const [batches, rows, depth] = a!.shape as [number, number, number];
  const columns = b!.shape[2]!;
  const out = new Float64Array(batches * rows * columns);
  for (let i = 0; i < batches; i++)
    for (let m = 0; m < rows; m++)
      for (let n = 0; n < columns; n++) {
        let sum = 0;
        for (let k = 0; k < depth; k++)
          sum += a!.data[(i * rows + m) * depth + k]! * b!.data[(i * depth + k) * columns + n]!;
        out[(i * rows + m) * columns + n] = sum;
      }
  return ndarray([batches, rows, columns], out);
}
