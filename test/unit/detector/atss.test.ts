import { describe, expect, test } from 'vitest';
import { createDetector, type DetectorOptions, loadConfig, Random } from '../../../lib/index.js';
import { atssLosses } from '../../oracle/atss.js';
import { testSeed } from '../ops/test-op.js';
import { checkHeadLosses, type HeadCase, randomTruth } from './head-losses.js';
import { testDetector } from './suite.js';

const options: DetectorOptions = {
  type: 'atss',
  numClasses: 6,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 16 },
  neck: { channels: 32, numOutputs: 4 },
  head: { channels: 32, stackedConvs: 1 },
  anchors: { strides: [8, 16, 32, 64], octaveBaseScale: 4 },
};

const layer = (name: string) => ({
  [`${name}.conv.weight`]: [32, 32, 3, 3],
  [`${name}.gn.weight`]: [32],
  [`${name}.gn.bias`]: [32],
});

testDetector('ATSS', {
  options,
  losses: ['loss_cls', 'loss_bbox', 'loss_centerness'],
  overfit: { steps: 120, loss: 0.9 },
  gradients: [
    'bbox_head.atss_cls.bias',
    'bbox_head.atss_reg.weight',
    'bbox_head.atss_centerness.weight',
    'bbox_head.scales.0.scale',
    'bbox_head.cls_convs.0.gn.weight',
    'backbone.layer4.1.conv2.weight',
  ],
  head: {
    ...layer('cls_convs.0'),
    ...layer('reg_convs.0'),
    'atss_cls.weight': [6, 32, 3, 3],
    'atss_cls.bias': [6],
    'atss_reg.weight': [4, 32, 3, 3],
    'atss_reg.bias': [4],
    'atss_centerness.weight': [1, 32, 3, 3],
    'atss_centerness.bias': [1],
    ...Object.fromEntries([0, 1, 2, 3].map((l) => [`scales.${l}.scale`, []])),
  },
});

describe(`the losses of ATSS are the oracle's (seed ${testSeed})`, () => {
  const size = { height: 96, width: 136, classes: 5 };
  const truth = (random: Random, count: number) => randomTruth(random, count, size);
  const none = { boxes: [], labels: [] };
  const cases: [string, (random: Random) => Partial<HeadCase>][] = [
    ['two images', (random) => ({ truths: [truth(random, 3), truth(random, 6)] })],
    ['an image without boxes', (random) => ({ truths: [none, truth(random, 2)] })],
    ['no boxes at all', () => ({ truths: [none, none] })],
    [
      'padding, other constants',
      (random) => ({
        truths: [truth(random, 4), truth(random, 3)],
        padSizes: [
          { height: 96, width: 100 },
          { height: 64, width: 136 },
        ],
        options: { topK: 5, focalAlpha: 0.4, focalGamma: 1.5 },
      }),
    ],
    [
      'one class, many boxes',
      (random) => ({ classes: 1, truths: [randomTruth(random, 60, { ...size, classes: 1 })] }),
    ],
  ];
  for (const [name, make] of cases)
    for (const dtype of ['f32', 'bf16'] as const)
      test(`${name}, ${dtype}`, async () => {
        const random = new Random(testSeed).fork('atss', name);
        const made = { ...size, strides: [8, 16, 32, 64, 128], truths: [], ...make(random) };
        const maps = [
          { channels: made.classes, scale: 2, mean: -2 },
          { channels: 4, scale: 1 },
          { channels: 1, scale: 2 },
        ];
        const { topK, focalAlpha: alpha, focalGamma: gamma } = (made.options ?? {}) as never;
        const losses = await checkHeadLosses(
          'atssLosses',
          { ...made, maps },
          random,
          (levels, truths) =>
            atssLosses(levels, truths, { classes: made.classes, topK, alpha, gamma }),
          dtype,
        );
        if (made.truths.every(({ boxes }) => boxes.length === 0))
          expect(losses.slice(1)).toEqual([0, 0]);
      });
});

test('ATSS says what does not fit', async () => {
  const refused = (more: object) => createDetector({ ...options, ...more } as DetectorOptions);
  await expect(refused({ numerics: 'torchvision' })).rejects.toThrow(
    "model.numerics must be 'mmdetection' (torchvision has no atss), got 'torchvision'",
  );
  await expect(refused({ anchors: { strides: [8, 16] } })).rejects.toThrow(
    'anchors.strides must hold one stride per output of the neck (4), got 2',
  );
  await expect(refused({ anchors: { ...options.anchors, octaveBaseScale: 0 } })).rejects.toThrow(
    'anchors.octaveBaseScale must be a number > 0, got 0',
  );
  await expect(refused({ train: { topK: 0 } })).rejects.toThrow(
    'train.topK must be in [1, 65536], got 0',
  );
  await expect(refused({ anchors: { ...options.anchors, ratios: [1] } })).rejects.toThrow(
    "unknown option 'ratios'",
  );
});

test("the preset is mmdetection's network", async () => {
  const { model, preprocess, semi, optimizer } = await loadConfig('atss-r50-coco-10');
  expect(model).toMatchObject({
    type: 'atss',
    backbone: { depth: 50, style: 'pytorch', norm: 'bn-eval', frozenStages: 1 },
    neck: { extra: 'on-output', reluBeforeExtra: false },
    head: { channels: 256, stackedConvs: 4, norm: 'gn' },
    anchors: { strides: [8, 16, 32, 64, 128], octaveBaseScale: 8 },
    train: { topK: 9 },
    test: { nmsIou: 0.6, scoreThr: 0.05, nmsPre: 1000, maxPerImage: 100 },
  });
  expect(preprocess).toMatchObject({ channelOrder: 'rgb', std: [58.395, 57.12, 57.375] });
  expect(semi).toMatchObject({ method: 'mixpl', scoreThr: 0.4 });
  expect(optimizer).toMatchObject({ type: 'sgd', lr: 0.01 });
});
