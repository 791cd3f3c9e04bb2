// Targets of the updated CenterNet (mmdetection's CenterNetUpdateHead) over all pairs of points and boxes, in float64.
import { type Box, giou } from './boxes.js';

export interface CenterNetLevel {
  stride: number;
  height: number;
  width: number;
  /** Half diagonals of its boxes, both included. */
  range: readonly [number, number];
  /** Predicted distances to the sides in strides, per image and cell. */
  predicted: readonly (readonly Sides[])[];
}
export type Sides = readonly [number, number, number, number];
export interface Truth {
  boxes: readonly Box[];
  labels: readonly number[];
}
interface Options {
  classes: number;
  minOverlap?: number;
  minRadius?: number;
  loss?: number;
  most?: number;
}

const distances = (x: number, y: number, [x1, y1, x2, y2]: Box): Sides => [
  x - x1,
  y - y1,
  x2 - x,
  y2 - y,
];
const centreCell = ([x1, y1, x2, y2]: Box, stride: number) => ({
  column: Math.trunc((x1 + x2) / 2 / stride),
  row: Math.trunc((y1 + y2) / 2 / stride),
});
const fits = ([x1, y1, x2, y2]: Box, [low, high]: readonly [number, number]) => {
  const half = Math.hypot(x2 - x1, y2 - y1) / 2;
  return half >= low && half <= high;
};

/** One image at one level: heat [cells][classes], and per cell the sides in strides or null. */
export function centerNetTargets(level: CenterNetLevel, truth: Truth, options: Options) {
  const { classes, minOverlap = 0.8, minRadius = 4 } = options;
  const { stride, height, width, range } = level;
  const delta = (1 - minOverlap) / (1 + minOverlap);
  const heat: number[][] = [];
  const sides: (Sides | null)[] = [];
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++) {
      const [x, y] = [(column + 0.5) * stride, (row + 0.5) * stride];
      const weighted = truth.boxes.map((box) => {
        const centre = centreCell(box, stride);
        if (centre.row === row && centre.column === column) return 0;
        const [x1, y1, x2, y2] = box;
        const square = (x - (x1 + x2) / 2) ** 2 + (y - (y1 + y2) / 2) ** 2;
        return square / Math.max(2 * delta ** 2 * (x2 - x1) * (y2 - y1), minRadius ** 2);
      });
      heat.push(
        Array.from({ length: classes }, (_, c) => {
          const least = Math.min(...weighted.filter((_, g) => truth.labels[g] === c));
          const value = Math.exp(-least);
          return value < 1e-4 ? 0 : value;
        }),
      );
      const answering = truth.boxes
        .map((box, g) => ({ box, g, d: weighted[g]! }))
        .filter(({ box }) => {
          const centre = centreCell(box, stride);
          return (
            fits(box, range) &&
            Math.min(...distances(x, y, box)) > 0 &&
            Math.abs(x - (centre.column + 0.5) * stride) <= stride &&
            Math.abs(y - (centre.row + 0.5) * stride) <= stride
          );
        })
        .sort((a, b) => a.d - b.d || a.g - b.g);
      const best = answering[0];
      sides.push(
        best ? (distances(x, y, best.box).map((d) => d / stride) as unknown as Sides) : null,
      );
    }
  return { heat, sides };
}

/** Classification positives of one image over all levels: level, cell and class of each. */
export function centerNetClassPositives(
  levels: readonly CenterNetLevel[],
  image: number,
  truth: Truth,
  { loss: limit = 0.2, most = 9 }: Options,
): { level: number; cell: number; label: number }[] {
  return truth.boxes.flatMap((box, g) => {
    const cells = levels.flatMap(({ stride, height, width, range, predicted }, level) => {
      const centre = centreCell(box, stride);
      return [-1, 0, 1].flatMap((down) =>
        [-1, 0, 1].flatMap((right) => {
          const [row, column] = [centre.row + down, centre.column + right];
          if (row < 0 || row >= height || column < 0 || column >= width) return [];
          const cell = row * width + column;
          const wanted = distances((column + 0.5) * stride, (row + 0.5) * stride, box);
          if (Math.min(...wanted) < 0) return [];
          const around = (s: Sides, unit: number): Box => [
            -s[0] / unit,
            -s[1] / unit,
            s[2] / unit,
            s[3] / unit,
          ];
          const sure = down === 0 && right === 0 && fits(box, range);
          const loss = sure
            ? 0
            : 1 - giou(around(predicted[image]![cell]!, 1), around(wanted, stride));
          return [{ level, cell, loss }];
        }),
      );
    });
    const sorted = cells.map((c) => c.loss).sort((a, b) => a - b);
    const threshold = Math.min(sorted[most - 1] ?? Number.POSITIVE_INFINITY, limit);
    return cells
      .filter((c) => c.loss < threshold)
      .map(({ level, cell }) => ({ level, cell, label: truth.labels[g]! }));
  });
}
