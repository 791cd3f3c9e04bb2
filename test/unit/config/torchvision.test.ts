import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  detectorOptions,
  formatConfig,
  loadConfig,
  parseConfig,
} from '../../../lib/config/index.js';
import { resolvePreset, torchvisionPresets } from '../../../lib/detector/torchvision.js';
import { createDetector } from '../../../lib/index.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-config-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function load(yaml: string, overrides: string[] = []) {
  const file = join(folder, 'run.yaml');
  await writeFile(
    file,
    `data: { labelled: { format: coco, annotations: a.json }, split: { percent: 10 } }\n${yaml}`,
  );
  return loadConfig(file, { overrides });
}

test.each(torchvisionPresets)(
  'model.preset %s is what createDetector makes of it',
  async (preset) => {
    const config = await load(`model: { preset: ${preset} }\n`);
    const { model, preprocess } = resolvePreset({ preset });
    const { numClasses: _, ...parts } = model;
    expect(config.model).toMatchObject({ ...parts, preset });
    const { resize, ...input } = preprocess;
    expect(config.preprocess).toEqual(input);
    expect(config.augment.test).toEqual(resize);
    expect(detectorOptions(config, 3)).toMatchObject({ ...parts, numClasses: 3 });
    expect(detectorOptions(config, 3)).not.toHaveProperty('preset');

    // Once it is resolved it is itself.
    expect(parseConfig(config)).toEqual(config);
    await writeFile(join(folder, 'resolved.yaml'), formatConfig(config));
    expect(await loadConfig(join(folder, 'resolved.yaml'))).toEqual(config);
  },
);

test.each([
  ['retinanet', 'torchvision/retinanet_resnet50_fpn', { scoreThr: 0.05, maxPerImage: 300 }],
  ['fcos', 'torchvision/fcos_resnet50_fpn', { scoreThr: 0.2, nmsIou: 0.6 }],
  ['faster-rcnn', 'torchvision/fasterrcnn_resnet50_fpn', { scoreThr: 0.05, nmsIou: 0.5 }],
])('model.numerics torchvision of %s has the defaults of %s', async (type, preset, thresholds) => {
  const named = await load(`model: { preset: ${preset} }\n`);
  const config = await load(`model: { type: ${type}, numerics: torchvision }\n`);
  expect(config.model.test).toMatchObject(thresholds);
  expect({ ...config, model: { ...config.model, preset } }).toEqual(named);
  expect(parseConfig(config)).toEqual(config);
});

test('what is written stands above torchvision’s defaults, wherever it is written', async () => {
  const config = await load(
    `model: { preset: torchvision/fasterrcnn_resnet50_fpn_v2, rpn: { nmsIou: 0.6 } }
preprocess: { padDivisor: 64 }
augment: { test: { short: 600 } }
`,
    ['model.test.scoreThr=0.3', 'model.backbone.depth=18'],
  );
  expect(config.model).toMatchObject({
    type: 'faster-rcnn',
    backbone: { depth: 18, norm: 'bn', style: 'pytorch' },
    neck: { norm: 'bn' },
    rpn: { convs: 2, nmsIou: 0.6, trainMaxPerImage: 2000, minSize: 1e-3 },
    roi: { convs: 4, fcs: 1, norm: 'bn', smoothL1Beta: 1 / 9 },
    test: { scoreThr: 0.3, nmsIou: 0.5 },
  });
  expect(config.preprocess).toMatchObject({ padDivisor: 64, channelOrder: 'rgb' });
  expect(config.augment.test).toEqual({ short: 600, long: 1333, rule: 'torchvision' });
});

test('mmdetection’s defaults are as they were', async () => {
  const { model, preprocess, augment } = await load('model: { type: faster-rcnn }\n');
  expect(model).toMatchObject({
    numerics: 'mmdetection',
    preset: null,
    rpn: { trainMaxPerImage: 1000, smoothL1Beta: 0, minSize: 0 },
  });
  expect(preprocess.channelOrder).toBe('bgr');
  expect(augment.test).toEqual({ long: 1333, short: 800 });
});

test('what contradicts the preset, or is none, is named with its place', async () => {
  await expect(load('model: { preset: torchvision/fcos_resnet50_fpm }\n')).rejects.toThrow(
    /run\.yaml:2:10: model\.preset must be one of .*nearest is torchvision\/fcos_resnet50_fpn\b/,
  );
  await expect(
    load('model: { preset: torchvision/fcos_resnet50_fpn, type: retinanet }\n'),
  ).rejects.toThrow(/model\.type must be fcos with model\.preset .*, got "retinanet"/);
  await expect(
    load('model: { preset: torchvision/fcos_resnet50_fpn, numerics: mmdetection }\n'),
  ).rejects.toThrow(/model\.numerics must be torchvision with model\.preset/);
  await expect(load('model: { type: atss, numerics: torchvision }\n')).rejects.toThrow(
    /model\.numerics must be mmdetection, got "torchvision"/,
  );
});

test('createDetector fills in the same defaults for numerics torchvision', async () => {
  const small = { depth: 18, baseWidth: 4 } as const;
  await using detector = await createDetector({
    type: 'fcos',
    numerics: 'torchvision',
    numClasses: 2,
    backbone: small,
    neck: { channels: 32 },
    head: { channels: 32 },
    test: { nmsIou: 0.7 },
  });
  const { model, preprocess } = resolvePreset({ preset: 'torchvision/fcos_resnet50_fpn' });
  expect(detector.options).toMatchObject({
    backbone: { ...model.backbone, ...small },
    neck: { ...model.neck, channels: 32 },
    test: { ...model.test, nmsIou: 0.7 },
  });
  expect(detector.preprocess).toEqual(preprocess);
  expect(detector.firstLabel).toBe(0);
});
