// Probabilistic anchor assignment (Kim and Lee 2020) from the definitions, in float64.

import { answers, bce, decodeAtss, focal, type HeadLevel, type Truth } from './atss.js';
import { type Box, type Deltas, decode, giou, iou } from './boxes.js';
import { assignMaxIou, nms } from './detect.js';

const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/** Focal loss of all classes + 1.3 GIoU loss of the decoded box. */
export function paaCost(
  logits: readonly number[],
  deltas: readonly number[],
  {
    anchor,
    box,
    label,
    ...constants
  }: { anchor: Box; box: Box; label: number; alpha?: number; gamma?: number },
): number {
  const { alpha, gamma } = constants;
  return focal(logits, label, alpha, gamma) + 1.3 * (1 - giou(decodeAtss(anchor, deltas), box));
}

interface Gaussian {
  weight: number;
  mean: number;
  variance: number;
}

function density(x: number, { weight, mean, variance }: Gaussian): number {
  return (weight / Math.sqrt(2 * Math.PI * variance)) * Math.exp(-((x - mean) ** 2) / variance / 2);
}

/** Places of the losses (rising) that stay positive. Underflow of a density would show as NaN. */
export function betterPart(losses: readonly number[]): number[] {
  let parts: Gaussian[] = [losses[0]!, losses.at(-1)!].map((mean) => ({
    weight: 0.5,
    mean,
    variance: 1,
  }));
  const whole = (x: number) => density(x, parts[0]!) + density(x, parts[1]!);
  let before = Number.NEGATIVE_INFINITY;
  for (let round = 0; round < 100; round++) {
    const likelihood = losses.reduce((sum, x) => sum + Math.log(whole(x)), 0) / losses.length;
    parts = parts.map((part) => {
      const shares = losses.map((x) => density(x, part) / whole(x));
      const mass = shares.reduce((a, b) => a + b, 0) + 10 * Number.EPSILON;
      const mean = shares.reduce((sum, s, i) => sum + s * losses[i]!, 0) / mass;
      const spread = shares.reduce((sum, s, i) => sum + s * (losses[i]! - mean) ** 2, 0) / mass;
      return { weight: mass / losses.length, mean, variance: spread + 1e-6 };
    });
    if (Math.abs(likelihood - before) < 1e-3) break;
    before = likelihood;
  }
  const first = losses.flatMap((x, i) =>
    density(x, parts[0]!) >= density(x, parts[1]!) ? [i] : [],
  );
  const densities = first.map((i) => whole(losses[i]!));
  return first.slice(0, densities.indexOf(Math.max(...densities)) + 1);
}

/** The second step: per anchor its box, or what it was, -1 where it lost its box. */
export function selectPaa(
  levels: readonly number[],
  assigned: readonly number[],
  losses: readonly number[],
  topK = 9,
): number[] {
  const out = assigned.map((a) => (a >= 0 ? -1 : a));
  for (let g = 0; g <= Math.max(-1, ...assigned); g++) {
    const candidates: number[] = [];
    let first = 0;
    for (const size of levels) {
      const own = Array.from({ length: size }, (_, i) => first + i)
        .filter((i) => assigned[i] === g && Number.isFinite(losses[i]))
        .sort((a, b) => losses[a]! - losses[b]! || a - b);
      candidates.push(...own.slice(0, topK));
      first += size;
    }
    candidates.sort((a, b) => losses[a]! - losses[b]! || a - b);
    if (candidates.length < 2) continue;
    for (const place of betterPart(candidates.map((i) => losses[i]!))) out[candidates[place]!] = g;
  }
  return out;
}

export interface PaaLevel {
  anchors: readonly Box[];
  /** Per anchor. */
  logits: readonly (readonly number[])[];
  quality: readonly number[];
  deltas: readonly Deltas[];
}

/** One image's detections: score = sqrt(class score * quality), voting after suppression. */
export function paaDetections(
  levels: readonly PaaLevel[],
  options: {
    height: number;
    width: number;
    scoreThr: number;
    nmsPre: number;
    nmsIou: number;
    maxPerImage: number;
  },
): { box: Box; score: number; label: number }[] {
  const { height, width, scoreThr, nmsPre, nmsIou, maxPerImage } = options;
  const clip = (v: number, high: number) => Math.min(Math.max(v, 0), high);
  const all = levels.flatMap(({ anchors, logits, quality, deltas }) =>
    anchors
      .map((anchor, i) => {
        const scores = logits[i]!.map((x) => Math.sqrt(sigmoid(x) * sigmoid(quality[i]!)));
        return { i, anchor, scores, best: Math.max(...scores) };
      })
      .sort((a, b) => b.best - a.best || a.i - b.i)
      .slice(0, nmsPre)
      .flatMap(({ i, anchor, scores }) => {
        const [x1, y1, x2, y2] = decode(anchor, deltas[i]!);
        const box: Box = [clip(x1, width), clip(y1, height), clip(x2, width), clip(y2, height)];
        return scores.map((score, label) => ({
          box,
          score,
          label,
          place: i * scores.length + label,
        }));
      })
      .filter(({ box, score }) => score > scoreThr && box[2] > box[0] && box[3] > box[1])
      .sort((a, b) => b.score - a.score || a.place - b.place),
  );
  const kept = nms(
    all.map((d) => d.box),
    all.map((d) => d.score),
    nmsIou,
    all.map((d) => d.label),
  ).slice(0, maxPerImage);
  return kept.map((k) => {
    const { box, score, label } = all[k]!;
    const voters = all.filter((d) => d.label === label && iou(d.box, box) > 0.01);
    const weights = voters.map((d) => d.score * Math.exp(-((1 - iou(d.box, box)) ** 2) / 0.025));
    const sum = weights.reduce((a, b) => a + b, 0);
    const mean = [0, 1, 2, 3].map(
      (axis) => voters.reduce((m, d, v) => m + weights[v]! * d.box[axis]!, 0) / sum,
    );
    return { box: mean as unknown as Box, score, label };
  });
}

/**
 * Classification, box and IoU loss; maps are logits, deltas and quality. Who is positive, and the IoU of
 * the positives, are taken from `base`.
 */
export function paaLosses(
  levels: readonly HeadLevel[],
  truths: readonly Truth[],
  {
    classes,
    topK,
    posIou = 0.1,
    negIou = 0.1,
    ...constants
  }: {
    classes: number;
    topK?: number;
    posIou?: number;
    negIou?: number;
    alpha?: number;
    gamma?: number;
  },
  base: readonly HeadLevel[] = levels,
): number[] {
  const { alpha, gamma } = constants;
  const anchors = levels.flatMap((level) => level.anchors);
  const first = truths.map(({ boxes, valid }) =>
    assignMaxIou(anchors, boxes, { posIou, negIou, minPosIou: 0, matchLowQuality: true }, valid),
  );
  const costs = truths.map(() => new Array<number>(anchors.length).fill(0));
  const places = first.map((list) => list.flatMap((a, i) => (a === -2 ? [] : [i])));
  for (const { image, anchor, outputs, box, label } of answers(base, truths, first, classes)) {
    const place = places[image]!.shift()!;
    const [logits, deltas] = outputs as [number[], number[]];
    if (box) costs[image]![place] = paaCost(logits, deltas, { anchor, box, label, ...constants });
  }
  const sizes = levels.map((level) => level.anchors.length);
  const assigned = first.map((list, n) => selectPaa(sizes, list, costs[n]!, topK));

  const before = [...answers(base, truths, assigned, classes)];
  let [cls, bbox, quality, overlaps, positives] = [0, 0, 0, 0, 0];
  for (const { anchor, outputs, box, label } of answers(levels, truths, assigned, classes)) {
    const [logits, deltas, iouLogit] = outputs as [number[], number[], number[]];
    const then = before.shift()!;
    cls += focal(logits, label, alpha, gamma);
    if (!box) continue;
    const overlap = iou(decodeAtss(anchor, then.outputs[1]!), box);
    bbox += overlap * (1 - giou(decodeAtss(anchor, deltas), box));
    quality += bce(iouLogit[0]!, overlap);
    overlaps += overlap;
    positives++;
  }
  return [
    cls / Math.max(positives, truths.length),
    overlaps > 0 ? (1.3 * bbox) / overlaps : 0,
    (0.5 * quality) / Math.max(positives, 1),
  ];
}
