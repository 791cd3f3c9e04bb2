import { rmdir, stat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import type { DetectorState } from '../detector/types.js';
import { MixplError } from '../errors.js';
import { makeFolder } from '../files.js';
import { FolderLock } from '../folder-lock.js';
import { EventFileWriter, JsonLinesWriter, scalarsOf, trimJsonLines } from '../log/index.js';
import { writeRunReport } from '../report/index.js';
import { writeSafetensors } from '../safetensors.js';
import { type Checkpoint, CheckpointStore, readCheckpoint } from './checkpoint.js';

/** Folders that a training of this process writes into. */
const inUse = new Set<string>();

export interface RunFolderOptions {
  /** Goes into every weights file. */
  metadata: Readonly<Record<string, string>>;
  /** true: the newest checkpoint of the folder, if there is one; a path: that checkpoint. */
  resume: boolean | string;
  /** Event files of TensorBoard, too. */
  tensorboard: boolean;
}

/** What a run leaves behind: metrics.jsonl, checkpoints/, best.safetensors, report.html. */
export class RunFolder {
  readonly path: string;
  readonly checkpoints: CheckpointStore;
  /** What the run goes on from. */
  readonly resumed: Checkpoint | null;
  readonly #log: JsonLinesWriter;
  readonly #events: EventFileWriter | null;
  readonly #lock: FolderLock;
  readonly #metadata: Readonly<Record<string, string>>;
  /** The report has all that was logged. */
  #reported = false;

  private constructor(
    path: string,
    parts: {
      checkpoints: CheckpointStore;
      resumed: Checkpoint | null;
      log: JsonLinesWriter;
      events: EventFileWriter | null;
      lock: FolderLock;
      metadata: Readonly<Record<string, string>>;
    },
  ) {
    this.path = path;
    this.checkpoints = parts.checkpoints;
    this.resumed = parts.resumed;
    this.#log = parts.log;
    this.#events = parts.events;
    this.#lock = parts.lock;
    this.#metadata = parts.metadata;
  }

  /** @throws MixplError ERR_STATE when the folder holds a run already; ERR_IO */
  static async refuseRun(folder: string): Promise<void> {
    const path = resolve(folder);
    const [newest] = await new CheckpointStore(join(path, 'checkpoints'), {}).list();
    const metrics = join(path, 'metrics.jsonl');
    if (newest || (await isFilled(metrics)))
      throw new MixplError(
        'ERR_STATE',
        `${path}: must not contain a run yet, got one (${newest ?? metrics}); resume it or choose another folder`,
      );
  }

  /**
   * Nothing in the folder changes before `accept` has seen the checkpoint, but for the lock in it.
   * @param accept throws when the run cannot go on from the checkpoint
   * @throws MixplError ERR_STATE when the folder holds a run already or another training, of whatever
   *   process, writes into it; ERR_IO; what readCheckpoint throws
   */
  static async open(
    folder: string,
    { metadata, resume, tensorboard }: RunFolderOptions,
    accept: (checkpoint: Checkpoint) => void,
  ): Promise<RunFolder> {
    const path = resolve(folder);
    if (inUse.has(path))
      throw new MixplError(
        'ERR_STATE',
        `${path}: must be free, got a folder that another training writes into`,
      );
    inUse.add(path);
    const isNew = !(await stat(path).catch(() => null));
    let lock: FolderLock | null = null;
    let log: JsonLinesWriter | null = null;
    try {
      await makeFolder(path);
      lock = await FolderLock.take(path);
      const checkpoints = new CheckpointStore(join(path, 'checkpoints'), metadata);
      const metrics = join(path, 'metrics.jsonl');
      if (!resume) await RunFolder.refuseRun(path);
      const existing = await checkpoints.list();
      const from = typeof resume === 'string' ? resume : resume ? existing[0] : undefined;
      const resumed = from === undefined ? null : await readOrHint(from, existing);
      if (resumed) accept(resumed);
      const done = resumed?.state.iteration ?? 0;
      if (await isFilled(metrics))
        await trimJsonLines(metrics, ({ iteration }) => Number(iteration) <= done);
      log = await JsonLinesWriter.open(metrics);
      const events = tensorboard ? await EventFileWriter.open(path, { stepsBefore: done }) : null;
      return new RunFolder(path, { checkpoints, resumed, log, events, lock, metadata });
    } catch (error) {
      await log?.close();
      await lock?.release();
      if (isNew) await rmdir(path).catch(() => undefined); // only when it is empty
      inUse.delete(path);
      throw error;
    }
  }

  /** Appends a line to metrics.jsonl, and what is a number in it to the event file. @throws MixplError ERR_IO */
  async log(record: { type: string; iteration: number }): Promise<void> {
    this.#reported = false;
    await this.#log.append(record);
    const scalars = tagged(record);
    if (scalars.size) await this.#events?.scalars(record.iteration, scalars);
  }

  /** Replaces best.safetensors. @throws MixplError ERR_IO */
  async saveBest(weights: DetectorState, facts: Record<string, string>): Promise<void> {
    const path = join(this.path, 'best.safetensors');
    await writeSafetensors(path, weights, { ...this.#metadata, ...facts });
  }

  /** Writes report.html. @throws MixplError ERR_IO */
  async report(): Promise<void> {
    await writeRunReport(this.path);
    this.#reported = true;
  }

  /** Writes the report, too, if it can be written and is not yet. @throws MixplError ERR_IO */
  async close(): Promise<void> {
    try {
      await this.#log.close();
      await this.#events?.close();
      // A run whose end was told has told why; one that failed or was left has its own reason.
      if (!this.#reported) await this.report().catch(() => undefined);
    } finally {
      await this.#lock.release();
      inUse.delete(this.path);
    }
  }
}

/**
 * Numbers of a record as TensorBoard groups them: `losses/…`, `pseudo/…`, `memory/…` and other numbers of steps
 * as `train/…`; `validation/teacher/AP`.
 */
function tagged({
  type,
  iteration,
  ...record
}: {
  type: string;
  iteration: number;
}): Map<string, number> {
  if (type !== 'step') return scalarsOf(record, type);
  const scalars = [...scalarsOf(record)].map(
    ([tag, value]) => [tag.includes('/') ? tag : `train/${tag}`, value] as const,
  );
  return new Map(scalars);
}

async function isFilled(path: string): Promise<boolean> {
  return stat(path).then(
    ({ size }) => size > 0,
    () => false,
  );
}

/** Reads a checkpoint; a damaged one's error names the one before it. */
async function readOrHint(path: string, existing: readonly string[]): Promise<Checkpoint> {
  try {
    return await readCheckpoint(path);
  } catch (error) {
    const before = existing[existing.indexOf(path) + 1];
    if (!(error instanceof MixplError) || !before) throw error;
    throw new MixplError(error.code, `${error.message}; the checkpoint before it is ${before}`, {
      cause: error,
    });
  }
}
