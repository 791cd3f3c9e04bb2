import { join } from 'node:path';
import type { Command } from 'commander';
import type { ResolvedConfig } from '../config/index.js';
import type { LoadedWeights } from '../detector/weights.js';
import type { CocoMetrics } from '../eval/index.js';
import type { ProcessGroup } from '../processes/index.js';
import type {
  RunData,
  RunResult,
  StepEvent,
  TrainEvent,
  ValidationEvent,
  ValidationProgress,
} from '../train/index.js';
import { repeatable, setOption } from './config.js';
import { actionDone } from './dataset-argument.js';
import { withInterrupt } from './interrupt.js';
import { wholeNumber } from './numbers.js';
import { createOutput, exitCodes } from './output.js';

interface TrainFlags {
  set: string[];
  out?: string;
  resume?: boolean;
  allowChange: string[];
  processes?: number;
  rank?: number;
  address?: string;
  json?: boolean;
}

export function addTrainCommand(program: Command): void {
  program
    .command('train')
    .description('train a detector as a config or preset says')
    .argument('<config>', 'YAML file or name of a preset')
    .addOption(setOption())
    .option('--out <dir>', 'folder of the run (default: runs/NAME, by the name in the config)')
    .option(
      '--resume',
      'continue from the newest checkpoint in the folder of the run, if there is one',
    )
    .addOption(
      repeatable(
        '--allow-change <option>',
        'with --resume: option of the config that may differ from the checkpoint, e.g. schedule.iterations',
      ),
    )
    .option(
      '--processes <n>',
      'train with n processes, each with a GPU of its own, that share the batch.accumulate parts of an iteration (default: 1)',
      wholeNumber(1, 1024),
    )
    .option(
      '--rank <n>',
      'start only the process of this rank, from 0 on, of a training on several machines; needs --processes, --address, and MIXPL_SECRET in the environment',
      wholeNumber(0, 1023),
    )
    .option(
      '--address <host:port>',
      'with --rank: host and port on which the process of rank 0 listens',
    )
    .option('--json', 'print { out, reason, iteration, best, teacher, student, … } at the end')
    .action(train);
}

async function train(source: string, flags: TrainFlags): Promise<void> {
  const { adviceFor, loadConfig } = await import('../config/index.js');
  const { runTraining } = await import('../train/index.js');
  const config = await loadConfig(source, { overrides: flags.set });
  const processes = await processesOf(flags);
  const leads = !processes || processes.rank === 0;
  const out = flags.out ?? join('runs', config.name);
  const report = leads ? await createReport(config) : null;
  for (const advice of adviceFor(config)) report?.warn(advice);
  const began = performance.now();
  let result: RunResult;
  try {
    result = await withInterrupt(
      (signal) =>
        runTraining(config, {
          ...{ out, signal, processes },
          resume: flags.resume ?? false,
          allowChanges: flags.allowChange,
          ...(report && {
            onData: (data) => report.data(data),
            onWeights: (loaded) => report.weights(loaded),
            onEvent: (event) => report.event(event),
            onValidating: (progress) => report.validating(progress),
          }),
        }),
      {
        onInterrupt: () =>
          report?.warn('stopping after this step; interrupt again to stop at once'),
      },
    );
  } catch (error) {
    // One process says what it was.
    if (!leads) process.exitCode = exitCodes.failed;
    else throw error;
    return;
  } finally {
    report?.finish();
    await processes?.close();
  }
  const seconds = (performance.now() - began) / 1000;
  if (result.reason === 'aborted') process.exitCode = exitCodes.interrupted;
  if (!leads) return;
  await createOutput(flags).result(await summaryOf(result, { out, seconds }), () =>
    describe(result, { out }),
  );
}

/** Null: one. @throws MixplError ERR_CONFIG, ERR_STATE */
async function processesOf({
  processes = 1,
  rank,
  address,
}: TrainFlags): Promise<ProcessGroup | null> {
  if (processes === 1) return null;
  const { startProcesses } = await import('../processes/index.js');
  return startProcesses({
    processes,
    ...(rank === undefined ? {} : { rank }),
    ...(address === undefined ? {} : { address }),
  });
}

/** What people see while it runs, on stderr. */
async function createReport(config: ResolvedConfig) {
  const { createLogger, Progress, StatusLine } = await import('../log/index.js');
  const { problemRules } = await import('../data/index.js');
  const line = new StatusLine(process.stderr);
  const log = createLogger({ level: config.logging.level, write: (text) => line.print(text) });
  let progress: InstanceType<typeof Progress> | undefined;
  const total = config.schedule.iterations;
  return {
    warn: (message: string) => log.warn(message),
    data({ labelled, unlabelled, test, splitHash }: RunData) {
      const parts = [
        `${labelled.images.length} labelled`,
        `${unlabelled?.images.length ?? 0} unlabelled`,
        `${test?.images.length ?? 0} test images`,
      ];
      log.info(`data: ${parts.join(', ')}${splitHash ? `; split ${splitHash.slice(0, 12)}` : ''}`);
      for (const set of [labelled, unlabelled, test])
        for (const { kind, action, count } of set?.report.problems ?? [])
          log.warn(
            `${set!.name}: ${count} ${problemRules[kind].what} (${kind}): ${actionDone[action]}`,
          );
    },
    weights({ layout, loaded, missing, note }: LoadedWeights) {
      const kept = missing.length
        ? `, ${missing.length} not in the file keep their initial values`
        : '';
      log.info(`weights: ${loaded.length} tensors, layout ${layout}${kept}`);
      if (note) log.warn(`model.weights: ${note}`);
    },
    event(event: TrainEvent) {
      switch (event.type) {
        case 'step':
          progress ??= new Progress(line, { total, done: event.iteration - 1, label: config.name });
          progress.update(event.iteration, fieldsOf(event));
          break;
        case 'validation':
          log.info(describeValidation(event));
          break;
        case 'checkpoint':
          log.info(`checkpoint: ${event.path}`);
          break;
        case 'resumed':
          log.info(`resumed from ${event.path}`);
          break;
        case 'warning':
          log.warn(event.message);
      }
    },
    validating: ({ branch, done, total }: ValidationProgress) =>
      line.setBriefly(`${config.name} validating ${branch} ${done}/${total}`, { plain_ms: 30_000 }),
    finish: () => line.finish(),
  };
}

/** Of the progress line. */
function fieldsOf(event: StepEvent): Record<string, number | string> {
  const { pseudo, losses } = event;
  const truth = pseudo?.truth;
  const sum = (prefix: RegExp) =>
    Object.entries(losses).reduce((s, [name, v]) => (prefix.test(name) ? s + v : s), 0);
  return {
    loss: event.total,
    ...(pseudo
      ? {
          sup: sum(/^sup_.*loss/),
          unsup: sum(/unsup_.*loss/),
          'pseudo/image': pseudo.boxes / pseudo.images,
          empty: `${Math.round((100 * pseudo.emptyImages) / pseudo.images)}%`,
          ...(truth
            ? {
                right: `${truth.right}/${truth.boxes - truth.onCrowd}`,
                found: `${truth.found}/${truth.objects}`,
              }
            : {}),
        }
      : {}),
    'images/s': event.imagesPerSecond,
  };
}

function describeValidation({ iteration, headline, teacher, student, best }: ValidationEvent) {
  const numbers = (metrics: CocoMetrics) =>
    `AP ${metrics.stats[0]!.toFixed(3)} AP50 ${metrics.stats[1]!.toFixed(3)}` +
    (metrics.voc ? ` VOC AP50 ${metrics.voc.mapPerThreshold[0]!.toFixed(3)}` : '');
  const branches = [
    ...(teacher ? [`teacher ${numbers(teacher)}`] : []),
    `student ${numbers(student)}`,
  ];
  return `iteration ${iteration}: ${branches.join(', ')}${best ? ` (best ${headline} so far)` : ''}`;
}

async function summaryOf(result: RunResult, { out, seconds }: { out: string; seconds: number }) {
  const { metricNumbers } = await import('../eval/index.js');
  const numbersOf = (metrics: CocoMetrics | null | undefined) =>
    metrics ? metricNumbers(metrics) : null;
  const { reason, iteration, validation, best, data } = result;
  return {
    ...{ out, reason, iteration, seconds, splitHash: data.splitHash },
    best: best && {
      iteration: best.iteration,
      branch: best.headline,
      ...numbersOf(best.headline === 'teacher' ? best.teacher : best.student),
    },
    teacher: numbersOf(validation?.teacher),
    student: numbersOf(validation?.student),
  };
}

async function describe(result: RunResult, { out }: { out: string }): Promise<string> {
  const { reason, iteration, validation } = result;
  if (reason === 'aborted')
    return `stopped after ${iteration} iterations; to continue, run the same command with --resume --out ${out}`;
  const lines = [`done: ${iteration} iterations, in ${out}`];
  if (validation) {
    const { formatComparison } = await import('../eval/index.js');
    const { student, teacher } = validation;
    lines.push(await formatComparison(teacher ? { student, teacher } : { student }));
  }
  return lines.join('\n');
}
