import { checkKeys, keysOf } from '../arguments.js';
import { selectImages } from '../data/index.js';
import type { DetectionDataset } from '../data/types.js';
import { MixplError } from '../errors.js';
import { Random } from '../random.js';

/** Which annotated images are looked at. */
export interface SampleOptions {
  /** Number of images, chosen at random by `seed`. @defaultValue all */
  limit?: number | undefined;
  /** Seed of the choice; with the same seed a smaller choice is part of a larger one. @defaultValue 0 */
  seed?: number | undefined;
}

const optionKeys = keysOf<SampleOptions>({ limit: 0, seed: 0 });

/**
 * The images of a data set in which somebody annotated what is there (an empty one is annotated, too), in
 * their order.
 * @throws MixplError ERR_DATA when nothing is annotated, ERR_RANGE for a limit below 1
 */
export function annotatedImages(
  dataset: DetectionDataset,
  options: SampleOptions = {},
): DetectionDataset {
  checkKeys('annotatedImages', options, optionKeys);
  const { limit = Number.POSITIVE_INFINITY, seed = 0 } = options;
  if (!(limit >= 1 && (Number.isInteger(limit) || limit === Number.POSITIVE_INFINITY)))
    throw new MixplError(
      'ERR_RANGE',
      `analysis: limit must be a whole number of images from 1, got ${limit}`,
    );
  const annotated = dataset.images.filter(({ annotations }) => annotations);
  if (annotated.length === 0)
    throw new MixplError(
      'ERR_DATA',
      `${dataset.name}: images must have annotations (what was found is compared with them), ` +
        `got ${dataset.images.length} without`,
    );
  const chosen = new Set(
    new Random(seed).fork('analysis').permutation(annotated.length).slice(0, limit),
  );
  const images = annotated.filter((_, i) => chosen.has(i));
  return images.length === dataset.images.length ? dataset : selectImages(dataset, images);
}
