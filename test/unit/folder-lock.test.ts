import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, stat, utimes, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { expect, test, vi } from 'vitest';
import { FolderLock, isLocked } from '../../lib/folder-lock.js';
import { temporaryFolder } from './temporary-folder.js';

const held = (folder: string, who: string) => ({
  code: 'ERR_STATE',
  message: `${folder}: must be free, got a folder that another training writes into (${who}); if it has ended, remove ${join(folder, '.lock')}`,
});

test('one owner at a time; nothing stays behind', async () => {
  const folder = await temporaryFolder();
  const lock = await FolderLock.take(folder);
  const here = `process ${process.pid} on ${hostname()}`;
  await expect(FolderLock.take(folder)).rejects.toMatchObject(held(folder, here));
  expect(await readdir(folder)).toEqual(['.lock']);
  await lock.release();
  await lock.release();
  expect(await readdir(folder)).toEqual([]);
  await (await FolderLock.take(folder)).release();
});

/** As the lock of this process would name its owner. */
async function ownerHere() {
  const folder = await temporaryFolder();
  const lock = await FolderLock.take(folder);
  const owner = JSON.parse(await readFile(join(folder, '.lock'), 'utf8'));
  await lock.release();
  return owner as { token: string; pid: number; host: string; thread: number; realm: string };
}

test('a process of this machine that has ended is succeeded, one that lives is not', async () => {
  const folder = await temporaryFolder();
  const path = join(folder, '.lock');
  const child = spawn(process.execPath, ['-e', 'process.stdin.resume()'], { stdio: 'pipe' });
  await once(child, 'spawn');
  const { thread, ...here } = await ownerHere(); // older locks name none
  const owner = { ...here, token: 'x', pid: child.pid!, started: null };
  await writeFile(path, JSON.stringify(owner));
  await expect(FolderLock.take(folder)).rejects.toMatchObject(
    held(folder, `process ${child.pid} on ${hostname()}`),
  );
  child.kill('SIGKILL');
  await once(child, 'exit');
  const lock = await FolderLock.take(folder);
  expect(JSON.parse(await readFile(path, 'utf8'))).toMatchObject({ pid: process.pid });
  await lock.release();
  // A pid that is another process by now.
  if (process.platform !== 'linux') return;
  await writeFile(path, JSON.stringify({ ...owner, pid: process.ppid, started: '1' }));
  await (await FolderLock.take(folder)).release();
});

test('one that cannot be asked lives as long as it renews its lock', async () => {
  const folder = await temporaryFolder();
  const path = join(folder, '.lock');
  const owner = { ...(await ownerHere()), realm: 'another container', host: 'elsewhere' };
  await writeFile(path, JSON.stringify(owner));
  const beats = setInterval(() => utimes(path, new Date(), new Date()), 20);
  await expect(FolderLock.take(folder, { beatMs: 60 })).rejects.toMatchObject(
    held(folder, `process ${owner.pid} on elsewhere`),
  );
  clearInterval(beats);
  await (await FolderLock.take(folder, { beatMs: 60 })).release();
  expect(await readdir(folder)).toEqual([]);
  // What is no lock of ours counts as one until it is still for as long.
  await writeFile(path, 'cut o');
  const lock = await FolderLock.take(folder, { beatMs: 60 });
  // Its own beats show to others.
  const { mtimeMs } = await stat(path);
  await vi.waitFor(async () => expect((await stat(path)).mtimeMs).toBeGreaterThan(mtimeMs));
  // Who was taken for dead lets the new owner be.
  await writeFile(path, 'by force');
  await lock.release();
  expect(await readFile(path, 'utf8')).toBe('by force');
});

test('of many that come at once one has it, though the last owner has ended', async () => {
  const folder = await temporaryFolder();
  const child = spawn(process.execPath, ['-e', '']);
  await once(child, 'exit');
  const gone = { ...(await ownerHere()), pid: child.pid!, started: '1' };
  await writeFile(join(folder, '.lock'), JSON.stringify(gone));
  const script = `
    import { FolderLock } from ${JSON.stringify(new URL('../../dist/folder-lock.js', import.meta.url).href)};
    const got = await FolderLock.take(process.argv[1]).then(() => 'taken', (e) => e.code);
    console.log(got);
    process.stdin.resume();`;
  const rivals = Array.from({ length: 4 }, () =>
    spawn(process.execPath, ['--input-type=module', '-e', script, folder], { stdio: 'pipe' }),
  );
  const said = await Promise.all(
    rivals.map(async (rival) => String((await once(rival.stdout, 'data'))[0]).trim()),
  );
  for (const rival of rivals) rival.kill();
  expect(said.sort()).toEqual(['ERR_STATE', 'ERR_STATE', 'ERR_STATE', 'taken']);
});

test('a worker that was terminated is succeeded, one that lives is not', async () => {
  const folder = await temporaryFolder();
  const script = `
    const { parentPort, workerData } = require('node:worker_threads');
    import(workerData.module)
      .then(({ FolderLock }) => FolderLock.take(workerData.folder))
      .then(() => parentPort.on('message', () => undefined).postMessage('taken'));`;
  const module = new URL('../../dist/folder-lock.js', import.meta.url).href;
  const worker = new Worker(script, { eval: true, workerData: { module, folder } });
  await once(worker, 'message');
  expect(await isLocked(folder)).toBe(true);
  await expect(FolderLock.take(folder)).rejects.toMatchObject(
    held(folder, `process ${process.pid} on ${hostname()}`),
  );
  await worker.terminate();
  expect(await isLocked(folder)).toBe(false);
  const lock = await FolderLock.take(folder);
  expect(await isLocked(folder)).toBe(true);
  await lock.release();
});
