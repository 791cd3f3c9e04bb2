import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { createDetector, type DetectorOptions } from '../../../lib/index.js';
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
    depth: 18;
    style: 'pytorch';
    norm: 'gn';
    frozenStages: number;
    baseWidth: number;
    channels: number;
    stackedConvs: number;
    numClasses: number;
    image: string;
    height: number;
    width: number;
    from: number[];
    to: number[];
    moreLoss: number;
  };
  targets: [number[][], number[]][];
  loss_cls: number;
  loss_bbox: number;
  gradients: GoldenGradients;
  detections: GoldenDetections[];
}

const own: Record<string, (o: Golden['options']) => Partial<DetectorOptions>> = {
  centernet: ({ from, to, moreLoss }) => ({
    type: 'centernet',
    train: { regressFrom: [0, ...from], regressTo: to, morePositivesLoss: moreLoss },
  }),
  'tood-warm-up': () => ({ type: 'tood' }),
  'tood-aligned': () => ({ type: 'tood', train: { iterationsBeforeAlignment: 0 } }),
};

for (const [name, ownOptions] of Object.entries(own)) {
  const golden = JSON.parse(
    readFileSync(new URL(`../../golden/dense/${name}.json`, import.meta.url), 'utf8'),
  ) as Golden;
  const o = golden.options;
  const targets = golden.targets.map(([boxes, labels]) => ({
    boxes: Float32Array.from(boxes.flat()),
    labels: Int32Array.from(labels),
  }));
  const build = async (dtype: 'fp32' | 'bf16') => {
    const { depth, style, norm, frozenStages, baseWidth, channels, stackedConvs } = o;
    const options = {
      ...ownOptions(o),
      numClasses: o.numClasses,
      backbone: { depth, style, norm, frozenStages, baseWidth },
      neck: { channels },
      head: { channels, stackedConvs },
    } as DetectorOptions;
    const detector = await createDetector(options, { dtype });
    await fillByFormula(detector);
    const batch = formulaBatch({ images: targets.length, ...o }, dtype);
    return { detector, batch };
  };

  describe(`${name} against PyTorch ${golden.torch} in float64`, () => {
    test('has its losses and every gradient', async () => {
      const { detector, batch } = await build('fp32');
      const losses = await detector.loss(batch, targets);
      expect(losses.loss_cls! / golden.loss_cls).toBeCloseTo(1, 4);
      expect(losses.loss_bbox! / golden.loss_bbox).toBeCloseTo(1, 4);
      await detector.backward();
      await expectGradients(detector, golden.gradients, formula);
      batch.dispose();
      detector.dispose();
    });

    test('has its detections', async () => {
      const { detector, batch } = await build('fp32');
      const found = await detector.predict(batch);
      expectDetections(found, golden.detections);
      batch.dispose();
      detector.dispose();
    });

    // Aligned targets are sixth powers of what was predicted, of noise here; tood.test.ts has trained ones.
    if (name === 'tood-aligned') return;
    test('stays near it in bf16', async () => {
      const { detector, batch } = await build('bf16');
      const losses = await detector.loss(batch, targets);
      await detector.backward();
      // Eight bits of mantissa through some thirty layers.
      expect(Math.abs(losses.loss_cls! / golden.loss_cls - 1)).toBeLessThan(0.05);
      expect(Math.abs(losses.loss_bbox! / golden.loss_bbox - 1)).toBeLessThan(0.05);
      batch.dispose();
      detector.dispose();
    });
  });
}
