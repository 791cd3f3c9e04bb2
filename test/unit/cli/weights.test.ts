import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { detectorOptions, loadConfig } from '../../../lib/config/index.js';
import { drawScene } from '../../../lib/demo/scene.js';
import { createDetector, openDetector, Random, writeSafetensors } from '../../../lib/index.js';
import { createRunDetector } from '../../../lib/train/run.js';
import { runCli } from './run-cli.js';

const pth = new URL('../../golden/weights/retinanet-r18.pth', import.meta.url).pathname;
let folder: string;
let config: string;
const at = (name: string) => join(folder, name);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-cli-weights-'));
  config = at('small.yaml');
  await writeFile(
    config,
    `
dtype: fp32
model:
  backbone: { depth: 18, style: pytorch, norm: bn-eval, baseWidth: 4 }
  neck: { channels: 16, extra: on-output, reluBeforeExtra: true }
  head: { channels: 16 }
preprocess: { channelOrder: rgb }
`,
  );
});
afterAll(() => rm(folder, { recursive: true }));

test('import with a config, export, import into a checkpoint: the same bits', async () => {
  const [own, foreign, back] = ['own', 'foreign', 'back'].map((n) => at(`${n}.safetensors`));
  const imported = await runCli(['import', pth, '--config', config, '--out', own!, '--json']);
  expect(imported.stderr).toBe('');
  expect(JSON.parse(imported.stdout)).toMatchObject({
    ...{ file: own, layout: 'torchvision', missing: [], unexpected: [] },
    loaded: expect.arrayContaining(['backbone.conv1.weight']),
  });
  const { detector } = await openDetector(own!);
  expect(detector.numClasses).toBe(3);
  detector.dispose();

  const exported = await runCli([
    ...['export', '--checkpoint', own!, '--layout', 'mmdetection', '--out', foreign!, '--json'],
  ]);
  expect(JSON.parse(exported.stdout)).toEqual({
    ...{ file: foreign, layout: 'mmdetection', weights: own },
    tensors: JSON.parse(imported.stdout).loaded.length,
  });
  const again = await runCli([
    ...['import', foreign!, '--checkpoint', own!, '--out', back!, '--layout', 'mmdetection'],
  ]);
  expect(again.stdout).toMatch(/back\.safetensors: \d+ tensors of .* \(layout mmdetection\)/);
  const tail = async (file: string) => (await readFile(file)).subarray(-40_000);
  expect(await tail(back!)).toEqual(await tail(own!));
});

test('mistakes are named', async () => {
  const out = ['--out', at('never.safetensors')];
  const neither = await runCli(['import', pth, ...out]);
  expect(neither).toMatchObject({ code: 2, stderr: expect.stringContaining('--config or') });
  const layout = await runCli(['import', pth, '--config', config, '--layout', 'keras', ...out]);
  expect(layout).toMatchObject({ code: 2, stderr: expect.stringContaining("'keras' is invalid") });
  const other = await runCli(['import', config, '--config', config, ...out, '--json']);
  expect(other.code).toBe(1);
  expect(JSON.parse(other.stdout).error.code).toBe('ERR_BAD_FILE');
  const wide = ['--set', 'model.neck.channels=24'];
  const misfit = await runCli(['import', pth, '--config', config, ...wide, ...out, '--json']);
  expect(misfit.code).toBe(1);
  expect(JSON.parse(misfit.stdout).error).toMatchObject({
    code: 'ERR_CHECKPOINT',
    message: expect.stringContaining('must be [24,8,1,1], got [16,8,1,1]'),
  });
  const backbone = at('backbone.safetensors');
  const data = new Float32Array(4 * 3 * 49);
  await writeSafetensors(backbone, new Map([['conv1.weight', { shape: [4, 3, 7, 7], data }]]));
  const classes = await runCli(['import', backbone, '--config', config, ...out]);
  expect(classes).toMatchObject({ code: 2, stderr: expect.stringMatching(/model\.numClasses=N/) });
});

test.each([
  ['small-dino', 'dino'],
  ['small-atss', 'atss'],
  ['small-swin', 'retinanet'],
])('a layout that %s is not in is refused with those that have it', async (preset, type) => {
  const { model } = await loadConfig(preset, { withoutData: true });
  await using detector = await createDetector(detectorOptions({ model }, 2), { device: 'cpu' });
  const own = at(`${preset}.safetensors`);
  await detector.save(own);
  const out = at(`${preset}-out.safetensors`);
  const to = (layout: string) =>
    runCli(['export', '--checkpoint', own, '--layout', layout, '--out', out]);
  const refused = await to('torchvision');
  expect(refused.code).toBe(2);
  expect(refused.stderr).toMatch(
    `error: exportWeights: layout must be mmdetection for this ${type} detector, got torchvision, which has no name for `,
  );
  expect(refused.stderr).toMatch(/ for \d+ of its \d+ parameters, e\.g\. \S+\n$/);
  expect((await to('mmdetection')).code).toBe(0);
});

describe('export --onnx', () => {
  let own: string;
  let picture: string;
  beforeAll(async () => {
    own = at('onnx-own.safetensors');
    picture = at('picture.png');
    const rule = ['--set', 'augment.test={ long: 320, short: 240 }'];
    await runCli(['import', pth, '--config', config, ...rule, '--out', own]);
    const { data, ...size } = drawScene(new Random(5), { width: 80, height: 60 });
    await sharp(data, { raw: { ...size, channels: 3 } })
      .png()
      .toFile(picture);
  });
  const exportTo = (...more: string[]) =>
    runCli(['export', '--checkpoint', own, '--out', at('own.onnx'), ...more]);

  test('writes a file, and says what a check of it has found', async () => {
    const plain = await exportTo('--onnx', '64x96');
    expect(plain).toMatchObject({ code: 0, stderr: '' });
    expect(plain.stdout).toMatch(
      /own\.onnx: .*own\.safetensors for images of 64×96, \d+ bytes\npredict would scale an image of 64×96 to 213×320; a file exported with --onnx 213x320 would match that\n$/,
    );
    const checked = await exportTo('--onnx', '64x96', '--check', picture, '--json');
    expect(checked.code).toBe(0);
    const report = JSON.parse(checked.stdout);
    expect(report).toMatchObject({
      ...{ file: at('own.onnx'), weights: own, height: 64, width: 96 },
      ...{ resize: { long: 320, short: 240 } },
      check: { matched: report.check.detections, others: 0 },
    });
    expect((await stat(at('own.onnx'))).size).toBe(report.bytes);
    const fitting = await exportTo('--onnx', '240x320', '--check', picture);
    expect(fitting.stdout).not.toContain('would scale');
    const { stdout } = await exportTo('--onnx', '64x96', '--check', picture);
    expect(stdout).toMatch(
      /would scale .*picture\.png to 240×320; a file exported with --onnx 240x320 would /,
    );
    expect(stdout).toMatch(
      /picture\.png: (\d+) of \1 detections of predict agree, 0 are in the file only; largest differences: score /,
    );
  });

  test.each([
    [[], 'error: export needs either --layout or --onnx, which say what to write'],
    [
      ['--onnx', '64x64', '--layout', 'mmdetection'],
      'error: export needs either --layout or --onnx',
    ],
    [['--layout', 'mmdetection', '--check', 'x.jpg'], 'error: --check needs --onnx'],
    [['--onnx', '64'], 'must be HEIGHTxWIDTH in pixels, e.g. 480x640'],
    [['--onnx', '64x16'], 'onnx: width must be a whole number of pixels in [32, 16384], got 16'],
    [['--onnx', '64x64', '--branch', 'teacher'], 'export: --branch teacher must be a branch of '],
  ])('%j: %s', async (options, message) => {
    const { code, stderr } = await exportTo(...options);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  });

  test('a picture that is none leaves the file and ends with an error', async () => {
    const { code, stderr } = await exportTo('--onnx', '64x64', '--check', config);
    expect(code).toBe(1);
    expect(stderr).toContain('small.yaml');
  });
});

test('a config may name a file of another layout; its class layer may be for other classes', async () => {
  const overrides = [`model.weights=${pth}`];
  const found = await loadConfig(config, { overrides, withoutData: true });
  expect(found.model.weightsLayout).toBe(null);
  const notes: (string | undefined)[] = [];
  const detector = await createRunDetector(found, 2, {
    onWeights: ({ layout, note }) => notes.push(layout, note),
  });
  expect(detector.options).not.toHaveProperty('weightsLayout');
  await using whole = await createDetector({ ...detector.options, numClasses: 3 });
  await whole.loadWeights(pth);
  const name = 'neck.fpn_convs.4.conv.weight';
  expect(await detector.readTensor(name)).toEqual(await whole.readTensor(name));
  detector.dispose();
  expect(notes).toEqual(['torchvision', expect.stringContaining('file has 3 classes')]);

  overrides.push('model.weightsLayout=mmdetection');
  await expect(
    createRunDetector(await loadConfig(config, { overrides, withoutData: true }), 3),
  ).rejects.toMatchObject({ code: 'ERR_CHECKPOINT' });
  overrides.push('model.weightsLayout=keras');
  await expect(loadConfig(config, { overrides, withoutData: true })).rejects.toThrow(
    /weightsLayout.*mixpl/,
  );
});
