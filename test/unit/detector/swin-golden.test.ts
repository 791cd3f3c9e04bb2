import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  createDetector,
  type Detector,
  type DetectorOptions,
  type ImageBatch,
} from '../../../lib/index.js';
import { formulaBatch, hashed } from './formula.js';
import {
  expectDetections,
  expectGradients,
  type GoldenDetections,
  type GoldenGradients,
} from './golden-network.js';

type Four = [number, number, number, number];
interface Golden {
  torch: string;
  options: {
    embed: number;
    depths: Four;
    heads: Four;
    window: number;
    frozenStages: number;
    channels: number;
    stackedConvs: number;
    numClasses: number;
    image: string;
    height: number;
    width: number;
  };
  targets: [number[][], number[]][];
  loss_cls: number;
  loss_bbox: number;
  gradients: GoldenGradients;
  detections: GoldenDetections[];
}

/** The same stands in scripts/golden/swin.py. */
function weightOf(name: string, shape: readonly number[]): Float32Array {
  const v = hashed(
    name,
    shape.reduce((a, b) => a * b, 1),
  );
  if (shape.length === 1) {
    if (name.endsWith('weight')) return Float32Array.from(v, (x) => 1 + 0.2 * x);
    return Float32Array.from(v, (x) => (name.endsWith('_cls.bias') ? -2 + 0.3 * x : 0.1 * x));
  }
  if (name.endsWith('table')) return Float32Array.from(v);
  const scale =
    Math.sqrt((6 * shape[0]!) / v.length) *
    (shape.length === 2 ? 0.5 : name.includes('retina_') ? 0.2 : 1);
  return Float32Array.from(v, (x) => x * scale);
}

function optionsOf({ options: o }: Golden): DetectorOptions {
  const { embed, depths, heads, window, frozenStages } = o;
  return {
    type: 'retinanet',
    numClasses: o.numClasses,
    backbone: { type: 'swin', embed, depths, heads, window, frozenStages, dropPath: 0 },
    neck: { channels: o.channels },
    head: { channels: o.channels, stackedConvs: o.stackedConvs },
  };
}

async function build(
  golden: Golden,
  dtype: 'fp32' | 'bf16',
  more: object = {},
): Promise<[Detector, ImageBatch]> {
  const options = optionsOf(golden);
  const detector = await createDetector(
    { ...options, backbone: { ...options.backbone, ...more } } as DetectorOptions,
    { dtype },
  );
  for (const { name, shape } of detector.parameters())
    await detector.writeTensor(name, weightOf(name, shape));
  return [detector, formulaBatch({ ...golden.options, images: 3 }, dtype)];
}

// Windows of 7 with padding everywhere, and larger than C5; of 4 with frozen stages and a stage of one block.
for (const name of ['window-7', 'window-4']) {
  const golden = JSON.parse(
    readFileSync(new URL(`../../golden/swin/${name}.json`, import.meta.url), 'utf8'),
  ) as Golden;
  const targets = golden.targets.map(([boxes, labels]) => ({
    boxes: Float32Array.from(boxes.flat()),
    labels: Int32Array.from(labels),
  }));

  describe(`Swin Transformer ${name} against PyTorch ${golden.torch} in float64`, () => {
    test('has the losses and every gradient of RetinaNet over it', async () => {
      const [detector, batch] = await build(golden, 'fp32');
      const losses = await detector.loss(batch, targets);
      expect(losses.loss_cls! / golden.loss_cls).toBeCloseTo(1, 4);
      expect(losses.loss_bbox! / golden.loss_bbox).toBeCloseTo(1, 4);
      await detector.backward();
      await expectGradients(detector, golden.gradients, hashed);
      batch.dispose();
      detector.dispose();
    });

    test('has its detections', async () => {
      const [detector, batch] = await build(golden, 'fp32');
      const found = await detector.predict(batch);
      expectDetections(found, golden.detections);
      batch.dispose();
      detector.dispose();
    });

    test('stays near it in bf16', async () => {
      const [detector, batch] = await build(golden, 'bf16');
      const losses = await detector.loss(batch, targets);
      await detector.backward();
      // Eight bits of mantissa through some fifty layers: a few per cent.
      expect(Math.abs(losses.loss_cls! / golden.loss_cls - 1)).toBeLessThan(0.03);
      expect(Math.abs(losses.loss_bbox! / golden.loss_bbox - 1)).toBeLessThan(0.03);
      const name = 'bbox_head.retina_cls.weight';
      const gradient = (await detector.gradient(name))!;
      const norm = Math.sqrt(gradient.reduce((s, g) => s + g * g, 0));
      expect(Math.abs(norm / golden.gradients[name]![0] - 1)).toBeLessThan(0.05);
      batch.dispose();
      detector.dispose();
    });

    test.each(['fp32', 'bf16'] as const)(
      'has the same bits when blocks are computed again, with dropped paths in %s',
      async (dtype) => {
        const results = [];
        for (const recompute of [false, true]) {
          const [detector, batch] = await build(golden, dtype, { recompute, dropPath: 0.5 });
          const losses = await detector.loss(batch, targets);
          await detector.backward();
          const gradients = new Map<string, Float32Array | null>();
          for (const { name, trainable } of detector.parameters())
            if (trainable) gradients.set(name, await detector.gradient(name));
          results.push({ losses, gradients });
          batch.dispose();
          detector.dispose();
        }
        expect(results[1]).toEqual(results[0]);
      },
    );
  });
}
