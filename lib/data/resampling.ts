import { checkKeys, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import type { Random } from '../random.js';
import type { DetectionDataset } from './types.js';

/**
 * - `ceil`: every image ceil(r) times, always (reference: ClassBalancedDataset)
 * - `stochastic`: floor(r) times and once more with probability r - floor(r), redrawn every pass (LVIS)
 */
export type RepeatRounding = 'ceil' | 'stochastic';

/** Labelled Resampling: which images are repeated. */
export interface RepeatOptions {
  /** Share of images below which a category is repeated, [0, 1]; 0 repeats nothing. */
  threshold: number;
  /** @defaultValue 'ceil' */
  rounding?: RepeatRounding;
  /** Whether crowds count as instances of their category. @defaultValue true */
  countCrowd?: boolean;
}

const optionKeys = keysOf<RepeatOptions>({ threshold: 0, rounding: 0, countCrowd: 0 });

/** How often the images of a data set are to be seen. */
export interface RepeatFactors {
  /** [N] at least 1. */
  readonly images: Float64Array;
  /** [K] by label; NaN for a category without an instance, which has none. */
  readonly categories: Float64Array;
  readonly rounding: RepeatRounding;
}

/**
 * Labelled Resampling: an image is repeated for its rarest category.
 *
 * f_c = images with category c / images, r_c = max(1, sqrt(threshold / f_c)), r_i = max r_c over the
 * categories of image i, 1 without any (MixPL; Gupta et al. 2019, LVIS).
 *
 * @throws MixplError ERR_RANGE for a threshold outside [0, 1]
 */
export function repeatFactors(dataset: DetectionDataset, options: RepeatOptions): RepeatFactors {
  checkKeys('repeatFactors', options, optionKeys);
  const { threshold, rounding = 'ceil', countCrowd = true } = options;
  if (!(threshold >= 0 && threshold <= 1))
    throw new MixplError(
      'ERR_RANGE',
      `repeatFactors: threshold must be in [0, 1], got ${threshold}`,
    );
  if (rounding !== 'ceil' && rounding !== 'stochastic')
    throw new MixplError(
      'ERR_CONFIG',
      `repeatFactors: rounding must be 'ceil' or 'stochastic', got '${rounding}'`,
    );
  const labelsOf = dataset.images.map(({ annotations }) => {
    const labels = new Set<number>();
    annotations?.labels.forEach((label, i) => {
      if (countCrowd || !annotations.crowd[i]) labels.add(label);
    });
    return labels;
  });
  const counts = new Float64Array(dataset.categories.length);
  for (const labels of labelsOf) for (const label of labels) counts[label]!++;
  const categories = counts.map((count) =>
    count === 0 ? Number.NaN : Math.max(1, Math.sqrt(threshold / (count / dataset.images.length))),
  );
  const images = Float64Array.from(labelsOf, (labels) =>
    Math.max(1, ...[...labels].map((label) => categories[label]!)),
  );
  return { images, categories, rounding };
}

/** One pass over the data set: positions of images, each as often as its factor says, ascending. */
export function repeatedIndices(factors: RepeatFactors, random: Random): number[] {
  const indices: number[] = [];
  factors.images.forEach((factor, index) => {
    const whole = Math.floor(factor);
    const fraction = factor - whole;
    const extra =
      factors.rounding === 'ceil' ? fraction > 0 : fraction > 0 && random.next() < fraction;
    for (let i = 0; i < whole + (extra ? 1 : 0); i++) indices.push(index);
  });
  return indices;
}
