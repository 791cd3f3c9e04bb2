import type { DatasetReport } from './problems.js';

export type { DecodedImage } from '../image/composition.js';

/** A class. Its position in `DetectionDataset.categories` is its label. */
export interface Category {
  /** The id in the annotation file. */
  readonly id: number;
  readonly name: string;
}

/** The annotated objects of one image, n of them, in file order. */
export interface Annotations {
  /** [4 n] xyxy, original pixels (EXIF orientation applied), continuous edges; not clipped. */
  readonly boxes: Float32Array;
  /** [n] 0 … K-1, positions in the data set's categories. */
  readonly labels: Int32Array;
  /** [n] 1 for a crowd (COCO) or a difficult object (VOC): no training target, ignored in evaluation. */
  readonly crowd: Uint8Array;
  /** [n] square pixels: of the mask where the file has one, else of the box. */
  readonly areas: Float64Array;
  /** [n] annotation ids, which metrics do not read; beyond 2^31 for COCO crowds. */
  readonly ids: Float64Array;
}

/** An image of a data set; its pixels stay in the file. */
export interface ImageRecord {
  readonly id: number;
  /** As the annotation file or folder names it, with `/` between folders. */
  readonly fileName: string;
  /** Where the file is. */
  readonly path: string;
  /** Pixels, after EXIF orientation. */
  readonly width: number;
  readonly height: number;
  /** null: unlabelled. No boxes: labelled as empty. */
  readonly annotations: Annotations | null;
}

/**
 * What a reader does with annotations.
 * - `true`: they are needed, and problems with them decided by policy
 * - `false`: they are passed over
 * - `'hidden'`: the images of `false`, with the annotations that can be used and no word on the others: to
 *   compare with what was found, never to learn from. A source without a single one has none at all.
 */
export type DatasetLabels = boolean | 'hidden';

/** Images with boxes, or without: what readers give and samplers take. */
export interface DetectionDataset {
  readonly name: string;
  /** In file order; the position is the label. */
  readonly categories: readonly Category[];
  readonly images: readonly ImageRecord[];
  /** SHA-256 (hex) of the content: see fingerprintOf. */
  readonly fingerprint: string;
  /** What was found and passed over while reading. */
  readonly report: DatasetReport;
}

/** No objects: an image that is labelled as empty. */
export function noAnnotations(): Annotations {
  return {
    boxes: new Float32Array(0),
    labels: new Int32Array(0),
    crowd: new Uint8Array(0),
    areas: new Float64Array(0),
    ids: new Float64Array(0),
  };
}
