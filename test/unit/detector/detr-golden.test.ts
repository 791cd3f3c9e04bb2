import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  createDetector,
  type Detector,
  type DetectorOptions,
  type ImageBatch,
} from '../../../lib/index.js';
import { hashed } from './formula.js';
import {
  expectDetectionsInAnyOrder,
  expectGradients,
  type GoldenDetections,
  type GoldenGradients,
  hashedBatch,
} from './golden-network.js';

interface Golden {
  torch: string;
  options: {
    kind: 'plain' | 'refined' | 'two-stage' | 'dino' | 'dab';
    numClasses: number;
    channels: number;
    heads: number;
    points: number;
    ffnChannels: number;
    encoderLayers: number;
    decoderLayers: number;
    queries: number;
    maxPerImage: number;
    /** DINO: objects that the groups of denoising queries hold together; 0: none are made. */
    denoising?: number;
    image: string;
    height: number;
    width: number;
    sizes: [height: number, width: number][];
    targets: [number[][], number[]][];
  };
  losses: Record<string, number>;
  gradients: GoldenGradients;
  detections: GoldenDetections[];
}

const names = [
  'plain',
  'plain-unpadded',
  'refined',
  'two-stage',
  'dino',
  'dino-denoising',
  'dino-unpadded',
  'dab',
  'dab-unpadded',
];

function optionsOf(o: Golden['options']): DetectorOptions {
  const { encoderLayers, decoderLayers, heads, points, ffnChannels, queries } = o;
  const own = {
    dino: {
      type: 'dino',
      // Without noise a denoising query is its object: nothing is left to chance.
      denoising: { queries: o.denoising, labelNoise: 0, boxNoise: 0 },
    },
    dab: { type: 'dab-detr' },
    deformable: {
      type: 'deformable-detr',
      refine: o.kind !== 'plain',
      twoStage: o.kind === 'two-stage',
    },
  }[o.kind === 'dino' || o.kind === 'dab' ? o.kind : 'deformable'];
  return {
    ...own,
    numClasses: o.numClasses,
    backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 8 },
    neck: { channels: o.channels },
    transformer: {
      ...{ encoderLayers, decoderLayers, heads, ffnChannels, dropout: 0 },
      ...(o.kind !== 'dab' && { points }),
    },
    queries,
    test: { maxPerImage: o.maxPerImage },
  } as unknown as DetectorOptions;
}

/** The same stands in scripts/golden/detr_network.py. */
function weightOf(name: string, shape: readonly number[]): Float32Array {
  const count = shape.reduce((a, b) => a * b, 1);
  const v = hashed(name, count);
  if (shape.length > 1) {
    if (name.includes('embed'))
      return Float32Array.from(v, (x) => (shape.at(-1) === 4 ? 2 * x : x));
    let scale = Math.sqrt((6 * shape[0]!) / count);
    if (shape.length === 2 && !/reg_branches|reference_points_fc|fc_reg/.test(name)) scale *= 0.5;
    if (name === 'bbox_head.reg_branches.3.4.weight') scale *= 2;
    return Float32Array.from(v, (x) => x * scale);
  }
  return Float32Array.from(v, (x) => {
    if (name.endsWith('layers.0.1.weight')) return 0.25 + 0.1 * x;
    if (name.endsWith('weight')) return 1 + 0.2 * x;
    if (name.endsWith('sampling_offsets.bias')) return 2 * x;
    if (/cls_branches|fc_cls/.test(name)) return 0.5 * x - 1.5;
    return (name === 'memory_trans_fc.bias' ? 0.001 : 0.1) * x;
  });
}

/**
 * Beside a parameter that scores of DAB-DETR's attention follow from. What moves all scores of a query alike
 * has no gradient, a bias of keys for one; and queries of like content see like values wherever they look.
 */
const besideScores = (name: string) =>
  name.replace(/\.(?:[qk](?:content|pos|pos_sine)|v)_proj\.\w+$/, '.out_proj.weight');

async function build(
  o: Golden['options'],
  dtype: 'fp32' | 'bf16',
): Promise<[Detector, ImageBatch]> {
  const detector = await createDetector(optionsOf(o), { dtype });
  for (const { name, shape } of detector.parameters())
    await detector.writeTensor(name, weightOf(name, shape));
  return [detector, hashedBatch(o, dtype)];
}

for (const name of names) {
  const golden = JSON.parse(
    readFileSync(new URL(`../../golden/detr/${name}.json`, import.meta.url), 'utf8'),
  ) as Golden;
  const o = golden.options;
  const targets = o.targets.map(([boxes, labels]) => ({
    boxes: Float32Array.from(boxes.flat()),
    labels: Int32Array.from(labels),
  }));
  const total = Object.values(golden.losses).reduce((a, b) => a + b);

  describe(`${name} against PyTorch ${golden.torch} in float64`, () => {
    test('has its losses and every gradient', async () => {
      const [detector, batch] = await build(o, 'fp32');
      const losses = await detector.loss(batch, targets);
      expect(Object.keys(losses).sort()).toEqual(Object.keys(golden.losses).sort());
      for (const [key, value] of Object.entries(golden.losses))
        expect(Math.abs(losses[key]! / value - 1), key).toBeLessThan(1e-4);
      await detector.backward();
      await expectGradients(
        detector,
        golden.gradients,
        hashed,
        // Or 3e-5 of that which it is a small difference of.
        (name) => 3e-5 * golden.gradients[besideScores(name)]![0],
      );
      batch.dispose();
      detector.dispose();
    });

    test('has its detections', async () => {
      const [detector, batch] = await build(o, 'fp32');
      const found = await detector.predict(batch);
      expectDetectionsInAnyOrder(found, golden.detections, 1e-4 * o.width);
      batch.dispose();
      detector.dispose();
    });

    test('stays near it in bf16', async () => {
      const [detector, batch] = await build(o, 'bf16');
      const losses = await detector.loss(batch, targets);
      await detector.backward();
      const sum = Object.values(losses).reduce((a, b) => a + b);
      // Of the sum: a query may start from another token, or learn another object, in eight bits of
      // mantissa, which moves single losses by a tenth.
      expect(Math.abs(sum / total - 1)).toBeLessThan(0.05);
      batch.dispose();
      detector.dispose();
    });
  });
}
