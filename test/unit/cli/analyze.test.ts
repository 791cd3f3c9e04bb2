import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { cp, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { PseudoLabelStudy } from '../../../lib/analysis/pseudo-label-page.js';
import { type DemoData, makeDemoData } from '../../../lib/demo/demo-data.js';
import { cliPath, runCli } from './run-cli.js';

let folder: string;
let files: DemoData;
/** Trained on a quarter of an annotated set: what it takes as unlabelled is annotated. */
const run = () => join(folder, 'run');
const numUnlabelled = 9;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-analyze-'));
  files = await makeDemoData(join(folder, 'data'), {
    ...{ labelled: 4, unlabelled: 8, test: 4, width: 64, height: 48, seed: 3 },
  });
  const { all, images } = files;
  const config = join(folder, 'tiny.yaml');
  await writeFile(
    config,
    `
name: tiny
dtype: fp32
threads: 1
data:
  labelled: { format: coco, annotations: ${all}, images: ${images} }
  split: { percent: 25 }
model:
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
schedule: { iterations: 6, warmup: { iterations: 2 } }
checkpoint: { interval: 3, keep: 3 }
logging: { interval: 3 }
`,
  );
  const { code, stderr } = await runCli(['train', config, '--out', run()]);
  expect(stderr).toMatch(/right \d+\/\d+ {2}found \d+\/\d+/);
  expect(code).toBe(0);
});
afterAll(() => rm(folder, { recursive: true }));

const analyze = (...args: string[]) => runCli(['analyze', 'pseudo-labels', ...args]);
const checkpoint = (iteration: number) =>
  join(run(), 'checkpoints', `iteration-${String(iteration).padStart(6, '0')}`);

describe('mixpl analyze pseudo-labels', () => {
  test("a run, on what its split left; thresholds around the run's own", async () => {
    const { code, stdout, stderr } = await analyze('--checkpoint', run(), '--json');
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const study = JSON.parse(stdout) as PseudoLabelStudy;
    expect(study).toMatchObject({
      dataset: { name: 'all.1@25-unlabeled', source: files.all },
      threshold: 0.01,
    });
    expect(study.checkpoints).toHaveLength(1);
    const [{ weights, iteration, images, objects, meanScore, thresholds }] = study.checkpoints as [
      PseudoLabelStudy['checkpoints'][0],
    ];
    expect(weights).toBe(join(checkpoint(6), 'teacher.safetensors'));
    expect({ iteration, images }).toEqual({ iteration: 6, images: numUnlabelled });
    expect(thresholds.map(({ threshold }) => threshold)).toEqual([0.01, 0.11, 0.21]);
    expect(meanScore.all).toBeGreaterThan(0);
    const [lowest] = thresholds;
    expect(lowest!.objects).toBe(objects / images);
    expect(lowest!.byClass).toHaveLength(6);
    const total = lowest!.byClass.reduce((sum, { objects }) => sum + objects, 0);
    expect(total).toBeCloseTo(lowest!.objects, 9);
  });

  test('the course of a run, and a page of it', async () => {
    const out = join(folder, 'study');
    const { code, stdout, stderr } = await analyze(
      ...['--checkpoint', run(), '--all', '--thresholds', '0.02,0.01', '--out', out],
    );
    expect(code).toBe(0);
    expect(stderr).toBe(`charts: ${join(out, 'pseudo-labels.html')}\n`);
    expect(stdout).toMatch(/Over training, score above 0.01\n.*│ 3 +│.*│ 6 +│/s);
    expect(stdout).toContain('objects');
    expect((await readdir(out)).sort()).toEqual(['pseudo-labels.html', 'pseudo-labels.json']);
    const study = JSON.parse(
      await readFile(join(out, 'pseudo-labels.json'), 'utf8'),
    ) as PseudoLabelStudy;
    expect(study.checkpoints.map(({ iteration }) => iteration)).toEqual([3, 6]);
    const page = await readFile(join(out, 'pseudo-labels.html'), 'utf8');
    expect(page).toContain('<title>Pseudo labels of all.1@25-unlabeled</title>');
    expect(page).toContain("default-src 'none'");
    const charts = JSON.parse(/const charts = (.*);\n/.exec(page)![1]!);
    expect(charts[0]).toMatchObject({ xLabel: 'iteration', x: [3, 6] });
  });

  test('named checkpoints on a named data set, some of its images', async () => {
    const { code, stdout } = await analyze(
      ...['--checkpoint', checkpoint(3), '--checkpoint', checkpoint(6)],
      ...[files.test, '--images', files.images, '--limit', '3', '--json'],
    );
    expect(code).toBe(0);
    const { dataset, checkpoints } = JSON.parse(stdout) as PseudoLabelStudy;
    expect(dataset.name).toBe('test');
    expect(checkpoints.map(({ images, iteration }) => [iteration, images])).toEqual([
      [3, 3],
      [6, 3],
    ]);
    expect(new Set(checkpoints.map(({ objects }) => objects)).size).toBe(1);
  });

  test('says what is missing', async () => {
    const alone = join(folder, 'alone.safetensors');
    await cp(join(checkpoint(6), 'teacher.safetensors'), alone);
    const noConfig = await analyze('--checkpoint', alone);
    expect(noConfig.code).toBe(2);
    expect(noConfig.stderr).toContain(
      'analyze pseudo-labels: a data set must be given, got none; ',
    );

    // Of a run whose unlabelled images are a plain folder.
    const folderRun = join(folder, 'folder-run');
    await cp(run(), folderRun, { recursive: true });
    const config = await readFile(join(run(), 'config.yaml'), 'utf8');
    await writeFile(
      join(folderRun, 'config.yaml'),
      config.replace(
        /^ {2}unlabelled: null$/m,
        `  unlabelled: { format: folder, images: ${files.images} }`,
      ),
    );
    const noTruth = await analyze('--checkpoint', folderRun);
    expect(noTruth.code).toBe(2);
    expect(noTruth.stderr).toMatch(
      /the unlabelled images must have annotations .*got 16 images of images without.*; name an annotated data set/,
    );

    const noObjects = await analyze(
      ...['--checkpoint', alone, files.unlabelled, '--images', files.images],
    );
    expect(noObjects.stderr).toContain(
      'warning: unlabelled: the annotations of its 8 images have no object to find',
    );
    const folderOnly = await analyze('--checkpoint', alone, files.images);
    expect(folderOnly.code).toBe(1);
    expect(folderOnly.stderr).toContain('images: images must have annotations');
    const none = await analyze('--checkpoint', files.images, '--all');
    expect(none.code).toBe(1);
    expect(none.stderr).toContain('checkpoints/iteration-N');
  });

  test.each([
    [['--thresholds', '0.3,2'], 'numbers in [0, 1]'],
    [['--thresholds', ''], 'numbers in [0, 1]'],
    [['--limit', '0'], 'a whole number >= 1'],
    [['--seed', '-1'], 'a whole number >= 0'],
  ])('%j is no command line', async (args, message) => {
    const { code, stderr } = await analyze('--checkpoint', run(), ...args);
    expect(stderr).toContain(message);
    expect(code).toBe(2);
  });

  test('weights of other classes are refused', async () => {
    const data = JSON.parse(await readFile(files.test, 'utf8'));
    for (const category of data.categories) category.name = `new ${category.name}`;
    const renamed = join(folder, 'renamed.json');
    await writeFile(renamed, JSON.stringify(data));
    const { code, stderr } = await analyze(
      ...['--checkpoint', run(), renamed, '--images', files.images],
    );
    expect(code).toBe(1);
    expect(stderr).toContain('(new ');
  });

  test('Ctrl-C ends it without a result', async () => {
    // The image is a pipe: whoever can open it to write knows that it is being read.
    const pipe = join(folder, 'pipe.png');
    execFileSync('mkfifo', [pipe]);
    const image = { id: 1, file_name: 'pipe.png', width: 64, height: 48 };
    const { categories } = JSON.parse(await readFile(files.test, 'utf8'));
    const data = join(folder, 'pipe.json');
    await writeFile(data, JSON.stringify({ images: [image], annotations: [], categories }));
    const out = join(folder, 'stopped');
    const args = ['analyze', 'pseudo-labels', '--checkpoint', run(), data, '--out', out, '--json'];
    const child = spawn(process.execPath, [cliPath, ...args]);
    let stdout = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text));
    const ended = new Promise((resolve) => child.on('close', resolve));
    const writer = await open(pipe, 'w');
    child.kill('SIGINT');
    await once(child.stdout, 'data');
    await writer.close();
    expect(await ended).toBe(130);
    expect(JSON.parse(stdout).error.code).toBe('ERR_ABORTED');
    expect(existsSync(out)).toBe(false);
  });
});
