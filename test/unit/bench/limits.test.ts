import { expect, test } from 'vitest';
import { datasheetOf } from '../../../lib/bench/datasheets.js';
import { measureLimits } from '../../../lib/bench/limits.js';
import {
  inferenceWork,
  type PassShape,
  parametersOf,
  trainingWork,
} from '../../../lib/bench/network.js';
import { describeLimits } from '../../../lib/bench/report.js';
import { createDetector } from '../../../lib/index.js';
import { native } from '../../../lib/native.js';

const sum = (work: { bytes: number; flops: number }[], key: 'bytes' | 'flops') =>
  work.reduce((total, part) => total + part[key], 0);
const pass = (model: PassShape['model'], change: Partial<PassShape> = {}): PassShape => ({
  ...{ model, classes: 80, images: 1, height: 800, width: 1280 },
  ...change,
});

test.each([
  ['retinanet', 239],
  ['fcos', 201],
  ['faster-rcnn', 207],
] as const)('%s has as many multiply-adds as mmdetection says', (model, published) => {
  const giga = sum(inferenceWork(pass(model), 'bf16'), 'flops') / 2e9;
  expect(Math.abs(giga / published - 1)).toBeLessThan(0.03);
});

test.each([
  ['retinanet', 'torchvision/retinanet_resnet50_fpn'],
  ['fcos', 'torchvision/fcos_resnet50_fpn'],
  ['faster-rcnn', 'torchvision/fasterrcnn_resnet50_fpn'],
] as const)('%s has the weights that the walk goes over', async (model, preset) => {
  await using detector = await createDetector({
    preset,
    numClasses: 81,
    device: 'cpu',
    dtype: 'fp32',
  });
  const weights = detector
    .parameters()
    .filter(({ name, kind, norm }) => kind === 'weight' && !norm && name.endsWith('.weight'));
  const count = (chosen: typeof weights) =>
    chosen.reduce((total, { shape }) => total + shape.reduce((n, v) => n * v, 1), 0);
  const { all, trained } = parametersOf(pass(model, { extra: 'on-output' }));
  expect(Math.abs(count(weights) / all - 1)).toBeLessThan(0.02);
  const own = weights.filter(({ trainable }) => trainable);
  expect(Math.abs(count(own) / trained - 1)).toBeLessThan(0.02);
});

test('a step does what is trained three times, what is frozen once', () => {
  const shape = pass('retinanet', { images: 2 });
  const [forward, step] = [inferenceWork(shape, 'f32'), trainingWork(shape, 'f32')];
  const ratio = sum(step, 'flops') / sum(forward, 'flops');
  expect(ratio).toBeGreaterThan(2.8);
  expect(ratio).toBeLessThan(3);
  // Half the bytes in bf16, but for the gradients of weights.
  const bytes = (dtype: 'f32' | 'bf16') => sum(trainingWork(shape, dtype), 'bytes');
  expect(bytes('f32') / bytes('bf16')).toBeGreaterThan(1.8);
  expect(bytes('f32') / bytes('bf16')).toBeLessThan(2);
});

test('two images are twice the work of one, but for the weights', () => {
  const work = (images: number) => trainingWork(pass('fcos', { images }), 'f32');
  expect(sum(work(2), 'flops')).toBeCloseTo(2 * sum(work(1), 'flops'), -3);
  expect(sum(work(2), 'bytes')).toBeLessThan(2 * sum(work(1), 'bytes'));
});

test('limits say what reached them', async () => {
  const limits = await measureLimits('cpu', ['f32']);
  expect(limits.copy).toBeGreaterThan(1e8);
  expect(limits.source.copy).toMatch(/^(memcpy on all threads|relu)$/);
  expect(limits.gemm.f32).toBeGreaterThan(1e8);
  expect(limits.source.gemm).toEqual({ f32: 'linear, 1536×1536×1536' });
  expect(limits).not.toHaveProperty('datasheet');
  expect(JSON.parse(JSON.stringify(limits))).toEqual(limits); // no infinities
  expect(describeLimits(limits)).toMatch(/^limits .* copy .* GB\/s \(.*\), f32 products .*\)$/);
});

test("the peer's product is the limit where it is faster, and may fail", async () => {
  const asked: unknown[] = [];
  const peerOf = (ms: () => Promise<number>) => ({
    name: 'peer',
    prepare: async (spec: unknown) => {
      asked.push(spec);
      return { run: ms };
    },
  });
  const fast = await measureLimits(
    'cpu',
    ['f32'],
    peerOf(async () => 1e-3),
  );
  expect(asked).toEqual([{ op: 'linear', m: 1536, k: 1536, n: 1536, dtype: 'f32' }]);
  expect(fast.gemm.f32).toBeCloseTo(2 * 1536 ** 3 * 1e6, -9);
  expect(fast.source.gemm.f32).toBe('peer: linear, 1536×1536×1536');
  for (const ms of [async () => 1e9, () => Promise.reject(new Error('no memory'))]) {
    const own = await measureLimits('cpu', ['f32'], peerOf(ms));
    expect(own.source.gemm.f32).toBe('linear, 1536×1536×1536');
  }
});

test("a vendor's figures are those of the very card", () => {
  expect(datasheetOf('NVIDIA H200')).toMatchObject({ name: 'H200 SXM', bandwidth: 4.8e12 });
  expect(datasheetOf('NVIDIA H200')!.flops.bf16).toBe(989.4e12);
  expect(datasheetOf('NVIDIA H100 80GB HBM3')!.name).toBe('H100 SXM');
  expect(datasheetOf('NVIDIA GeForce RTX 4090')!.flops).toEqual({ f32: 82.6e12, bf16: 165.2e12 });
  for (const other of ['NVIDIA GeForce RTX 4090 Laptop GPU', 'NVIDIA GeForce RTX 3090 Ti', 'L40'])
    expect(datasheetOf(other)).toBeUndefined();
  const source = { copy: 'the test', gemm: { bf16: 'the test' } };
  const datasheet = datasheetOf('NVIDIA L40S')!;
  expect(describeLimits({ copy: 1e9, gemm: { bf16: 1e9 }, source, datasheet })).toContain(
    "\nthe vendor's of L40S: memory 864.0 GB/s, dense peaks f32 91600.0, bf16 362050.0 GFLOP/s",
  );
});

test('a tensor is copied into another of its shape and type', async () => {
  const values = Float32Array.from({ length: 300_000 }, (_, i) => i); // more than one thread's share
  const from = native.createTensor(values, [3, 100_000], 'f32');
  const to = native.createTensor(new Float32Array(300_000), [3, 100_000], 'f32');
  await native.copyTensor(from, to);
  expect(await to.read()).toEqual(values);
  const other = native.createTensor(new Float32Array(300_000), [300_000], 'f32');
  await expect(native.copyTensor(from, other)).rejects.toMatchObject({ code: 'ERR_SHAPE' });
  from.dispose();
  expect(() => native.copyTensor(from, to)).toThrow(/copyTensor: from was disposed/);
  to.dispose();
  other.dispose();
});
