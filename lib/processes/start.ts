/** Copies of this program that train with it. */

import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { checkKeys, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { Meeting, type ProcessPlace } from './meeting.js';
import { ProcessGroup } from './process-group.js';

/** How many processes there are, and which of them this is. */
export interface ProcessesOptions {
  processes: number;
  /**
   * With `address` and `secret`: this process is one of those that somebody else started, on several machines, say;
   * nothing is started then.
   */
  rank?: number;
  /** `host:port` on which rank 0 listens. @defaultValue a free port of 127.0.0.1 */
  address?: string;
  /** @defaultValue the environment variable MIXPL_SECRET */
  secret?: string;
  /** Milliseconds to wait for the others. @defaultValue 300000 */
  timeoutMs?: number;
}

const optionKeys = keysOf<ProcessesOptions>({
  ...{ processes: 0, rank: 0, address: 0, secret: 0 },
  ...{ timeoutMs: 0 },
});

/** A copy's place, as JSON. */
const placeVariable = 'MIXPL_PROCESS_PLACE';
/** A process that has nothing left to do ends by itself. */
const patienceMs = 10_000;

/**
 * Starts processes-1 copies of the program under way (the same script with the same arguments) and joins them; a copy
 * that comes here joins, too, as does a process with a rank. What copies write to their standard output is lost.
 * @throws MixplError ERR_CONFIG; ERR_STATE when not all of them come
 */
export async function startProcesses(options: ProcessesOptions): Promise<ProcessGroup> {
  checkKeys('startProcesses', options, optionKeys);
  const { processes, timeoutMs } = options;
  const wait = timeoutMs === undefined ? {} : { timeoutMs };
  const given = process.env[placeVariable];
  if (given) {
    delete process.env[placeVariable]; // not for programs that this one starts
    return ProcessGroup.join({ ...(JSON.parse(given) as ProcessPlace), ...wait });
  }
  if (options.rank !== undefined) {
    const { rank, address = '', secret = process.env.MIXPL_SECRET ?? '' } = options;
    return ProcessGroup.join({ rank, processes, address, secret, ...wait });
  }
  if (!Number.isInteger(processes) || processes < 1 || processes > 1024)
    throw new MixplError(
      'ERR_CONFIG',
      `processes must be a whole number in [1, 1024], got ${processes}`,
    );
  const secret = randomBytes(24).toString('hex');
  const place = { rank: 0, processes, address: options.address ?? '127.0.0.1:0', secret };
  const meeting = await Meeting.open(place);
  const copies = Array.from({ length: processes - 1 }, (_, i) =>
    startCopy({ ...place, rank: i + 1, address: meeting.address }, meeting),
  );
  try {
    return await ProcessGroup.join(
      { ...place, ...wait },
      { meeting, onClose: () => endOf(copies, patienceMs) },
    );
  } catch (error) {
    await endOf(copies, 0);
    throw error;
  }
}

function startCopy(place: ProcessPlace, meeting: Meeting): ChildProcess {
  const copy = spawn(process.execPath, [...process.execArgv, ...process.argv.slice(1)], {
    env: { ...process.env, [placeVariable]: JSON.stringify(place) },
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  const tell = (got: string) =>
    meeting.fail(
      new MixplError(
        'ERR_STATE',
        `processes: process ${place.rank} of ${place.processes} must join, got ${got}`,
      ),
    );
  copy.on('error', (error) => tell(error.message));
  copy.on('exit', (code, signal) =>
    tell(`its end (${signal ?? `exit code ${code}`}) before it did`),
  );
  return copy;
}

/** Waits for them, and kills those that are there after `patience` milliseconds. */
async function endOf(copies: readonly ChildProcess[], patience: number): Promise<void> {
  const running = copies.filter(
    ({ exitCode, signalCode }) => exitCode === null && signalCode === null,
  );
  const ends = Promise.all(running.map((copy) => once(copy, 'exit')));
  const timer = setTimeout(() => {
    for (const copy of running) copy.kill('SIGKILL');
  }, patience);
  await ends;
  clearTimeout(timer);
}
