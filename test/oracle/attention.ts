import { type NdArray, ndarray } from './array.js';

type Options = { heads?: number; scale?: number };

/**
 * softmax(scale q k^T + bias) v of each head, query by query (Vaswani et al. 2017, eq. 1); keys whose
 * mask is not 0 are left out, and a query without keys gets zeros.
 */
export function attentionLoop(inputs: Record<string, NdArray>, options: Options): NdArray {
  const { q, k, v } = inputs as { q: NdArray; k: NdArray; v: NdArray };
  const [images, queries, columns] = q.shape as [number, number, number];
  const keys = k.shape[1]!;
  const heads = options.heads ?? 8;
  const depth = columns / heads;
  const width = v.shape[2]! / heads;
  const scale = options.scale && options.scale > 0 ? options.scale : 1 / Math.sqrt(depth);
  const { bias, mask } = inputs;
  const seen = (n: number, i: number, j: number) => {
    if (!mask) return true;
    const rows = mask.shape[1]!;
    return mask.data[((n % mask.shape[0]!) * rows + (rows === 1 ? 0 : i)) * keys + j] === 0;
  };
  const out = new Float64Array(images * queries * heads * width);
  for (let n = 0; n < images; n++)
    for (let m = 0; m < heads; m++)
      for (let i = 0; i < queries; i++) {
        const scores: number[] = [];
        for (let j = 0; j < keys; j++) {
          let dot = 0;
          for (let d = 0; d < depth; d++)
            dot +=
              q.data[(n * queries + i) * columns + m * depth + d]! *
              k.data[(n * keys + j) * columns + m * depth + d]!;
          const added = bias
            ? bias.data[(((n % bias.shape[0]!) * heads + m) * queries + i) * keys + j]!
            : 0;
          scores.push(seen(n, i, j) ? scale * dot + added : Number.NEGATIVE_INFINITY);
        }
        const largest = Math.max(Number.NEGATIVE_INFINITY, ...scores);
        if (largest === Number.NEGATIVE_INFINITY) continue;
        const weights = scores.map((s) => Math.exp(s - largest));
        const total = weights.reduce((sum, w) => sum + w, 0);
        for (let j = 0; j < keys; j++)
          for (let d = 0; d < width; d++)
            out[((n * queries + i) * heads + m) * width + d]! +=
              (weights[j]! / total) * v.data[((n * keys + j) * heads + m) * width + d]!;
      }
  return ndarray([images, queries, heads * width], out);
}

/** Columns [from, from + count) of the last axis. */
function columnsOf(x: NdArray, from: number, count: number): NdArray {
  const all = x.shape.at(-1)!;
  const rows = x.data.length / Math.max(all, 1);
  const data = Array.from({ length: rows }, (_, r) => [
    ...x.data.subarray(r * all + from, r * all + from + count),
  ]).flat();
  return ndarray([...x.shape.slice(0, -1), count], data);
}

/** attentionLoop of q, k (and v, unless it is there) that lie side by side in `packed`. */
export function packedAttentionLoop(inputs: Record<string, NdArray>, options: Options): NdArray {
  const { packed, v, ...rest } = inputs as Record<string, NdArray> & { packed: NdArray };
  const count = packed.shape.at(-1)! / (v ? 2 : 3);
  const part = (i: number) => columnsOf(packed, i * count, count);
  return attentionLoop({ q: part(0), k: part(1), v: v ?? part(2), ...rest }, options);
}

/** x weight^T + bias over the last axis, with rows `from` … of weight and bias alone. */
function projected(
  x: NdArray,
  weight: NdArray,
  bias: NdArray,
  from: number,
  rows: number,
): NdArray {
  const columns = weight.shape[1]!;
  const count = x.data.length / columns;
  const out = new Float64Array(count * rows);
  for (let i = 0; i < count; i++)
    for (let r = 0; r < rows; r++) {
      let sum = bias.data[from + r]!;
      for (let c = 0; c < columns; c++)
        sum += x.data[i * columns + c]! * weight.data[(from + r) * columns + c]!;
      out[i * rows + r] = sum;
    }
  return ndarray([...x.shape.slice(0, -1), rows], out);
}

/** torch.nn.MultiheadAttention, batch first; `same` says what query also is. */
export function multiheadAttentionLoop(
  inputs: Record<string, NdArray>,
  options: { heads: number; same?: 'none' | 'key' | 'value' },
): NdArray {
  const { query, inWeight, inBias, outWeight, outBias, mask } = inputs as Record<
    'query' | 'inWeight' | 'inBias' | 'outWeight' | 'outBias' | 'mask',
    NdArray
  >;
  const { key = query, value = query } = inputs;
  const columns = query.shape[2]!;
  const part = (x: NdArray, i: number) => projected(x, inWeight, inBias, i * columns, columns);
  const attended = attentionLoop(
    { q: part(query, 0), k: part(key, 1), v: part(value, 2), ...(mask ? { mask } : {}) },
    { heads: options.heads },
  );
  return projected(attended, outWeight, outBias, 0, columns);
}
