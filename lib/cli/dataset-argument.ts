/** A data set named on the command line. */
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { type Command, Option } from 'commander';
import type {
  DatasetSource,
  DetectionDataset,
  ProblemAction,
  ProblemPolicy,
} from '../data/index.js';
import { ioError } from '../files.js';
import type { Output } from './output.js';

export interface DatasetFlags {
  format?: DatasetSource['format'];
  images?: string;
  imageSet?: string;
}

/** Adds the argument and the options that say how to read it. */
export function withDatasetArgument(command: Command): Command {
  return withDatasetOptions(
    command.argument('<dataset>', 'COCO file, VOC folder, or plain folder of images'),
  );
}

export function withDatasetOptions(command: Command): Command {
  return command
    .addOption(
      new Option(
        '--format <name>',
        'format of the data set (default: recognised from its path)',
      ).choices(['coco', 'voc', 'folder']),
    )
    .option('--images <folder>', "COCO: folder of the images (default: the file's folder)")
    .option(
      '--image-set <name>',
      'VOC: name of a list in ImageSets/Main, e.g. trainval (default: every annotated image)',
    );
}

export interface PolicyFlags {
  policy: Record<string, string>;
}

/** What data.policy is to a run. */
export const policyOption = () =>
  new Option(
    '--policy <kind=action>',
    'what to do with one kind of problem: refuse, skip, keep or repair, e.g. missing-image=skip (data check names the kinds); may be repeated',
  )
    .default(
      {} as Record<string, string>,
      'as data check says, but eval counts what training skips',
    )
    .argParser((text: string, before: Record<string, string>) => {
      const [kind = '', action = ''] = text.split('=', 2);
      return { ...before, [kind]: action };
    });

/** The reader refuses what it does not know. */
export const policyOf = ({ policy }: PolicyFlags) => policy as ProblemPolicy;

/** What was done with a kind of problem. */
export const actionDone = {
  ...{ refuse: 'refused', skip: 'skipped', keep: 'kept', repair: 'repaired' },
} as const satisfies Record<ProblemAction, string>;

/** Says what was passed over while a data set was read, and what was used in spite of a problem. */
export async function warnOfProblems(dataset: DetectionDataset, output: Output): Promise<void> {
  const { problemRules } = await import('../data/index.js');
  for (const { kind, action, count } of dataset.report.problems)
    output.warn(
      `${dataset.name}: ${count} ${problemRules[kind].what} (${kind}): ${actionDone[action]}`,
    );
}

/** @throws MixplError ERR_IO when there is nothing at `path` */
export async function datasetArgument(path: string, flags: DatasetFlags): Promise<DatasetSource> {
  const format = flags.format ?? (await looksLike(path));
  switch (format) {
    case 'coco':
      return { format, annotations: path, images: flags.images };
    case 'voc':
      return { format, folder: path, imageSet: flags.imageSet };
    case 'folder':
      return { format, images: path };
  }
}

async function looksLike(path: string): Promise<DatasetSource['format']> {
  const found = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    throw ioError(path, 'must be a file or folder', cause);
  });
  if (!found.isDirectory()) return 'coco';
  const isVoc = await stat(join(path, 'Annotations')).then(
    (inner) => inner.isDirectory(),
    () => false,
  );
  return isVoc ? 'voc' : 'folder';
}
