import { type FileHandle, open } from 'node:fs/promises';
import { MixplError } from '../errors.js';
import { type Line, wholeLines } from '../log/index.js';
import { RunRecords } from '../report/run-records.js';

/** What an update has found. */
export type News =
  | 'nothing'
  /** Numbers of the list alone. */
  | 'progress'
  /** More for charts and tables, too. */
  | 'more';

/** A metrics.jsonl that is being written: what was read once is not read again. */
export class MetricsFile {
  records = new RunRecords();
  #last: Line | null = null;
  #inode: number | undefined;
  /** Of the file as it was looked at last. */
  #stamp = '';
  /** It is not lines, nor will be until it changes. What the system could not do it may do the next time. */
  #failure: MixplError | null = null;

  constructor(readonly path: string) {}

  /** A file that was cut or replaced (a run that goes on) is read anew. @throws Error of the system */
  async update(): Promise<News> {
    const file = await open(this.path).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === 'ENOENT') return null;
      throw cause;
    });
    if (!file) return this.#forget();
    let stamp = '';
    try {
      const { ino, size, ctimeMs } = await file.stat();
      stamp = `${ino} ${size} ${ctimeMs}`;
      if (stamp === this.#stamp) {
        if (this.#failure) throw this.#failure;
        return 'nothing';
      }
      this.#failure = null;
      let news: News = 'nothing';
      if (ino !== this.#inode || !(await this.#goesOn(file))) news = this.#forget();
      this.#inode = ino;
      for await (const line of wholeLines(file, this.path, { from: this.#last?.end ?? 0 })) {
        this.#last = line;
        if (this.records.add(line.text)) news = 'more';
        else if (news === 'nothing') news = 'progress';
      }
      this.#stamp = stamp;
      return news;
    } catch (error) {
      if (error instanceof MixplError) {
        this.#stamp = stamp;
        this.#failure = error;
      }
      throw error;
    } finally {
      await file.close();
    }
  }

  /** Whether the last line that was read is still there; a file that was cut may have grown again since. */
  async #goesOn(file: FileHandle): Promise<boolean> {
    const last = this.#last;
    if (!last) return true;
    for await (const line of wholeLines(file, this.path, { from: last.start }))
      return line.text === last.text;
    return false;
  }

  #forget(): News {
    const had = this.#last !== null;
    this.#last = null;
    this.#stamp = '';
    this.records = new RunRecords();
    return had ? 'more' : 'nothing';
  }
}
