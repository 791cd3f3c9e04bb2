import type { FileHandle } from 'node:fs/promises';
import { MixplError } from '../errors.js';

/** A line of a file, without its end. */
export interface Line {
  text: string;
  /** Where it begins, in bytes. */
  start: number;
  /** Where the next one begins. */
  end: number;
}

const chunkBytes = 1 << 20;
/** A file with a longer line is not one of lines; a string has an end, too. */
const longestBytes = 64 << 20;

/**
 * The lines of a file, one after the other, so that a file of any size needs the memory of a line or two. What
 * stands behind the last line's end (one that is being written, or that a crash cut short) is none.
 * @param path of the file, for what is said of it
 * @param options.from where a line begins, in bytes
 * @throws MixplError ERR_BAD_FILE for a line of more than 64 MiB; what the system says
 */
export async function* wholeLines(
  file: FileHandle,
  path: string,
  { from = 0 } = {},
): AsyncGenerator<Line> {
  const chunk = Buffer.allocUnsafe(chunkBytes);
  let rest = Buffer.alloc(0); // a line's beginning
  let start = from;
  for (;;) {
    const { bytesRead } = await file.read(chunk, 0, chunkBytes, start + rest.length);
    if (bytesRead === 0) return;
    const bytes = Buffer.concat([rest, chunk.subarray(0, bytesRead)]);
    let at = 0;
    for (let end: number; (end = bytes.indexOf('\n', at)) >= 0; at = end + 1) {
      const line = { text: bytes.toString('utf8', at, end), start, end: start + end + 1 - at };
      start = line.end;
      yield line;
    }
    rest = bytes.subarray(at);
    if (rest.length > longestBytes)
      throw new MixplError(
        'ERR_BAD_FILE',
        `${path}: lines must have at most 64 MiB, got a longer one at byte ${start}`,
      );
  }
}
