/** Attention of one head in f64, with its gradients, for checks. */

type At = (row: number, column: number) => number;

/** @param bias added to the scores; minus infinity where a key is not seen */
export function attentionTruth({
  rows,
  depth,
  q,
  k,
  v,
  dout,
  bias,
}: {
  rows: number;
  depth: number;
  q: At;
  k: At;
  v: At;
  dout: At;
  bias: At;
}) {
  const scale = 1 / Math.sqrt(depth);
  const dense = (at: At) =>
    Float64Array.from({ length: rows * depth }, (_, i) => at(Math.floor(i / depth), i % depth));
  const [qs, ks, vs, ds] = [q, k, v, dout].map(dense) as [
    Float64Array,
    Float64Array,
    Float64Array,
    Float64Array,
  ];
  const dot = (a: Float64Array, i: number, b: Float64Array, j: number) => {
    let sum = 0;
    for (let d = 0; d < depth; d++) sum += a[i * depth + d]! * b[j * depth + d]!;
    return sum;
  };
  const p = new Float64Array(rows * rows);
  for (let i = 0; i < rows; i++) {
    const row = p.subarray(i * rows, (i + 1) * rows);
    for (let j = 0; j < rows; j++) row[j] = scale * dot(qs, i, ks, j) + bias(i, j);
    const most = row.reduce((a, b) => Math.max(a, b));
    let sum = 0;
    for (let j = 0; j < rows; j++) sum += row[j] = Math.exp(row[j]! - most);
    for (let j = 0; j < rows; j++) row[j]! /= sum;
  }
  /** Of the scores. */
  const slopes = () => {
    const s = new Float64Array(rows * rows);
    for (let i = 0; i < rows; i++) {
      let mean = 0;
      for (let j = 0; j < rows; j++) {
        s[i * rows + j] = dot(ds, i, vs, j);
        mean += p[i * rows + j]! * s[i * rows + j]!;
      }
      for (let j = 0; j < rows; j++)
        s[i * rows + j] = scale * p[i * rows + j]! * (s[i * rows + j]! - mean);
    }
    return s;
  };
  /** Of `weights` [rows, rows], or of their transpose, and `x`. */
  const product = (weights: Float64Array, x: Float64Array, turned = false) => {
    const y = new Float64Array(rows * depth);
    for (let i = 0; i < rows; i++)
      for (let j = 0; j < rows; j++) {
        const w = weights[i * rows + j]!;
        const [to, from] = turned ? [j, i] : [i, j];
        for (let d = 0; d < depth; d++) y[to * depth + d]! += w * x[from * depth + d]!;
      }
    return y;
  };
  return {
    out: () => product(p, vs),
    dq: () => product(slopes(), ks),
    dk: () => product(slopes(), qs, true),
    dv: () => product(p, ds, true),
  };
}
