// Losses of GFL (Li et al. 2020) from their formulas in float64.
import { type NdArray, ndarray, scalar } from './array.js';
import {
  answers,
  assignAtss,
  averageFactor,
  bce,
  centreSides,
  type HeadLevel,
  type Truth,
} from './atss.js';
import { type Box, giou, iou } from './boxes.js';

type Inputs = Record<string, NdArray>;

/** Eq. 2 on logits: the target is the quality for the label's class, 0 for the others. */
export function qualityFocalLoop(
  { logits, labels, quality }: Inputs,
  options: { beta?: number; classes?: number } = {},
): NdArray {
  const { beta = 2, classes = logits!.shape.at(-1)! } = options;
  const softplus = (x: number) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
  let sum = 0;
  logits!.data.forEach((x, i) => {
    const row = Math.floor(i / classes);
    const label = labels!.data[row]!;
    if (label < 0) return;
    const target = label === i % classes ? quality!.data[row]! : 0;
    const p = 1 / (1 + Math.exp(-x));
    sum += Math.abs(target - p) ** beta * (softplus(x) - x * target);
  });
  return scalar(sum);
}

function softmax(x: readonly number[]): number[] {
  const most = Math.max(...x);
  const powers = x.map((v) => Math.exp(v - most));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((p) => p / sum);
}

/** The logits of each side of each box. */
function sidesOf(logits: NdArray): number[][] {
  const bins = logits.shape[1]! / 4;
  return Array.from({ length: 4 * logits.shape[0]! }, (_, i) =>
    Array.from(logits.data.slice(i * bins, (i + 1) * bins)),
  );
}

/** Eq. 4. */
export function expectedSidesLoop({ logits, values }: Inputs): NdArray {
  return ndarray(
    [logits!.shape[0]!, 4],
    sidesOf(logits!).map((x) => softmax(x).reduce((sum, p, j) => sum + p * values!.data[j]!, 0)),
  );
}

/** Eq. 6. */
export function distributionFocalLoop({ logits, sides, weight }: Inputs): NdArray {
  let sum = 0;
  sidesOf(logits!).forEach((x, i) => {
    const w = weight!.data[Math.floor(i / 4)]!;
    if (w === 0) return;
    const s = softmax(x);
    const y = Math.min(Math.max(sides!.data[i]!, 0), x.length - 1);
    const low = Math.min(Math.floor(y), x.length - 2);
    sum -= w * ((low + 1 - y) * Math.log(s[low]!) + (y - low) * Math.log(s[low + 1]!));
  });
  return scalar(sum);
}

export function gatherRowsLoop(
  { x, rows }: Inputs,
  { columns = x!.shape.at(-1)! }: { columns?: number } = {},
): NdArray {
  return ndarray(
    [rows!.data.length, columns],
    Array.from(rows!.data, (row) =>
      Array.from(x!.data.slice(row * columns, (row + 1) * columns)),
    ).flat(),
  );
}

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));
/** The distributions of one box's four sides. */
const distributionsOf = (logits: readonly number[]) => {
  const bins = logits.length / 4;
  return [0, 1, 2, 3].map((k) => softmax(logits.slice(k * bins, (k + 1) * bins)));
};
const expectation = (p: readonly number[]) => p.reduce((sum, v, j) => sum + v * j, 0);
/** A box around the origin. */
const around = (sides: readonly number[]): Box => [-sides[0]!, -sides[1]!, sides[2]!, sides[3]!];

/**
 * Classification, box and distribution loss; maps are class logits and bins. The overlap that a score
 * should be, and the score that weighs a box, are those of `base`.
 */
export function gflLosses(
  levels: readonly HeadLevel[],
  truths: readonly Truth[],
  base: readonly HeadLevel[],
  options: { strides: readonly number[]; classes: number; topK?: number; beta?: number },
): number[] {
  const { strides, classes, topK, beta = 2 } = options;
  const anchors = levels.map((level) => level.anchors);
  const assigned = truths.map(({ boxes, valid }) => assignAtss(anchors, boxes, { topK }, valid));
  const constants = answers(base, truths, assigned, classes);
  let [cls, bbox, distribution, weights] = [0, 0, 0, 0];
  for (const { anchor, outputs, box, label, level } of answers(levels, truths, assigned, classes)) {
    const [logits, bins] = outputs as [number[], number[]];
    const [baseLogits, baseBins] = constants.next().value!.outputs as [number[], number[]];
    let quality = 0;
    if (box) {
      const wanted = centreSides(anchor, box).map((d) => d / strides[level]!);
      const shares = distributionsOf(bins);
      const fixed = around(distributionsOf(baseBins).map(expectation));
      quality = iou(fixed, around(wanted));
      const weight = sigmoid(Math.max(...baseLogits));
      weights += weight;
      bbox += weight * (1 - giou(around(shares.map(expectation)), around(wanted)));
      wanted.forEach((d, k) => {
        const y = Math.min(Math.max(d, 0), shares[k]!.length - 1 - 0.1);
        const low = Math.floor(y);
        const entropy =
          (low + 1 - y) * Math.log(shares[k]![low]!) + (y - low) * Math.log(shares[k]![low + 1]!);
        distribution -= (weight * entropy) / 4;
      });
    }
    logits.forEach((x, c) => {
      const target = c === label ? quality : 0;
      cls += Math.abs(target - sigmoid(x)) ** beta * bce(x, target);
    });
  }
  const sum = Math.max(weights, 1);
  return [cls / averageFactor(assigned), (2 * bbox) / sum, (0.25 * distribution) / sum];
}
