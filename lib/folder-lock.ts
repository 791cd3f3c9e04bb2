import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { MixplError } from './errors.js';
import { ioError } from './files.js';

/** Who writes into a folder. */
interface Owner {
  pid: number;
  host: string;
  /** When the process started, as Linux counts; null where that is unknown. A pid alone may be another's by now. */
  started: string | null;
}

const lockName = '.lock';

/** A folder that one process at a time writes into: a file in it names the process. */
export class FolderLock {
  readonly #path: string;

  private constructor(path: string) {
    this.#path = path;
  }

  /**
   * Takes the folder, which exists; also when its last owner ended without letting go.
   * @throws MixplError ERR_STATE naming the process that has it, ERR_IO
   */
  static async take(folder: string): Promise<FolderLock> {
    const path = join(folder, lockName);
    const mine = JSON.stringify({
      pid: process.pid,
      host: hostname(),
      started: await startOf(process.pid),
    } satisfies Owner);
    const draft = `${path}.${process.pid}.tmp`;
    try {
      await writeFile(draft, mine);
      for (let attempt = 0; attempt < 3; attempt++) {
        if (await place(draft, path)) return new FolderLock(path);
        const text = await readFile(path, 'utf8').catch(() => null);
        if (text === null) continue; // let go of just now
        const owner = parse(text);
        if (!owner || (await mayLive(owner))) throw heldBy(folder, path, owner);
        await clear(path, text);
      }
    } catch (cause) {
      if (cause instanceof MixplError) throw cause;
      throw ioError(folder, 'must be a writable folder', cause);
    } finally {
      await rm(draft, { force: true }).catch(() => undefined);
    }
    throw heldBy(folder, path, null);
  }

  /** Lets go; never throws. */
  async release(): Promise<void> {
    await rm(this.#path, { force: true }).catch(() => undefined);
  }
}

/** Whether the draft stands at `path` now: whole, and only where nothing was. */
async function place(draft: string, path: string): Promise<boolean> {
  const failure = await link(draft, path).then(
    () => null,
    (cause: NodeJS.ErrnoException) => cause,
  );
  if (!failure) return true;
  if (failure.code === 'EEXIST') return false;
  // A file system without hard links: not whole at once, but still only where nothing was.
  return writeFile(path, await readFile(draft), { flag: 'wx' }).then(
    () => true,
    (cause: NodeJS.ErrnoException) => {
      if (cause.code === 'EEXIST') return false;
      throw cause;
    },
  );
}

/** Removes a lock that still says `text`; another process may have replaced it meanwhile. */
async function clear(path: string, text: string): Promise<void> {
  const aside = `${path}.${process.pid}.old`;
  await rename(path, aside).catch(() => undefined);
  const moved = await readFile(aside, 'utf8').catch(() => null);
  if (moved !== null && moved !== text) await link(aside, path).catch(() => undefined);
  await rm(aside, { force: true });
}

function parse(text: string): Owner | null {
  try {
    const { pid, host, started } = JSON.parse(text) as Owner;
    return Number.isSafeInteger(pid) && pid > 0 && typeof host === 'string'
      ? { pid, host, started }
      : null;
  } catch {
    return null;
  }
}

/** Processes of other machines cannot be asked. Of this process: taken before it was this one. */
async function mayLive({ pid, host, started }: Owner): Promise<boolean> {
  if (host !== hostname()) return true;
  try {
    process.kill(pid, 0);
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code !== 'ESRCH';
  }
  const now = await startOf(pid);
  return started === null || now === null || started === now;
}

/** The 22nd field of /proc/PID/stat; the second is a name in brackets, which may hold anything. */
async function startOf(pid: number): Promise<string | null> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null);
  return stat?.slice(stat.lastIndexOf(')') + 2).split(' ')[19] ?? null;
}

function heldBy(folder: string, path: string, owner: Owner | null): MixplError {
  const who = owner ? `process ${owner.pid} on ${owner.host}` : 'another process';
  return new MixplError(
    'ERR_STATE',
    `${folder}: must be free, got one that a training writes into (${who}); if it has ended, remove ${path}`,
  );
}
