/** Objects and boxes of one image as rows. */
export interface Row {
  box: readonly [number, number, number, number];
  label: number;
}
export interface FoundRow extends Row {
  score: number;
}
export interface ObjectRow extends Row {
  crowd: boolean;
}

/** Per box: the object that it found, 'crowd' or 'wrong'. */
export type Verdict = number | 'crowd' | 'wrong';

/**
 * COCO's matching at one IoU, from its description: as long as there are boxes, take the one with the best
 * score, look at every free object, and give it the nearest.
 */
export function matchLoop(
  found: readonly FoundRow[],
  objects: readonly ObjectRow[],
  iouThr = 0.5,
): Verdict[] {
  const verdicts = found.map((): Verdict => 'wrong');
  const free = new Set(objects.map((_, j) => j).filter((j) => !objects[j]!.crowd));
  const waiting = new Set(found.keys());
  while (waiting.size > 0) {
    const best = Math.max(...[...waiting].map((i) => found[i]!.score));
    const i = [...waiting].find((k) => found[k]!.score === best)!;
    waiting.delete(i);
    const near = [...free]
      .filter((j) => objects[j]!.label === found[i]!.label)
      .map((j) => ({ j, iou: iou(found[i]!.box, objects[j]!.box) }))
      .filter((pair) => pair.iou >= iouThr);
    const nearest = near.reduce<(typeof near)[0] | null>(
      (a, b) => (a === null || b.iou > a.iou ? b : a),
      null,
    );
    if (nearest) {
      verdicts[i] = nearest.j;
      free.delete(nearest.j);
    } else if (
      objects.some(
        ({ crowd, label, box }) =>
          crowd &&
          label === found[i]!.label &&
          overlap(found[i]!.box, box) / area(found[i]!.box) >= iouThr,
      )
    )
      verdicts[i] = 'crowd';
  }
  return verdicts;
}

type Box = Row['box'];

function area([x1, y1, x2, y2]: Box): number {
  return (x2 - x1) * (y2 - y1);
}

function overlap(a: Box, b: Box): number {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return Math.max(width, 0) * Math.max(height, 0);
}

function iou(a: Box, b: Box): number {
  const both = overlap(a, b);
  return both / (area(a) + area(b) - both);
}
