import { checkKeys, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { selectImages } from './dataset.js';
import type { DetectionDataset } from './types.js';

/** Which labelled images filterLabelled drops. */
export interface FilterOptions {
  /** Drop images whose shorter side is below this many pixels. @defaultValue 32 */
  minSize?: number;
  /** Drop images without any annotation; a crowd counts as one. @defaultValue true */
  dropEmpty?: boolean;
}

const optionKeys = keysOf<FilterOptions>({ minSize: 0, dropEmpty: 0 });

/**
 * Drops the images that supervised training cannot use, as the reference does (filter_empty_gt,
 * min_size). Deviation: an image whose only annotations were skipped as degenerate goes too.
 *
 * @throws MixplError ERR_DATA when nothing is left
 */
export function filterLabelled(
  dataset: DetectionDataset,
  options: FilterOptions = {},
): DetectionDataset {
  checkKeys('filterLabelled', options, optionKeys);
  const { minSize = 32, dropEmpty = true } = options;
  const images = dataset.images.filter(
    ({ width, height, annotations }) =>
      Math.min(width, height) >= minSize && (!dropEmpty || (annotations?.labels.length ?? 0) > 0),
  );
  if (images.length === 0)
    throw new MixplError(
      'ERR_DATA',
      `filterLabelled: ${dataset.name} must have images with annotations and sides of at least ${minSize} pixels, ` +
        `got ${dataset.images.length} images, none like that`,
    );
  return images.length === dataset.images.length ? dataset : selectImages(dataset, images);
}
