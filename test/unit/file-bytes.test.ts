import { constants } from 'node:buffer';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { FileBytes } from '../../lib/file-bytes.js';
import { temporaryFolder } from './temporary-folder.js';

test('more than 2 GiB are read in parts, and no more than a Buffer holds', async () => {
  const path = join(await temporaryFolder(), 'large');
  const file = await open(path, 'w');
  // Takes no room. Later versions of Node have buffers as large as any file.
  await file.truncate(Math.min(constants.MAX_LENGTH, 2 ** 40) + 10);
  await file.close();
  const prototype = Object.getPrototypeOf(file);
  const reads: [length: number, position: number][] = [];
  const spy = vi.spyOn(prototype, 'read').mockImplementation(async (...[, , length, position]) => {
    reads.push([length as number, position as number]);
    return { bytesRead: length };
  });
  try {
    await using bytes = await FileBytes.open(path);
    expect(await bytes.read(5, 2 ** 31 + 7, 'x')).toHaveLength(2 ** 31 + 7);
    expect(reads).toEqual([
      [2 ** 30, 5],
      [2 ** 30, 5 + 2 ** 30],
      [7, 5 + 2 ** 31],
    ]);
    if (constants.MAX_LENGTH > 2 ** 40) return;
    await expect(bytes.read(0, constants.MAX_LENGTH + 1, "tensor 't'")).rejects.toMatchObject({
      code: 'ERR_BAD_FILE',
      message: expect.stringMatching(/large: tensor 't' must hold at most \d+ bytes/),
    });
  } finally {
    spy.mockRestore();
  }
});
