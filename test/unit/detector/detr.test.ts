import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  createDetector,
  type DeformableDetrOptions,
  type DetectorOptions,
  type DinoOptions,
  loadConfig,
  readSafetensors,
  writeSafetensors,
} from '../../../lib/index.js';
import { temporaryFolder } from '../temporary-folder.js';
import { sceneBatch } from './scenes.js';
import { expectSlopes } from './slopes.js';
import { testDetector } from './suite.js';

const layers = 2;
const parts = {
  numClasses: 6,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 16 },
  neck: { channels: 32, numOutputs: 3 },
  transformer: {
    ...{ heads: 4, points: 2, encoderLayers: 1, decoderLayers: layers },
    ...{ ffnChannels: 64, dropout: 0 },
  },
  queries: 40,
} satisfies Partial<DinoOptions>;

/** Names and shapes of `count` prediction branches. */
const branches = (count: number) =>
  Object.fromEntries(
    Array.from({ length: count }, (_, i) => [
      [`cls_branches.${i}.weight`, [6, 32]],
      [`cls_branches.${i}.bias`, [6]],
      ...[0, 2].flatMap((k) => [
        [`reg_branches.${i}.${k}.weight`, [32, 32]],
        [`reg_branches.${i}.${k}.bias`, [32]],
      ]),
      [`reg_branches.${i}.4.weight`, [4, 32]],
      [`reg_branches.${i}.4.bias`, [4]],
    ]).flat() as [string, number[]][],
  );

const lossesOf = (prefix: string) =>
  ['', ...Array.from({ length: layers - 1 }, (_, i) => `d${i}.`)].flatMap((layer) =>
    ['loss_cls', 'loss_bbox', 'loss_iou'].map((name) => `${layer}${prefix}${name}`),
  );
const encoderLosses = ['enc_loss_cls', 'enc_loss_bbox', 'enc_loss_iou'];
const common = {
  scoreBias: `bbox_head.cls_branches.${layers - 1}.bias`,
  thresholded: false,
  overfit: { steps: 300, loss: 2.5 },
};
// What nothing behind a detached reference follows from.
const ofLastLayer = [
  'bbox_head.cls_branches.0.bias',
  `bbox_head.reg_branches.${layers - 1}.4.weight`,
  `decoder.layers.${layers - 1}.norms.2.weight`,
  `decoder.layers.${layers - 1}.cross_attn.value_proj.weight`,
];

const dino: DinoOptions = { type: 'dino', ...parts, queries: 252 };
testDetector('DINO', {
  ...common,
  options: dino,
  losses: [...lossesOf(''), ...encoderLosses, ...lossesOf('dn_')],
  head: branches(layers + 1),
  // Noise is drawn anew at every pass, and by an image's place in its batch; of all tokens none is chosen.
  compared: { denoising: { queries: 0 } },
  // The n-th best token has the n-th query, and of 252 many score alike: rounded, they change places.
  bf16: { loss: 0.1, gradient: 0.7 },
  gradients: [],
});

// With noise that is the same at every pass, since there is none.
describe('DINO', () => {
  const quiet: DinoOptions = { ...dino, denoising: { labelNoise: 0, boxNoise: 0 } };
  test('has the gradients of its losses', async () => {
    await using detector = await createDetector(quiet, { dtype: 'fp32', seed: 4 });
    await expectSlopes(detector, [...ofLastLayer, 'decoder.norm.weight']);
  });

  test('has as many queries as there are tokens, where these are fewer', async () => {
    await using detector = await createDetector({ ...dino, queries: 2000 }, { seed: 4 });
    const { batch, targets } = await sceneBatch(2, detector.computeDtype);
    const losses = await detector.loss(batch, targets);
    for (const value of Object.values(losses)) expect(value).toBeGreaterThan(0);
    await detector.backward();
    for (const { scores } of await detector.predict(batch)) expect(scores.length).toBe(300);
    batch.dispose();
  });

  test('draws other noise at every pass, and the same with the same seed', async () => {
    const passes: number[][] = [];
    for (let run = 0; run < 2; run++) {
      await using detector = await createDetector(dino, { seed: 6 });
      const { batch, targets } = await sceneBatch(1, detector.computeDtype);
      const values: number[] = [];
      for (let pass = 0; pass < 2; pass++) {
        values.push((await detector.loss(batch, targets)).dn_loss_bbox!);
        await detector.discard();
      }
      passes.push(values);
      batch.dispose();
    }
    expect(passes[1]).toEqual(passes[0]);
    expect(passes[0]![1]).not.toBe(passes[0]![0]);
  });

  test('its presets resolve, with the reference’s optimizer and schedule', async () => {
    const config = await loadConfig('dino-r50-coco-10', { cwd: '/data' });
    expect(config).toMatchObject({
      model: { type: 'dino', queries: 900, test: { maxPerImage: 300 } },
      optimizer: { type: 'adamw', lr: 1e-4, clipNorm: 0.1, backboneLrFactor: 0.1 },
      schedule: { iterations: 90_000, warmup: { iterations: 0 } },
      preprocess: { padDivisor: 1, channelOrder: 'rgb' },
      semi: { method: 'mixpl' },
    });
  });
});

const variants: Record<string, Partial<DeformableDetrOptions>> = {
  'Deformable DETR': { refine: false, twoStage: false },
  'Deformable DETR with refined boxes': { refine: true, twoStage: false },
  'Deformable DETR in two stages': {},
};
for (const [name, variant] of Object.entries(variants)) {
  const { refine = true, twoStage = true } = variant;
  testDetector(name, {
    ...common,
    options: { type: 'deformable-detr', ...parts, ...variant } as DetectorOptions,
    losses: [...lossesOf(''), ...(twoStage ? encoderLosses : [])],
    // Which token is matched, rounding may choose: of nine nudges one had 4% more of the encoder's loss.
    ...(twoStage && { compared: { queries: 252 }, bf16: { loss: 0.1 } }),
    scoreBias: `bbox_head.cls_branches.${refine ? layers - 1 : 0}.bias`,
    head: branches(refine ? layers + (twoStage ? 1 : 0) : 1),
    gradients: refine
      ? ofLastLayer
      : [
          'bbox_head.cls_branches.0.bias',
          'bbox_head.reg_branches.0.4.weight',
          'query_embedding.weight',
          'reference_points_fc.weight',
          'decoder.layers.0.self_attn.attn.in_proj_weight',
          'encoder.layers.0.self_attn.value_proj.weight',
          'neck.convs.0.gn.weight',
          'backbone.layer4.1.conv2.weight',
        ],
  });
}

test('plain Deformable DETR takes a state dict of torch, which names shared branches once a layer', async () => {
  const options = {
    ...{ type: 'deformable-detr', ...parts, refine: false, twoStage: false },
  } as DeformableDetrOptions;
  await using detector = await createDetector(options, { seed: 1 });
  const folder = await temporaryFolder();
  const file = join(folder, 'own.safetensors');
  await detector.exportWeights(file, { layout: 'mmdetection' });
  const tensors = new Map((await readSafetensors(file)).tensors);
  for (const [name, tensor] of [...tensors])
    if (/_branches\.0\./.test(name))
      tensors.set(name.replace('branches.0.', 'branches.1.'), tensor);
  await writeSafetensors(file, tensors);
  await using other = await createDetector(options, { seed: 2 });
  expect(await other.loadWeights(file)).toMatchObject({
    layout: 'mmdetection',
    missing: [],
    unexpected: [],
  });
  await using refined = await createDetector({ ...options, refine: true }, { seed: 2 });
  expect(await refined.loadWeights(file)).toMatchObject({ missing: [], unexpected: [] });
});
