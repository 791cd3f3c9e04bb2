import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import {
  createDetector,
  type Detector,
  type DetectorOptions,
  type ImageBatch,
} from '../../../lib/index.js';
import { fillByFormula, formula, formulaBatch } from './formula.js';
import {
  expectDetections,
  expectGradients,
  type GoldenDetections,
  type GoldenGradients,
} from './golden-network.js';

interface Golden {
  torch: string;
  options: {
    depth: 18 | 50;
    style: 'pytorch' | 'caffe';
    norm: 'gn' | 'frozen-bn' | 'bn-eval';
    frozenStages: number;
    baseWidth: number;
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

async function build(golden: Golden, dtype: 'fp32' | 'bf16'): Promise<[Detector, ImageBatch]> {
  const o = golden.options;
  const options: DetectorOptions = {
    type: 'retinanet',
    numClasses: o.numClasses,
    backbone: {
      depth: o.depth,
      style: o.style,
      norm: o.norm,
      frozenStages: o.frozenStages,
      baseWidth: o.baseWidth,
    },
    neck: { channels: o.channels },
    head: { channels: o.channels, stackedConvs: o.stackedConvs },
  };
  const detector = await createDetector(options, { dtype });
  await fillByFormula(detector);
  return [detector, formulaBatch({ ...o, images: 3 }, dtype)];
}

for (const name of ['r18-gn', 'r50-caffe-frozen', 'r50-pytorch-eval']) {
  const golden = JSON.parse(
    readFileSync(new URL(`../../golden/retinanet/${name}.json`, import.meta.url), 'utf8'),
  ) as Golden;
  const targets = golden.targets.map(([boxes, labels]) => ({
    boxes: Float32Array.from(boxes.flat()),
    labels: Int32Array.from(labels),
  }));

  describe(`RetinaNet ${name} against PyTorch ${golden.torch} in float64`, () => {
    test('has its losses and every gradient', async () => {
      const [detector, batch] = await build(golden, 'fp32');
      const losses = await detector.loss(batch, targets);
      expect(losses.loss_cls! / golden.loss_cls).toBeCloseTo(1, 4);
      expect(losses.loss_bbox! / golden.loss_bbox).toBeCloseTo(1, 4);
      await detector.backward();
      await expectGradients(detector, golden.gradients, formula);
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
      // Eight bits of mantissa through some sixty layers: a few per cent.
      expect(Math.abs(losses.loss_cls! / golden.loss_cls - 1)).toBeLessThan(0.03);
      expect(Math.abs(losses.loss_bbox! / golden.loss_bbox - 1)).toBeLessThan(0.03);
      const name = 'bbox_head.retina_cls.weight';
      const gradient = (await detector.gradient(name))!;
      const norm = Math.sqrt(gradient.reduce((s, g) => s + g * g, 0));
      expect(Math.abs(norm / golden.gradients[name]![0] - 1)).toBeLessThan(0.05);
      batch.dispose();
      detector.dispose();
    });
  });
}
