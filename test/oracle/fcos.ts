/** FCOS's targets, point by point, as mmdetection's FCOSHead and torchvision's FCOS make them. */
export interface FcosSetup {
  classes: number;
  heights: number[];
  widths: number[];
  strides: number[];
  /** In strides. */
  offset: number;
  centerRadius: number;
  regressBounds: number[];
  torchvision: boolean;
}

export function fcosTargetsLoop(
  boxes: readonly (readonly number[])[],
  labels: readonly number[],
  setup: FcosSetup,
): { labels: number[]; sides: number[]; centerness: number[] }[] {
  const { strides, regressBounds, torchvision } = setup;
  return strides.map((stride, l) => {
    const out = { labels: [] as number[], sides: [] as number[], centerness: [] as number[] };
    const low = l === 0 ? 0 : regressBounds[l - 1]!;
    const high = l === strides.length - 1 ? (torchvision ? Infinity : 1e8) : regressBounds[l]!;
    for (let row = 0; row < setup.heights[l]!; row++)
      for (let column = 0; column < setup.widths[l]!; column++) {
        const x = (column + setup.offset) * stride;
        const y = (row + setup.offset) * stride;
        const fitting = boxes.flatMap(([x1, y1, x2, y2], g) => {
          const sides = [x - x1!, y - y1!, x2! - x, y2! - y];
          const most = Math.max(...sides);
          const inRange = torchvision ? most > low && most < high : most >= low && most <= high;
          const radius = setup.centerRadius * stride;
          const [cx, cy] = [(x1! + x2!) / 2, (y1! + y2!) / 2];
          const central = radius === 0 || (Math.abs(x - cx) < radius && Math.abs(y - cy) < radius);
          if (!inRange || !central || Math.min(...sides) <= 0) return [];
          const area = (x2! - x1!) * (y2! - y1!);
          return [{ g, sides, rank: torchvision ? -Math.fround(1e8 - Math.fround(area)) : area }];
        });
        const best = fitting.reduce<(typeof fitting)[number] | null>(
          (a, b) => (a && a.rank <= b.rank ? a : b),
          null,
        );
        out.labels.push(best ? labels[best.g]! : setup.classes);
        const sides = best?.sides ?? [0, 0, 0, 0];
        out.sides.push(...sides.map((v) => v / stride));
        const [left, top, right, bottom] = sides as [number, number, number, number];
        out.centerness.push(
          best
            ? Math.sqrt(
                (Math.min(left, right) / Math.max(left, right)) *
                  (Math.min(top, bottom) / Math.max(top, bottom)),
              )
            : 0,
        );
      }
    return out;
  });
}
