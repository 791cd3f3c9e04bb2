import { checkKeys } from '../arguments.js';
import { datasetSource, type ResolvedConfig } from '../config/index.js';
import {
  type DatasetSplit,
  filterLabelled,
  loadDataset,
  type ProblemPolicy,
  splitDataset,
} from '../data/index.js';
import type { Category, DetectionDataset } from '../data/types.js';
import { MixplError } from '../errors.js';

/** The data sets that a config names. */
export interface RunData {
  labelled: DetectionDataset;
  /** With the annotations that its source has: a training compares with them and learns nothing from them. */
  unlabelled: DetectionDataset | null;
  test: DetectionDataset | null;
  /** Hash of the labelled file names, if a split chose them. */
  splitHash: string | null;
}

/** How the data sets of a config are read. */
export interface LoadDataOptions {
  signal?: AbortSignal | undefined;
  /** What to do with problems, instead of the config's `data.policy`. */
  policy?: ProblemPolicy | undefined;
}

/**
 * Reads the data sets of a config: splits the labelled one, drops images that training cannot use
 * from it, gives the others its classes.
 * @throws MixplError what lib/data throws for files and annotations that cannot be used
 */
export async function loadRunData(
  config: ResolvedConfig,
  options: Pick<LoadDataOptions, 'signal'> = {},
): Promise<RunData> {
  checkKeys('loadRunData', options, ['signal']);
  const { signal } = options;
  const { classes, filter, policy } = config.data;
  const { whole, parts } = await loadAnnotated(config, { signal });
  const { categories } = whole;
  const unlabelled = await loadUnlabelled(config, { categories, parts, signal });
  const testSource = datasetSource(config, 'test');
  const test = testSource
    ? await loadDataset(testSource, {
        ...{ policy, signal, categories, purpose: 'evaluation' },
        otherClasses: classes ? 'skip' : 'policy',
      })
    : null;
  return {
    labelled: filterLabelled(parts?.labelled ?? whole, filter),
    unlabelled,
    test,
    splitHash: parts?.hash ?? null,
  };
}

/**
 * The images that a config's training takes as unlabelled, with the annotations that it does not see.
 * @throws MixplError ERR_CONFIG when there are no such images or nothing is annotated in them; as loadRunData
 */
export async function loadHiddenTruth(
  config: ResolvedConfig,
  options: LoadDataOptions = {},
): Promise<DetectionDataset> {
  checkKeys('loadHiddenTruth', options, ['signal', 'policy']);
  const { whole, parts } = await loadAnnotated(config, options);
  const { categories } = whole;
  const unlabelled = await loadUnlabelled(config, { categories, parts, ...options });
  if (unlabelled?.images.some(({ annotations }) => annotations)) return unlabelled;
  const got = unlabelled
    ? `${unlabelled.images.length} images of ${unlabelled.name} without annotations`
    : 'none (neither data.unlabelled nor data.split)';
  throw new MixplError(
    'ERR_CONFIG',
    `${config.name}: the unlabelled images must have annotations to compare with, got ${got}; name an annotated data set`,
  );
}

async function loadAnnotated(
  config: ResolvedConfig,
  { signal, policy = config.data.policy }: LoadDataOptions,
): Promise<{ whole: DetectionDataset; parts: DatasetSplit | null }> {
  const { split, classes } = config.data;
  const whole = await loadDataset(datasetSource(config, 'labelled')!, {
    ...{ policy, signal },
    classes: classes ?? undefined,
  });
  return { whole, parts: split ? splitDataset(whole, { ...split, keepAnnotations: true }) : null };
}

async function loadUnlabelled(
  config: ResolvedConfig,
  of: { categories: readonly Category[]; parts: DatasetSplit | null } & LoadDataOptions,
): Promise<DetectionDataset | null> {
  const { categories, parts, signal, policy = config.data.policy } = of;
  const source = datasetSource(config, 'unlabelled');
  if (!source) return parts?.unlabelled ?? null;
  // One that cannot be read is no loss, as when its turn comes in training.
  const lenient = { ...policy, 'unreadable-image': 'skip' } as const;
  return loadDataset(source, { policy: lenient, signal, labelled: 'hidden', categories });
}
