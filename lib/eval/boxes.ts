import { checkKeys } from '../arguments.js';
import { MixplError } from '../errors.js';

/** A class as the annotation file names it; its position in a list is its label. */
export interface EvaluationCategory {
  readonly id: number;
  readonly name: string;
}

/** What identifies an image in the files. */
export type ImageId = number | string;

/**
 * Every annotated box of a data set, flat: G boxes in file order. Boxes are f64 in original pixels,
 * xywh for COCO and xyxy for VOC. Images are numbered by ascending id: that order breaks ties
 * between equal scores.
 */
export interface GroundTruthBoxes {
  /** Classes; a label is a position here. */
  readonly categories: readonly EvaluationCategory[];
  readonly numImages: number;
  /** [4 G] */
  readonly boxes: Float64Array;
  /** [G] 0 … numImages-1 */
  readonly images: Int32Array;
  /** [G] 0 … K-1 */
  readonly labels: Int32Array;
  /** [G] COCO: 1 for a crowd; VOC: 1 for a difficult object. */
  readonly ignore: Uint8Array;
  /** [G] area of the annotation (of its mask, where it has one), square pixels; COCO only. */
  readonly areas: Float64Array;
  /** [G] annotation ids; COCO only. As in pycocotools a match with id 0 counts as none. */
  readonly ids: Float64Array;
}

/** Every detected box of a data set, flat: D boxes, same coordinates as the ground truth. */
export interface DetectedBoxes {
  /** [4 D] */
  readonly boxes: Float64Array;
  /** [D] */
  readonly scores: Float64Array;
  /** [D] 0 … numImages-1 */
  readonly images: Int32Array;
  /** [D] 0 … K-1 */
  readonly labels: Int32Array;
}

/** The part of a DetectionDataset that an evaluation reads. */
export interface EvaluationDataset {
  readonly name?: string;
  readonly categories: readonly EvaluationCategory[];
  readonly images: readonly {
    readonly id: number;
    readonly annotations: {
      /** [4 n] xyxy, original pixels. */
      readonly boxes: Float32Array;
      readonly labels: Int32Array;
      readonly crowd: Uint8Array;
      readonly areas: Float64Array;
    } | null;
  }[];
}

/** Detections of one image: xyxy in original pixels, labels 0 … K-1. */
export interface ImageDetections {
  readonly boxes: Float32Array;
  readonly scores: Float32Array;
  readonly labels: Int32Array;
}

/** Boxes as COCO files have them (corner and size), or by two corners; in pixels. */
export type BoxFormat = 'xywh' | 'xyxy';

/** Positions of `ids` in ascending order of id: the image order of the COCO tools. */
export function ascendingRanks(ids: readonly number[]): Int32Array {
  const order = ids.map((_, i) => i).sort((a, b) => ids[a]! - ids[b]!);
  const ranks = new Int32Array(ids.length);
  order.forEach((image, rank) => {
    ranks[image] = rank;
  });
  return ranks;
}

/** xywh boxes as xyxy. */
export function asCorners<T extends { readonly boxes: Float64Array }>(flat: T): T {
  const boxes = flat.boxes.map((value, i) => (i % 4 < 2 ? value : value + flat.boxes[i - 2]!));
  return { ...flat, boxes };
}

/**
 * The ground truth of a data set in memory.
 *
 * The data set keeps f32 corners, so a metric can differ from one taken on the annotation file by
 * the rounding of a box that sits exactly on an IoU threshold; `evaluateFiles` reads the file. Boxes
 * are numbered from 1: the ids of annotations, which may all be 0, do not matter.
 *
 * @throws MixplError ERR_DATA when an image has no annotations (an unlabelled source)
 */
export function groundTruthOf(
  dataset: EvaluationDataset,
  options: { format?: BoxFormat } = {},
): GroundTruthBoxes {
  checkKeys('groundTruthOf', options, ['format']);
  const { format = 'xywh' } = options;
  let total = 0;
  for (const image of dataset.images) {
    if (!image.annotations)
      throw new MixplError(
        'ERR_DATA',
        `groundTruthOf: every image must be annotated (metrics need ground truth), ` +
          `got image ${image.id}${dataset.name ? ` of ${dataset.name}` : ''} without annotations`,
      );
    total += image.annotations.labels.length;
  }
  const boxes = new Float64Array(4 * total);
  const images = new Int32Array(total);
  const labels = new Int32Array(total);
  const ignore = new Uint8Array(total);
  const areas = new Float64Array(total);
  const ranks = ascendingRanks(dataset.images.map((image) => image.id));
  let at = 0;
  dataset.images.forEach((image, i) => {
    const annotations = image.annotations!;
    copyBoxes(annotations.boxes, boxes, { at, format });
    labels.set(annotations.labels, at);
    ignore.set(annotations.crowd, at);
    areas.set(annotations.areas, at);
    images.fill(ranks[i]!, at, at + annotations.labels.length);
    at += annotations.labels.length;
  });
  return {
    categories: dataset.categories,
    numImages: dataset.images.length,
    boxes,
    images,
    labels,
    ignore,
    areas,
    ids: Float64Array.from(areas, (_, i) => i + 1),
  };
}

/**
 * Detections of a data set's images, one entry per image in the data set's order.
 *
 * @throws MixplError ERR_SHAPE when there is not one entry per image or an entry's arrays disagree;
 *   ERR_RANGE for a label outside the data set's classes or a value that is not finite
 */
export function detectionsOf(
  dataset: EvaluationDataset,
  detections: readonly ImageDetections[],
  options: { format?: BoxFormat } = {},
): DetectedBoxes {
  checkKeys('detectionsOf', options, ['format']);
  const { format = 'xywh' } = options;
  if (detections.length !== dataset.images.length)
    throw new MixplError(
      'ERR_SHAPE',
      `detectionsOf: detections must have ${dataset.images.length} entries (one per image), got ${detections.length}`,
    );
  const numClasses = dataset.categories.length;
  const total = detections.reduce((sum, entry) => sum + entry.labels.length, 0);
  const boxes = new Float64Array(4 * total);
  const scores = new Float64Array(total);
  const images = new Int32Array(total);
  const labels = new Int32Array(total);
  const ranks = ascendingRanks(dataset.images.map((image) => image.id));
  let at = 0;
  detections.forEach((entry, i) => {
    const where = `detections[${i}] (image ${dataset.images[i]!.id})`;
    const n = entry.labels.length;
    if (entry.scores.length !== n || entry.boxes.length !== 4 * n)
      throw new MixplError(
        'ERR_SHAPE',
        `detectionsOf: ${where} must have ${4 * n} box numbers and ${n} scores (one label each), ` +
          `got ${entry.boxes.length} and ${entry.scores.length}`,
      );
    for (let k = 0; k < n; k++) {
      const label = entry.labels[k]!;
      if (label < 0 || label >= numClasses)
        throw new MixplError(
          'ERR_RANGE',
          `detectionsOf: labels[${k}] of ${where} must be in [0, ${numClasses}), got ${label}`,
        );
      if (!Number.isFinite(entry.scores[k]!))
        throw new MixplError(
          'ERR_RANGE',
          `detectionsOf: scores[${k}] of ${where} must be finite, got ${entry.scores[k]}`,
        );
      for (let c = 4 * k; c < 4 * k + 4; c++)
        if (!Number.isFinite(entry.boxes[c]!))
          throw new MixplError(
            'ERR_RANGE',
            `detectionsOf: boxes[${c}] of ${where} must be finite, got ${entry.boxes[c]}`,
          );
    }
    copyBoxes(entry.boxes, boxes, { at, format });
    scores.set(entry.scores, at);
    labels.set(entry.labels, at);
    images.fill(ranks[i]!, at, at + n);
    at += n;
  });
  return { boxes, scores, images, labels };
}

/** xyxy f32 to f64 in the wanted format; the subtraction happens in f64, as the reference's does. */
function copyBoxes(
  source: Float32Array,
  target: Float64Array,
  { at, format }: { at: number; format: BoxFormat },
): void {
  target.set(source, 4 * at);
  if (format === 'xyxy') return;
  for (let k = 4 * at; k < 4 * at + source.length; k += 4) {
    target[k + 2]! -= target[k]!;
    target[k + 3]! -= target[k + 1]!;
  }
}
