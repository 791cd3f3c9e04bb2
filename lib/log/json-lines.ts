import { type FileHandle, open, readFile } from 'node:fs/promises';
import { ioError, writeFileWhole } from '../files.js';

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

/** The records of a file; a last line that a crash cut short is left out. None without a file. */
export async function readJsonLines(path: string): Promise<Record<string, unknown>[]> {
  const text = await readFile(path, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return '';
    throw ioError(path, 'must be a readable file', cause);
  });
  return text
    .slice(0, text.lastIndexOf('\n') + 1)
    .split('\n')
    .filter(Boolean)
    .map((line, i) => {
      try {
        return JSON.parse(line) as Record<string, unknown>;
      } catch (cause) {
        throw ioError(`${path}:${i + 1}`, 'must be a line of JSON', cause);
      }
    });
}

/**
 * Keeps the records that `keep` says, whole or not at all: a resumed run drops what it will repeat.
 * Open the writer afterwards: the file is a new one.
 */
export async function trimJsonLines(
  path: string,
  keep: (record: Record<string, unknown>) => boolean,
): Promise<void> {
  const kept = (await readJsonLines(path)).filter(keep);
  await writeFileWhole(
    path,
    kept.map((record) => `${JSON.stringify(record)}\n`),
  );
}
