/** The runs below a folder, read again as they grow. */
import { readdir, stat } from 'node:fs/promises';
import { basename, join, relative, resolve } from 'node:path';
import { isLocked } from '../folder-lock.js';
import { type Chart, html, tablesHtml } from '../report/page.js';
import { readRunConfig } from '../report/run-config.js';
import { chartsOf, tablesOf, warningLines } from '../report/run-metrics.js';
import type { MetricsRecord, RunRecords } from '../report/run-records.js';
import { MetricsFile } from './metrics-file.js';

/** A run in the list. */
export interface RunSummary {
  /** Its folder, from the one that is looked at; '.' is that one. */
  id: string;
  name: string;
  /** 'stopped': before its last iteration. */
  state: 'training' | 'stopped' | 'ended';
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
  /** Why it cannot be read. */
  problem: string | null;
}

/** What a page shows of a run that is chosen. */
export interface RunView {
  charts: Chart[];
  /** HTML above and below the charts. */
  above: string;
  below: string;
}

/** One run's folder. */
export class WatchedRun {
  readonly #metrics: MetricsFile;
  #name: string;
  #iterations: number | null = null;
  #training = false;
  /** Why its file cannot be read, and why its records cannot be shown. */
  #unread: string | null = null;
  #unshown: string | null = null;
  #view: RunView | null = null;

  constructor(
    readonly id: string,
    readonly folder: string,
  ) {
    this.#metrics = new MetricsFile(join(folder, 'metrics.jsonl'));
    this.#name = basename(folder);
  }

  get records(): RunRecords {
    return this.#metrics.records;
  }

  /** Whether something changed. A run that cannot be read says so in its summary, and hides no other. */
  async update(): Promise<boolean> {
    try {
      const [news, training] = await Promise.all([this.#metrics.update(), isLocked(this.folder)]);
      const turned = training !== this.#training || this.#unread !== null;
      this.#training = training;
      this.#unread = null;
      if (news === 'more' || turned) this.#view = null;
      // What trains may take long to its first record.
      const begins = training && this.records.iteration === null;
      if (news === 'nothing' && !begins) return turned;
      return (await this.#readConfig()) || turned || news !== 'nothing';
    } catch (error) {
      const before = this.#unread;
      this.#unread = messageOf(error);
      this.#view = null;
      return this.#unread !== before;
    }
  }

  /** The same object until there is more to be seen. What cannot be shown is empty, and told in the summary. */
  get view(): RunView {
    if (this.#view) return this.#view;
    this.#unshown = null;
    try {
      this.#view = viewOf(this.records);
    } catch (error) {
      this.#unshown = messageOf(error);
      this.#view = { charts: [], above: '', below: '' };
    }
    return this.#view;
  }

  get summary(): RunSummary {
    const { records } = this;
    const step = records.lastStep;
    const apOf = (record?: MetricsRecord | null) =>
      record?.[record.headline ?? 'student']?.AP ?? null;
    const iteration = records.iteration ?? 0;
    const left = this.#iterations === null ? null : this.#iterations - iteration;
    return {
      id: this.id,
      name: this.#name,
      state: this.#training ? 'training' : left ? 'stopped' : 'ended',
      iteration,
      iterations: this.#iterations,
      ap: apOf(records.validations.at(-1)),
      bestAp: apOf(records.best),
      imagesPerSecond: step?.imagesPerSecond ?? null,
      secondsLeft: this.#training && left && step?.seconds ? left * step.seconds : null,
      warnings: records.numWarnings,
      problem: this.#unread ?? this.#unshown,
    };
  }

  /** A run's name and length; a resumed one may have others. @returns whether it has */
  async #readConfig(): Promise<boolean> {
    const before = [this.#name, this.#iterations];
    const { name, iterations } = await readRunConfig(this.folder);
    this.#name = name ?? this.#name;
    this.#iterations = iterations ?? this.#iterations;
    return this.#name !== before[0] || this.#iterations !== before[1];
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function viewOf(records: RunRecords): RunView {
  const { above, below } = tablesHtml(tablesOf(records));
  const lines = warningLines(records).map((line) => `<li>${html(line)}</li>`);
  const warnings = lines.length ? `<h2>Warnings</h2><ul>${lines.join('')}</ul>` : '';
  return { charts: chartsOf(records), above: warnings, below: above + below };
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
