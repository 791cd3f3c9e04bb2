// Matching, suppression and post-processing as plain loops over the definitions, in float64.
import { area, type Box, type Deltas, decode, iou } from './boxes.js';

export interface AssignOptions {
  posIou: number;
  negIou: number;
  minPosIou: number;
  matchLowQuality: boolean;
  lowQuality?: 'overwrite' | 'restoreBest';
}

/** Per anchor: index of its box, -1 negative, -2 ignored. `valid` absent: all are. */
export function assignMaxIou(
  anchors: readonly Box[],
  boxes: readonly Box[],
  options: AssignOptions,
  valid?: readonly boolean[],
): number[] {
  const { posIou, negIou, minPosIou, matchLowQuality, lowQuality = 'overwrite' } = options;
  const takesPart = (i: number) => valid?.[i] ?? true;
  const overlaps = boxes.map((box) => anchors.map((anchor) => iou(anchor, box)));
  const best = anchors.map((_, i) => {
    let index = 0;
    for (let j = 1; j < boxes.length; j++) if (overlaps[j]![i]! > overlaps[index]![i]!) index = j;
    return index;
  });
  const assigned = anchors.map((_, i) => {
    if (!takesPart(i)) return -2;
    if (boxes.length === 0) return -1;
    const most = overlaps[best[i]!]![i]!;
    return most >= posIou ? best[i]! : most < negIou ? -1 : -2;
  });
  if (!matchLowQuality) return assigned;
  boxes.forEach((_, j) => {
    const mine = overlaps[j]!.map((overlap, i) => (takesPart(i) ? overlap : -1));
    const most = Math.max(...mine);
    if (lowQuality === 'overwrite' && most < minPosIou) return;
    mine.forEach((overlap, i) => {
      if (overlap >= 0 && overlap === most) assigned[i] = lowQuality === 'overwrite' ? j : best[i]!;
    });
  });
  return assigned;
}

/** Indices of the kept boxes, best first; ties by index. `labels`: boxes of two classes never meet. */
export function nms(
  boxes: readonly Box[],
  scores: ArrayLike<number>,
  iouThr: number,
  labels?: ArrayLike<number>,
): number[] {
  const order = boxes.map((_, i) => i).sort((a, b) => scores[b]! - scores[a]! || a - b);
  const kept: number[] = [];
  for (const i of order) {
    const rival = kept.some(
      (k) =>
        (!labels || labels[k] === labels[i]) &&
        area(boxes[k]!) + area(boxes[i]!) > 0 &&
        iou(boxes[k]!, boxes[i]!) > iouThr,
    );
    if (!rival) kept.push(i);
  }
  return kept;
}

export interface Level {
  /** [A K] */
  logits: ArrayLike<number>;
  deltas: readonly Deltas[];
  anchors: readonly Box[];
}

/** One image's detections: mmdetection's dense prediction post-processing, step by step. */
export function densePostProcess(
  levels: readonly Level[],
  options: {
    classes: number;
    height: number;
    width: number;
    scoreThr: number;
    nmsPre: number;
    nmsIou: number;
    maxPerImage: number;
  },
): { box: Box; score: number; label: number }[] {
  const { classes, height, width, scoreThr, nmsPre, nmsIou, maxPerImage } = options;
  const clip = (v: number, high: number) => Math.min(Math.max(v, 0), high);
  const all = levels.flatMap(({ logits, deltas, anchors }) =>
    Array.from(logits, (x, index) => ({ score: 1 / (1 + Math.exp(-x)), index }))
      .filter(({ score }) => score > scoreThr)
      .sort((a, b) => b.score - a.score || a.index - b.index)
      .slice(0, nmsPre)
      .map(({ score, index }) => {
        const anchor = Math.floor(index / classes);
        const b = decode(anchors[anchor]!, deltas[anchor]!);
        const box: Box = [
          clip(b[0], width),
          clip(b[1], height),
          clip(b[2], width),
          clip(b[3], height),
        ];
        return { box, score, label: index % classes };
      })
      .filter(({ box }) => box[2] > box[0] && box[3] > box[1]),
  );
  return nms(
    all.map((d) => d.box),
    all.map((d) => d.score),
    nmsIou,
    all.map((d) => d.label),
  )
    .slice(0, maxPerImage)
    .map((i) => all[i]!);
}
