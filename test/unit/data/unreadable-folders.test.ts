import { expect, test, vi } from 'vitest';
import { loadCoco, loadImageFolder, loadVoc } from '../../../lib/data/index.js';
import { put, putImage, temporaryFolder } from './temporary.js';

// Who runs the tests may be allowed to read everything: the system is made to refuse by name.
vi.mock('node:fs/promises', async (original) => {
  const fs = await original<typeof import('node:fs/promises')>();
  const readdir = (path: string, ...rest: unknown[]) =>
    String(path).endsWith('forbidden')
      ? Promise.reject(Object.assign(new Error(`EACCES: ${path}`), { code: 'EACCES' }))
      : (fs.readdir as (...all: unknown[]) => unknown)(path, ...rest);
  return { ...fs, readdir };
});

const skipping = { policy: { 'unreadable-image': 'skip' } } as const;

test('a folder of images that cannot be read is a problem, like an image', async () => {
  const root = await temporaryFolder();
  await putImage(root, 'a.png');
  await putImage(root, 'forbidden/b.png');
  await putImage(root, 'open/c.png');
  await expect(loadImageFolder(root)).rejects.toMatchObject({
    code: 'ERR_BAD_FILE',
    message: expect.stringContaining(
      `${root}/forbidden: must be a readable folder of images, got no permission (EACCES)`,
    ),
  });
  const { images, report } = await loadImageFolder(root, skipping);
  expect(images.map(({ fileName }) => fileName)).toEqual(['a.png', 'open/c.png']);
  expect(report.problems).toMatchObject([
    { kind: 'unreadable-image', count: 1, examples: [{ file: `${root}/forbidden` }] },
  ]);
  await expect(loadImageFolder(`${root}/forbidden`, skipping)).rejects.toMatchObject({
    code: 'ERR_IO',
  });
});

test('where no other folder has images it says why there are none', async () => {
  const root = await temporaryFolder();
  await putImage(root, 'forbidden/b.png');
  await expect(loadImageFolder(root)).rejects.toThrow(`${root}/forbidden: must be a readable`);
  await expect(loadImageFolder(root, skipping)).rejects.toThrow(
    "must have at least one image, got none (left out: 1 'unreadable-image')",
  );
});

test('of a VOC folder, and of what a COCO file names', async () => {
  const root = await temporaryFolder();
  await putImage(root, 'JPEGImages/a.png');
  await putImage(root, 'JPEGImages/forbidden/b.png');
  await put(root, 'Annotations/a.xml', '<annotation></annotation>');
  await expect(loadVoc(root)).rejects.toThrow(`${root}/JPEGImages/forbidden: must be a readable`);
  expect((await loadVoc(root, skipping)).images).toHaveLength(1);

  const images = [{ id: 1, file_name: 'forbidden/b.png', width: 64, height: 48 }];
  const file = await put(root, 'JPEGImages/coco.json', { images, annotations: [], categories: [] });
  await expect(loadCoco(file, { labelled: false })).rejects.toThrow(
    `got a folder ${root}/JPEGImages/forbidden that cannot be read: no permission (EACCES)`,
  );
});
