import { constants } from 'node:buffer';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { MixplError } from './errors.js';
import { ioError } from './files.js';

/** Node ends the process where it is asked for 2 GiB or more at once. */
const mostAtOnce = 2 ** 30;

/** A file that is read by position. Memory is taken only for bytes that the file has. */
export class FileBytes implements AsyncDisposable {
  readonly path: string;
  readonly size: number;
  readonly #file: FileHandle;

  private constructor(path: string, size: number, file: FileHandle) {
    this.path = path;
    this.size = size;
    this.#file = file;
  }

  /** @throws MixplError ERR_IO when there is no such file, or it cannot be read by position */
  static async open(path: string): Promise<FileBytes> {
    try {
      // Before opening: to open a named pipe is to wait for its writer.
      if (!(await stat(path)).isFile()) throw new Error('something that is not a plain file');
      const file = await open(path, 'r');
      return new FileBytes(path, (await file.stat()).size, file);
    } catch (cause) {
      throw ioError(path, 'must be a readable file', cause);
    }
  }

  /**
   * @param what names these bytes in the error
   * @throws MixplError ERR_BAD_FILE when the file ends before, ERR_IO when reading fails
   */
  async read(offset: number, length: number, what: string): Promise<Buffer> {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size))
      throw new MixplError(
        'ERR_BAD_FILE',
        `${this.path}: must hold ${length} bytes of ${what} at byte ${offset}, got a file of ${this.size} bytes: cut off or damaged`,
      );
    if (length > constants.MAX_LENGTH)
      throw new MixplError(
        'ERR_BAD_FILE',
        `${this.path}: ${what} must hold at most ${constants.MAX_LENGTH} bytes, as a Buffer does, got ${length}`,
      );
    const bytes = Buffer.allocUnsafeSlow(length);
    for (let done = 0; done < length; ) {
      const { bytesRead } = await this.#file
        .read(bytes, done, Math.min(length - done, mostAtOnce), offset + done)
        .catch((cause: unknown) => {
          throw ioError(this.path, 'must be a readable file', cause);
        });
      if (bytesRead === 0)
        throw new MixplError('ERR_BAD_FILE', `${this.path}: became shorter while it was read`);
      done += bytesRead;
    }
    return bytes;
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}
