// Adaptive training sample selection and what its heads learn from, from the definitions in float64.
import { type Box, iou } from './boxes.js';

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
