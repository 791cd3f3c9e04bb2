/** What tables and charts need of a metrics.jsonl, however long it is. */
import { Thinned } from './thinned.js';

type Numbers = Record<string, number | null>;
/** Metrics of a branch. */
export type Branch = Numbers & { perClass?: Numbers };

/** A line of metrics.jsonl, as lib/train writes it. */
export interface MetricsRecord {
  type: 'step' | 'validation' | 'warning';
  iteration: number;
  total?: number;
  losses?: Record<string, number>;
  lr?: number;
  gradNorm?: number;
  imagesPerSecond?: number;
  /** Of an iteration. */
  seconds?: number;
  pseudo?: {
    perImage: number;
    emptyShare: number;
    meanScore: number | null;
    perClass: Record<string, number>;
    small: number;
    medium: number;
    large: number;
    /** Where the unlabelled images are annotated. */
    truth?: {
      perImage: number;
      precision: number | null;
      recall: number | null;
      perClass: Record<string, number>;
      small: number;
      medium: number;
      large: number;
    };
  } | null;
  headline?: 'teacher' | 'student';
  teacher?: Branch | null;
  student?: Branch;
  best?: boolean;
  message?: string;
}

/** More points than this tell no more: a chart is some 600 pixels wide. */
export const mostPoints = 1000;
/** More warnings than this nobody reads. */
export const mostWarnings = 200;

/** How JsonLinesWriter's lines of lib/train begin. */
const beginning = /^\{"type":"(\w+)","iteration":(\d+)[,}]/;

/** The lines of a run as they come: thinned, but for its newest warnings. */
export class RunRecords {
  /** As text: most lines are never shown, and need not be understood. */
  readonly #steps = new Thinned<string>(mostPoints);
  readonly #validations = new Thinned<MetricsRecord>(mostPoints);
  /** The newest. */
  readonly warnings: MetricsRecord[] = [];
  numWarnings = 0;
  #best: MetricsRecord | null = null;
  #iteration: number | null = null;

  /** The last iteration; null before the first record. */
  get iteration(): number | null {
    return this.#iteration;
  }
  get steps(): MetricsRecord[] {
    return this.#steps.values.flatMap((line) => recordOf(line) ?? []);
  }
  get lastStep(): MetricsRecord | null {
    return recordOf(this.#steps.last ?? '');
  }
  get validations(): MetricsRecord[] {
    return this.#validations.values;
  }
  /** The last validation that was the best so far. */
  get best(): MetricsRecord | null {
    return this.#best ?? this.#validations.last ?? null;
  }

  /**
   * Takes a line; one that is no record is passed over.
   * @returns whether more of the run is to be seen: a step that is thinned away shows in the next
   */
  add(line: string): boolean {
    const begins = beginning.exec(line);
    if (begins?.[1] === 'step') return this.#addStep(line, Number(begins[2]));
    const record = recordOf(line);
    if (!record) return false;
    if (record.type === 'step') return this.#addStep(line, record.iteration);
    this.#reach(record.iteration);
    if (record.type === 'validation') {
      this.#validations.add(record);
      if (record.best) this.#best = record;
    }
    if (record.type === 'warning') {
      this.numWarnings++;
      this.warnings.push(record);
      if (this.warnings.length > mostWarnings) this.warnings.shift();
    }
    return true;
  }

  #addStep(line: string, iteration: number): boolean {
    this.#reach(iteration);
    return this.#steps.add(line);
  }

  #reach(iteration: number): void {
    this.#iteration = Math.max(this.#iteration ?? 0, iteration);
  }
}

function recordOf(line: string): MetricsRecord | null {
  try {
    const record = JSON.parse(line) as Partial<MetricsRecord> | null;
    const isRecord = typeof record?.type === 'string' && typeof record.iteration === 'number';
    return isRecord ? (record as MetricsRecord) : null;
  } catch {
    return null; // of a run that is being written, or somebody's own
  }
}
