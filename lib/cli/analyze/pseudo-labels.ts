import type { Command } from 'commander';
import type { PseudoLabelStudy } from '../../analysis/pseudo-label-page.js';
import type { Category } from '../../data/index.js';
import { MixplError } from '../../errors.js';
import type { CheckpointDataset } from '../checkpoint-dataset.js';
import { withInterrupt } from '../interrupt.js';
import { createOutput, type Output } from '../output.js';
import { useRuntime } from '../runtime-options.js';
import { createStatus } from '../status.js';
import {
  hiddenTruth,
  listOfShares,
  type SourceFlags,
  withSourceOptions,
  writeStudy,
} from './source.js';

interface PseudoLabelFlags extends SourceFlags {
  checkpoint: string[];
  all?: boolean;
  thresholds?: number[];
  out?: string;
  json?: boolean;
}

const command = 'analyze pseudo-labels';

export function addAnalyzePseudoLabels(analyze: Command): void {
  withSourceOptions(
    analyze
      .command('pseudo-labels')
      .description(
        "compare a teacher's pseudo labels with the annotations that its training did not see",
      ),
  )
    .requiredOption(
      '--checkpoint <path>',
      'weights file, checkpoint or folder of a run; may be repeated',
      (path: string, before?: string[]) => [...(before ?? []), path],
    )
    .option('--all', 'analyse every checkpoint of the run, the oldest first')
    .option(
      '--thresholds <list>',
      "score thresholds of pseudo labels in [0, 1], e.g. 0.3,0.5 (default: the run's semi.scoreThr and values 0.1 and 0.2 away from it)",
      listOfShares,
    )
    .option('--out <dir>', 'also write pseudo-labels.json and a page of charts, pseudo-labels.html')
    .option(
      '--json',
      'print { "dataset", "threshold", "checkpoints": [{ weights, iteration, images, objects, meanScore, thresholds }] }',
    )
    .action(async (dataset: string | undefined, flags: PseudoLabelFlags) => {
      const output = createOutput(flags);
      const study = await studyOf(dataset, flags, output);
      if (flags.out !== undefined) {
        const { pageOf } = await import('../../analysis/pseudo-label-page.js');
        await writeStudy(flags.out, { name: 'pseudo-labels', study, page: pageOf(study) }, output);
      }
      await output.result(study, () => describe(study));
    });
}

async function studyOf(
  path: string | undefined,
  flags: PseudoLabelFlags,
  output: Output,
): Promise<PseudoLabelStudy> {
  const { analyzePseudoLabels, thresholdsAround } = await import('../../analysis/pseudo-labels.js');
  const { openDetector } = await import('../../detector/open.js');
  const { defaultScoreThr } = await import('../../semi/index.js');
  const files = await weightsFiles(flags);
  const status = createStatus();
  const told = new Set<string>();
  let images: CheckpointDataset | undefined;
  let thresholds: readonly number[] = [];
  const study: PseudoLabelStudy = {
    dataset: { name: '', source: '' },
    threshold: 0,
    checkpoints: [],
  };
  await withInterrupt(async (signal) => {
    for (const weights of files) {
      const { detector, categories, metadata } = await openDetector(
        weights,
        await useRuntime(flags),
      );
      try {
        if (!images) {
          const checkpoint = flags.checkpoint[0]!;
          images = await hiddenTruth(path, {
            ...{ command, flags, checkpoint, categories, signal, output },
          });
          const { config, dataset } = images;
          const own = config?.semi.scoreThr ?? defaultScoreThr(detector.options.type);
          thresholds = flags.thresholds ?? thresholdsAround(own);
          study.threshold = nearest(own, thresholds);
          study.dataset = { name: dataset.name, source: dataset.report.source };
        }
        checkClasses(weights, categories, images.dataset.categories);
        const { dataset, cache, unreadable } = images;
        const analysis = await analyzePseudoLabels(detector, dataset, {
          ...{ thresholds, cache, unreadable, signal },
          onUnreadable: ({ message }, file) => {
            if (!told.has(file)) output.warn(`${message}; it is left out of the numbers`);
            told.add(file);
          },
          onProgress: (done, total) => status.set(`${weights}: ${done}/${total}`),
        });
        const iteration = metadata.iteration === undefined ? null : Number(metadata.iteration);
        study.checkpoints.push({ weights, iteration, ...analysis });
      } finally {
        detector.dispose();
      }
    }
  }).finally(() => status.clear());
  return study;
}

/** In the order of the command line; the checkpoints of a run from the oldest on. */
async function weightsFiles({ checkpoint, all }: PseudoLabelFlags): Promise<string[]> {
  const { findCheckpoints, findWeights } = await import('../../train/weights-file.js');
  const paths = all ? (await Promise.all(checkpoint.map(findCheckpoints))).flat() : checkpoint;
  const found = await Promise.all(paths.map(findWeights));
  return found.map(({ headline }) => headline);
}

/** Labels of two checkpoints mean the same only if their classes are the same. */
function checkClasses(
  weights: string,
  own: readonly Category[],
  ofImages: readonly Category[],
): void {
  const names = (categories: readonly Category[]) => categories.map(({ name }) => name).join(', ');
  // Weights need not name their classes.
  if (own.length === 0 || names(own) === names(ofImages)) return;
  throw new MixplError(
    'ERR_CONFIG',
    `${command}: ${weights} must have the classes of the images (${names(ofImages)}), got ${names(own)}`,
  );
}

function nearest(to: number, values: readonly number[]): number {
  return values.reduce((best, value) =>
    Math.abs(value - to) < Math.abs(best - to) ? value : best,
  );
}

async function describe(study: PseudoLabelStudy): Promise<string> {
  const { pageOf } = await import('../../analysis/pseudo-label-page.js');
  const { tableOf } = await import('../../text-table.js');
  const { intro, tables } = pageOf(study);
  const parts = [intro];
  for (const { title, columns, rows } of tables) {
    const table = await tableOf(columns);
    table.push(...rows);
    parts.push(`${title}\n${table.toString()}`);
  }
  return parts.join('\n\n');
}
