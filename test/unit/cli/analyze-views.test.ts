import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { GradientStudy } from '../../../lib/analysis/gradient-page.js';
import { type DemoData, makeDemoData } from '../../../lib/demo/demo-data.js';
import { runCli } from './run-cli.js';

let folder: string;
let files: DemoData;
const run = () => join(folder, 'run');
const config = ({ all, images }: DemoData, type: string) => `
name: tiny
dtype: fp32
threads: 1
data:
  labelled: { format: coco, annotations: ${all}, images: ${images} }
  split: { percent: 25 }
model:
  type: ${type}
  backbone: { depth: 18, style: pytorch, frozenStages: -1, norm: gn, baseWidth: 4 }
  neck: { channels: 8, numOutputs: 3 }
  head: { channels: 8, stackedConvs: 1, norm: gn }
  anchors: { strides: [8, 16, 32] }
  test: { scoreThr: 0.001 }
augment:
  labelled: { resize: { long: 64, short: [40, 48] } }
  weak: { resize: { long: 64, short: [40, 48] } }
  strong: { resize: { long: 64, short: [40, 48] } }
  test: { long: 64, short: 48 }
semi: { mosaicShape: [[24, 32], [48, 64]], scoreThr: 0.01, emptyImageRule: per-image }
optimizer: { type: adamw, lr: 1.0e-3 }
batch: { labelled: 2, unlabelled: 2 }
schedule: { iterations: 3, warmup: { iterations: 2 } }
`;

async function train(name: string, type: string): Promise<void> {
  const path = join(folder, `${name}.yaml`);
  await writeFile(path, config(files, type));
  expect((await runCli(['train', path, '--out', join(folder, name)])).code).toBe(0);
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-views-'));
  files = await makeDemoData(join(folder, 'data'), {
    ...{ labelled: 4, unlabelled: 8, test: 4, width: 64, height: 48, seed: 3 },
  });
  await train('run', 'retinanet');
});
afterAll(() => rm(folder, { recursive: true }));

const gradients = (...args: string[]) => runCli(['analyze', 'gradients', ...args]);
const cam = (...args: string[]) => runCli(['analyze', 'cam', ...args]);
const checkpoint = () => join(run(), 'checkpoints', 'iteration-000003');

describe('mixpl analyze gradients', () => {
  test("a run's student, taught by its teacher; a page of it", async () => {
    const out = join(folder, 'gradients');
    const { code, stdout, stderr } = await gradients(
      ...['--checkpoint', run(), '--thresholds', '0.05,0.01', '--bins', '10', '--out', out],
    );
    expect(stderr).toBe(`charts: ${join(out, 'gradients.html')}\n`);
    expect(code).toBe(0);
    expect(stdout).toMatch(/│ mosaic │ +0.01 │ +5 │/);
    expect((await readdir(out)).sort()).toEqual(['gradients.html', 'gradients.json']);
    const study = JSON.parse(await readFile(join(out, 'gradients.json'), 'utf8')) as GradientStudy;
    expect(study).toMatchObject({
      ...{ images: 9, bins: 10, dataset: { name: 'all.1@25-unlabeled', source: files.all } },
      student: join(checkpoint(), 'student.safetensors'),
      teacher: join(checkpoint(), 'teacher.safetensors'),
    });
    expect(study.views.map(({ view, inputs }) => [view, inputs])).toEqual([
      ['weak', 9],
      ['strong', 9],
      ['mixup', 9],
      ['mosaic', 5], // one a batch of two
    ]);
    for (const { thresholds } of study.views) {
      expect(thresholds.map(({ threshold }) => threshold)).toEqual([0.01, 0.05]);
      for (const { tp, fp, fn, tn } of thresholds) {
        expect(tp.samples + fn.samples).toBeGreaterThan(0);
        for (const { samples, aboveHalf, counts } of [tp, fp, fn, tn]) {
          expect(counts.reduce((a, b) => a + b)).toBe(samples);
          // Ten bins: the sixth begins at 0.5, which is not above it.
          expect(aboveHalf).toBeLessThanOrEqual(counts.slice(5).reduce((a, b) => a + b));
        }
      }
    }
    const page = await readFile(join(out, 'gradients.html'), 'utf8');
    expect(page).toContain('<title>Gradient norms on all.1@25-unlabeled</title>');
    const charts = JSON.parse(/const charts = (.*);\n/.exec(page)![1]!);
    expect(charts).toHaveLength(8); // four types at two thresholds
    expect(charts[0]).toMatchObject({ xLabel: 'gradient norm', log: true });
    expect(charts[0].x).toHaveLength(10);
  });

  test('is the same again, and another choice with another seed', async () => {
    const study = async (...args: string[]) =>
      (
        await gradients(
          '--checkpoint',
          run(),
          '--limit',
          '4',
          '--views',
          'strong',
          '--json',
          ...args,
        )
      ).stdout;
    const first = await study();
    expect(JSON.parse(first).views.map(({ view }: { view: string }) => view)).toEqual(['strong']);
    expect(await study()).toBe(first);
    expect(await study('--seed', '1')).not.toBe(first);
  });

  test('weights that stand alone are student and teacher, on a named data set', async () => {
    const alone = join(folder, 'alone.safetensors');
    await writeFile(alone, await readFile(join(checkpoint(), 'teacher.safetensors')));
    const { code, stderr } = await gradients(
      ...['--checkpoint', alone, files.test, '--images', files.images],
      ...['--limit', '1', '--views', 'weak', '--thresholds', '0.01', '--json'],
    );
    expect(stderr).toContain(
      `${alone}: has one branch only, which serves as student and as teacher`,
    );
    expect(stderr).toContain("views are made with the paper's settings: ");
    expect(code).toBe(0);
  });

  test('a detector that has none says who has', async () => {
    await train('gfl', 'gfl');
    const { code, stderr } = await gradients('--checkpoint', join(folder, 'gfl'));
    expect(stderr).toContain('retinanet, fcos, atss, paa, and tood before it aligns its tasks');
    expect(code).toBe(2);
    // Where it looks can be seen all the same.
    const out = join(folder, 'gfl-cam');
    const seen = await cam('--checkpoint', join(folder, 'gfl'), '--limit', '2', '--out', out);
    expect(seen.code).toBe(0);
    expect(await readdir(out)).toHaveLength(2);
  });

  test.each([
    [['--thresholds', '0.3,2'], 'numbers in [0, 1]'],
    [['--views', 'weak,week'], 'one or more of weak,strong,mixup,mosaic'],
    [['--bins', '0'], 'a whole number >= 1'],
    [['--bins', '1001'], 'bins must be a whole number in [1, 1000], got 1001'],
  ])('%j is no command line', async (args, message) => {
    const { code, stderr } = await gradients('--checkpoint', run(), ...args);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });
});

describe('mixpl analyze cam', () => {
  test('a picture of every image with the four views', async () => {
    const out = join(folder, 'cam');
    const { code, stdout, stderr } = await cam(
      ...['--checkpoint', run(), '--limit', '3', '--out', out, '--level', 'P3', '--json'],
    );
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const { images, legend } = JSON.parse(stdout);
    expect(legend.missed).toEqual({ name: 'object that no pseudo label found', color: '#ff1744' });
    expect(images).toHaveLength(3);
    for (const { png, views } of images) {
      expect(Object.keys(views)).toEqual(['weak', 'strong', 'mixup', 'mosaic']);
      for (const view of Object.values<Record<string, number | string>>(views)) {
        expect(view.level).toBe('P3');
        expect(view.unjudged).toBe(0);
        expect(view.brightest).toBeLessThanOrEqual(view.hottest as number);
      }
      const { width, format } = await sharp(png).metadata();
      expect(format).toBe('png');
      expect(width).toBeGreaterThan(4 * 40);
    }
  });

  test('image files, of equal names, too', async () => {
    const [name] = (await readdir(files.images)).sort();
    const image = join(files.images, name!);
    const out = join(folder, 'cam-files');
    const { code, stdout } = await cam('--checkpoint', run(), image, image, '--out', out);
    expect(code).toBe(0);
    expect(stdout).toMatch(
      /weak at P\d: \d+ pseudo labels|weak at P\d: 0 found, 0 missed, 0 wrong/,
    );
    const stem = name!.replace(/\.\w+$/, '');
    expect((await readdir(out)).sort()).toEqual([`${stem}-2.png`, `${stem}.png`]);
  });

  test.each([
    [['--threshold', '2'], 'in [0, 1]'],
    [['--level', 'P9'], 'level must be a level of the pyramid, P3 to P5, got P9'],
    [['--level', 'x'], "level must be 'auto' or a level of the pyramid like 'P3', got 'x'"],
    [['a.png', 'data.json'], 'paths must be image files or one data set'],
  ])('%j is no command line', async (args, message) => {
    const out = join(folder, 'none');
    const { code, stderr } = await cam('--checkpoint', run(), '--out', out, ...args);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });
});
