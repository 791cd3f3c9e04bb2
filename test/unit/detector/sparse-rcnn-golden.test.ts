import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  createDetector,
  type Detector,
  type ImageBatch,
  type SparseRcnnOptions,
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
    numClasses: number;
    channels: number;
    heads: number;
    ffnChannels: number;
    dynamicChannels: number;
    stages: number;
    proposals: number;
    maxPerImage: number;
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

const optionsOf = (o: Golden['options']): SparseRcnnOptions => ({
  type: 'sparse-rcnn',
  numClasses: o.numClasses,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 8 },
  neck: { channels: o.channels },
  proposals: o.proposals,
  head: {
    ...{ stages: o.stages, heads: o.heads },
    ...{ dynamicChannels: o.dynamicChannels, ffnChannels: o.ffnChannels },
  },
  test: { maxPerImage: o.maxPerImage },
});

/** The same stands in scripts/golden/sparse_rcnn.py. */
function weightOf(name: string, shape: readonly number[]): Float32Array {
  const count = shape.reduce((a, b) => a * b, 1);
  const v = hashed(name, count);
  if (name.startsWith('rpn_head.'))
    return Float32Array.from(v, (x) => (name.includes('bboxes') ? 0.5 + 0.3 * x : x));
  if (shape.length > 1) {
    const scale = Math.sqrt((6 * shape[0]!) / count) * (shape.length === 2 ? 0.5 : 1);
    return Float32Array.from(v, (x) => x * scale);
  }
  return Float32Array.from(v, (x) => {
    if (name.endsWith('weight')) return 1 + 0.2 * x;
    return name.endsWith('fc_cls.bias') ? 0.5 * x - 1.5 : 0.1 * x;
  });
}

async function build(
  o: Golden['options'],
  dtype: 'fp32' | 'bf16',
): Promise<[Detector, ImageBatch]> {
  const detector = await createDetector(optionsOf(o), { dtype });
  for (const { name, shape } of detector.parameters())
    await detector.writeTensor(name, weightOf(name, shape));
  return [detector, hashedBatch(o, dtype)];
}

for (const name of ['padded', 'unpadded', 'large', 'no-objects']) {
  const golden = JSON.parse(
    readFileSync(new URL(`../../golden/sparse-rcnn/${name}.json`, import.meta.url), 'utf8'),
  ) as Golden;
  const o = golden.options;
  const targets = o.targets.map(([boxes, labels]) => ({
    boxes: Float32Array.from(boxes.flat()),
    labels: Int32Array.from(labels),
  }));
  const total = Object.values(golden.losses).reduce((a, b) => a + b);

  describe(`Sparse R-CNN, ${name}, against PyTorch ${golden.torch} in float64`, () => {
    test('has its losses and every gradient', async () => {
      const [detector, batch] = await build(o, 'fp32');
      const losses = await detector.loss(batch, targets);
      expect(Object.keys(losses)).toEqual(Object.keys(golden.losses));
      for (const [key, value] of Object.entries(golden.losses))
        expect(Math.abs(losses[key]! - value), key).toBeLessThanOrEqual(1e-4 * value);
      await detector.backward();
      await expectGradients(detector, golden.gradients, hashed);
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
      // Of the sum: rounded, a proposal may learn another object.
      expect(Math.abs(sum / total - 1)).toBeLessThan(0.05);
      batch.dispose();
      detector.dispose();
    });
  });
}
