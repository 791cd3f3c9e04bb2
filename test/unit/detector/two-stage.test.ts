import { expect, test } from 'vitest';
import { createDetector, type DetectorOptions, loadConfig } from '../../../lib/index.js';
import { sceneBatch } from './scenes.js';
import { testDetector } from './suite.js';
import { cascade, faster, parts, roi } from './two-stage-options.js';

// Of sixty proposals some ten overlap a box by half. Rounding to bf16 moves one across that line or past a
// better one, and a loss by up to 0.1 of itself, after 40 steps on the CPU as on a GPU. Of all anchors as
// proposals hundreds overlap one by a tenth: no loss moves by more than 0.007, of twelve trainings that began
// 2^-23 apart.
const allAnchors = {
  rpn: { ...parts.rpn, nmsIou: 1, trainNmsPre: 100_000, trainMaxPerImage: 100_000 },
};
const rpn = {
  'rpn_head.rpn_conv.weight': [32, 32, 3, 3],
  'rpn_head.rpn_conv.bias': [32],
  'rpn_head.rpn_cls.weight': [3, 32, 1, 1],
  'rpn_head.rpn_cls.bias': [3],
  'rpn_head.rpn_reg.weight': [12, 32, 1, 1],
  'rpn_head.rpn_reg.bias': [12],
};
const boxHead = (at: string, boxes: number) => ({
  [`${at}.shared_fcs.0.weight`]: [64, 32 * 49],
  [`${at}.shared_fcs.0.bias`]: [64],
  [`${at}.shared_fcs.1.weight`]: [64, 64],
  [`${at}.shared_fcs.1.bias`]: [64],
  [`${at}.fc_cls.weight`]: [7, 64],
  [`${at}.fc_cls.bias`]: [7],
  [`${at}.fc_reg.weight`]: [4 * boxes, 64],
  [`${at}.fc_reg.bias`]: [4 * boxes],
});

testDetector('Faster R-CNN', {
  options: faster,
  losses: ['loss_rpn_cls', 'loss_rpn_bbox', 'loss_cls', 'loss_bbox'],
  overfit: { steps: 200, loss: 0.5 },
  compared: { ...allAnchors, roi: { ...roi, posIou: 0.1, negIou: 0.1 } },
  // Proposals follow the RPN in steps, so only what comes after them has a slope to measure.
  gradients: [
    'roi_head.bbox_head.fc_cls.weight',
    'roi_head.bbox_head.fc_reg.bias',
    'roi_head.bbox_head.shared_fcs.0.weight',
  ],
  head: { ...rpn, ...boxHead('roi_head.bbox_head', 6) },
});

testDetector('Cascade R-CNN', {
  options: cascade,
  losses: [
    ...['loss_rpn_cls', 'loss_rpn_bbox'],
    ...[0, 1, 2].flatMap((s) => [`s${s}.loss_cls`, `s${s}.loss_bbox`]),
  ],
  overfit: { steps: 150, loss: 0.4 },
  compared: { ...allAnchors, roi: { ...roi, ious: [0.1, 0.1, 0.1] } },
  // The boxes of a stage move those of the next in the loss, though not in the gradient.
  gradients: [
    'roi_head.bbox_head.0.fc_cls.weight',
    'roi_head.bbox_head.2.fc_reg.bias',
    'roi_head.bbox_head.2.shared_fcs.1.weight',
  ],
  head: {
    ...rpn,
    ...boxHead('roi_head.bbox_head.0', 1),
    ...boxHead('roi_head.bbox_head.1', 1),
    ...boxHead('roi_head.bbox_head.2', 1),
  },
});

test('the draw of a sampler follows the seed and the checkpoint', async () => {
  const drawn = { ...faster, rpn: { ...parts.rpn, sampleSize: 16, posFraction: 0.5 } };
  const { batch, targets } = await sceneBatch(2, 'f32');
  const runtime = { dtype: 'fp32', seed: 3 } as const;
  await using a = await createDetector(drawn as DetectorOptions, runtime);
  await using b = await createDetector(drawn as DetectorOptions, runtime);
  const losses = [];
  for (let i = 0; i < 4; i++) losses.push(await a.loss(batch, targets));
  expect(losses[1]!.loss_rpn_cls).not.toBe(losses[0]!.loss_rpn_cls);
  expect(await b.loss(batch, targets)).toEqual(losses[0]);
  await b.loss(batch, targets);
  await using c = await createDetector(drawn as DetectorOptions, { ...runtime, seed: 3 });
  await c.loadState(await b.state());
  expect(await c.loss(batch, targets)).toEqual(losses[2]);
  expect(await b.loss(batch, targets)).toEqual(losses[2]);
  // Beyond what f32 counts one by one, too.
  await a.writeTensor('optimizer.passes', Float32Array.of(2 ** 24 - 1));
  await a.loss(batch, targets);
  expect(await a.loss(batch, targets)).toEqual(losses[0]);
  expect(await a.loss(batch, targets)).toEqual(losses[1]);
  batch.dispose();
});

test('two-stage detectors say what does not fit', async () => {
  const refused = (options: DetectorOptions, more: object) =>
    createDetector({ ...options, ...more } as DetectorOptions);
  await expect(refused(faster, { rpn: { strides: [4, 8] } })).rejects.toThrow(
    'rpn.strides must hold one stride per output of the neck (5), got 2',
  );
  await expect(refused(faster, { rpn: { sampleSize: 0 } })).rejects.toThrow(
    'rpn.sampleSize must be in [1, 16777216], got 0',
  );
  await expect(refused(cascade, { roi: { ious: [0.5, 0.6] } })).rejects.toThrow(
    'roi.ious must hold 3 numbers, got 2',
  );
  await expect(refused(cascade, { numerics: 'torchvision' })).rejects.toThrow(
    "model.numerics must be 'mmdetection' for cascade-rcnn, got 'torchvision'",
  );
  await expect(refused(faster, { test: { scoreThr: 2 } })).rejects.toThrow(
    'test.scoreThr must be in [0, 1], got 2',
  );
});

test.each(['faster-rcnn', 'cascade-rcnn'])(
  'the preset of %s has the paper’s threshold',
  async (type) => {
    const { model, semi } = await loadConfig(`${type}-r50-coco-10`);
    expect(model).toMatchObject({
      type,
      backbone: { depth: 50, style: 'caffe', norm: 'frozen-bn', frozenStages: 1 },
      neck: { firstLevel: 2, extra: 'none', numOutputs: 5 },
      test: { scoreThr: 0.05, nmsIou: 0.5 },
    });
    expect(semi).toMatchObject({ method: 'mixpl', scoreThr: 0.7 });
  },
);
