import { open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { MixplError } from './errors.js';

/**
 * Writes a file whole or not at all: to a temporary name beside `path`, synced, renamed; then the
 * folder is synced, so that the file is there after a power cut.
 * @param pieces strings or bytes, one after the other
 * @throws MixplError ERR_IO with the path and the system's reason (full disk, read-only folder, ...);
 *   what was at `path` before is still there
 */
export async function writeFileWhole(
  path: string,
  pieces: Iterable<string | Uint8Array> | AsyncIterable<string | Uint8Array>,
): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.tmp`);
  try {
    const file = await open(temporary, 'w');
    try {
      for await (const piece of pieces) await file.appendFile(piece);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (cause) {
    await rm(temporary, { force: true }).catch(() => undefined);
    if (cause instanceof MixplError) throw cause; // from the maker of the pieces
    throw ioError(path, 'must be a writable file', cause);
  }
}

/** A MixplError ERR_IO in the usual form, with the system's own words at the end. */
export function ioError(path: string, expected: string, cause: unknown): MixplError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new MixplError('ERR_IO', `${path}: ${expected}, got ${reason}`, { cause });
}

async function syncFolder(path: string): Promise<void> {
  // Some file systems refuse to sync a folder; the rename itself is done.
  const folder = await open(path, 'r').catch(() => undefined);
  await folder?.sync().catch(() => undefined);
  await folder?.close();
}
