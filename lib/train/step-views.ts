import {
  type DecodedImage,
  drawView,
  type Instances,
  type LabelledView,
  type ViewOptions,
  viewInstances,
} from '../augment/index.js';
import type { BatchSampler, ImageCache, LoadedBatch, LoadedImage } from '../data/index.js';
import type { Annotations, DetectionDataset } from '../data/types.js';
import type { Random } from '../random.js';
import type { UnlabelledPair } from '../semi/index.js';

/** Boxes of a labelled view must be wider and higher than this, as in the reference's pipeline. */
const minBoxSize = 0.01;
/** Other images that are tried for one that lost all its boxes. */
const maxRedraws = 20;
/** Attempts below this belong to the loader's own substitutes. */
const firstRedraw = 1000;

export interface StepViewOptions {
  labelled: ViewOptions;
  weak: ViewOptions;
  strong: ViewOptions;
}

/** What a step learns from. */
export interface StepViews {
  labelled: LabelledView[];
  unlabelled: UnlabelledPair[];
}

/**
 * Draws the views of a batch. Every decision comes from (seed, kind of view, step, place in the batch),
 * whatever the order or number of threads that decode.
 */
export class ViewDrawer {
  readonly #options: StepViewOptions;
  readonly #random: Random;
  readonly #sampler: BatchSampler;
  readonly #labelled: DetectionDataset;
  readonly #truth: readonly (Annotations | null)[];
  readonly #images: ImageCache;

  constructor(setup: {
    options: StepViewOptions;
    random: Random;
    sampler: BatchSampler;
    labelled: DetectionDataset;
    /** What is in the unlabelled images, by their position, where it is known. */
    truth?: readonly (Annotations | null)[];
    images: ImageCache;
  }) {
    this.#options = setup.options;
    this.#random = setup.random;
    this.#sampler = setup.sampler;
    this.#labelled = setup.labelled;
    this.#truth = setup.truth ?? [];
    this.#images = setup.images;
  }

  /** @throws what decoding another image throws */
  async draw({ batch, images }: LoadedBatch, { teach }: { teach: boolean }): Promise<StepViews> {
    const { step } = batch;
    const [labelled = [], unlabelled = []] = images;
    return {
      labelled: await Promise.all(
        labelled.map((image, slot) => this.#labelledView(image, step, slot)),
      ),
      unlabelled: teach ? unlabelled.map((image, slot) => this.#pair(image, step, slot)) : [],
    };
  }

  #pair({ index, image, record }: LoadedImage, step: number, slot: number): UnlabelledPair {
    // Boxes of a picture with another size would be elsewhere.
    const fits = image.width === record.width && image.height === record.height;
    return {
      image: index,
      truth: fits ? (this.#truth[index] ?? null) : null,
      weak: drawView(image, this.#options.weak, this.#random.fork('weak', step, slot)),
      strong: drawView(image, this.#options.strong, this.#random.fork('strong', step, slot)),
    };
  }

  /**
   * A view that shows a box, or one of an image in which nothing is to be found. Images that lose all of
   * their boxes give way to others, as in the reference.
   */
  async #labelledView(loaded: LoadedImage, step: number, slot: number): Promise<LabelledView> {
    let first: LabelledView | undefined;
    let candidate: { image: DecodedImage; annotations: Annotations | null } | null = {
      image: loaded.image,
      annotations: loaded.record.annotations,
    };
    for (let attempt = 0; ; attempt++) {
      if (candidate) {
        const random = this.#random.fork('labelled', step, slot, attempt);
        const view = drawView(candidate.image, this.#options.labelled, random);
        const instances = viewInstances(view, instancesOf(candidate.annotations), {
          minSize: minBoxSize,
        });
        const result = { view, instances };
        if (instances.labels.length > 0 || isBackground(candidate.annotations)) return result;
        first ??= result;
      }
      // Nearly all lose their boxes, or have crowds alone: there is nothing better to learn from.
      if (attempt === maxRedraws) return first!;
      candidate = await this.#another({ step, slot, attempt: firstRedraw + attempt });
    }
  }

  /** Another labelled image; null when it cannot be used. The loader reports it when it is its turn. */
  async #another(place: { step: number; slot: number; attempt: number }) {
    const record = this.#labelled.images[this.#sampler.substitute(0, place)]!;
    const image = await this.#images.get(record.path).catch(() => null);
    const fits = image?.width === record.width && image.height === record.height;
    return image && fits ? { image, annotations: record.annotations } : null;
  }
}

/** Somebody looked and found nothing; null says that nobody looked. */
function isBackground(annotations: Annotations | null): boolean {
  return annotations?.labels.length === 0;
}

/** What an image's annotations ask to be found: crowds are no targets. */
export function instancesOf(annotations: Annotations | null): Instances {
  const kept: number[] = [];
  annotations?.labels.forEach((_, i) => {
    if (!annotations.crowd[i]) kept.push(i);
  });
  const boxes = new Float32Array(4 * kept.length);
  kept.forEach((from, to) => {
    boxes.set(annotations!.boxes.subarray(4 * from, 4 * from + 4), 4 * to);
  });
  return {
    boxes,
    labels: Int32Array.from(kept, (i) => annotations!.labels[i]!),
    scores: new Float32Array(kept.length).fill(1),
  };
}
