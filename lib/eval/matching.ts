import { checkKeys } from '../arguments.js';

/** Objects of one image: xyxy, labels 0 … K-1. */
export interface ObjectBoxes {
  /** [4 G] */
  readonly boxes: Float32Array;
  /** [G] */
  readonly labels: Int32Array;
  /** [G] 1 for a crowd (COCO) or a difficult object (VOC). */
  readonly crowd: Uint8Array;
}

/** What a box that took no object is. */
export const unmatched = { wrong: -1, onCrowd: -2 } as const;

/** Boxes and objects of one image, matched. */
export interface Matches {
  /** [n] the object that box i found, else one of `unmatched`. */
  readonly objectOf: Int32Array;
  /** [G] the box that found object j, else -1. */
  readonly boxOf: Int32Array;
}

/**
 * Which boxes found an object. The best score goes first (of equal ones the first), and takes among the
 * objects of its class that nobody took the one with the highest IoU (of equal ones the first), if that is at least
 * `iouThr`. A box that takes none is wrong, unless a crowd of its class covers at least `iouThr` of it: what is
 * in a crowd is neither right nor wrong, as in COCO's metrics. What a box takes does not depend on boxes with lower scores.
 *
 * @param found boxes [4 n], scores [n], labels [n], in the coordinates of the objects
 * @source Lin et al. 2014 (COCO), the matching of pycocotools at one threshold
 */
export function matchObjects(
  found: { boxes: Float32Array; scores: Float32Array; labels: Int32Array },
  objects: ObjectBoxes,
  options: { iouThr?: number } = {},
): Matches {
  checkKeys('matchObjects', options, ['iouThr']);
  const { iouThr = 0.5 } = options;
  const objectOf = new Int32Array(found.labels.length).fill(unmatched.wrong);
  const boxOf = new Int32Array(objects.labels.length).fill(-1);
  const order = Array.from(objectOf, (_, i) => i);
  order.sort((a, b) => found.scores[b]! - found.scores[a]! || a - b);
  for (const i of order) {
    let best = 0;
    let crowded = false;
    objects.labels.forEach((label, j) => {
      if (label !== found.labels[i]! || boxOf[j]! >= 0) return;
      const shared = sharedArea(found.boxes, i, objects.boxes, j);
      const own = areaOf(found.boxes, i);
      if (objects.crowd[j]) {
        crowded ||= shared > 0 && shared / own >= iouThr;
        return;
      }
      const iou = shared / (own + areaOf(objects.boxes, j) - shared);
      if (!(iou >= iouThr && iou > best)) return;
      best = iou;
      objectOf[i] = j;
    });
    const taken = objectOf[i]!;
    if (taken >= 0) boxOf[taken] = i;
    else if (crowded) objectOf[i] = unmatched.onCrowd;
  }
  return { objectOf, boxOf };
}

/** Area of box i, square pixels. */
export function areaOf(boxes: Float32Array, i: number): number {
  return (boxes[4 * i + 2]! - boxes[4 * i]!) * (boxes[4 * i + 3]! - boxes[4 * i + 1]!);
}

/** COCO's sizes of objects, by area: below 32², below 96², above. */
export const sizeNames = ['small', 'medium', 'large'] as const;
/** One of sizeNames. */
export type SizeName = (typeof sizeNames)[number];

/** COCO's size of box i, a position in sizeNames. */
export function sizeOf(boxes: Float32Array, i: number): 0 | 1 | 2 {
  const area = areaOf(boxes, i);
  return area < 32 ** 2 ? 0 : area < 96 ** 2 ? 1 : 2;
}

function sharedArea(a: Float32Array, i: number, b: Float32Array, j: number): number {
  const width = Math.min(a[4 * i + 2]!, b[4 * j + 2]!) - Math.max(a[4 * i]!, b[4 * j]!);
  const height = Math.min(a[4 * i + 3]!, b[4 * j + 3]!) - Math.max(a[4 * i + 1]!, b[4 * j + 1]!);
  return width > 0 && height > 0 ? width * height : 0;
}
