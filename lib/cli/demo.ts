import type { Command } from 'commander';
import { withInterrupt } from './interrupt.js';
import { wholeNumber } from './numbers.js';
import { createOutput } from './output.js';
import { threadsOption, useThreads } from './runtime-options.js';

interface DemoFlags {
  out: string;
  iterations: number;
  seed: number;
  threads?: number;
  json?: boolean;
}

export function addDemoCommand(program: Command): void {
  program
    .command('demo')
    .description(
      'draw a data set, and train on it in three ways from the same few labels: supervised, mean teacher, MixPL',
    )
    .option('--out <dir>', 'folder for the data, the runs and the images', 'runs/demo')
    .option('--iterations <n>', 'iterations of each training', wholeNumber(30), 800)
    .option('--seed <n>', 'seed of the data and of the trainings', wholeNumber(0), 1)
    .addOption(threadsOption())
    .option('--json', 'print { "methods": { name: { stats, perClassAP, seconds } }, "pictures" }')
    .action(async (flags: DemoFlags) => {
      const output = createOutput(flags);
      const { iterations, seed } = flags;
      await useThreads(flags);
      const { demoMethods, formatDemo, runDemo } = await import('../demo/run-demo.js');
      const { createLogger, Progress, StatusLine } = await import('../log/index.js');
      const line = new StatusLine(process.stderr);
      const log = createLogger({ write: (text) => line.print(text) });
      let progress: InstanceType<typeof Progress> | undefined;
      let current = '';
      const result = await withInterrupt((signal) =>
        runDemo({
          out: flags.out,
          iterations,
          seed,
          signal,
          onEvent(method, event) {
            if (method !== current) {
              current = method;
              progress = new Progress(line, { total: iterations, label: method.padEnd(12) });
            }
            if (event.type === 'step')
              progress?.update(event.iteration, {
                loss: event.total,
                ...(event.pseudo
                  ? { 'pseudo/image': event.pseudo.boxes / event.pseudo.images }
                  : {}),
              });
            else if (event.type === 'warning') log.warn(event.message);
            else if (event.type === 'validation')
              log.info(
                `${method}: AP ${(event.teacher ?? event.student).stats[0]!.toFixed(3)} after ${event.iteration} iterations`,
              );
          },
        }),
      );
      line.finish();
      const { metricNumbers } = await import('../eval/index.js');
      const methods = Object.fromEntries(
        demoMethods.map((method) => {
          const numbers = metricNumbers(result.metrics[method]);
          return [method, { ...numbers, seconds: result.seconds[method] }];
        }),
      );
      await output.result({ methods, pictures: result.pictures }, async () =>
        [await formatDemo(result), ...result.pictures.map((path) => `image: ${path}`)].join('\n'),
      );
    });
}
