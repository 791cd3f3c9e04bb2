import { mkdir, mkdtemp, realpath, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { drawingPaths } from '../../../lib/cli/drawing-paths.js';

let root: string;
beforeAll(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), 'mixpl-drawings-')));
  for (const folder of ['photos', 'more']) await mkdir(join(root, folder));
  await symlink(join(root, 'photos'), join(root, 'link'));
});
afterAll(() => rm(root, { recursive: true }));

const named = (...names: string[]) => names.map((name) => ({ file: join('photos', name), name }));

test.each<[string, { file: string; name: string }[], string[]]>([
  [
    'the name of the image, in its place',
    named('a.jpg', 'b.c.PNG', 'sub/a.jpg'),
    ['a.png', 'b.c.png', 'sub/a.png'],
  ],
  [
    'equal names are numbered',
    [...named('a.jpg', 'a.png', 'a-2.jpg'), { file: 'more/a.jpg', name: 'a.jpg' }],
    ['a.png', 'a-2.png', 'a-2-2.png', 'a-3.png'],
  ],
  ['no extension', named('a', '.hidden'), ['a.png', '.hidden.png']],
  ['none', [], []],
])('%s', async (_, images, expected) => {
  const paths = await drawingPaths('found', images);
  expect(paths).toEqual(expected.map((name) => join('found', name)));
});

test.each(['photos', 'link'])('no image of a folder is overwritten: %s', async (folder) => {
  const images = named('a.png', 'b.jpg', 'a.png.png').map(({ file, name }) => {
    return { file: join(root, file), name };
  });
  const paths = await drawingPaths(join(root, folder), images);
  expect(paths).toEqual(
    ['a.png-2.png', 'b.jpg.png', 'a.png.png.png'].map((name) => join(root, folder, name)),
  );
});
