// Every detector on both devices: losses, gradients, weights after a step, detections.
import { describe, expect, test } from 'vitest';
import { createDetector, type Detector, native } from '../../../lib/index.js';
import { sceneBatch } from '../detector/scenes.js';
import { smallDetectors, withTest } from './small-detectors.js';

/** Relative to the norm of each tensor: f32 sums in another order, through some thirty layers. */
const tolerance = 1e-3;

const norm = (values: Float32Array) => Math.sqrt(values.reduce((sum, v) => sum + v * v, 0));

async function scenes(detector: Detector) {
  const { batch, targets } = await sceneBatch(2, 'f32', {
    ...{ width: 64, height: 64, device: detector.device },
  });
  return { batch, targets: targets.map((t) => ({ ...t, labels: t.labels.map((l) => l % 3) })) };
}

/** Losses, gradients by name, weights after a step, the best detections. */
async function learn(detector: Detector) {
  const { batch, targets } = await scenes(detector);
  const losses = await detector.loss(batch, targets);
  await detector.backward();
  const gradients = new Map<string, Float32Array>();
  for (const { name } of detector.parameters()) {
    const gradient = await detector.gradient(name);
    if (gradient) gradients.set(name, gradient);
  }
  const { gradNorm } = await detector.step({ lr: 0.01 });
  const after = await detector.loss(batch, targets);
  const found = await detector.predict(batch);
  batch.dispose();
  return { losses, gradients, gradNorm, after, found };
}

describe.skipIf(native.cudaReason() !== null)('on a GPU', () => {
  test.each(Object.entries(smallDetectors))(
    '%s learns as on the CPU',
    async (_, options) => {
      const runtime = {
        dtype: 'fp32' as const,
        ...{ seed: 3, optimizer: { momentum: 0.9, clipNorm: 5 } },
      };
      const tested = withTest(options, { scoreThr: 0.01, maxPerImage: 10 });
      await using cpu = await createDetector(tested, { ...runtime, device: 'cpu' });
      await using gpu = await createDetector(tested, { ...runtime, device: 'cuda' });
      const [want, got] = [await learn(cpu), await learn(gpu)];

      expect(Object.keys(got.losses)).toEqual(Object.keys(want.losses));
      for (const when of ['losses', 'after'] as const)
        for (const [name, value] of Object.entries(want[when]))
          expect(Math.abs(got[when][name]! - value), `${when}: ${name}`).toBeLessThanOrEqual(
            tolerance * Math.abs(value),
          );
      expect([...got.gradients.keys()]).toEqual([...want.gradients.keys()]);
      for (const [name, gradient] of want.gradients) {
        const difference = gradient.map((v, i) => v - got.gradients.get(name)![i]!);
        expect(norm(difference), name).toBeLessThanOrEqual(
          tolerance * norm(gradient) + 1e-6 * want.gradNorm,
        );
      }
      expect(Math.abs(got.gradNorm / want.gradNorm - 1)).toBeLessThan(tolerance);
      for (const [n, { scores, boxes }] of want.found.entries()) {
        expect(scores.length).toBeGreaterThan(0);
        expect(got.found[n]!.scores.length).toBe(scores.length);
        scores.forEach((score, i) => {
          expect(Math.abs(got.found[n]!.scores[i]! - score), `score ${i}`).toBeLessThan(tolerance);
        });
        expect(boxes.length).toBe(4 * scores.length);
      }
    },
    300_000,
  );

  // Factors of 11 bits: off by 2^-11 at most each, and by far less in sums. The same bits would be f32's.
  test('tf32 is near f32 and not the same', async () => {
    const learned = [];
    for (const dtype of ['fp32', 'tf32'] as const) {
      await using detector = await createDetector(smallDetectors.retinanet!, {
        ...{ dtype, seed: 3, device: 'cuda' },
      });
      expect(detector.computeDtype).toBe('f32');
      await using teacher = await detector.createTeacher();
      expect(teacher.dtype).toBe(detector.dtype);
      learned.push(await learn(detector));
    }
    const [exact, rounded] = learned as [(typeof learned)[0], (typeof learned)[0]];
    for (const [name, value] of Object.entries(exact.losses)) {
      expect(rounded.losses[name], name).not.toBe(value);
      expect(Math.abs(rounded.losses[name]! / value - 1), name).toBeLessThan(2e-3);
    }
    const off = rounded.gradNorm / exact.gradNorm - 1;
    expect(off).not.toBe(0);
    expect(Math.abs(off)).toBeLessThan(1e-2);
  }, 300_000);
});
