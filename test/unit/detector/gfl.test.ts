import { describe, expect, test } from 'vitest';
import { createDetector, type DetectorOptions, loadConfig, Random } from '../../../lib/index.js';
import { gflLosses } from '../../oracle/gfl.js';
import { testSeed } from '../ops/test-op.js';
import { checkHeadLosses, type HeadCase, randomTruth } from './head-losses.js';
import { testDetector } from './suite.js';

const options: DetectorOptions = {
  type: 'gfl',
  numClasses: 6,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 16 },
  neck: { channels: 32, numOutputs: 4 },
  head: { channels: 32, stackedConvs: 1, regMax: 8 },
  anchors: { strides: [8, 16, 32, 64], octaveBaseScale: 4 },
};

const layer = (name: string) => ({
  [`${name}.conv.weight`]: [32, 32, 3, 3],
  [`${name}.gn.weight`]: [32],
  [`${name}.gn.bias`]: [32],
});

testDetector('GFL', {
  options,
  losses: ['loss_cls', 'loss_bbox', 'loss_dfl'],
  overfit: { steps: 120, loss: 0.3 },
  // Every parameter moves a score or a box that counts as a constant elsewhere: see the oracle below.
  gradients: [],
  head: {
    ...layer('cls_convs.0'),
    ...layer('reg_convs.0'),
    'gfl_cls.weight': [6, 32, 3, 3],
    'gfl_cls.bias': [6],
    'gfl_reg.weight': [4 * 9, 32, 3, 3],
    'gfl_reg.bias': [4 * 9],
    'integral.project': [9],
    ...Object.fromEntries([0, 1, 2, 3].map((l) => [`scales.${l}.scale`, []])),
  },
});

describe(`the losses of GFL are the oracle's (seed ${testSeed})`, () => {
  const size = { height: 96, width: 136, classes: 5 };
  const truth = (random: Random, count: number) => randomTruth(random, count, size);
  const none = { boxes: [], labels: [] };
  const cases: [string, (random: Random) => Partial<HeadCase> & { bins?: number }][] = [
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
        options: { topK: 5, qualityBeta: 1.5 },
        bins: 5,
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
        const random = new Random(testSeed).fork('gfl', name);
        const made = { ...size, strides: [8, 16, 32, 64, 128], truths: [], ...make(random) };
        const { bins = 17 } = made;
        const maps = [
          { channels: made.classes, scale: 2, mean: -2 },
          { channels: 4 * bins, scale: 2 },
        ];
        const { topK, qualityBeta: beta } = (made.options ?? {}) as never;
        const { classes, strides } = made;
        const losses = await checkHeadLosses(
          'gflLosses',
          { ...made, maps },
          random,
          (...args) => gflLosses(...args, { strides, classes, topK, beta }),
          dtype,
        );
        if (made.truths.every(({ boxes }) => boxes.length === 0))
          expect(losses.slice(1)).toEqual([0, 0]);
      });
});

test('GFL has a bin for every whole distance', async () => {
  await using detector = await createDetector(options);
  const name = 'bbox_head.integral.project';
  expect(Array.from(await detector.readTensor(name))).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  expect(detector.parameters().find((p) => p.name === name)).toMatchObject({ trainable: false });
});

test('GFL says what does not fit', async () => {
  const refused = (more: object) => createDetector({ ...options, ...more } as DetectorOptions);
  await expect(refused({ numerics: 'torchvision' })).rejects.toThrow(
    "model.numerics must be 'mmdetection' (torchvision has no gfl), got 'torchvision'",
  );
  await expect(refused({ anchors: { strides: [8, 16] } })).rejects.toThrow(
    'anchors.strides must hold one stride per output of the neck (4), got 2',
  );
  await expect(refused({ head: { regMax: 0 } })).rejects.toThrow(
    'head.regMax must be in [1, 1024], got 0',
  );
  await expect(refused({ train: { qualityBeta: 0.5 } })).rejects.toThrow(
    'train.qualityBeta must be >= 1, got 0.5',
  );
});

test("the preset is mmdetection's network", async () => {
  const { model, preprocess, semi, optimizer } = await loadConfig('gfl-r50-coco-10');
  expect(model).toMatchObject({
    type: 'gfl',
    backbone: { depth: 50, style: 'pytorch', norm: 'bn-eval', frozenStages: 1 },
    neck: { extra: 'on-output', reluBeforeExtra: false },
    head: { channels: 256, stackedConvs: 4, norm: 'gn', regMax: 16 },
    anchors: { strides: [8, 16, 32, 64, 128], octaveBaseScale: 8 },
    train: { topK: 9, qualityBeta: 2 },
    test: { nmsIou: 0.6, scoreThr: 0.05, nmsPre: 1000, maxPerImage: 100 },
  });
  expect(preprocess).toMatchObject({ channelOrder: 'rgb', std: [58.395, 57.12, 57.375] });
  expect(semi).toMatchObject({ method: 'mixpl', scoreThr: 0.4 });
  expect(optimizer).toMatchObject({ type: 'sgd', lr: 0.01 });
});
