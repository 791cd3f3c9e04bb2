// What decoders' queries regress, and which of them are taken, from the formulas in float64.
import { type NdArray, ndarray } from './array.js';

type Inputs = Record<string, NdArray>;

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
/** mmdetection's inverse_sigmoid. */
const inverseSigmoid = (x: number, eps: number) => {
  const r = Math.min(Math.max(x, 0), 1);
  return Math.log(Math.max(r, eps) / Math.max(1 - r, eps));
};

/** sigmoid(deltas + inverse sigmoid of references), which are logits already where eps is 0. */
export function refinedBoxesLoop(
  { deltas, references }: Inputs,
  { eps = 1e-5 }: { eps?: number } = {},
): NdArray {
  const moved = references!.shape.at(-1)!;
  return ndarray(
    deltas!.shape,
    deltas!.data.map((delta, i) => {
      const [box, k] = [Math.floor(i / 4), i % 4];
      if (k >= moved) return sigmoid(delta);
      const reference = references!.data[box * moved + k]!;
      return sigmoid(delta + (eps > 0 ? inverseSigmoid(reference, eps) : reference));
    }),
  );
}

/** (cx, cy, w, h) in shares of an image [height, width] as corners in its pixels. */
export function cornersOf(
  [cx, cy, w, h]: readonly number[],
  [height, width]: readonly number[],
): number[] {
  return [
    (cx! - w! / 2) * width!,
    (cy! - h! / 2) * height!,
    (cx! + w! / 2) * width!,
    (cy! + h! / 2) * height!,
  ];
}

export function boxesFromCentersLoop({ boxes, sizes }: Inputs): NdArray {
  const [images, queries] = boxes!.shape as [number, number];
  const out = Array.from({ length: images * queries }, (_, i) => {
    const n = Math.floor(i / queries);
    return cornersOf(
      Array.from(boxes!.data.slice(4 * i, 4 * i + 4)),
      Array.from(sizes!.data.slice(2 * n, 2 * n + 2)),
    );
  });
  return ndarray(boxes!.shape, out.flat());
}

/** Indices by falling score, equal ones by rising index, NaN last. */
export function byScore(scores: readonly number[]): number[] {
  const rank = (x: number) => (Number.isNaN(x) ? Number.NEGATIVE_INFINITY : x);
  return scores
    .map((_, i) => i)
    .sort((a, b) => {
      const nan = Number(Number.isNaN(scores[a])) - Number(Number.isNaN(scores[b]));
      if (nan !== 0) return nan;
      const [x, y] = [rank(scores[a]!), rank(scores[b]!)];
      return x === y ? a - b : y - x;
    });
}

/** Rows of the best tokens of logits [images, tokens, classes]. */
export function bestTokensLoop(
  logits: readonly number[],
  [images, tokens, classes]: readonly number[],
  count: number,
  by = -1,
): number[] {
  return Array.from({ length: images! }, (_, n) => {
    const scores = Array.from({ length: tokens! }, (_, s) => {
      const at = (n * tokens! + s) * classes!;
      if (by >= 0) return logits[at + by]!;
      return Math.max(...logits.slice(at, at + classes!)); // NaN if one is
    });
    return byScore(scores)
      .slice(0, count)
      .map((s) => n * tokens! + s);
  }).flat();
}

/** Boxes, scores and labels of one image: logits [queries, classes], boxes [queries, 4]. */
export function detectQueriesLoop(
  logits: readonly number[],
  boxes: readonly number[],
  classes: number,
  size: readonly number[],
  most: number,
): { boxes: number[]; scores: number[]; labels: number[] } {
  const scores = logits.map((x) => Math.fround(sigmoid(x)));
  const out = { boxes: [] as number[], scores: [] as number[], labels: [] as number[] };
  const chosen = byScore(scores).filter((i) => !Number.isNaN(scores[i]));
  for (const i of chosen.slice(0, most)) {
    const query = Math.floor(i / classes);
    const corners = cornersOf(boxes.slice(4 * query, 4 * query + 4), size);
    if (corners.some(Number.isNaN)) continue;
    const ends = [size[1]!, size[0]!];
    const clipped = corners.map((v, k) => Math.min(Math.max(v, 0), ends[k % 2]!));
    if (!(clipped[2]! > clipped[0]! && clipped[3]! > clipped[1]!)) continue;
    out.boxes.push(...clipped);
    out.scores.push(scores[i]!);
    out.labels.push(i % classes);
  }
  return out;
}

const largestChange = Math.log(1000 / 16);

/** (cx, cy, w, h) of references, moved by shares of their size and scaled (mmdetection's delta coder). */
export function centersFromDeltasLoop(
  { deltas, references }: Inputs,
  { stds = [1, 1, 1, 1], bothSides = true }: { stds?: number[]; bothSides?: boolean } = {},
): NdArray {
  return ndarray(
    deltas!.shape,
    deltas!.data.map((delta, i) => {
      const k = i % 4;
      const own = references!.data[i]!;
      if (k < 2) return own + delta * stds[k]! * references!.data[i + 2]!;
      const least = bothSides ? -largestChange : Number.NEGATIVE_INFINITY;
      return own * Math.exp(Math.min(Math.max(delta * stds[k]!, least), largestChange));
    }),
  );
}
