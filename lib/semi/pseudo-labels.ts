import { dropSmall, type LabelledView, mapInstances, type View } from '../augment/index.js';
import type { Detections } from '../detector/types.js';
import { MixplError } from '../errors.js';
import type { SemiOptions } from './options.js';

/** Two independently drawn views of one picture without annotations. */
export interface UnlabelledPair {
  /** For the teacher. */
  readonly weak: View;
  /** For the student. */
  readonly strong: View;
  /** Which picture of the unlabelled data set this is; kept in the cache for checkpoints. */
  readonly image: number;
}

/** A pseudo-labelled strong view with where it came from. */
export interface CachedView extends LabelledView {
  readonly image: number;
}

/** Pseudo labels of one step: boxes above the threshold that the strong views show. */
export interface PseudoLabelReport {
  images: number;
  boxes: number;
  /** Pictures without a pseudo label. */
  emptyImages: number;
  /** Null without boxes. */
  meanScore: number | null;
  /** Highest score of any box of the teacher, pseudo label or not; null without boxes. */
  bestScore: number | null;
  perClass: number[];
  /** COCO's small, medium and large, by area in the original picture. */
  bySize: [small: number, medium: number, large: number];
}

/** Labels pictures by the teacher's boxes, and counts what the pictures of one step get. */
export class PseudoLabels {
  readonly #options: Pick<SemiOptions, 'scoreThr' | 'minBoxSize'>;
  readonly #counts: PseudoLabelReport;
  #scores = 0;

  constructor(numClasses: number, options: Pick<SemiOptions, 'scoreThr' | 'minBoxSize'>) {
    this.#options = options;
    this.#counts = {
      images: 0,
      boxes: 0,
      emptyImages: 0,
      meanScore: null,
      bestScore: null,
      perClass: new Array<number>(numClasses).fill(0),
      bySize: [0, 0, 0],
    };
  }

  /** Of all pictures so far; null without any. */
  get report(): PseudoLabelReport | null {
    const { images, boxes } = this.#counts;
    if (images === 0) return null;
    return { ...this.#counts, meanScore: boxes > 0 ? this.#scores / boxes : null };
  }

  /**
   * The teacher's boxes on the weak views, mapped back to the originals, clipped, and on to the strong
   * views. All scores are kept: the threshold comes after mixing.
   * @throws MixplError ERR_SHAPE when the teacher found something in another number of pictures
   */
  label(pairs: readonly UnlabelledPair[], found: readonly Detections[]): CachedView[] {
    if (found.length !== pairs.length)
      throw new MixplError(
        'ERR_SHAPE',
        `teacher.predict: detections must have ${pairs.length} entries (one per image), got ${found.length}`,
      );
    return pairs.map((pair, i) => this.#labelOne(pair, found[i]!));
  }

  #labelOne({ weak, strong, image }: UnlabelledPair, found: Detections): CachedView {
    const { scoreThr, minBoxSize } = this.#options;
    const counts = this.#counts;
    const inOriginal = mapInstances(weak.layer.map, found, weak.layer.source);
    const inStrong = mapInstances(strong.matrix, inOriginal, strong);
    const boxesBefore = counts.boxes;
    counts.images++;
    for (const score of found.scores) counts.bestScore = Math.max(counts.bestScore ?? 0, score);
    inStrong.scores.forEach((score, k) => {
      if (!(score > scoreThr && isLarger(inStrong.boxes, k, minBoxSize))) return;
      counts.boxes++;
      this.#scores += score;
      counts.perClass[inStrong.labels[k]!]!++;
      counts.bySize[sizeBucket(inOriginal.boxes, k)]++;
    });
    if (counts.boxes === boxesBefore) counts.emptyImages++;
    return { view: strong, image, instances: dropSmall(inStrong, minBoxSize) };
  }
}

function isLarger(boxes: Float32Array, i: number, least: number): boolean {
  return boxes[4 * i + 2]! - boxes[4 * i]! > least && boxes[4 * i + 3]! - boxes[4 * i + 1]! > least;
}

/** COCO's bucket of box i: 0 below 32², 1 below 96², else 2. */
function sizeBucket(boxes: Float32Array, i: number): 0 | 1 | 2 {
  const area = (boxes[4 * i + 2]! - boxes[4 * i]!) * (boxes[4 * i + 3]! - boxes[4 * i + 1]!);
  return area < 32 ** 2 ? 0 : area < 96 ** 2 ? 1 : 2;
}
