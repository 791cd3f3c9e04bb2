import {
  dropSmall,
  type LabelledView,
  mapBoxes,
  mapInstances,
  type View,
} from '../augment/index.js';
import type { Detections } from '../detector/types.js';
import { MixplError } from '../errors.js';
import type { ObjectBoxes } from '../eval/matching.js';
import type { SemiOptions } from './options.js';
import {
  clipped,
  countPseudoLabels,
  type JudgedPicture,
  judgePicture,
  type PseudoLabelReport,
} from './pseudo-labels.js';

/** Two independently drawn views of one image without annotations. */
export interface UnlabelledPair {
  /** The weak view, for the teacher. */
  readonly weak: View;
  /** The strong view, for the student. */
  readonly strong: View;
  /** Which image of the unlabelled data set this is; kept in the cache for checkpoints. */
  readonly image: number;
  /** What is in it, in pixels of the original, where that is known: counted, never learned from. */
  readonly truth?: ObjectBoxes | null;
}

/** A pseudo-labelled strong view with where it came from. */
export interface CachedView extends LabelledView {
  readonly image: number;
}

/** Labels images by the teacher's boxes, and counts what the images of one step get. */
export class PseudoLabels {
  readonly #numClasses: number;
  readonly #options: Pick<SemiOptions, 'scoreThr' | 'minBoxSize'>;
  readonly #judged: JudgedPicture[] = [];

  constructor(numClasses: number, options: Pick<SemiOptions, 'scoreThr' | 'minBoxSize'>) {
    this.#numClasses = numClasses;
    this.#options = options;
  }

  /** Of all images so far; null without any. */
  get report(): PseudoLabelReport | null {
    if (this.#judged.length === 0) return null;
    const { scoreThr } = this.#options;
    return countPseudoLabels(this.#judged, { numClasses: this.#numClasses, scoreThr });
  }

  /**
   * The teacher's boxes on the weak views, mapped back to the originals, clipped, and on to the strong
   * views. All scores are kept: the threshold comes after mixing.
   * @throws MixplError ERR_SHAPE when the teacher found something in another number of images
   */
  label(pairs: readonly UnlabelledPair[], found: readonly Detections[]): CachedView[] {
    if (found.length !== pairs.length)
      throw new MixplError(
        'ERR_SHAPE',
        `teacher.predict: detections must have ${pairs.length} entries (one per image), got ${found.length}`,
      );
    return pairs.map((pair, i) => this.#labelOne(pair, found[i]!));
  }

  #labelOne({ weak, strong, image, truth }: UnlabelledPair, found: Detections): CachedView {
    const { minBoxSize } = this.#options;
    const shownIn = (boxes: Float32Array) => (i: number) => isLarger(boxes, i, minBoxSize);
    const inOriginal = mapInstances(weak.layer.map, found, weak.layer.source);
    const inStrong = mapInstances(strong.matrix, inOriginal, strong);
    const objects = truth && clipped(truth, strong.layer.source);
    this.#judged.push(
      judgePicture(
        { instances: inOriginal, shown: shownIn(inStrong.boxes) },
        objects
          ? { instances: objects, shown: shownIn(mapBoxes(strong.matrix, objects.boxes, strong)) }
          : null,
      ),
    );
    return { view: strong, image, instances: dropSmall(inStrong, minBoxSize) };
  }
}

function isLarger(boxes: Float32Array, i: number, least: number): boolean {
  return boxes[4 * i + 2]! - boxes[4 * i]! > least && boxes[4 * i + 3]! - boxes[4 * i + 1]! > least;
}
