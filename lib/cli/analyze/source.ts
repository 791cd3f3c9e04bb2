/** What every `mixpl analyze` looks at: a checkpoint, and images whose objects are known. */
import { join } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import type { Category } from '../../data/index.js';
import type { Page } from '../../report/page.js';
import { type CheckpointDataset, checkpointDataset } from '../checkpoint-dataset.js';
import {
  type DatasetFlags,
  type PolicyFlags,
  policyOption,
  warnOfProblems,
  withDatasetOptions,
} from '../dataset-argument.js';
import { wholeNumber } from '../numbers.js';
import type { Output } from '../output.js';
import { type RuntimeFlags, withRuntimeOptions } from '../runtime-options.js';

export interface SourceFlags extends DatasetFlags, RuntimeFlags, PolicyFlags {
  limit?: number;
  seed: number;
}

/** Adds the data set, which of its images, and where it computes; --checkpoint is the command's. */
export function withSourceOptions(command: Command): Command {
  return withChoiceOptions(
    command.argument(
      '[dataset]',
      "COCO file or VOC folder (default: the run's own unlabelled images, if they are annotated)",
    ),
  );
}

/** The same for a command with arguments of its own. */
export function withChoiceOptions(command: Command): Command {
  return withRuntimeOptions(
    withDatasetOptions(command)
      .option(
        '--limit <n>',
        'analyse n images, chosen at random by --seed (default: all)',
        wholeNumber(1),
      )
      .option(
        '--seed <n>',
        'seed of all random choices: the images of --limit, the views',
        wholeNumber(0),
        0,
      )
      .addOption(policyOption()),
  );
}

/**
 * The images that a command analyses: those that the command line names, else what the run trained on without
 * their annotations. Problems are told; unannotated images are left out.
 * @param dataset of the command line
 * @throws MixplError ERR_CONFIG, ERR_DATA when nothing is annotated; what reading them throws
 */
export async function hiddenTruth(
  dataset: string | undefined,
  of: {
    /** Whose messages they are. */
    command: string;
    flags: SourceFlags;
    checkpoint: string;
    /** Of the weights. */
    categories: readonly Category[];
    signal: AbortSignal;
    output: Output;
  },
): Promise<CheckpointDataset> {
  const { annotatedImages } = await import('../../analysis/annotated-images.js');
  const { loadHiddenTruth } = await import('../../train/run-data.js');
  const { flags, signal, output } = of;
  const found = await checkpointDataset(dataset, {
    ...of,
    purpose: 'training',
    ofRun: (config, policy) => loadHiddenTruth(config, { policy, signal }),
  });
  await warnOfProblems(found.dataset, output);
  const annotated = annotatedImages(found.dataset, { limit: flags.limit, seed: flags.seed });
  const { annotations, crowd } = annotated.report;
  if (annotations === crowd)
    output.warn(
      `${annotated.name}: the annotations of its ${annotated.images.length} images have no object to find`,
    );
  return { ...found, dataset: annotated };
}

export function listOfShares(text: string): number[] {
  const values = text.split(',').map((part) => (part.trim() === '' ? Number.NaN : Number(part)));
  if (values.some((value) => !(value >= 0 && value <= 1)))
    throw new InvalidArgumentError('It must be numbers in [0, 1], separated by commas.');
  return values;
}

/** Writes NAME.json and NAME.html with its charts, each whole or not at all. @throws MixplError ERR_IO */
export async function writeStudy(
  folder: string,
  { name, study, page }: { name: string; study: object; page: Page },
  output: Output,
): Promise<void> {
  const { makeFolder, writeFileWhole } = await import('../../files.js');
  const { writePage } = await import('../../report/page.js');
  await makeFolder(folder);
  const path = join(folder, `${name}.html`);
  await writeFileWhole(join(folder, `${name}.json`), [JSON.stringify(study, null, 2), '\n']);
  await writePage(path, page);
  output.note(`charts: ${path}`);
}
