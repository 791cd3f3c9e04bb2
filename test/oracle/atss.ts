// Adaptive training sample selection and what its heads learn from, from the definitions in float64.
import { type Box, type Deltas, decode, giou, iou } from './boxes.js';

const centre = (b: Box): [number, number] => [(b[0] + b[2]) / 2, (b[1] + b[3]) / 2];

/** Distances of an anchor's centre to the sides of a box: left, top, right, bottom. */
export function centreSides(anchor: Box, box: Box): [number, number, number, number] {
  const [x, y] = centre(anchor);
  return [x - box[0], y - box[1], box[2] - x, box[3] - y];
}

/** Tian et al. 2019, eq. 3, of an anchor's centre. */
export function centerness(anchor: Box, box: Box): number {
  const [l, t, r, b] = centreSides(anchor, box);
  return Math.sqrt((Math.min(l, r) / Math.max(l, r)) * (Math.min(t, b) / Math.max(t, b)));
}

/** Zhang et al. 2020, algorithm 1. Per anchor of all levels in a row: its box, -1 or -2 (invalid). */
export function assignAtss(
  levels: readonly (readonly Box[])[],
  boxes: readonly Box[],
  { topK = 9 }: { topK?: number } = {},
  valid?: readonly boolean[],
): number[] {
  const all = levels.flat();
  const takesPart = (i: number) => valid?.[i] ?? true;
  const claims = all.map(() => [] as { box: number; iou: number }[]);
  boxes.forEach((box, g) => {
    const [cx, cy] = centre(box);
    const candidates: number[] = [];
    let first = 0;
    for (const level of levels) {
      const order = level
        .map((anchor, i) => {
          const [x, y] = centre(anchor);
          return { i: first + i, distance: (x - cx) ** 2 + (y - cy) ** 2 };
        })
        .filter(({ i }) => takesPart(i))
        .sort((a, b) => a.distance - b.distance || a.i - b.i);
      candidates.push(...order.slice(0, topK).map(({ i }) => i));
      first += level.length;
    }
    // Overlaps are f32 in the op: as many of them tie here as there.
    const overlaps = candidates.map((i) => Math.fround(iou(all[i]!, box)));
    const n = candidates.length;
    const mean = overlaps.reduce((sum, o) => sum + o, 0) / n;
    const squares = overlaps.reduce((sum, o) => sum + (o - mean) ** 2, 0);
    const threshold = mean + (n > 1 ? Math.sqrt(squares / (n - 1)) : 0);
    candidates.forEach((i, k) => {
      if (overlaps[k]! >= threshold && Math.min(...centreSides(all[i]!, box)) > 0.01)
        claims[i]!.push({ box: g, iou: overlaps[k]! });
    });
  });
  return claims.map((mine, i) => {
    if (!takesPart(i)) return -2;
    if (mine.length === 0) return -1;
    const most = Math.max(...mine.map((claim) => claim.iou));
    return mine.find((claim) => claim.iou === most)!.box;
  });
}

/** What a head says of one level: per image a flat array, cells row by row, channels last. */
export interface HeadLevel {
  anchors: readonly Box[];
  maps: readonly (readonly number[])[][];
}
export interface Truth {
  boxes: readonly Box[];
  labels: readonly number[];
  valid?: readonly boolean[];
}

const softplus = (x: number) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
const sigmoid = (x: number) => 1 / (1 + Math.exp(-x));

/** Lin et al. 2017, eq. 5, of one anchor's logits; label = K is background. */
export function focal(logits: readonly number[], label: number, alpha = 0.25, gamma = 2): number {
  return logits.reduce((sum, x, c) => {
    const [z, weight] = c === label ? [x, alpha] : [-x, 1 - alpha];
    return sum + weight * sigmoid(-z) ** gamma * softplus(-z);
  }, 0);
}

/** Cross-entropy of a logit with a soft target. */
export const bce = (x: number, target: number): number => softplus(x) - x * target;

/** Every anchor of every image with its box, if it has one. Invalid anchors are left out. */
export function* answers(
  levels: readonly HeadLevel[],
  truths: readonly Truth[],
  assigned: readonly (readonly number[])[],
  classes: number,
) {
  for (const [image, truth] of truths.entries()) {
    let first = 0;
    for (const [level, { anchors, maps }] of levels.entries()) {
      for (const [i, anchor] of anchors.entries()) {
        const j = assigned[image]![first + i]!;
        if (j === -2) continue;
        const outputs = maps[image]!.map((map) => {
          const width = map.length / anchors.length;
          return map.slice(i * width, (i + 1) * width);
        });
        const box = j >= 0 ? truth.boxes[j]! : null;
        yield { image, level, anchor, outputs, box, label: j >= 0 ? truth.labels[j]! : classes };
      }
      first += anchors.length;
    }
  }
}

/** The reference's count: an image without positives counts as one. */
export const averageFactor = (assigned: readonly (readonly number[])[]): number =>
  assigned.reduce((sum, image) => sum + Math.max(1, image.filter((j) => j >= 0).length), 0);

/** Classification, box and centre-ness loss; maps are logits, deltas and centre-ness. */
export function atssLosses(
  levels: readonly HeadLevel[],
  truths: readonly Truth[],
  {
    classes,
    topK,
    alpha,
    gamma,
  }: { classes: number; topK?: number; alpha?: number; gamma?: number },
): number[] {
  const anchors = levels.map((level) => level.anchors);
  const assigned = truths.map(({ boxes, valid }) => assignAtss(anchors, boxes, { topK }, valid));
  let [cls, bbox, central, centralSum] = [0, 0, 0, 0];
  for (const { anchor, outputs, box, label } of answers(levels, truths, assigned, classes)) {
    const [logits, deltas, quality] = outputs as [number[], number[], number[]];
    cls += focal(logits, label, alpha, gamma);
    if (!box) continue;
    const target = centerness(anchor, box);
    bbox += target * (1 - giou(decodeAtss(anchor, deltas), box));
    central += bce(quality[0]!, target);
    centralSum += target;
  }
  const count = averageFactor(assigned);
  return [cls / count, (2 * bbox) / Math.max(centralSum, 1), central / count];
}

/** Deltas are in units of 0.1 (centre) and 0.2 (size). */
export const decodeAtss = (anchor: Box, deltas: readonly number[]): Box =>
  decode(anchor, deltas.map((d, k) => d * (k < 2 ? 0.1 : 0.2)) as unknown as Deltas);
