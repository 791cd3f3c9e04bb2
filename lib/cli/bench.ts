import { type Command, InvalidArgumentError, Option } from 'commander';
import type { BenchResult, Limits } from '../bench/index.js';
import { withInterrupt } from './interrupt.js';
import { wholeNumber } from './numbers.js';
import { createOutput, exitCodes } from './output.js';
import { threadsOption, useThreads } from './runtime-options.js';

interface BenchFlags {
  device: string;
  dtype?: 'fp32' | 'bf16';
  size?: { height: number; width: number };
  threads?: number;
  repeats?: number;
  peer?: 'torch';
  list?: boolean;
  json?: boolean;
}

export function addBenchCommand(program: Command): void {
  program
    .command('bench')
    .description('check kernels and training steps on a device, and time them')
    .argument(
      '[names...]',
      'cases to run, in this order, by name or beginning of a name, e.g. ema, conv, conv/stem, mixpl/dino (default: all; on the CPU all but the large ones)',
    )
    .option('--device <name>', 'device to compute on: auto, cpu, cuda or cuda:N', 'cpu')
    .addOption(
      new Option(
        '--dtype <type>',
        'time this data type only (default: every one that a case has)',
      ).choices(['fp32', 'bf16']),
    )
    .option(
      '--size <HxW>',
      'image size in the cases train, infer, teacher and mixpl, e.g. 480x640 (default: as in --list)',
      sizeOf,
    )
    .addOption(threadsOption())
    .option(
      '--repeats <n>',
      'number of timed samples, and limit of the warm-up samples before them (default: by the duration of one)',
      wholeNumber(1),
    )
    .addOption(
      new Option(
        '--peer <name>',
        'also time the same work in PyTorch, alternating (BENCH_PYTHON in the environment names the Python to use)',
      ).choices(['torch']),
    )
    .option('--list', 'list the cases and run none')
    .option(
      '--json',
      'print { device, limits, results: [{ name, shape, dtype, checked, medianMs, spread, gbPerS, flopPerS, shareOfLimit, peer? }], interrupted? }',
    )
    .action(bench);
}

async function bench(names: string[], flags: BenchFlags): Promise<void> {
  const output = createOutput(flags);
  const { benchCases, describeLimits, failuresOf, lineOf, runBench } = await import(
    '../bench/index.js'
  );
  if (flags.list) {
    const cases = benchCases(flags.size).map(({ name, shape }) => ({ name, shape }));
    const text = () => cases.map(({ name, shape }) => `${name.padEnd(38)} ${shape}`).join('\n');
    return output.result({ cases }, text);
  }
  const { native } = await import('../native.js');
  await useThreads(flags);
  const device = native.resolveDevice(flags.device);
  const results: BenchResult[] = [];
  let limits: Limits | undefined;
  const interrupted = await withInterrupt(async (signal) => {
    const run = runBench({
      names,
      device,
      signal,
      ...(flags.dtype ? { dtypes: [flags.dtype === 'fp32' ? 'f32' : 'bf16'] } : {}),
      ...(flags.size ? { size: flags.size } : {}),
      ...(flags.repeats ? { repeats: flags.repeats } : {}),
      ...(flags.peer ? { peer: flags.peer } : {}),
      onLimits: (measured) => {
        limits = measured;
        if (!flags.json) output.note(describeLimits(measured));
      },
    });
    try {
      for await (const result of run) {
        results.push(result);
        if (!flags.json) process.stdout.write(`${lineOf(result)}\n`);
      }
    } catch (error) {
      if (error !== signal.reason || !results.length) throw error;
      return signal.reason as DOMException;
    }
    return null;
  });
  if (flags.json) {
    const rest = interrupted ? { interrupted: interrupted.message } : {};
    await output.result({ device, limits, results, ...rest }, () => '');
  }
  const failures = failuresOf(results);
  if (failures) {
    output.warn(failures);
    process.exitCode = exitCodes.failed;
  }
  if (interrupted) {
    output.warn(`${interrupted.message} after ${results.length} results`);
    process.exitCode = exitCodes.interrupted;
  }
}

function sizeOf(text: string): { height: number; width: number } {
  const match = /^(\d+)x(\d+)$/.exec(text);
  if (!match) throw new InvalidArgumentError('It must be HEIGHTxWIDTH in pixels, e.g. 480x640.');
  return { height: Number(match[1]), width: Number(match[2]) };
}
