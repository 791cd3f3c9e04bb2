import { type Command, InvalidArgumentError } from 'commander';
import type { GradientStudy } from '../../analysis/gradient-page.js';
import type { ViewName } from '../../analysis/index.js';
import { withInterrupt } from '../interrupt.js';
import { wholeNumber } from '../numbers.js';
import { createOutput, type Output } from '../output.js';
import { createStatus } from '../status.js';
import { openBranches, settingsOf } from './branches.js';
import {
  hiddenTruth,
  listOfShares,
  type SourceFlags,
  withSourceOptions,
  writeStudy,
} from './source.js';

interface GradientFlags extends SourceFlags {
  checkpoint: string;
  thresholds?: number[];
  views?: ViewName[];
  bins: number;
  out?: string;
  json?: boolean;
}

const command = 'analyze gradients';
/** As lib/analysis/student-views.ts has them, which --help need not load. */
const views: readonly ViewName[] = ['weak', 'strong', 'mixup', 'mosaic'];

export function addAnalyzeGradients(analyze: Command): void {
  withSourceOptions(
    analyze
      .command('gradients')
      .description(
        "measure gradient norms of a student's class scores in each of its views, separately for right and wrong pseudo labels",
      ),
  )
    .requiredOption('--checkpoint <path>', 'weights file, checkpoint or folder of a run')
    .option(
      '--thresholds <list>',
      "score thresholds of pseudo labels in [0, 1], e.g. 0.3,0.5 (default: the run's semi.scoreThr and values 0.1 and 0.2 away from it)",
      listOfShares,
    )
    .option(
      '--views <list>',
      `views to analyse, some of ${views.join(',')} (default: all)`,
      listOfViews,
    )
    .option('--bins <n>', 'number of bins of each density', wholeNumber(1), 30)
    .option('--out <dir>', 'also write gradients.json and a page of charts, gradients.html')
    .option(
      '--json',
      'print { "dataset", "student", "teacher", "images", "bins", "views": [{ view, inputs, thresholds: [{ threshold, tp, fp, fn, tn }] }] }',
    )
    .action(async (dataset: string | undefined, flags: GradientFlags) => {
      const output = createOutput(flags);
      const study = await studyOf(dataset, flags, output);
      if (flags.out !== undefined) {
        const { pageOf } = await import('../../analysis/gradient-page.js');
        await writeStudy(flags.out, { name: 'gradients', study, page: pageOf(study) }, output);
      }
      await output.result(study, () => describe(study));
    });
}

function listOfViews(text: string): ViewName[] {
  const names = text.split(',').map((name) => name.trim());
  const unknown = names.find((name) => !(views as readonly string[]).includes(name));
  if (unknown !== undefined)
    throw new InvalidArgumentError(
      `It must be one or more of ${views.join(',')}, separated by commas.`,
    );
  return names as ViewName[];
}

async function studyOf(
  path: string | undefined,
  flags: GradientFlags,
  output: Output,
): Promise<GradientStudy> {
  const { analyzeGradients } = await import('../../analysis/gradients.js');
  const { checkpoint, thresholds, views, bins, limit, seed } = flags;
  const branches = await openBranches(checkpoint, flags, output);
  const status = createStatus();
  try {
    return await withInterrupt(async (signal) => {
      const { categories, student, teacher, files } = branches;
      const { dataset, config, cache, unreadable } = await hiddenTruth(path, {
        ...{ command, flags, checkpoint, categories, signal, output },
      });
      const analysis = await analyzeGradients(student, dataset, {
        ...{ teacher, thresholds, views, bins, limit, seed, cache, unreadable, signal },
        settings: settingsOf(config, output),
        onUnreadable: ({ message }) => output.warn(`${message}; it is left out of the numbers`),
        onProgress: (done, total) => status.set(`${done}/${total} images`),
      });
      const source = { name: dataset.name, source: dataset.report.source };
      return { dataset: source, ...files, ...analysis };
    });
  } finally {
    status.clear();
    branches.dispose();
  }
}

async function describe(study: GradientStudy): Promise<string> {
  const { pageOf } = await import('../../analysis/gradient-page.js');
  const { tableOf } = await import('../../text-table.js');
  const { intro, tables } = pageOf(study);
  const [{ title, columns, rows }] = tables as [(typeof tables)[0]];
  const table = await tableOf(columns);
  table.push(...rows);
  return `${intro}\n\n${title}\n${table.toString()}`;
}
