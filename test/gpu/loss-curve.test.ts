// A training on a GPU beside the same one on the CPU in exact f32: same weights, same pictures. Both add in
// other orders, and training amplifies the last digits: trainings on the CPU whose weights differ by 2^-23 agree
// to 1e-6 for some ten to thirty steps, and by step 60 single losses differ by some percent. So
//   the first pass over the pictures must agree to 1e-4, which holds the gradients and the update in it;
//   after that, means of 20 steps may be off by 5%, or three times as far as those other trainings are.
// In bf16 an activation has 8 bits, so
//   the first pass must agree to 2^-8 (the CPU's own bf16 is off by up to 1.1e-3 there);
//   after that, the CPU's bf16 is one of those other trainings.
import { describe, expect, test } from 'vitest';
import { createDetector, Random } from '../../lib/index.js';
import { native } from '../../lib/native.js';
import { sceneBatch, tinyDetector } from '../unit/detector/scenes.js';
import { testDevice } from '../unit/devices.js';

const real = native.cudaReason() === null && !native.setEmulation;
// On an emulated GPU, which takes seconds a step, MIXPL_CURVE_STEPS makes a short one.
const steps = Number(process.env.MIXPL_CURVE_STEPS ?? (real ? 200 : 0));
const windowSteps = 20;
const numBatches = 8;

type Dtype = 'fp32' | 'bf16';

/** Losses of `steps` steps. @param twin seed of a disturbance by 2^-23 of every weight */
async function curve(device: string, dtype: Dtype, { twin = 0 } = {}): Promise<number[]> {
  await using detector = await createDetector(tinyDetector, {
    ...{ device, dtype, seed: 7 },
    optimizer: { type: 'sgd', momentum: 0.9, weightDecay: 1e-4, clipNorm: 10 },
  });
  if (twin) {
    const random = new Random(twin);
    for (const { name, kind } of detector.parameters()) {
      if (kind !== 'weight') continue;
      const values = await detector.readTensor(name);
      await detector.writeTensor(
        name,
        values.map((v) => v * (1 + (2 * random.next() - 1) * 2 ** -23)),
      );
    }
  }
  const scenes = [];
  for (let i = 0; i < numBatches; i++)
    scenes.push(await sceneBatch(2, detector.computeDtype, { seed: 100 + i, device }));
  const losses: number[] = [];
  for (let i = 0; i < steps; i++) {
    const { batch, targets } = scenes[i % numBatches]!;
    const parts = await detector.loss(batch, targets);
    losses.push(Object.values(parts).reduce((sum, v) => sum + v, 0));
    await detector.backward();
    await detector.step({ lr: 0.002 * Math.min(1, (i + 1) / 20) });
  }
  for (const { batch } of scenes) batch.dispose();
  return losses;
}

const mean = (values: readonly number[]) => values.reduce((sum, v) => sum + v) / values.length;

/** Of the means of each window: |a - b| / b. */
function deviations(a: readonly number[], b: readonly number[]): number[] {
  return Array.from({ length: Math.ceil(a.length / windowSteps) }, (_, i) => {
    const part = [i * windowSteps, (i + 1) * windowSteps] as const;
    return Math.abs(mean(a.slice(...part)) / mean(b.slice(...part)) - 1);
  });
}

describe.skipIf(steps === 0)('a training on a GPU', () => {
  const title = `has the CPU's losses for ${steps} steps in %s`;
  test.each<Dtype>(['fp32', 'bf16'])(title, { timeout: 1_800_000 }, async (dtype) => {
    const cpu = await curve('cpu', 'fp32');
    const gpu = await curve(testDevice === 'cpu' ? 'cuda' : testDevice, dtype);
    const first = gpu.slice(0, numBatches).map((loss, i) => Math.abs(loss / cpu[i]! - 1));
    console.log(`the first steps are off by ${first.map((v) => v.toExponential(1)).join(', ')}`);
    expect(Math.max(...first)).toBeLessThan(dtype === 'fp32' ? 1e-4 : 2 ** -8);
    // It was bf16 that ran.
    if (dtype === 'bf16') expect(Math.max(...first)).toBeGreaterThan(1e-5);
    if (steps <= numBatches) return;
    const others = [];
    for (const twin of [1, 2, 3])
      others.push(...deviations(await curve('cpu', 'fp32', { twin }), cpu));
    if (dtype === 'bf16') others.push(...deviations(await curve('cpu', 'bf16'), cpu));
    const found = deviations(gpu, cpu);
    const limit = Math.max(0.05, 3 * Math.max(...others));
    const list = found.map((v) => v.toExponential(1)).join(', ');
    console.log(`means of ${windowSteps} steps are off by ${list}; ${limit.toFixed(3)} is allowed`);
    expect(Math.max(...found)).toBeLessThan(limit);
    // And it learned: a curve that stands still follows any.
    if (steps >= 200)
      expect(mean(gpu.slice(-windowSteps))).toBeLessThan(0.5 * mean(gpu.slice(0, windowSteps)));
  });
});
