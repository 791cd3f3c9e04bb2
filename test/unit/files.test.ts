import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeFolder } from '../../lib/files.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-files-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('makeFolder', () => {
  test('makes what is missing, and is content with what is there', async () => {
    const path = join(folder, 'a', 'b', 'c');
    await makeFolder(path);
    await makeFolder(path);
    expect(await readdir(path)).toEqual([]);
  });

  test('a file in the way, and a file system that takes nothing, are ERR_IO with the path', async () => {
    const file = join(folder, 'file');
    await writeFile(file, '');
    for (const path of [file, join(file, 'x'), '/proc/mixpl', '/proc/mixpl/deeper'])
      await expect(makeFolder(path)).rejects.toMatchObject({
        code: 'ERR_IO',
        message: expect.stringContaining(path),
      });
  });
});
