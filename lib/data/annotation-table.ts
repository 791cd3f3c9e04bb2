import { NumberTable } from '../number-table.js';
import type { ProblemKind } from './problems.js';
import { type Annotations, noAnnotations } from './types.js';

/** How far beyond its image a box may be large before it is taken for a mistake, in image sides. */
const hugeFactor = 4;

/** A box as a reader found it: xyxy in original pixels, f64. */
export type Box = readonly [x1: number, y1: number, x2: number, y2: number];

/**
 * What is wrong with a box, as the reference filters (reference: CocoDataset.parse_data_info), or
 * undefined. `width` and `height` are given apart because x2 - x1 may have lost them to rounding,
 * `written` is the box as its file has it.
 */
export function boxProblem(
  [x1, y1, x2, y2]: Box,
  size: {
    width: number;
    height: number;
    image: { width: number; height: number };
    written?: readonly number[];
  },
): { kind: ProblemKind; message: string } | undefined {
  const { width, height, image, written = [x1, y1, x2, y2] } = size;
  // Words only for what is wrong: there are millions of boxes.
  const box = () => `[${written.join(', ')}]`;
  const inside = () => `0 … ${image.width} by 0 … ${image.height}`;
  if (![x1, y1, x2, y2, width, height].every(Number.isFinite))
    return { kind: 'box-not-finite', message: `box must be four finite numbers, got ${box()}` };
  if (width < 0 || height < 0)
    return {
      kind: 'box-reversed',
      message: `box must have a width and height above 0, got ${box()}`,
    };
  if (width > hugeFactor * image.width || height > hugeFactor * image.height)
    return { kind: 'box-huge', message: `box must fit the image (${inside()}), got ${box()}` };
  if (width < 1 || height < 1)
    return {
      kind: 'box-zero-size',
      message: `box must be at least a pixel wide and high, got ${width} by ${height}`,
    };
  if (
    Math.min(x2, image.width) - Math.max(x1, 0) <= 0 ||
    Math.min(y2, image.height) - Math.max(y1, 0) <= 0
  )
    return {
      kind: 'box-outside',
      message: `box must overlap the image (${inside()}), got ${box()}`,
    };
  if (x1 < 0 || y1 < 0 || x2 > image.width || y2 > image.height)
    return {
      kind: 'box-partly-outside',
      message: `box should lie inside the image (${inside()}), got ${box()}`,
    };
  return undefined;
}

export interface AnnotationRow {
  /** Position of the image. */
  image: number;
  box: Box;
  label: number;
  crowd: boolean;
  area: number;
  id: number;
}

/** Collects annotations in any order and hands them out by image, as views of shared memory. */
export class AnnotationTable {
  readonly #rows = new NumberTable(9);

  get length(): number {
    return this.#rows.length;
  }

  add({ image, box, label, crowd, area, id }: AnnotationRow): void {
    this.#rows.push([image, ...box, label, crowd ? 1 : 0, area, id]);
  }

  /** The annotations of images 0 … numImages-1, each in the order of add(). */
  byImage(numImages: number): Annotations[] {
    const count = this.#rows.length;
    const ends = new Int32Array(numImages);
    for (let row = 0; row < count; row++) ends[this.#rows.at(row, 0)]!++;
    for (let image = 1; image < numImages; image++) ends[image]! += ends[image - 1]!;
    const starts = Int32Array.from(ends, (_, image) => (image ? ends[image - 1]! : 0));
    const next = Int32Array.from(starts);
    const boxes = new Float32Array(4 * count);
    const labels = new Int32Array(count);
    const crowd = new Uint8Array(count);
    const areas = new Float64Array(count);
    const ids = new Float64Array(count);
    for (let row = 0; row < count; row++) {
      const to = next[this.#rows.at(row, 0)]!++;
      for (let k = 0; k < 4; k++) boxes[4 * to + k] = this.#rows.at(row, 1 + k);
      labels[to] = this.#rows.at(row, 5);
      crowd[to] = this.#rows.at(row, 6);
      areas[to] = this.#rows.at(row, 7);
      ids[to] = this.#rows.at(row, 8);
    }
    return Array.from(starts, (start, image) => {
      const end = ends[image]!;
      if (start === end) return noAnnotations();
      return {
        boxes: boxes.subarray(4 * start, 4 * end),
        labels: labels.subarray(start, end),
        crowd: crowd.subarray(start, end),
        areas: areas.subarray(start, end),
        ids: ids.subarray(start, end),
      };
    });
  }
}
