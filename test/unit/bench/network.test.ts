// What floors are counted from: the networks as they are, and an independent count of their layers.
import { expect, test } from 'vitest';
import { floorMs } from '../../../lib/bench/floor.js';
import { type BenchModel, benchModels, modelFacts } from '../../../lib/bench/models.js';
import { inferenceWork, parametersOf, trainingWork } from '../../../lib/bench/network.js';
import { createDetector } from '../../../lib/index.js';

const pass = (model: BenchModel, images: number, classes: number) => {
  const extra = modelFacts[model].torchvision ? 'on-output' : 'on-input';
  return { model, classes, images, height: 800, width: 1344, extra } as const;
};

test.each(benchModels)(
  'the weights counted for %s are those of the detector',
  async (model) => {
    const { options, classes } = modelFacts[model];
    await using detector = await createDetector(options(7), { device: 'cpu', dtype: 'fp32' });
    const weights = detector
      .parameters()
      .filter(({ kind, shape }) => kind === 'weight' && shape.length > 1);
    const numbers = (of: typeof weights) =>
      of.reduce((sum, { shape }) => sum + shape.reduce((n, size) => n * size, 1), 0);
    expect(parametersOf(pass(model, 1, classes))).toEqual({
      all: numbers(weights),
      trained: numbers(weights.filter(({ trainable }) => trainable)),
    });
  },
  240_000, // Swin-L has 218 million, and the machine other work
);

// Of a program of its own that counts layers of mmdetection's networks: ms an image and GFLOP of 8 images
// with 80 classes at 790 TFLOP/s and 4.3 TB/s, forward and forward with backward. Within 4%: it has a
// caffe-style R50 in RetinaNet and FCOS, counts a ReLU's mask behind every product, and gradients of
// deformable attention and of windows otherwise.
test.each([
  ['retinanet', { ms: [0.76, 1.99], gflop: [491, 1400] }],
  ['fcos', { ms: [0.71, 1.81], gflop: [420, 1186] }],
  ['dino', { ms: [1.1, 3.14], gflop: [585, 1699] }],
  ['dino-swin-l', { ms: [5.41, 16.31], gflop: [3201, 9631] }],
] as const)('the floor of %s is that of another count', (model, { ms, gflop }) => {
  const limits = { copy: 4.3e12, gemm: { bf16: 790e12 }, source: { copy: '', gemm: {} } };
  const shape = pass(model, 8, 80);
  [inferenceWork, trainingWork].forEach((workOf, i) => {
    const work = workOf(shape, 'bf16');
    const flops = work.reduce((sum, part) => sum + part.flops, 0);
    expect(Math.abs(floorMs(work, limits, 'bf16') / 8 / ms[i]! - 1)).toBeLessThan(0.04);
    expect(Math.abs(flops / 8e9 / gflop[i]! - 1)).toBeLessThan(0.04);
  });
});
