// Task-aligned assignment (TOOD, section 3.2) over all pairs, in float64.
import { type Box, iou } from './boxes.js';

export interface AlignOptions {
  top?: number;
  alpha?: number;
  beta?: number;
}

/** Per anchor its box (-1: none, -2: invalid) and its soft target. */
export function assignTaskAligned(
  scores: readonly (readonly number[])[],
  predicted: readonly Box[],
  anchors: readonly Box[],
  truth: { boxes: readonly Box[]; labels: readonly number[] },
  { top = 13, alpha = 1, beta = 6 }: AlignOptions = {},
  valid?: readonly boolean[],
): { assigned: number[]; quality: number[] } {
  const takesPart = (i: number) => valid?.[i] ?? true;
  const overlap = truth.boxes.map((box) => predicted.map((p) => iou(p, box)));
  const fit = truth.labels.map((label, g) =>
    predicted.map((_, i) => scores[i]![label]! ** alpha * overlap[g]![i]! ** beta),
  );
  const isCandidate = truth.boxes.map(([x1, y1, x2, y2], g) => {
    const order = anchors
      .map((_, i) => i)
      .filter(takesPart)
      .sort((a, b) => fit[g]![b]! - fit[g]![a]! || a - b)
      .slice(0, top);
    return anchors.map((anchor, i) => {
      const [x, y] = [(anchor[0] + anchor[2]) / 2, (anchor[1] + anchor[3]) / 2];
      const inside = Math.min(x - x1, y - y1, x2 - x, y2 - y) > 0.01;
      return inside && order.includes(i) && fit[g]![i]! > 0;
    });
  });
  const assigned = anchors.map((_, i) => {
    if (!takesPart(i)) return -2;
    let best = -1;
    truth.boxes.forEach((_, g) => {
      if (isCandidate[g]![i] && (best < 0 || overlap[g]![i]! > overlap[best]![i]!)) best = g;
    });
    return best;
  });
  const quality = assigned.map((g, i) => {
    if (g < 0) return 0;
    const own = assigned.flatMap((other, k) => (other === g ? [k] : []));
    const mostFit = Math.max(...own.map((k) => fit[g]![k]!));
    const mostOverlap = Math.max(...own.map((k) => overlap[g]![k]!));
    return (fit[g]![i]! / (mostFit + 1e-7)) * mostOverlap;
  });
  return { assigned, quality };
}
