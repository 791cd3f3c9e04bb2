import { randomUUID } from 'node:crypto';
import { readlinkSync } from 'node:fs';
import { link, readFile, readlink, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MixplError } from './errors.js';
import { ioError } from './files.js';

/** Who writes into a folder. */
interface Owner {
  token: string;
  pid: number;
  host: string;
  /**
   * Where pids mean the same: host, boot and pid namespace. A container's pids say nothing in another
   * one, though both may have one host name.
   */
  realm: string;
  /** Of the process, as Linux numbers them: a worker may end before its process. Older locks have none. */
  thread?: number;
  /** When the thread started, as Linux counts; null where that is unknown. A number alone may be another's by now. */
  started: string | null;
}

export interface FolderLockOptions {
  /** The lock's time of change is renewed as often. @defaultValue 10 000 */
  beatMs?: number;
}

const lockName = '.lock';
const usualBeatMs = 10_000;
/** Owners that cannot be asked have ended when they miss as many beats. */
const missedBeats = 3;
/** Two that replace a lock at once: the later one's stands after this. */
const settleMs = 150;

/** A folder that one training at a time writes into: a file in it names the thread, and is kept fresh. */
export class FolderLock {
  readonly #path: string;
  readonly #text: string;
  readonly #beat: NodeJS.Timeout;

  private constructor(path: string, text: string, beatMs: number) {
    this.#path = path;
    this.#text = text;
    this.#beat = setInterval(() => {
      const time = new Date();
      utimes(path, time, time).catch(() => undefined);
    }, beatMs).unref();
  }

  /**
   * Takes the folder, which exists; also when its last owner, a process or a worker of one, ended without
   * letting go. Whether one of another machine or container has ended takes 30 seconds to see.
   * @throws MixplError ERR_STATE naming the process that has it, ERR_IO
   */
  static async take(
    folder: string,
    { beatMs = usualBeatMs }: FolderLockOptions = {},
  ): Promise<FolderLock> {
    const path = join(folder, lockName);
    const token = randomUUID();
    const draft = `${path}.${token}`;
    const { pid } = process;
    const thread = ownThread();
    const owner: Owner = {
      ...{ token, pid, thread, host: hostname(), realm: await realm() },
      started: await startOf(pid, thread),
    };
    const mine = JSON.stringify(owner);
    try {
      await writeFile(draft, mine);
      for (let attempt = 0; attempt < 3; attempt++) {
        if (await place(draft, path)) return new FolderLock(path, mine, beatMs);
        const theirs = await readFile(path, 'utf8').catch(absent);
        if (theirs === null) continue; // let go of just now
        if (!(await hasEnded(path, theirs, beatMs))) throw heldBy(folder, path, theirs);
        if ((await readFile(path, 'utf8').catch(absent)) !== theirs) continue;
        await rename(draft, path);
        await sleep(settleMs);
        if ((await readFile(path, 'utf8').catch(absent)) === mine)
          return new FolderLock(path, mine, beatMs);
        await writeFile(draft, mine);
      }
      throw heldBy(folder, path, (await readFile(path, 'utf8').catch(absent)) ?? '');
    } catch (cause) {
      if (cause instanceof MixplError) throw cause;
      throw ioError(folder, 'must be a writable folder', cause);
    } finally {
      await rm(draft, { force: true }).catch(() => undefined);
    }
  }

  /** Lets go, unless another has taken the folder by force; never throws. */
  async release(): Promise<void> {
    clearInterval(this.#beat);
    const text = await readFile(this.#path, 'utf8').catch(() => null);
    if (text === this.#text) await rm(this.#path, { force: true }).catch(() => undefined);
  }
}

/** Whether somebody writes into the folder: a look, which takes nothing and waits for nothing. */
export async function isLocked(folder: string): Promise<boolean> {
  const path = join(folder, lockName);
  const [text, file] = await Promise.all([readFile(path, 'utf8'), stat(path)]).catch(() => []);
  if (text === undefined || !file) return false;
  const owner = parse(text);
  if (owner?.realm === (await realm())) return lives(owner);
  return Date.now() - file.mtimeMs < missedBeats * usualBeatMs;
}

function absent(cause: NodeJS.ErrnoException): null {
  if (cause.code === 'ENOENT') return null;
  throw cause;
}

/** Whether the draft stands at `path` now: whole, and only where nothing was. */
async function place(draft: string, path: string): Promise<boolean> {
  try {
    await link(draft, path);
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return false;
  }
  // A file system without hard links: not whole at once, but still only where nothing was.
  try {
    await writeFile(path, await readFile(draft), { flag: 'wx' });
    return true;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw cause;
  }
}

/** By its pid and thread where they say something, else by the beats that it misses. */
async function hasEnded(path: string, text: string, beatMs: number): Promise<boolean> {
  const owner = parse(text);
  if (owner?.realm === (await realm())) return !(await lives(owner));
  const time = async () => (await stat(path).catch(absent))?.mtimeMs ?? null;
  const before = await time();
  for (let beat = 0; beat < 2 * missedBeats; beat++) {
    await sleep(beatMs / 2);
    if ((await time()) !== before) return false;
  }
  return true;
}

/** As a signal and the time of its thread's start say. */
async function lives({ pid, thread = pid, started }: Owner): Promise<boolean> {
  try {
    process.kill(pid, 0);
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code !== 'ESRCH';
  }
  if (started === null) return true;
  const now = await startOf(pid, thread);
  // Of a process that is hidden from us (hidepid of proc(5)) nothing is known.
  return now === null ? (await startOf(pid, pid)) === null : now === started;
}

function parse(text: string): Owner | null {
  try {
    const owner = JSON.parse(text) as Owner;
    return Number.isSafeInteger(owner.pid) && owner.pid > 0 ? owner : null;
  } catch {
    return null;
  }
}

async function realm(): Promise<string> {
  const parts = [
    readFile('/proc/sys/kernel/random/boot_id', 'utf8').then((id) => id.trim()),
    readlink('/proc/self/ns/pid'),
  ].map((part) => part.catch(() => ''));
  return [hostname(), ...(await Promise.all(parts))].join(' ');
}

/** The calling thread; read at once, since the pool's threads would find themselves. */
function ownThread(): number {
  try {
    return Number(basename(readlinkSync('/proc/thread-self')));
  } catch {
    return process.pid; // no Linux
  }
}

/** The 22nd field of a thread's stat; the second is a name in brackets, which may hold anything. */
async function startOf(pid: number, thread: number): Promise<string | null> {
  const line = await readFile(`/proc/${pid}/task/${thread}/stat`, 'utf8').catch(() => null);
  return line?.slice(line.lastIndexOf(')') + 2).split(' ')[19] ?? null;
}

function heldBy(folder: string, path: string, text: string): MixplError {
  const owner = parse(text);
  const who = owner ? `process ${owner.pid} on ${owner.host}` : 'another process';
  return new MixplError(
    'ERR_STATE',
    `${folder}: must be free, got a folder that another training writes into (${who}); if it has ended, remove ${path}`,
  );
}
