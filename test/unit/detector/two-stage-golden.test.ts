import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  createDetector,
  type Detector,
  type DetectorOptions,
  type ImageBatch,
  native,
} from '../../../lib/index.js';
import { hashed } from './formula.js';
import {
  expectDetectionsInAnyOrder,
  expectGradients,
  type GoldenDetections,
  type GoldenGradients,
} from './golden-network.js';

interface Golden {
  torch: string;
  height: number;
  width: number;
  targets: [number[][], number[]][];
  losses: Record<string, number>;
  gradients: GoldenGradients;
  detections: GoldenDetections[];
}

function weightOf(name: string, shape: readonly number[]): Float32Array {
  const count = shape.reduce((a, b) => a * b, 1);
  let scale = Math.sqrt((6 * shape[0]!) / count);
  if (/rpn_reg|fc_reg/.test(name)) scale *= 0.05;
  if (/rpn_cls|fc_cls/.test(name)) scale *= 0.2;
  return Float32Array.from(hashed(name, count), (v) => {
    if (shape.length === 1 && name.includes('.gn') && name.endsWith('weight')) return 1 + 0.2 * v;
    return shape.length === 1 ? 0.1 * v : v * scale;
  });
}

const everything = { sampleSize: 100_000, posFraction: 1 };

async function build(
  type: 'faster-rcnn' | 'cascade-rcnn',
  golden: Golden,
): Promise<[Detector, ImageBatch]> {
  const options: DetectorOptions = {
    type,
    numClasses: 4,
    backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 8 },
    neck: { channels: 16 },
    rpn: {
      ...{ ...everything, channels: 16, trainNmsPre: 300, trainMaxPerImage: 80 },
      ...{ testNmsPre: 100, testMaxPerImage: 60 },
    },
    roi: { ...everything, fcChannels: 32 },
  };
  const detector = await createDetector(options, { dtype: 'fp32' });
  for (const { name, shape } of detector.parameters())
    await detector.writeTensor(name, weightOf(name, shape));
  const { height, width } = golden;
  const pixels = Float32Array.from(hashed('image', 3 * height * width * 3));
  const tensor = native.createTensor(pixels, [3, height, width, 3], 'f32');
  const sizes = [0, 1, 2].map(() => ({ height, width }));
  return [detector, { tensor, sizes, padSizes: sizes, dispose: () => tensor.dispose() }];
}

describe.each(['faster-rcnn', 'cascade-rcnn'] as const)('%s', (type) => {
  const golden = JSON.parse(
    readFileSync(new URL(`../../golden/two-stage/${type}.json`, import.meta.url), 'utf8'),
  ) as Golden;
  const targets = golden.targets.map(([boxes, labels]) => ({
    boxes: Float32Array.from(boxes.flat()),
    labels: Int32Array.from(labels),
  }));

  test(`has the losses and every gradient of PyTorch ${golden.torch} in float64`, async () => {
    const [detector, batch] = await build(type, golden);
    const losses = await detector.loss(batch, targets);
    expect(Object.keys(losses)).toEqual(Object.keys(golden.losses));
    for (const [key, value] of Object.entries(golden.losses))
      expect(Math.abs(losses[key]! / value - 1), key).toBeLessThan(1e-4);
    await detector.backward();
    await expectGradients(detector, golden.gradients, hashed);
    batch.dispose();
    detector.dispose();
  });

  test('has its detections', async () => {
    const [detector, batch] = await build(type, golden);
    const found = await detector.predict(batch);
    expectDetectionsInAnyOrder(found, golden.detections, 1e-3);
    batch.dispose();
    detector.dispose();
  });
});
