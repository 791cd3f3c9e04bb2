/** The runs below a folder, read again as they grow. */
import { open, readdir, readFile, stat } from 'node:fs/promises';
import { basename, join, relative, resolve } from 'node:path';
import { parse } from 'yaml';
import { isLocked } from '../folder-lock.js';
import type { MetricsRecord } from '../report/run-metrics.js';
import { parseLine } from '../report/run-report.js';

/** A run in the list. */
export interface RunSummary {
  /** Its folder, from the one that is looked at; '.' is that one. */
  id: string;
  name: string;
  state: 'training' | 'ended';
  iteration: number;
  /** Null where config.yaml does not say. */
  iterations: number | null;
  /** AP of the last validation, of the teacher where there is one. */
  ap: number | null;
  bestAp: number | null;
  imagesPerSecond: number | null;
  /** Of a run that trains. */
  secondsLeft: number | null;
  warnings: number;
}

/** A metrics.jsonl that is being written: what was read once is not read again. */
class MetricsFile {
  readonly records: MetricsRecord[] = [];
  #offset = 0;
  #inode: number | undefined;

  constructor(readonly path: string) {}

  /** Whether there is something new. A file that was cut or replaced (a run that goes on) is read anew. */
  async update(): Promise<boolean> {
    const file = await open(this.path).catch(() => null);
    if (!file) return this.#forget();
    try {
      const { size, ino } = await file.stat();
      const anew = (ino !== this.#inode || size < this.#offset) && this.#forget();
      this.#inode = ino;
      if (size === this.#offset) return anew;
      const bytes = Buffer.alloc(size - this.#offset);
      const { bytesRead } = await file.read(bytes, 0, bytes.length, this.#offset);
      const whole = bytes.lastIndexOf('\n', bytesRead - 1) + 1; // the last line may be half written
      this.#offset += whole;
      this.records.push(...bytes.toString('utf8', 0, whole).split('\n').flatMap(parseLine));
      return anew || whole > 0;
    } finally {
      await file.close();
    }
  }

  /** @returns whether there was something to forget */
  #forget(): boolean {
    const had = this.#offset > 0;
    this.#offset = 0;
    this.records.length = 0;
    return had;
  }
}

/** One run's folder. */
export class WatchedRun {
  readonly #metrics: MetricsFile;
  #name: string;
  #iterations: number | null = null;
  #training = false;

  constructor(
    readonly id: string,
    readonly folder: string,
  ) {
    this.#metrics = new MetricsFile(join(folder, 'metrics.jsonl'));
    this.#name = basename(folder);
  }

  get records(): readonly MetricsRecord[] {
    return this.#metrics.records;
  }

  /** Whether something changed. */
  async update(): Promise<boolean> {
    const [grown, training] = await Promise.all([this.#metrics.update(), isLocked(this.folder)]);
    const changed = grown || training !== this.#training;
    this.#training = training;
    if (grown) await this.#readConfig();
    return changed;
  }

  get summary(): RunSummary {
    const { records } = this;
    const step = records.findLast(({ type }) => type === 'step');
    const validation = records.findLast(({ type }) => type === 'validation');
    const best = records.findLast((record) => record.best) ?? validation;
    const apOf = (record?: MetricsRecord) => record?.[record.headline ?? 'student']?.AP ?? null;
    const iteration = Math.max(0, ...records.slice(-2).map((record) => record.iteration));
    const left = this.#iterations === null ? null : this.#iterations - iteration;
    return {
      id: this.id,
      name: this.#name,
      state: this.#training ? 'training' : 'ended',
      iteration,
      iterations: this.#iterations,
      ap: apOf(validation),
      bestAp: apOf(best),
      imagesPerSecond: step?.imagesPerSecond ?? null,
      secondsLeft: this.#training && left !== null && step?.seconds ? left * step.seconds : null,
      warnings: records.filter(({ type }) => type === 'warning').length,
    };
  }

  /** A run's name and length; a resumed one may have others. */
  async #readConfig(): Promise<void> {
    const text = await readFile(join(this.folder, 'config.yaml'), 'utf8').catch(() => '');
    let config: { name?: unknown; schedule?: { iterations?: unknown } } | null = null;
    try {
      config = parse(text);
    } catch {
      return; // somebody's own file; the run is shown all the same
    }
    if (typeof config?.name === 'string') this.#name = config.name;
    const iterations = config?.schedule?.iterations;
    if (typeof iterations === 'number') this.#iterations = iterations;
  }
}

/** How far below the folder runs are looked for: runs/demo/mixpl is two. */
const deepest = 3;

/** The runs in a folder and below it, by name of their folders. */
export class RunsWatcher {
  readonly root: string;
  readonly #runs = new Map<string, WatchedRun>();

  constructor(root: string) {
    this.root = resolve(root);
  }

  get runs(): readonly WatchedRun[] {
    return [...this.#runs.values()].sort((a, b) =>
      a.id.localeCompare(b.id, 'en', { numeric: true }),
    );
  }

  /** @returns the ids of what changed, came or went */
  async update(): Promise<string[]> {
    const found = await runFolders(this.root, deepest);
    const changed: string[] = [];
    for (const folder of found) {
      const id = relative(this.root, folder) || '.';
      if (!this.#runs.has(id)) this.#runs.set(id, new WatchedRun(id, folder));
    }
    for (const [id, run] of this.#runs) {
      const gone = !found.includes(run.folder);
      if (gone) this.#runs.delete(id);
      if (gone || (await run.update())) changed.push(id);
    }
    return changed;
  }
}

async function runFolders(folder: string, depth: number): Promise<string[]> {
  const isRun = await stat(join(folder, 'metrics.jsonl')).then(
    (file) => file.isFile(),
    () => false,
  );
  if (isRun) return [folder];
  if (depth === 0) return [];
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const below = entries.filter((entry) => entry.isDirectory() && !entry.name.startsWith('.'));
  return (
    await Promise.all(below.map(({ name }) => runFolders(join(folder, name), depth - 1)))
  ).flat();
}
