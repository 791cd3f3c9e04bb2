// DETR's costs and optimal assignment (Carion et al. 2020), in float64.
import { type Box, giou } from './boxes.js';

export interface MatchOptions {
  classification?: number;
  boxes?: number;
  iou?: number;
  alpha?: number;
  gamma?: number;
  eps?: number;
  xyxyL1?: boolean;
}

/** Of one image: logits [Q][C], boxes [Q] (cx, cy, w, h) in shares, truth in pixels. */
export interface MatchScene {
  logits: number[][];
  boxes: Box[];
  truth: Box[];
  labels: number[];
  size: readonly [height: number, width: number];
}

const corners = ([cx, cy, w, h]: Box): Box => [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2];
/** (cx, cy, w, h) in shares of the image. */
export function sharesOf([x1, y1, x2, y2]: Box, [height, width]: MatchScene['size']): Box {
  return [(x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height];
}

/** [G][Q]. */
export function queryCosts(scene: MatchScene, options: MatchOptions = {}): number[][] {
  const { classification = 2, boxes = 5, iou = 2 } = options;
  const { alpha = 0.25, gamma = 2, eps = 1e-12, xyxyL1 = false } = options;
  const [height, width] = scene.size;
  return scene.truth.map((object, g) =>
    scene.boxes.map((box, q) => {
      const x = scene.logits[q]![scene.labels[g]!]!;
      const [p, not] = [1 / (1 + Math.exp(-x)), 1 / (1 + Math.exp(x))];
      const focal =
        alpha * not ** gamma * -Math.log(p + eps) - (1 - alpha) * p ** gamma * -Math.log(not + eps);
      const wanted = sharesOf(object, scene.size);
      const [a, b] = xyxyL1 ? [corners(box), corners(wanted)] : [box, wanted];
      const l1 = a.reduce((sum, v, k) => sum + Math.abs(v - b[k]!), 0);
      const scale = [width, height, width, height];
      const pixels = corners(box).map((v, k) => v * scale[k]!) as unknown as Box;
      return classification * focal + boxes * l1 - iou * giou(pixels, object);
    }),
  );
}

/** The least sum of min(G, Q) pairs, by trying all: for a few. */
export function leastSum(costs: readonly (readonly number[])[]): number {
  const columns = costs[0]?.length ?? 0;
  const skips = Math.max(costs.length - columns, 0);
  const best = (row: number, taken: ReadonlySet<number>, skipped: number): number => {
    if (row === costs.length) return 0;
    let least = skipped < skips ? best(row + 1, taken, skipped + 1) : Number.POSITIVE_INFINITY;
    costs[row]!.forEach((cost, j) => {
      if (!taken.has(j))
        least = Math.min(least, cost + best(row + 1, new Set([...taken, j]), skipped));
    });
    return least;
  };
  return best(0, new Set(), 0);
}

/**
 * The same by Kuhn and Munkres, as Bourgeois and Lassalle (1971) have it for rectangles: reduced
 * costs, starred and primed zeros.
 */
export function munkresSum(costs: readonly (readonly number[])[]): number {
  const width = costs[0]?.length ?? 0;
  if (costs.length > width)
    return munkresSum(Array.from({ length: width }, (_, j) => costs.map((row) => row[j]!)));
  const reduced = costs.map((row) => {
    const least = Math.min(...row);
    return Float64Array.from(row, (cost) => cost - least);
  });
  const starOfRow = costs.map(() => -1);
  const starOfColumn = Array<number>(width).fill(-1);
  for (let stars = 0; stars < costs.length; ++stars) {
    const isCovered = { row: costs.map(() => false), column: starOfColumn.map((i) => i >= 0) };
    const primeOfRow = costs.map(() => -1);
    let [row, column] = [-1, -1];
    for (;;) {
      [row, column] = uncoveredZero(reduced, isCovered);
      primeOfRow[row] = column;
      const star = starOfRow[row]!;
      if (star < 0) break;
      isCovered.row[row] = true;
      isCovered.column[star] = false;
    }
    for (;;) {
      const before = starOfColumn[column]!;
      starOfRow[row] = column;
      starOfColumn[column] = row;
      if (before < 0) break;
      row = before;
      column = primeOfRow[row]!;
    }
  }
  return costs.reduce((sum, row, i) => sum + row[starOfRow[i]!]!, 0);
}

/** Of reduced costs; makes one where there is none. */
function uncoveredZero(
  reduced: readonly Float64Array[],
  isCovered: { row: readonly boolean[]; column: readonly boolean[] },
): [row: number, column: number] {
  let least = Number.POSITIVE_INFINITY;
  let at: [number, number] = [-1, -1];
  for (const [i, row] of reduced.entries()) {
    if (isCovered.row[i]) continue;
    for (let j = 0; j < row.length; ++j)
      if (row[j]! < least && !isCovered.column[j]) {
        least = row[j]!;
        at = [i, j];
      }
  }
  if (least === 0) return at;
  for (const [i, row] of reduced.entries())
    for (let j = 0; j < row.length; ++j) {
      if (isCovered.row[i]) row[j]! += least;
      if (!isCovered.column[j]) row[j]! -= least;
    }
  return at;
}
