import { type Command, Option } from 'commander';
import type { DetectorRuntime } from '../detector/create.js';
import { type DtypeChoice, dtypeChoices } from '../detector/dtype.js';
import { maxThreads } from '../threads.js';
import { wholeNumber } from './numbers.js';

interface ThreadsFlags {
  threads?: number;
}

/** Flags of commands that compute. */
export interface RuntimeFlags extends ThreadsFlags {
  device: string;
  dtype?: DtypeChoice;
}

export const threadsOption = () =>
  new Option('--threads <n>', 'number of CPU threads (default: one per core)').argParser(
    wholeNumber(1, maxThreads),
  );

/** Of a command that runs a detector from a file. */
export function withRuntimeOptions(command: Command): Command {
  return command
    .addOption(
      new Option('--device <name>', 'device to compute on: auto, cpu, cuda or cuda:N').default(
        'auto',
      ),
    )
    .addOption(
      new Option(
        '--dtype <name>',
        'data type to compute in (default: the one the weights were trained in)',
      ).choices(dtypeChoices),
    )
    .addOption(threadsOption());
}

/** What a detector is opened with; the threads are the process's and hold from now on. */
export async function useRuntime(
  flags: RuntimeFlags,
): Promise<Pick<DetectorRuntime, 'device' | 'dtype'>> {
  await useThreads(flags);
  const { device, dtype } = flags;
  return { device, ...(dtype ? { dtype } : {}) };
}

export async function useThreads({ threads }: ThreadsFlags): Promise<void> {
  if (threads === undefined) return;
  const { native } = await import('../native.js');
  native.setNumThreads(threads);
}
