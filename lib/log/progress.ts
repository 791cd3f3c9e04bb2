import { formatDuration } from './duration.js';
import { visible } from './visible.js';

/** Where progress goes: a terminal that can redraw its last line, or a file that cannot. */
export interface ProgressStream {
  isTTY?: boolean;
  columns?: number;
  write(text: string): unknown;
}

/**
 * The last line of a terminal, redrawn in place; lines printed through it appear above. Without a
 * terminal the text is written as a plain line every few seconds.
 */
export class StatusLine {
  readonly #stream: ProgressStream;
  readonly #interval_ms: number;
  readonly #now: () => number;
  /** A text stands in the terminal's last line. */
  #stands = false;
  #text = '';
  #written_ms = Number.NEGATIVE_INFINITY;

  constructor(stream: ProgressStream, options: { interval_ms?: number; now?: () => number } = {}) {
    this.#stream = stream;
    this.#interval_ms = options.interval_ms ?? (stream.isTTY ? 100 : 5000);
    this.#now = options.now ?? (() => performance.now());
  }

  /** Shows `text`, its control characters too; more often than the interval it is only kept. */
  set(text: string): void {
    this.#text = visible(text);
    this.#show(this.#text, this.#interval_ms);
  }

  /**
   * Shows `text` until the next one, or until a line is printed, which brings the text of set() back.
   * @param options.plain_ms the interval without a terminal
   */
  setBriefly(text: string, { plain_ms }: { plain_ms: number }): void {
    this.#show(visible(text), this.#stream.isTTY ? this.#interval_ms : plain_ms);
  }

  /** Writes a line above. */
  print(line: string): void {
    this.#stream.write(this.#stream.isTTY ? `\r\x1b[K${line}\n` : `${line}\n`);
    this.#stands = false;
    if (this.#stream.isTTY && this.#text) this.#draw(this.#text);
  }

  /** Leaves the last text standing as a line of its own. */
  finish(): void {
    if (!this.#text) {
      this.clear();
      return;
    }
    this.#draw(this.#text);
    if (this.#stream.isTTY) this.#stream.write('\n');
    this.#text = '';
    this.#stands = false;
  }

  /** Takes the last text away. */
  clear(): void {
    if (this.#stands) this.#stream.write('\r\x1b[K');
    this.#text = '';
    this.#stands = false;
  }

  #show(text: string, interval_ms: number): void {
    const now = this.#now();
    if (now - this.#written_ms < interval_ms) return;
    this.#written_ms = now;
    this.#draw(text);
  }

  #draw(text: string): void {
    if (!this.#stream.isTTY) {
      this.#stream.write(`${text}\n`);
      return;
    }
    const width = Math.max(20, (this.#stream.columns ?? 80) - 1);
    const fits = [...text];
    const shown = fits.length > width ? `${fits.slice(0, width - 1).join('')}…` : text;
    this.#stream.write(`\r\x1b[K${shown}`);
    this.#stands = true;
  }
}

export interface ProgressOptions {
  total: number;
  /** Steps that were done before, in an earlier run. @defaultValue 0 */
  done?: number;
  /** In front of everything. */
  label?: string;
  /** Milliseconds. @defaultValue performance.now */
  now?: () => number;
}

/** Below it a rate says nothing. */
const shortest_ms = 500;

/** `label 120/1200 10% 3.2/s ETA 5m37s  name value  name value`. */
export class Progress {
  readonly #line: StatusLine;
  readonly #options: Required<ProgressOptions>;
  /** (time, steps) of the recent past: the rate follows a change of speed. */
  #marks: { at_ms: number; done: number }[];

  constructor(line: StatusLine, options: ProgressOptions) {
    this.#line = line;
    this.#options = { done: 0, label: '', now: () => performance.now(), ...options };
    this.#marks = [{ at_ms: this.#options.now(), done: this.#options.done }];
  }

  /** @param fields shown behind, in order; numbers with four digits */
  update(done: number, fields: Readonly<Record<string, number | string>> = {}): void {
    const { total, label, now } = this.#options;
    const at_ms = now();
    this.#marks.push({ at_ms, done });
    while (this.#marks.length > 2 && at_ms - this.#marks[1]!.at_ms > 30_000) this.#marks.shift();
    const first = this.#marks[0]!;
    const elapsed_ms = at_ms - first.at_ms;
    const rate = elapsed_ms < shortest_ms ? 0 : ((done - first.done) / elapsed_ms) * 1000;
    const head = [
      label,
      `${done}/${total}`,
      `${Math.floor((100 * done) / total)}%`,
      rate > 0 ? `${digits(rate)}/s` : '',
      rate > 0 && done < total ? `ETA ${formatDuration((total - done) / rate)}` : '',
    ];
    const tail = Object.entries(fields).map(
      ([name, value]) => `${name} ${typeof value === 'number' ? digits(value) : value}`,
    );
    this.#line.set([head.filter(Boolean).join(' '), ...tail].join('  '));
  }

  finish(): void {
    this.#line.finish();
  }
}

/** Four significant digits, no exponent for what people compare. */
function digits(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(1);
  return String(Number(value.toPrecision(size >= 1000 ? 6 : 3)));
}
