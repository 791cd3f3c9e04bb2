import { describe, expect, test } from 'vitest';
import {
  createDetector,
  type DetectorOptions,
  loadConfig,
  type ToodOptions,
} from '../../../lib/index.js';
import { sceneBatch } from './scenes.js';
import { testDetector } from './suite.js';

const tiny: ToodOptions = {
  type: 'tood',
  numClasses: 6,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 16 },
  neck: { channels: 32, numOutputs: 4 },
  head: { channels: 32, stackedConvs: 2 },
  anchors: { strides: [8, 16, 32, 64], octaveBaseScale: 4 },
};
const aligned: ToodOptions = { ...tiny, train: { iterationsBeforeAlignment: 10 } };

const norm = (name: string) => ({ [`${name}.weight`]: [32], [`${name}.bias`]: [32] });
const conv = (name: string, out: number, from: number, kernel: number) => ({
  [`${name}.weight`]: [out, from, kernel, kernel],
  [`${name}.bias`]: [out],
});
const decomposition = (name: string) => ({
  ...conv(`${name}.layer_attention.0`, 4, 64, 1),
  ...conv(`${name}.layer_attention.2`, 2, 4, 1),
  [`${name}.reduction_conv.conv.weight`]: [32, 64, 1, 1],
  ...norm(`${name}.reduction_conv.gn`),
});
const head = {
  ...Object.fromEntries([0, 1].map((i) => [`inter_convs.${i}.conv.weight`, [32, 32, 3, 3]])),
  ...norm('inter_convs.0.gn'),
  ...norm('inter_convs.1.gn'),
  ...decomposition('cls_decomp'),
  ...decomposition('reg_decomp'),
  ...conv('tood_cls', 6, 32, 3),
  ...conv('tood_reg', 4, 32, 3),
  ...conv('cls_prob_module.0', 8, 64, 1),
  ...conv('cls_prob_module.2', 1, 8, 3),
  ...conv('reg_offset_module.0', 8, 64, 1),
  ...conv('reg_offset_module.2', 8, 8, 3),
  ...Object.fromEntries([0, 1, 2, 3].map((l) => [`scales.${l}.scale`, []])),
};

const common = { losses: ['loss_cls', 'loss_bbox'], head };
testDetector('TOOD, never aligned', {
  ...common,
  options: tiny,
  overfit: { steps: 150, loss: 0.6 },
  gradients: [
    'bbox_head.tood_cls.bias',
    'bbox_head.tood_reg.weight',
    'bbox_head.scales.0.scale',
    'bbox_head.reg_decomp.reduction_conv.conv.weight',
    'bbox_head.cls_prob_module.0.weight',
    'bbox_head.inter_convs.0.gn.weight',
    'backbone.layer4.1.conv2.weight',
  ],
});
// Its soft targets follow the predictions and count as constants: differences would see them move.
testDetector('TOOD, aligned after ten steps', {
  ...common,
  options: aligned,
  overfit: { steps: 150, loss: 0.6 },
  gradients: [],
});

describe('TOOD', () => {
  const losses = async (detector: Awaited<ReturnType<typeof createDetector>>) => {
    const { batch, targets } = await sceneBatch(2, 'f32');
    const values = await detector.loss(batch, targets);
    await detector.backward();
    batch.dispose();
    return values;
  };

  test('counts its steps, not its losses, and a resumed run goes on counting', async () => {
    const options: ToodOptions = { ...tiny, train: { iterationsBeforeAlignment: 2 } };
    const make = (o: ToodOptions, seed: number) =>
      createDetector(o, { dtype: 'fp32', seed, optimizer: { type: 'sgd' } });
    await using detector = await make(options, 3);
    await using never = await make(tiny, 3);
    await using resumed = await make(options, 4);
    for (let step = 0; step < 4; step++) {
      const [got, want] = [await losses(detector), await losses(never)];
      // The same weights until the assignments part.
      if (step < 2) expect(got).toEqual(want);
      if (step === 2) expect(got).not.toEqual(want);
      expect(await losses(detector)).toEqual(got);
      await losses(never);
      await detector.step({ lr: 1e-3 });
      await never.step({ lr: 1e-3 });
      if (step === 1) await resumed.loadState(await detector.state());
    }
    expect(await resumed.readTensor('optimizer.iterations')).toEqual(Float32Array.of(2));
    for (let step = 2; step < 4; step++) {
      await losses(resumed);
      await losses(resumed);
      await resumed.step({ lr: 1e-3 });
    }
    expect(await losses(resumed)).toEqual(await losses(detector));
  });

  test('says what does not fit', async () => {
    const refused = (more: object) => createDetector({ ...tiny, ...more } as DetectorOptions);
    await expect(refused({ numerics: 'torchvision' })).rejects.toThrow(
      "model.numerics must be 'mmdetection' (torchvision has no tood), got 'torchvision'",
    );
    await expect(refused({ head: { channels: 4 } })).rejects.toThrow(
      'head.channels must be >= 8 for TOOD, got 4',
    );
    await expect(refused({ head: { norm: 'none' } })).rejects.toThrow("head.norm must be 'gn'");
    await expect(refused({ anchors: { strides: [8] } })).rejects.toThrow(
      'anchors.strides must hold one stride per output of the neck (4), got 1',
    );
    await expect(refused({ train: { iterationsBeforeAlignment: -1 } })).rejects.toThrow(
      'train.iterationsBeforeAlignment must be >= 0 or null (never), got -1',
    );
    await expect(refused({ train: { alignTop: 0 } })).rejects.toMatchObject({ code: 'ERR_CONFIG' });
  });

  test("the preset is the reference's network", async () => {
    const { model, preprocess, semi } = await loadConfig('tood-r50-coco-10');
    expect(model).toMatchObject({
      type: 'tood',
      backbone: { depth: 50, style: 'pytorch', norm: 'bn-eval', frozenStages: 1 },
      neck: { extra: 'on-output', reluBeforeExtra: false },
      head: { channels: 256, stackedConvs: 6, norm: 'gn' },
      train: { iterationsBeforeAlignment: null },
      test: { nmsIou: 0.6, scoreThr: 0.05 },
    });
    expect(preprocess).toMatchObject({
      channelOrder: 'rgb',
      mean: [123.675, 116.28, 103.53],
      std: [58.395, 57.12, 57.375],
    });
    expect(semi).toMatchObject({ method: 'mixpl', scoreThr: 0.4 });
  });
});
