import { expect, test } from 'vitest';
import { createDetector, type DetectorOptions, loadConfig } from '../../../lib/index.js';
import { testDetector } from './suite.js';

const options: DetectorOptions = {
  type: 'centernet',
  numClasses: 6,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 16 },
  neck: { channels: 32, numOutputs: 4 },
  head: { channels: 32, stackedConvs: 1 },
  points: { strides: [8, 16, 32, 64] },
  train: { regressFrom: [0, 20, 40, 80], regressTo: [25, 50, 100] },
};

const layer = (name: string) => ({
  [`${name}.conv.weight`]: [32, 32, 3, 3],
  [`${name}.gn.weight`]: [32],
  [`${name}.gn.bias`]: [32],
});

testDetector('CenterNet', {
  options,
  losses: ['loss_cls', 'loss_bbox'],
  overfit: { steps: 120, loss: 0.5 },
  gradients: [
    'bbox_head.conv_cls.bias',
    'bbox_head.conv_reg.weight',
    'bbox_head.scales.1.scale',
    'bbox_head.cls_convs.0.gn.weight',
    'backbone.layer4.1.conv2.weight',
  ],
  head: {
    ...layer('cls_convs.0'),
    ...layer('reg_convs.0'),
    'conv_cls.weight': [6, 32, 3, 3],
    'conv_cls.bias': [6],
    'conv_reg.weight': [4, 32, 3, 3],
    'conv_reg.bias': [4],
    ...Object.fromEntries([0, 1, 2, 3].map((l) => [`scales.${l}.scale`, []])),
  },
});

test('CenterNet says what does not fit', async () => {
  const refused = (more: object) => createDetector({ ...options, ...more } as DetectorOptions);
  await expect(refused({ numerics: 'torchvision' })).rejects.toThrow(
    "model.numerics must be 'mmdetection' (torchvision has no centernet), got 'torchvision'",
  );
  await expect(refused({ points: { strides: [8, 16] } })).rejects.toThrow(
    'points.strides must hold one stride per output of the neck (4), got 2',
  );
  await expect(refused({ train: { regressTo: [9] } })).rejects.toThrow(
    'train.regressTo must hold one number per level but the last (3), got 1',
  );
  await expect(refused({ train: { negativeWeight: -1 } })).rejects.toMatchObject({
    code: 'ERR_CONFIG',
  });
});

test("the preset is mmdetection's network", async () => {
  const { model, preprocess, semi } = await loadConfig('centernet-r50-coco-10');
  expect(model).toMatchObject({
    type: 'centernet',
    backbone: { depth: 50, style: 'caffe', norm: 'frozen-bn', frozenStages: 1 },
    neck: { extra: 'on-output', reluBeforeExtra: true },
    head: { channels: 256, stackedConvs: 4, norm: 'gn' },
    test: { nmsIou: 0.6, scoreThr: 0.05 },
  });
  expect(preprocess).toMatchObject({ channelOrder: 'bgr', std: [1, 1, 1] });
  expect(semi).toMatchObject({ method: 'mixpl', scoreThr: 0.4 });
});
