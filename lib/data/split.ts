import { createHash } from 'node:crypto';
import { checkKeys, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { Random } from '../random.js';
import { selectImages } from './dataset.js';
import { byCodeUnit } from './image-files.js';
import { Mt19937 } from './mt19937.js';
import type { DetectionDataset, ImageRecord } from './types.js';

/**
 * - `exact`: round(percent of N) images without replacement; the draw goes by file name, so the order
 *   in the file or folder does not matter; within a fold, smaller percentages are subsets of larger
 * - `reference`: the published splits of COCO train2017, draw for draw (numpy's legacy generator,
 *   with replacement, so somewhat fewer images than nominal), by position in the file
 */
export type SplitScheme = 'exact' | 'reference';

/** What share of a data set keeps its labels, and which. */
export interface SplitOptions {
  /** Share of labelled images, (0, 100]. */
  percent: number;
  /** Which of the independent draws; the seed. The papers use 1 … 5. @defaultValue 1 */
  fold?: number;
  /** How the share is counted and drawn. @defaultValue 'exact' */
  scheme?: SplitScheme;
  /** Leave the annotations of the unlabelled part in (the reference's files do). @defaultValue false */
  keepAnnotations?: boolean;
}

/** A data set in two, without an image in common. */
export interface DatasetSplit {
  readonly labelled: DetectionDataset;
  /** Its annotations are null unless kept. */
  readonly unlabelled: DetectionDataset;
  /** SHA-256 (hex) of the labelled images' file names, sorted: equal means the same split. */
  readonly hash: string;
}

const optionKeys = keysOf<SplitOptions>({ percent: 0, fold: 0, scheme: 0, keepAnnotations: 0 });

/**
 * Positions of the labelled images among `count`, ascending. For 'exact' the positions are those in
 * order of file name.
 *
 * @throws MixplError ERR_RANGE when percent or fold is out of range or no image would be labelled
 */
export function splitIndices(count: number, options: SplitOptions): number[] {
  checkKeys('splitDataset', options, optionKeys);
  const { percent, fold = 1, scheme = 'exact' } = options;
  if (!(percent > 0 && percent <= 100))
    throw new MixplError('ERR_RANGE', `splitDataset: percent must be in (0, 100], got ${percent}`);
  if (!Number.isInteger(fold) || fold < 0 || fold > 0xffffffff)
    throw new MixplError(
      'ERR_RANGE',
      `splitDataset: fold must be an integer from 0 to 4294967295 (it is the seed), got ${fold}`,
    );
  let chosen: Iterable<number>;
  if (scheme === 'reference')
    chosen = new Set(new Mt19937(fold).choice(count, Math.trunc((percent / 100) * count)));
  else if (scheme === 'exact')
    chosen = new Random(fold)
      .fork('split')
      .permutation(count)
      .slice(0, Math.round((percent * count) / 100));
  else
    throw new MixplError(
      'ERR_CONFIG',
      `splitDataset: scheme must be 'exact' or 'reference', got '${scheme}'`,
    );
  const indices = [...chosen].sort((a, b) => a - b);
  if (indices.length === 0)
    throw new MixplError(
      'ERR_RANGE',
      `splitDataset: percent must label at least one of ${count} images, got ${percent}`,
    );
  return indices;
}

/**
 * Splits a labelled data set into a few labelled and many unlabelled images. Both keep the order of
 * the data set.
 *
 * @throws MixplError ERR_RANGE (see splitIndices); ERR_DATA when the data set has unlabelled images
 */
export function splitDataset(dataset: DetectionDataset, options: SplitOptions): DatasetSplit {
  const { percent, fold = 1, scheme = 'exact', keepAnnotations = false } = options;
  const { images } = dataset;
  const bare = images.find(({ annotations }) => annotations === null);
  if (bare)
    throw new MixplError(
      'ERR_DATA',
      `splitDataset: every image must be annotated, got '${bare.fileName}' without annotations`,
    );
  const pool =
    scheme === 'exact' ? [...images].sort((a, b) => byCodeUnit(a.fileName, b.fileName)) : images;
  const chosen = new Set(splitIndices(images.length, options).map((index) => pool[index]!));
  const labelled = images.filter((image) => chosen.has(image));
  const rest = images.filter((image) => !chosen.has(image));
  const unlabelled = keepAnnotations ? rest : rest.map(withoutAnnotations);
  const name = `${dataset.name}.${fold}@${percent}`;
  return {
    labelled: selectImages(dataset, labelled, { name }),
    unlabelled: selectImages(dataset, unlabelled, { name: `${name}-unlabeled` }),
    hash: hashOf(labelled),
  };
}

/** The same data set as an unlabelled source. */
export function asUnlabelled(dataset: DetectionDataset): DetectionDataset {
  return selectImages(dataset, dataset.images.map(withoutAnnotations));
}

function withoutAnnotations(image: ImageRecord): ImageRecord {
  return { ...image, annotations: null };
}

function hashOf(images: readonly ImageRecord[]): string {
  const names = images.map(({ fileName }) => fileName).sort(byCodeUnit);
  return createHash('sha256').update(JSON.stringify(names)).digest('hex');
}
