import { spawn } from 'node:child_process';
import {
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  symlink,
  truncate,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeDemoData } from '../../../lib/demo/demo-data.js';
import { openDetector } from '../../../lib/detector/open.js';
import { readSafetensors } from '../../../lib/safetensors.js';
import { cliPath, runCli } from './run-cli.js';

let folder: string;
let config: string;
let images: string;
const run = () => join(folder, 'run');

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-train-'));
  const files = await makeDemoData(join(folder, 'data'), {
    ...{ labelled: 6, unlabelled: 8, test: 4, width: 64, height: 48, seed: 3 },
  });
  images = files.images;
  config = join(folder, 'tiny.yaml');
  await writeFile(
    config,
    `
name: tiny
dtype: fp32
threads: 1
data:
  labelled: { format: coco, annotations: ${files.labelled}, images: ${images} }
  unlabelled: { format: coco, annotations: ${files.unlabelled}, images: ${images} }
  test: { format: coco, annotations: ${files.test}, images: ${images} }
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
semi: { mosaicShape: [[24, 32], [48, 64]], burnIn: 2, scoreThr: 0.01, emptyImageRule: per-image }
optimizer: { type: adamw, lr: 1.0e-3 }
batch: { labelled: 2, unlabelled: 2 }
schedule: { iterations: 8, warmup: { iterations: 2 } }
validation: { interval: 4 }
checkpoint: { interval: 3, keep: 3 }
logging: { interval: 1 }
`,
  );
});
afterAll(() => rm(folder, { recursive: true }));

const losses = async (out: string) =>
  (await readFile(join(out, 'metrics.jsonl'), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Record<string, unknown>)
    .filter(({ type }) => type === 'step')
    .map(({ iteration, losses: of }) => ({ iteration, of }));

describe('mixpl train', () => {
  test('a run: progress, summary, and a folder with everything in it', async () => {
    const { code, stdout, stderr } = await runCli(['train', config, '--out', run(), '--json']);
    expect(stderr).toContain('data: 6 labelled, 8 unlabelled, 4 test images');
    expect(stderr).toMatch(/tiny \d\/8 .*loss .*images\/s/);
    expect(code).toBe(0);
    const summary = JSON.parse(stdout) as Record<string, { stats: number[] }>;
    expect(summary).toMatchObject({ out: run(), reason: 'finished', iteration: 8 });
    expect(summary.teacher!.stats).toHaveLength(12);
    expect(summary.student!.stats).toHaveLength(12);
    expect((await readdir(run())).sort()).toEqual([
      'best.safetensors',
      'checkpoints',
      'config.yaml',
      'metrics.jsonl',
      'report.html',
    ]);
    const { metadata } = await readSafetensors(join(run(), 'best.safetensors'));
    expect(JSON.parse(metadata.categories!)).toHaveLength(6);
  });

  test('the saved config gives the same run', async () => {
    const out = join(folder, 'again');
    const { code } = await runCli(['train', join(run(), 'config.yaml'), '--out', out]);
    expect(code).toBe(0);
    expect(await losses(out)).toEqual(await losses(run()));
  });

  test('Ctrl-C writes a checkpoint; --resume gives the losses of the run that was not stopped', async () => {
    const out = join(folder, 'stopped');
    const child = spawn(process.execPath, [cliPath, 'train', config, '--out', out], {
      env: { ...process.env, NO_COLOR: '1' },
    });
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      const before = stderr;
      stderr += text;
      if (!before.includes('tiny 1/8') && stderr.includes('tiny 1/8')) child.kill('SIGINT');
    });
    const code = await new Promise((resolve) => child.on('close', resolve));
    expect(stderr).toContain('stopping after this step');
    expect(stderr).toMatch(/checkpoint: .*iteration-00000/);
    expect(code).toBe(130);
    const resumed = await runCli(['train', config, '--out', out, '--resume']);
    expect(resumed.code).toBe(0);
    expect(resumed.stderr).toContain('resumed from');
    expect(await losses(out)).toEqual(await losses(run()));
  });

  test.each<[string, string[], string, number]>([
    ['a folder that holds a run', [], 'must not contain a run yet', 1],
    [
      'another seed',
      ['--resume', '--set', 'seed=5', '--set', 'schedule.iterations=9'],
      'seed: checkpoint 0, now 5',
      1,
    ],
    ['a misspelt option', ['--set', 'semi.scoreTr=1'], 'nearest is scoreThr', 2],
    [
      'a wrong class count',
      ['--resume', '--set', 'model.numClasses=3'],
      'model.numClasses must be 6',
      2,
    ],
    [
      'missing data',
      ['--resume', '--set', 'data.labelled.annotations=/none.json'],
      '/none.json',
      1,
    ],
    [
      'a folder that holds a run, before data is read',
      ['--set', 'data.labelled.annotations=/none.json'],
      'must not contain a run yet',
      1,
    ],
  ])('%s', async (_, args, message, expected) => {
    const { code, stdout, stderr } = await runCli(['train', config, '--out', run(), ...args]);
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/\n\s+at /);
    expect(stdout).toBe('');
    expect(code).toBe(expected);
  });

  test('a checkpoint cut in half', async () => {
    const out = join(folder, 'cut');
    await cp(run(), out, { recursive: true });
    const newest = (await readdir(join(out, 'checkpoints'))).sort().at(-1)!;
    await truncate(join(out, 'checkpoints', newest, 'teacher.safetensors'), 999);
    const { code, stderr } = await runCli(['train', config, '--out', out, '--resume']);
    expect(code).toBe(1);
    expect(stderr).toContain('got 999: cut off or replaced');
    expect(stderr).toContain('the checkpoint before it is');
  });

  test('a run folder that cannot be written', async () => {
    const { code, stderr } = await runCli(['train', config, '--out', '/proc/mixpl/run']);
    expect(code).toBe(1);
    expect(stderr).toContain('/proc/mixpl');
  });

  test('a full disk', async () => {
    // /dev/full takes nothing: the metrics file is a link to it.
    const out = join(folder, 'full');
    await cp(run(), out, { recursive: true });
    await rm(join(out, 'metrics.jsonl'));
    await rm(join(out, 'checkpoints'), { recursive: true });
    await symlink('/dev/full', join(out, 'metrics.jsonl'));
    const { code, stderr } = await runCli(['train', config, '--out', out]);
    expect(code).toBe(1);
    expect(stderr).toContain('metrics.jsonl');
    expect(stderr).toContain('ENOSPC');
  });
});

test('data.classes leaves the others out of the test data, too', async () => {
  const out = join(folder, 'one-class');
  const { categories } = JSON.parse(await readFile(join(folder, 'data', 'test.json'), 'utf8'));
  const { name } = categories[1] as { name: string };
  const args = ['train', config, '--out', out, '--set', `data.classes=[${name}]`, '--json'];
  const { code, stdout } = await runCli([...args, '--set', 'schedule.iterations=2']);
  expect(code).toBe(0);
  expect(Object.keys(JSON.parse(stdout).student.perClassAP)).toHaveLength(1);
  expect((await runCli(['eval', '--checkpoint', out])).code).toBe(0);
  const dataset = join(folder, 'data', 'test.json');
  const named = await runCli(['eval', dataset, '--images', images, '--checkpoint', out]);
  expect(named.code).toBe(0);
  const files = ['eval', '--annotations', dataset, '--detections', dataset];
  const useless = await runCli([...files, '--policy', 'box-outside=skip']);
  expect(useless.stderr).toContain('--policy needs --checkpoint');
});

describe('mixpl eval --checkpoint', () => {
  test('a run: on its own test data, both branches side by side', async () => {
    const saved = join(folder, 'found.json');
    const args = ['eval', '--checkpoint', run(), '--save', saved, '--json'];
    const { code, stdout } = await runCli(args);
    expect(code).toBe(0);
    const { stats, perClassAP, student, teacher } = JSON.parse(stdout) as {
      stats: number[];
      perClassAP: object;
      student: object;
      teacher: object;
    };
    expect(stats).toHaveLength(12);
    expect(Object.keys(perClassAP)).toHaveLength(6);
    expect([student, teacher]).toMatchObject([{ perClassAP: {} }, { perClassAP: {} }]);
    // The files that it writes give the same numbers.
    const annotations = join(folder, 'data', 'test.json');
    const fromFile = await runCli([
      ...['eval', '--annotations', annotations, '--detections', saved, '--json'],
    ]);
    const again = JSON.parse(fromFile.stdout) as { stats: number[] };
    again.stats.forEach((value, i) => {
      expect(value).toBeCloseTo(stats[i]!, 6);
    });
  });

  test('policies: what the detector does not know, and what cannot be read', async () => {
    const dataset = JSON.parse(await readFile(join(folder, 'data', 'test.json'), 'utf8'));
    dataset.categories[0].name = 'renamed';
    const renamed = join(folder, 'renamed.json');
    await writeFile(renamed, JSON.stringify(dataset));
    const broken = join(folder, 'broken');
    await cp(images, broken, { recursive: true });
    await truncate(join(broken, dataset.images[0].file_name), 100);
    const args = ['eval', renamed, '--images', broken, '--checkpoint', run(), '--json'];
    const refused = await runCli(args);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toContain('(renamed)');
    args.push('--policy', 'unknown-category=skip');
    expect((await runCli(args)).stderr).toContain('try the policy unreadable-image=skip');
    const { code, stderr } = await runCli([...args, '--policy', 'unreadable-image=skip']);
    expect(code).toBe(0);
    expect(stderr).toMatch(
      /annotations of categories that are not listed \(unknown-category\): skipped/,
    );
    expect(stderr.match(/it is left out of the metrics/g)).toHaveLength(1);
    const typo = await runCli([...args, '--policy', 'unreadable-image=skp']);
    expect(typo.stderr).toContain("must be one of refuse, skip, got 'skp'");
  });

  test('a single file needs a data set, unless it lies in its run', async () => {
    const inRun = join(run(), 'best.safetensors');
    expect((await runCli(['eval', '--checkpoint', inRun])).code).toBe(0);
    const file = join(folder, 'alone.safetensors');
    await cp(inRun, file);
    const without = await runCli(['eval', '--checkpoint', file]);
    expect(without.code).toBe(2);
    expect(without.stderr).toContain('a data set must be given, got none');
    const dataset = join(folder, 'data', 'test.json');
    const { code } = await runCli(['eval', dataset, '--images', images, '--checkpoint', file]);
    expect(code).toBe(0);
  });
});

describe('mixpl predict', () => {
  test('boxes in the pixels of each image; a bad file does not stop the others', async () => {
    const names = (await readdir(images)).slice(0, 2).map((name) => join(images, name));
    const text = join(folder, 'text.jpg');
    const empty = join(folder, 'empty.png');
    const half = join(folder, 'half.png');
    await writeFile(text, 'no picture');
    await writeFile(empty, '');
    await cp(names[0]!, half);
    await truncate(half, 300);
    const drawn = join(folder, 'drawn');
    const { code, stdout, stderr } = await runCli([
      ...['predict', '--checkpoint', run(), names[0]!, text, empty, half, names[1]!],
      ...['--score-thr', '0', '--draw', drawn, '--json'],
    ]);
    expect(code).toBe(1);
    const { images: found } = JSON.parse(stdout) as {
      images: { file: string; width: number; detections: { box: number[] }[]; error: object }[];
    };
    expect(found.map(({ error }) => Boolean(error))).toEqual([false, true, true, true, false]);
    for (const path of [text, empty, half]) expect(stderr).toContain(path);
    expect(found[0]).toMatchObject({ file: names[0], width: 64, height: 48 });
    expect(found[0]!.detections.length).toBeGreaterThan(0);
    for (const { box } of found[0]!.detections) {
      expect(Math.min(...box)).toBeGreaterThanOrEqual(0);
      expect(box[2]).toBeLessThanOrEqual(64);
      expect(box[3]).toBeLessThanOrEqual(48);
    }
    expect((await readdir(drawn)).sort()).toEqual(names.map((path) => basename(path)).sort());
  });

  test.each<[string, () => string, string]>([
    ['nothing there', () => join(folder, 'none'), 'got nothing'],
    ['a folder without weights', () => images, 'got none of them'],
    ['no weights file', () => config, 'tiny.yaml: '],
  ])('%s as checkpoint', async (_, path, message) => {
    const { code, stderr } = await runCli(['predict', '--checkpoint', path(), 'x.jpg']);
    expect(code).toBe(1);
    expect(stderr).toContain(message);
    expect(stderr).not.toMatch(/\n\s+at /);
  });

  test('a folder of images', async () => {
    const { code, stdout } = await runCli(['predict', '--checkpoint', run(), images, '--json']);
    expect(code).toBe(0);
    expect((JSON.parse(stdout) as { images: object[] }).images).toHaveLength(18);
  });

  test('folders: what cannot be read is told, pictures of one name are all drawn', async () => {
    const [name] = await readdir(images);
    const tree = join(folder, 'tree');
    for (const path of ['a.png', join('sub', 'a.png')])
      await cp(join(images, name!), join(tree, path));
    await writeFile(join(tree, 'text.png'), 'no picture');
    const drawn = join(folder, 'drawn-tree');
    const args = ['predict', '--checkpoint', run(), tree, join(tree, 'a.png'), '--draw', drawn];
    const { code, stderr } = await runCli(args);
    expect(code).toBe(1);
    expect(stderr).toContain('text.png: must be a readable image');
    const files = (await readdir(drawn, { recursive: true })).filter((f) => f.endsWith('.png'));
    expect(files.sort()).toEqual(['a-2.png', 'a.png', join('sub', 'a.png')]);
    await mkdir(join(folder, 'none-here'));
    const none = await runCli(['predict', '--checkpoint', run(), join(folder, 'none-here')]);
    expect(none.stderr).toContain('must contain images, got a folder without any');
  });

  test('computes in what the training was asked for, or in what --dtype says', async () => {
    const best = join(run(), 'best.safetensors');
    const opened = await openDetector(best);
    expect(opened.metadata.dtype).toBe('fp32');
    expect(opened.detector.dtype).toBe('f32');
    opened.detector.dispose();
    const bf16 = await openDetector(best, { dtype: 'bf16' });
    expect(bf16.detector.dtype).toBe('bf16');
    bf16.detector.dispose();
    const scores = async (...more: string[]) =>
      (
        await runCli([
          'predict',
          '--checkpoint',
          run(),
          images,
          '--score-thr',
          '0',
          '--json',
          ...more,
        ])
      ).stdout;
    expect(await scores('--dtype', 'fp32')).toBe(await scores());
    expect(await scores('--dtype', 'bf16')).not.toBe(await scores());
  });
});
