/** The images that a command shows to a checkpoint. */
import { join } from 'node:path';
import type { ResolvedConfig } from '../config/index.js';
import type {
  Category,
  DatasetPurpose,
  DetectionDataset,
  ImageCache,
  ProblemPolicy,
} from '../data/index.js';
import { MixplError } from '../errors.js';
import {
  type DatasetFlags,
  datasetArgument,
  type PolicyFlags,
  policyOf,
} from './dataset-argument.js';

export interface CheckpointDataset {
  /** Of the checkpoint's run; null where it stands alone. */
  config: ResolvedConfig | null;
  dataset: DetectionDataset;
  /** Its images, decoded as the run decodes them. */
  cache: ImageCache;
  /** What to do with those that cannot be. */
  unreadable: 'refuse' | 'skip';
}

/**
 * The data set that the command line names, else one that the run's config names. The config also says how
 * images are decoded and which classes are left out.
 * @param path of the command line
 * @throws MixplError ERR_CONFIG when neither names one; what reading it throws
 */
export async function checkpointDataset(
  path: string | undefined,
  of: {
    /** Whose messages they are. */
    command: string;
    flags: DatasetFlags & PolicyFlags;
    checkpoint: string;
    /** Of the weights. */
    categories: readonly Category[];
    purpose: DatasetPurpose;
    signal: AbortSignal;
    /** The run's own; null when its config names none. */
    ofRun: (config: ResolvedConfig, policy: ProblemPolicy) => Promise<DetectionDataset | null>;
  },
): Promise<CheckpointDataset> {
  const { command, flags, checkpoint, categories, purpose, signal, ofRun } = of;
  const { decodeImage, ImageCache, loadDataset } = await import('../data/index.js');
  const config = await runConfig(checkpoint, path === undefined ? command : null);
  const policy: ProblemPolicy = {
    ...(path === undefined ? config!.data.policy : {}),
    ...policyOf(flags),
  };
  const source = path === undefined ? null : await datasetArgument(path, flags);
  if (source?.format === 'folder' && purpose === 'evaluation')
    throw new MixplError(
      'ERR_CONFIG',
      `${command}: ${path} must be a COCO file or a VOC folder (metrics need annotations), got a folder of images`,
    );
  const dataset =
    source === null
      ? await ofRun(config!, policy)
      : await loadDataset(source, {
          ...{ categories, signal, policy, purpose },
          otherClasses: config?.data.classes ? 'skip' : 'policy',
        });
  if (!dataset)
    throw new MixplError(
      'ERR_CONFIG',
      `${command}: a data set must be given, got none, and none in the config of ${checkpoint}`,
    );
  const damaged = config?.data.damagedImages ?? 'refuse';
  return {
    config,
    dataset,
    unreadable: policy['unreadable-image'] === 'skip' ? 'skip' : 'refuse',
    cache: new ImageCache({ decode: (file) => decodeImage(file, { damaged }) }),
  };
}

/** The config of the run that a checkpoint is of. @param needed by which command; null: not at all */
export async function runConfig(
  checkpoint: string,
  needed: string | null,
): Promise<ResolvedConfig | null> {
  const { loadConfig } = await import('../config/index.js');
  const { findRunFolder } = await import('../train/weights-file.js');
  const folder = await findRunFolder(checkpoint);
  try {
    if (folder) return await loadConfig(join(folder, 'config.yaml'));
  } catch (error) {
    if (needed !== null) throw error;
  }
  if (needed === null) return null;
  throw new MixplError(
    'ERR_CONFIG',
    `${needed}: a data set must be given, got none; ${checkpoint} is not in the folder of a run, whose config would name one`,
  );
}
