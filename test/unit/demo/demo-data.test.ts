import { readFile, stat } from 'node:fs/promises';
import { expect, test } from 'vitest';
import { makeDemoData } from '../../../lib/demo/demo-data.js';
import { demoClasses, drawScene } from '../../../lib/demo/scene.js';
import { loadCoco, Random } from '../../../lib/index.js';
import { temporaryFolder } from '../temporary-folder.js';

const size = { width: 256, height: 192 };

test('scenes follow from their seed, and their boxes are tight', () => {
  const scene = drawScene(new Random(5), size);
  expect(drawScene(new Random(5), size)).toEqual(scene);
  expect(drawScene(new Random(6), size).data).not.toEqual(scene.data);
  for (const { box, area, label } of scene.objects) {
    expect(box[0]).toBeGreaterThanOrEqual(0);
    expect(box[2]).toBeLessThanOrEqual(size.width);
    expect(area).toBeLessThanOrEqual((box[2] - box[0]) * (box[3] - box[1]));
    expect(label).toBeLessThan(demoClasses.length);
  }
});

test('classes have a long tail and sizes a wide range', () => {
  const counts = demoClasses.map(() => 0);
  const sides: number[] = [];
  for (let i = 0; i < 150; i++)
    for (const { label, box } of drawScene(new Random(1).fork(i), size).objects) {
      counts[label]!++;
      sides.push(Math.sqrt((box[2] - box[0]) * (box[3] - box[1])));
    }
  expect(counts).toEqual([...counts].sort((a, b) => b - a));
  expect(counts[0]! / counts[5]!).toBeGreaterThan(6);
  for (const [low, high] of [
    [0, 32],
    [32, 96],
    [96, 256],
  ] as const)
    expect(sides.filter((s) => s >= low && s < high).length).toBeGreaterThan(20);
});

test('the data set reads back, and is made once', async () => {
  const folder = await temporaryFolder();
  const options = { labelled: 3, unlabelled: 2, test: 2, ...size, seed: 4 };
  const files = await makeDemoData(folder, options);
  const labelled = await loadCoco(files.labelled, { images: files.images });
  const unlabelled = await loadCoco(files.unlabelled, { images: files.images, labelled: false });
  expect(labelled.images).toHaveLength(3);
  expect(labelled.categories.map((c) => c.name)).toEqual([...demoClasses]);
  expect(unlabelled.images.every((image) => image.annotations === null)).toBe(true);
  const written = (await stat(files.test)).mtimeMs;
  await makeDemoData(folder, options);
  expect((await stat(files.test)).mtimeMs).toBe(written);
  const before = await readFile(files.test, 'utf8');
  await makeDemoData(folder, { ...options, seed: 5 });
  expect(await readFile(files.test, 'utf8')).not.toBe(before);
});
