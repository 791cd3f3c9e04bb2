import { type FileHandle, open } from 'node:fs/promises';
import { MixplError } from '../errors.js';
import { ioError, writeFileWhole } from '../files.js';
import { type Line, wholeLines } from './lines.js';

/**
 * Appends one JSON object per line. Each append() is one write, in call order; NaN and infinity
 * become the strings "NaN", "Infinity" and "-Infinity", which JSON has no numbers for.
 */
export class JsonLinesWriter {
  readonly path: string;
  readonly #file: FileHandle;
  #tail: Promise<void> = Promise.resolve();

  private constructor(path: string, file: FileHandle) {
    this.path = path;
    this.#file = file;
  }

  /** Opens for appending; makes the file when there is none. @throws MixplError ERR_IO */
  static async open(path: string): Promise<JsonLinesWriter> {
    try {
      return new JsonLinesWriter(path, await open(path, 'a'));
    } catch (cause) {
      throw ioError(path, 'must be a writable file', cause);
    }
  }

  /** Resolves when the line is with the system. @throws MixplError ERR_IO (full disk, ...) */
  append(record: object): Promise<void> {
    const line = `${JSON.stringify(record, (_, value: unknown) => (isOddNumber(value) ? String(value) : value))}\n`;
    const write = this.#tail.then(async () => {
      try {
        await this.#file.appendFile(line);
      } catch (cause) {
        throw ioError(this.path, 'must take another line', cause);
      }
    });
    // The failure is the caller's, who awaits it; later lines are still tried.
    this.#tail = write.catch(() => undefined);
    return write;
  }

  /** Resolves when all lines are on the disk. */
  async flush(): Promise<void> {
    await this.#tail;
    await this.#file.sync();
  }

  async close(): Promise<void> {
    await this.#tail;
    await this.#file.close();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

function isOddNumber(value: unknown): boolean {
  return typeof value === 'number' && !Number.isFinite(value);
}

/**
 * Drops the records that `keep` does not want, and a last line that a crash cut short, whole or not at all: a
 * resumed run drops what it will repeat. That is the end of the file as a rule, which is cut off. Open the writer
 * afterwards: the file may be a new one.
 * @throws MixplError ERR_IO, also for a line that is not JSON; what wholeLines throws
 */
export async function trimJsonLines(
  path: string,
  keep: (record: Record<string, unknown>) => boolean,
): Promise<void> {
  let file: FileHandle;
  try {
    file = await open(path, 'r+');
  } catch (cause) {
    throw ioError(path, 'must be a file to read and write', cause);
  }
  try {
    const { cut, isTail } = await firstDropped(file, path, keep);
    if (!isTail) return await writeFileWhole(path, keptLines(file, { path, cut, keep }));
    if (cut === (await file.stat()).size) return;
    // Nothing is moved, so a crash leaves the old file or the shorter one, and the old one is cut again by the next
    // resume. Synced before a line follows: the system may write what is appended before it writes the length.
    await file.truncate(cut);
    await file.sync();
  } catch (cause) {
    if (cause instanceof MixplError) throw cause;
    throw ioError(path, 'must be a file to read and write', cause);
  } finally {
    await file.close();
  }
}

type Keep = Parameters<typeof trimJsonLines>[1];

/** Where the first record to drop begins, else where the last line ends, and whether nothing behind it is kept. */
async function firstDropped(
  file: FileHandle,
  path: string,
  keep: Keep,
): Promise<{ cut: number; isTail: boolean }> {
  let cut: number | null = null;
  let last = 0;
  for await (const line of wholeLines(file, path)) {
    last = line.end;
    if (!line.text.trim()) continue;
    if (!keep(parsed(line, path))) cut ??= line.start;
    else if (cut !== null) return { cut, isTail: false };
  }
  return { cut: cut ?? last, isTail: true };
}

/** The lines to keep, many at a time. */
async function* keptLines(
  file: FileHandle,
  { path, cut, keep }: { path: string; cut: number; keep: Keep },
): AsyncGenerator<string> {
  let many = '';
  for await (const line of wholeLines(file, path)) {
    if (line.start >= cut && !(line.text.trim() && keep(parsed(line, path)))) continue;
    many += `${line.text}\n`;
    if (many.length < 1 << 20) continue;
    yield many;
    many = '';
  }
  yield many;
}

function parsed({ text, start }: Line, path: string): Record<string, unknown> {
  let record: unknown;
  try {
    record = JSON.parse(text);
  } catch (cause) {
    throw ioError(path, `must have a line of JSON at byte ${start}`, cause);
  }
  if (typeof record === 'object' && record !== null) return record as Record<string, unknown>;
  throw new MixplError(
    'ERR_BAD_FILE',
    `${path}: must have an object at byte ${start}, got ${text.slice(0, 80)}`,
  );
}
