import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeFolder, writeFileWhole } from '../../lib/files.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-files-'));
});
afterAll(() => rm(folder, { recursive: true }));

describe('writeFileWhole', () => {
  test('of two writes at once one is there, whole', async () => {
    const path = join(folder, 'twice');
    async function* pieces(letter: string) {
      for (let i = 0; i < 20; i++) {
        await new Promise((resolve) => setImmediate(resolve));
        yield letter.repeat(1000);
      }
    }
    await Promise.all(['a', 'b'].map((letter) => writeFileWhole(path, pieces(letter))));
    expect(['a', 'b'].map((letter) => letter.repeat(20_000))).toContain(
      await readFile(path, 'utf8'),
    );
    expect((await readdir(folder)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });

  test('a name may be as long as the system takes, and no longer', async () => {
    const path = join(folder, 'x'.repeat(255));
    await writeFileWhole(path, ['whole']);
    expect(await readFile(path, 'utf8')).toBe('whole');
    await expect(writeFileWhole(`${path}x`, [])).rejects.toMatchObject({
      code: 'ERR_IO',
      message: expect.stringMatching(/got a name that is too long \(ENAMETOOLONG\)$/),
    });
    expect((await readdir(folder)).filter((name) => name.endsWith('.tmp'))).toEqual([]);
  });
});

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
