import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const repository = resolve(fileURLToPath(import.meta.url), '../..');

/**
 * The folder of the BCCD photographs (Pascal VOC layout): MIXPL_BCCD, else ../shared/data/bccd beside
 * the checkout. undefined when there is none; tests that need it then skip, and say so once here.
 */
export const bccdFolder: string | undefined = (() => {
  const folder = process.env.MIXPL_BCCD ?? resolve(repository, '../shared/data/bccd');
  if (existsSync(resolve(folder, 'ImageSets/Main/trainval.txt'))) return folder;
  console.warn(`skipped: tests on BCCD photographs (no data set at ${folder}; set MIXPL_BCCD)`);
  return undefined;
})();
