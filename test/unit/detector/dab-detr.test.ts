import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  createDetector,
  type DabDetrOptions,
  loadConfig,
  writeSafetensors,
} from '../../../lib/index.js';
import { temporaryFolder } from '../temporary-folder.js';
import { testDetector } from './suite.js';

const layers = 2;
const dab: DabDetrOptions = {
  type: 'dab-detr',
  numClasses: 6,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 16 },
  neck: { channels: 32 },
  transformer: {
    ...{ heads: 4, encoderLayers: 1, decoderLayers: layers },
    ...{ ffnChannels: 64, dropout: 0 },
  },
  queries: 40,
};

testDetector('DAB-DETR', {
  options: dab,
  thresholded: false,
  overfit: { steps: 400, loss: 2.5 },
  losses: ['', 'd0.'].flatMap((layer) =>
    ['loss_cls', 'loss_bbox', 'loss_iou'].map((name) => `${layer}${name}`),
  ),
  head: {
    'fc_cls.weight': [6, 32],
    'fc_cls.bias': [6],
    'fc_reg.layers.0.weight': [32, 32],
    'fc_reg.layers.0.bias': [32],
    'fc_reg.layers.1.weight': [32, 32],
    'fc_reg.layers.1.bias': [32],
    'fc_reg.layers.2.weight': [4, 32],
    'fc_reg.layers.2.bias': [4],
  },
  // What no detached reference follows from.
  gradients: [
    'bbox_head.fc_cls.bias',
    'decoder.post_norm.weight',
    'decoder.layers.1.cross_attn.qpos_sine_proj.weight',
    'decoder.layers.1.ffn.layers.0.1.weight',
    'decoder.query_scale.layers.1.weight',
  ],
});

describe('DAB-DETR', () => {
  const shapes = async (options: DabDetrOptions) => {
    await using detector = await createDetector(options);
    return new Map(detector.parameters().map((p) => [p.name, p.shape.join()]));
  };

  test("has mmdetection's parameters outside of its head", async () => {
    const all = await shapes(dab);
    const of = (prefix: string) =>
      [...all]
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, shape]) => `${name.slice(prefix.length)} ${shape}`)
        .sort();
    const linear = (name: string, out = 32, from = 32) => [
      `${name}.bias ${out}`,
      `${name}.weight ${out},${from}`,
    ];
    const norm = (name: string) => [`${name}.bias 32`, `${name}.weight 32`];
    const ffn = [
      ...linear('ffn.layers.0.0', 64),
      'ffn.layers.0.1.weight 1',
      ...linear('ffn.layers.1', 32, 64),
    ];
    expect(of('neck.')).toEqual(['convs.0.conv.bias 32', 'convs.0.conv.weight 32,1,1,128']);
    expect(of('query_embedding.')).toEqual(['weight 40,4']);
    expect(of('encoder.layers.0.')).toEqual(
      [
        ...ffn,
        ...[norm('norms.0'), norm('norms.1')].flat(),
        'self_attn.attn.in_proj_bias 96',
        'self_attn.attn.in_proj_weight 96,32',
        ...linear('self_attn.attn.out_proj'),
      ].sort(),
    );
    const mlp = (name: string, out = 32, from = 32) => [
      ...linear(`${name}.layers.0`, 32, from),
      ...linear(`${name}.layers.1`, out),
    ];
    expect(of('encoder.query_scale.').length).toBe(4);
    expect(of('decoder.').filter((name) => !name.startsWith('layers.'))).toEqual(
      [
        ...norm('post_norm'),
        ...mlp('query_scale'),
        ...mlp('ref_anchor_head', 2),
        ...mlp('ref_point_head', 32, 64),
      ].sort(),
    );
    for (let i = 0; i < layers; i++) {
      const self = ['qcontent', 'qpos', 'kcontent', 'kpos', 'v'];
      // Only a first layer adds a query's position to its content.
      const cross = [...self.filter((n) => i === 0 || n !== 'qpos'), 'qpos_sine'];
      expect(of(`decoder.layers.${i}.`)).toEqual(
        [
          ...ffn,
          ...[norm('norms.0'), norm('norms.1'), norm('norms.2')].flat(),
          ...self.flatMap((n) => linear(`self_attn.${n}_proj`)),
          ...cross.flatMap((n) => linear(`cross_attn.${n}_proj`)),
          ...linear('self_attn.out_proj'),
          ...linear('cross_attn.out_proj'),
        ].sort(),
      );
    }
  });

  test('starts as the reference does', async () => {
    await using detector = await createDetector(dab, { seed: 3 });
    const read = (name: string) => detector.readTensor(name);
    expect(await read('decoder.layers.0.ffn.layers.0.1.weight')).toEqual(new Float32Array([0.25]));
    for (const name of ['bbox_head.fc_reg.layers.2.weight', 'bbox_head.fc_reg.layers.2.bias'])
      expect(new Set(await read(name))).toEqual(new Set([0]));
    expect(new Set(await read('bbox_head.fc_cls.bias'))).toEqual(
      new Set([Math.fround(-Math.log(99))]),
    );
    // Biases within 1 / sqrt(32), the rest by Glorot: within sqrt(6 / 64).
    const largest = (values: Float32Array) =>
      values.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
    for (const [name, bound] of [
      ['decoder.layers.0.self_attn.v_proj.bias', 1 / Math.sqrt(32)],
      ['decoder.query_scale.layers.0.bias', 1 / Math.sqrt(32)],
      ['decoder.layers.1.cross_attn.out_proj.weight', Math.sqrt(6 / 64)],
      ['encoder.layers.0.self_attn.attn.out_proj.weight', Math.sqrt(6 / 64)],
      ['decoder.ref_point_head.layers.0.weight', Math.sqrt(6 / 96)],
    ] as const) {
      const most = largest(await read(name));
      expect(most, name).toBeLessThanOrEqual(bound * (1 + 1e-6));
      expect(most, name).toBeGreaterThan(0.8 * bound);
    }
    expect(new Set(await read('decoder.layers.0.cross_attn.out_proj.bias'))).toEqual(new Set([0]));
  });

  test('takes a file in which mmcv lists the slopes of its FFNs twice', async () => {
    await using detector = await createDetector(dab, { seed: 3 });
    const tensors = new Map<string, { shape: number[]; data: Float32Array }>();
    for (const { name, shape } of detector.parameters()) {
      const stored = shape.length === 4 ? [0, 3, 1, 2].map((axis) => shape[axis]!) : [...shape];
      const data = new Float32Array(stored.reduce((a, b) => a * b, 1)).fill(0.5);
      tensors.set(name, { shape: stored, data });
      if (name.endsWith('.ffn.layers.0.1.weight'))
        tensors.set(name.replace('layers.0.1', 'activate'), { shape: [1], data });
    }
    const file = join(await temporaryFolder(), 'twice.safetensors');
    await writeSafetensors(file, tensors);
    expect(await detector.loadWeights(file, { layout: 'mmdetection' })).toMatchObject({
      missing: [],
      unexpected: [],
    });
  });

  test('says which options it cannot have', async () => {
    const refuse = (options: object, message: string) =>
      expect(createDetector({ ...dab, ...options } as DabDetrOptions)).rejects.toThrow(message);
    await refuse(
      { neck: { channels: 32, numOutputs: 2 } },
      'neck must have one output, of C5 (firstLevel 5, numOutputs 1)',
    );
    await refuse(
      { neck: { channels: 32, firstLevel: 4, numOutputs: 2 } },
      'neck must have one output, of C5 (firstLevel 5, numOutputs 1)',
    );
    await refuse({ neck: { channels: 30 } }, 'neck.channels must be a multiple of 4, got 30');
    await refuse(
      { transformer: { heads: 5 } },
      'transformer.heads must divide neck.channels (32), got 5',
    );
    await refuse({ transformer: { points: 4 } }, 'points');
  });

  test('its presets resolve, with the reference’s optimizer', async () => {
    const config = await loadConfig('dab-detr-r50-coco-10', { cwd: '/data' });
    expect(config).toMatchObject({
      model: {
        ...{ type: 'dab-detr', queries: 300, backbone: { style: 'pytorch', depth: 50 } },
        neck: { firstLevel: 5, numOutputs: 1, norm: 'none' },
        transformer: { ffnChannels: 2048, dropout: 0 },
        train: { lossWeights: { classification: 1, boxes: 5, iou: 2 } },
        test: { maxPerImage: 300 },
      },
      optimizer: { type: 'adamw', lr: 1e-4, clipNorm: 0.1, backboneLrFactor: 0.1 },
      preprocess: { padDivisor: 1, channelOrder: 'rgb' },
      semi: { method: 'mixpl' },
    });
  });
});
