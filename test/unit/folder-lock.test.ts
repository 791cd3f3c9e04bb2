import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { FolderLock } from '../../lib/folder-lock.js';
import { temporaryFolder } from './temporary-folder.js';

const held = (folder: string, who: string) => ({
  code: 'ERR_STATE',
  message: `${folder}: must be free, got one that a training writes into (${who}); if it has ended, remove ${join(folder, '.lock')}`,
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

test('a process that has ended is succeeded, one that lives or cannot be asked is not', async () => {
  const folder = await temporaryFolder();
  const path = join(folder, '.lock');
  const child = spawn(process.execPath, ['-e', 'process.stdin.resume()'], { stdio: 'pipe' });
  await once(child, 'spawn');
  const owner = { pid: child.pid!, host: hostname(), started: null };
  await writeFile(path, JSON.stringify(owner));
  await expect(FolderLock.take(folder)).rejects.toMatchObject(
    held(folder, `process ${child.pid} on ${hostname()}`),
  );
  child.kill('SIGKILL');
  await once(child, 'exit');
  const lock = await FolderLock.take(folder);
  expect(JSON.parse(await readFile(path, 'utf8'))).toMatchObject({ pid: process.pid });
  await lock.release();

  await writeFile(path, JSON.stringify({ ...owner, host: 'elsewhere' }));
  await expect(FolderLock.take(folder)).rejects.toMatchObject(
    held(folder, `process ${owner.pid} on elsewhere`),
  );
  // A file that says nothing may be of a program to come.
  await writeFile(path, 'cut o');
  await expect(FolderLock.take(folder)).rejects.toMatchObject(held(folder, 'another process'));
});

test.runIf(process.platform === 'linux')('a pid that is another process by now', async () => {
  const folder = await temporaryFolder();
  const old = { pid: process.ppid, host: hostname(), started: '1' };
  await writeFile(join(folder, '.lock'), JSON.stringify(old));
  await (await FolderLock.take(folder)).release();
});

test('of many that come at once one has it, though the last owner has ended', async () => {
  const folder = await temporaryFolder();
  const child = spawn(process.execPath, ['-e', '']);
  await once(child, 'exit');
  const gone = { pid: child.pid!, host: hostname(), started: '1' };
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
