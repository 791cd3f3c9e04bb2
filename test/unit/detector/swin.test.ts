import { describe, expect, test } from 'vitest';
import { createDetector, type DetectorOptions, loadConfig } from '../../../lib/index.js';
import { sceneBatch } from './scenes.js';
import { testDetector } from './suite.js';

const backbone = {
  type: 'swin',
  ...{ embed: 32, depths: [2, 2, 2, 2], heads: [2, 2, 4, 4], window: 4, dropPath: 0 },
} satisfies DetectorOptions['backbone'];
const strides = [8, 16, 32];
const fcos: DetectorOptions = {
  ...{ type: 'fcos', numClasses: 6, backbone, points: { strides } },
  neck: { channels: 32, numOutputs: 3 },
  head: { channels: 32, stackedConvs: 2 },
  train: { regressBounds: [32, 64] },
};

testDetector('FCOS over a Swin Transformer', {
  options: fcos,
  losses: ['loss_cls', 'loss_bbox', 'loss_centerness'],
  overfit: { steps: 320, loss: 1 },
  gradients: [
    'bbox_head.conv_cls.bias',
    'backbone.norm3.weight',
    'backbone.stages.3.blocks.1.attn.w_msa.relative_position_bias_table',
    'backbone.stages.2.blocks.1.attn.w_msa.qkv.weight',
    'backbone.stages.1.downsample.norm.weight',
    'backbone.stages.0.downsample.reduction.weight',
    'backbone.stages.0.blocks.0.ffn.layers.0.0.weight',
    'backbone.patch_embed.norm.bias',
    'backbone.patch_embed.projection.weight',
  ],
  head: {
    ...Object.fromEntries(
      ['cls', 'reg'].flatMap((tower) =>
        [0, 1].flatMap((i) => [
          [`${tower}_convs.${i}.conv.weight`, [32, 32, 3, 3]],
          [`${tower}_convs.${i}.conv.bias`, [32]],
          [`${tower}_convs.${i}.gn.weight`, [32]],
          [`${tower}_convs.${i}.gn.bias`, [32]],
        ]),
      ) as [string, number[]][],
    ),
    'conv_cls.weight': [6, 32, 3, 3],
    'conv_cls.bias': [6],
    'conv_reg.weight': [4, 32, 3, 3],
    'conv_reg.bias': [4],
    'conv_centerness.weight': [1, 32, 3, 3],
    'conv_centerness.bias': [1],
    'scales.0.scale': [],
    'scales.1.scale': [],
    'scales.2.scale': [],
  },
});

const over = (more: object) =>
  ({ ...fcos, backbone: { ...backbone, ...more } }) as unknown as DetectorOptions;

describe('Swin Transformer', () => {
  test('of a size has its channels, blocks and heads', async () => {
    const sizes = { tiny: [96, 6, 3], small: [96, 18, 3], base: [128, 18, 4], large: [192, 18, 6] };
    for (const [size, [embed, blocks, heads]] of Object.entries(sizes)) {
      // As wide as an eighth of it: what is left of `size` are its depths and heads.
      const options = { type: 'swin', size, window: 2, embed: embed! / (size === 'large' ? 2 : 1) };
      await using detector = await createDetector({
        ...fcos,
        backbone: options,
      } as unknown as DetectorOptions);
      const shapes = new Map(detector.parameters().map((p) => [p.name, p.shape]));
      const third = [...shapes.keys()].filter((n) => /stages\.2\..*norm1\.weight/.test(n));
      expect(third.length, size).toBe(blocks);
      const table = 'backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table';
      expect(shapes.get(table)).toEqual([9, heads]);
      expect(shapes.get('backbone.norm1.weight')).toEqual([2 * options.embed]);
      // C2 is not used, so it has no norm.
      expect(shapes.has('backbone.norm0.weight')).toBe(false);
    }
  });

  test('has a norm for C2 where the neck takes it', async () => {
    await using detector = await createDetector({
      ...{ type: 'faster-rcnn', numClasses: 2, backbone },
      neck: { channels: 16, firstLevel: 2, extra: 'none', numOutputs: 4 },
      rpn: { channels: 16, strides: [4, 8, 16, 32] },
      roi: { fcChannels: 16 },
    });
    const norm = detector.parameters().find((p) => p.name === 'backbone.norm0.weight');
    expect(norm?.shape).toEqual([32]);
  });

  test('frozen stages have no gradient, and none of their paths is dropped', async () => {
    await using detector = await createDetector(over({ frozenStages: 2, dropPath: 0.9 }));
    for (const { name, trainable } of detector.parameters())
      expect(trainable, name).toBe(!/^backbone\.(patch_embed|stages\.[01]|norm1)\./.test(name));
    await using all = await createDetector(over({ frozenStages: 4, dropPath: 0.9 }), { seed: 1 });
    await using none = await createDetector(over({ frozenStages: 4 }), { seed: 1 });
    const { batch, targets } = await sceneBatch(2, all.computeDtype);
    expect(await all.loss(batch, targets)).toEqual(await none.loss(batch, targets));
    batch.dispose();
  });

  test('paths are dropped in training alone, others at every pass', async () => {
    await using dropped = await createDetector(over({ dropPath: 0.9 }), { seed: 1 });
    await using whole = await createDetector(over({}), { seed: 1 });
    const { batch, targets } = await sceneBatch(2, dropped.computeDtype);
    expect(await dropped.predict(batch)).toEqual(await whole.predict(batch));
    const passes = [await whole.loss(batch, targets)];
    for (let pass = 0; pass < 2; pass++) {
      passes.push(await dropped.loss(batch, targets));
      await dropped.discard();
    }
    expect(new Set(passes.map((p) => p.loss_cls)).size).toBe(3);
    batch.dispose();
  });

  test.each([
    [{ size: 'huge' }, "backbone.size must be 'tiny', 'small', 'base' or 'large', got 'huge'"],
    [{ window: 1 }, 'backbone.window must be in [2, 32], got 1'],
    [{ dropPath: 1 }, 'backbone.dropPath must be in [0, 1), got 1'],
    [{ frozenStages: 5 }, 'backbone.frozenStages must be in [-1, 4], got 5'],
    [{ embed: 0 }, 'backbone.embed must be in [1, 4096], got 0'],
    [
      { heads: [2, 3, 4, 4] },
      'backbone.heads must divide the channels of their stages, got 3 heads of 64 channels',
    ],
    [
      { depths: [2, 2, 2] },
      'backbone.depths must be four whole numbers in [1, 256], one for each stage, got [2,2,2]',
    ],
    [
      { depths: [2, 2, 0.5, 2] },
      'backbone.depths must be four whole numbers in [1, 256], one for each stage, got [2,2,0.5,2]',
    ],
    [{ type: 'vit' }, "backbone.type must be 'resnet' or 'swin', got 'vit'"],
    [{ depth: 50 }, "unknown option 'depth'"],
  ])('refuses %j', async (more, message) => {
    await expect(createDetector(over(more))).rejects.toThrow(message);
  });

  test('its presets resolve, without decay of norms and tables', async () => {
    const config = await loadConfig('dino-swin-l-coco-full', { cwd: '/data' });
    expect(config).toMatchObject({
      model: {
        backbone: { type: 'swin', size: 'large', window: 12, dropPath: 0.2, frozenStages: -1 },
        neck: { firstLevel: 2, numOutputs: 5 },
      },
      optimizer: { lr: 1e-4, backboneLrFactor: 0.1 },
      semi: { method: 'mixpl' },
    });
    expect(config.model.backbone).not.toHaveProperty('style');
    const small = await loadConfig('small-swin', {
      overrides: [
        'data.root=/data',
        'data.labelled={ format: coco, annotations: a.json, images: . }',
        'data.unlabelled={ format: folder, images: . }',
      ],
    });
    expect(small.optimizer.groups).toContainEqual({
      match: 'relative_position_bias_table',
      weightDecayFactor: 0,
    });
  });
});
