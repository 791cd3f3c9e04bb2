// What is known of a pyramid's tokens beforehand, cell by cell in float64.

export interface Grid {
  /** Height and width of each level's map. */
  maps: readonly (readonly [number, number])[];
  padded: readonly [number, number];
  /** Height and width of each image. */
  sizes: readonly (readonly [number, number])[];
}

interface Token {
  level: number;
  row: number;
  column: number;
  /** Of the level, of this image. */
  rows: number;
  columns: number;
  padding: boolean;
}

/** How many of `cells` read a pixel below `size` when a row of `pixels` is resized to them. */
function validCells(cells: number, pixels: number, size: number): number {
  let count = 0;
  for (let i = 0; i < cells; i++) if (Math.floor((i * pixels) / cells) < size) count++;
  return count;
}

/** Rows and columns of picture, [N, L, 2]. */
export function validCounts({ maps, padded, sizes }: Grid): number[][][] {
  return sizes.map((size) =>
    maps.map((map) => [0, 1].map((k) => validCells(map[k]!, padded[k]!, size[k]!))),
  );
}

/** Every token of every image, level after level, row by row. */
export function tokensOf(grid: Grid): Token[] {
  return validCounts(grid).flatMap((levels) =>
    levels.flatMap(([rows, columns], level) => {
      const [height, width] = grid.maps[level]!;
      return Array.from({ length: height * width }, (_, i): Token => {
        const [row, column] = [Math.floor(i / width), i % width];
        const padding = row >= rows! || column >= columns!;
        return { level, row, column, rows: rows!, columns: columns!, padding };
      });
    }),
  );
}

/** count numbers: sines (even places) and cosines (odd) of angle / temperature^(2 floor(k / 2) / count). */
function waves(angle: number, count: number, temperature: number): number[] {
  return Array.from({ length: count }, (_, k) => {
    const a = angle / temperature ** ((2 * Math.floor(k / 2)) / count);
    return k % 2 ? Math.cos(a) : Math.sin(a);
  });
}

export function sinePositions(
  grid: Grid,
  { channels = 256, temperature = 10000, offset = 0 },
): number[][] {
  const angle = (at: number, last: number) =>
    ((Math.min(at + 1, last) + offset) / (last + 1e-6)) * 2 * Math.PI;
  return tokensOf(grid).map(({ row, column, rows, columns }) => [
    ...waves(angle(row, rows), channels / 2, temperature),
    ...waves(angle(column, columns), channels / 2, temperature),
  ]);
}

/** (x, y) of every token. */
export const tokenReferences = (grid: Grid): [number, number][] =>
  tokensOf(grid).map((t) => [(t.column + 0.5) / t.columns, (t.row + 0.5) / t.rows]);

/** Logits of (cx, cy, w, h), or null where a token proposes nothing. */
export function tokenProposals(grid: Grid): (number[] | null)[] {
  return tokensOf(grid).map((t) => {
    const side = 0.05 * 2 ** t.level;
    const box = [(t.column + 0.5) / t.columns, (t.row + 0.5) / t.rows, side, side];
    const inner = box.every((v) => v > 0.01 && v < 0.99);
    return t.padding || !inner ? null : box.map((v) => Math.log(v / (1 - v)));
  });
}

export function coordinateEncoding(
  box: readonly number[],
  each: number,
  order: 'yxwh' | 'xywh',
): number[] {
  const [x, y, ...sides] = box;
  const numbers = order === 'yxwh' ? [y!, x!, ...sides] : box;
  return numbers.flatMap((v) => waves(v * 2 * Math.PI, each, 10000));
}
