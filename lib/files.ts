import { randomBytes } from 'node:crypto';
import { mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
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
  // Of its own for every write, and short: the name in `path` may be as long as the system takes.
  const temporary = join(dirname(path), `.mixpl-${randomBytes(8).toString('hex')}.tmp`);
  try {
    const file = await open(temporary, 'wx');
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

/**
 * Makes a folder and those above it; one that exists is fine. (Node's own recursive mkdir never returns
 * where a parent exists but takes no entries, as in /proc.)
 * @throws MixplError ERR_IO with the path and the system's reason
 */
export async function makeFolder(path: string): Promise<void> {
  const make = async (folder: string): Promise<void> => {
    const refusal = await mkdir(folder).then(
      () => undefined,
      (cause: NodeJS.ErrnoException) => {
        if (cause.code === 'ENOENT' || cause.code === 'EEXIST') return cause;
        throw cause;
      },
    );
    if (!refusal) return;
    if (refusal.code === 'EEXIST') {
      if ((await stat(folder)).isDirectory()) return;
      throw refusal;
    }
    const parent = dirname(folder);
    const exists = await stat(parent).then(
      () => true,
      () => false,
    );
    if (exists) throw refusal;
    await make(parent);
    await mkdir(folder);
  };
  try {
    await make(resolve(path));
  } catch (cause) {
    throw ioError(path, 'must be a folder that can be created', cause);
  }
}

const refusals: Readonly<Record<string, string>> = {
  ENOENT: 'no file or folder of that name',
  EISDIR: 'a folder',
  ENOTDIR: 'a path through something that is not a folder',
  EEXIST: 'an existing file of that name',
  EACCES: 'no permission',
  EPERM: 'no permission',
  EROFS: 'a read-only file system',
  ENAMETOOLONG: 'a name that is too long',
  ENOSPC: 'a full disk',
};

/** Why the system refused, to stand behind "got": `a folder (EISDIR)`; else its own words. */
export function systemReason(cause: unknown): string {
  if (!(cause instanceof Error)) return String(cause);
  const { code = '' } = cause as NodeJS.ErrnoException;
  return refusals[code] ? `${refusals[code]} (${code})` : cause.message;
}

/** A MixplError ERR_IO in the usual form, with the system's reason at the end. */
export function ioError(path: string, expected: string, cause: unknown): MixplError {
  return new MixplError('ERR_IO', `${path}: ${expected}, got ${systemReason(cause)}`, { cause });
}

/** Makes renames in a folder last, where its file system can. */
export async function syncFolder(path: string): Promise<void> {
  // Some file systems refuse to sync a folder; the rename itself is done.
  const folder = await open(path, 'r').catch(() => undefined);
  await folder?.sync().catch(() => undefined);
  await folder?.close();
}
