import { describe, expect, test } from 'vitest';
import { createDetector, type DetectorOptions, loadConfig, Random } from '../../../lib/index.js';
import { paaLosses } from '../../oracle/paa.js';
import { testSeed } from '../ops/test-op.js';
import { checkHeadLosses, type HeadCase, randomTruth } from './head-losses.js';
import { sceneBatch } from './scenes.js';
import { testDetector } from './suite.js';

const strides = [8, 16, 32, 64];
const options: DetectorOptions = {
  type: 'paa',
  numClasses: 6,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 16 },
  neck: { channels: 32, numOutputs: 4 },
  head: { channels: 32, stackedConvs: 1 },
  anchors: { strides, octaveBaseScale: 4 },
};

const layer = (name: string) => ({
  [`${name}.conv.weight`]: [32, 32, 3, 3],
  [`${name}.gn.weight`]: [32],
  [`${name}.gn.bias`]: [32],
});

testDetector('PAA', {
  options,
  losses: ['loss_cls', 'loss_bbox', 'loss_iou'],
  overfit: { steps: 120, loss: 0.75 },
  // What boxes depend on also moves the IoU, a constant to the losses: see the oracle below.
  gradients: [
    'bbox_head.atss_cls.bias',
    'bbox_head.atss_cls.weight',
    'bbox_head.atss_centerness.weight',
    'bbox_head.cls_convs.0.gn.weight',
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
    ...Object.fromEntries(strides.map((_, l) => [`scales.${l}.scale`, []])),
  },
});

describe(`the losses of PAA are the oracle's (seed ${testSeed})`, () => {
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
        options: { topK: 5, focalAlpha: 0.4, focalGamma: 1.5, posIou: 0.3, negIou: 0.2 },
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
        const random = new Random(testSeed).fork('paa', name);
        const made = { ...size, strides: [8, 16, 32, 64, 128], truths: [], ...make(random) };
        const maps = [
          { channels: made.classes, scale: 2, mean: -2 },
          { channels: 4, scale: 1 },
          { channels: 1, scale: 2 },
        ];
        const {
          focalAlpha: alpha,
          focalGamma: gamma,
          ...rest
        } = (made.options ?? {}) as {
          focalAlpha?: number;
          focalGamma?: number;
        };
        const losses = await checkHeadLosses(
          'paaLosses',
          { ...made, maps },
          random,
          (levels, truths, base) =>
            paaLosses(levels, truths, { classes: made.classes, alpha, gamma, ...rest }, base),
          dtype,
        );
        if (made.truths.every(({ boxes }) => boxes.length === 0))
          expect(losses.slice(1)).toEqual([0, 0]);
      });
});

test('PAA votes unless it is told not to', async () => {
  const found = async (scoreVoting: boolean) => {
    await using detector = await createDetector(
      { ...options, test: { scoreThr: 0, scoreVoting } } as DetectorOptions,
      { seed: 1 },
    );
    const { batch } = await sceneBatch(1, detector.computeDtype);
    const [detections] = await detector.predict(batch);
    batch.dispose();
    return detections!;
  };
  const [voted, plain] = [await found(true), await found(false)];
  expect(voted.scores).toEqual(plain.scores);
  expect(voted.labels).toEqual(plain.labels);
  expect(voted.boxes).not.toEqual(plain.boxes);
  for (let i = 0; i < voted.boxes.length; i += 4) {
    expect(voted.boxes[i + 2]!).toBeGreaterThan(voted.boxes[i]!);
    expect(voted.boxes[i + 3]!).toBeLessThanOrEqual(96);
  }
});

test('PAA says what does not fit', async () => {
  const refused = (more: object) => createDetector({ ...options, ...more } as DetectorOptions);
  await expect(refused({ numerics: 'torchvision' })).rejects.toThrow(
    "model.numerics must be 'mmdetection' (torchvision has no paa), got 'torchvision'",
  );
  await expect(refused({ anchors: { strides: [8] } })).rejects.toThrow(
    'anchors.strides must hold one stride per output of the neck (4), got 1',
  );
  await expect(refused({ train: { topK: 0 } })).rejects.toThrow(
    'train.topK must be in [1, 65536], got 0',
  );
  await expect(refused({ train: { posIou: 0.1, negIou: 0.2 } })).rejects.toMatchObject({
    code: 'ERR_CONFIG',
  });
});

test("the preset is mmdetection's network", async () => {
  const { model, semi } = await loadConfig('paa-r50-coco-10');
  expect(model).toMatchObject({
    type: 'paa',
    backbone: { depth: 50, frozenStages: 1 },
    neck: { extra: 'on-output', reluBeforeExtra: false },
    head: { channels: 256, stackedConvs: 4, norm: 'gn' },
    anchors: { strides: [8, 16, 32, 64, 128], octaveBaseScale: 8 },
    train: { posIou: 0.1, negIou: 0.1, minPosIou: 0, topK: 9 },
    test: { nmsIou: 0.6, scoreThr: 0.05, scoreVoting: true },
  });
  expect(semi).toMatchObject({ method: 'mixpl', scoreThr: 0.4 });
});
