// A training on a GPU beside the same one on the CPU, in exact f32: same weights, same pictures. Both add in
// other orders, and training amplifies the last digits: trainings on the CPU whose weights differ by 2^-23 agree
// to 1e-6 for some ten to thirty steps, and by step 60 single losses differ by some percent. So
//   the first pass over the pictures must agree to 1e-4, which holds the gradients and the update in it;
//   after that, means of 20 steps may be off by 5%, or three times as far as those other trainings are.
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

/** Losses of `steps` steps. @param disturbance relative, of every weight, by the seed `twin` */
async function curve(device: string, { twin = 0 } = {}): Promise<number[]> {
  await using detector = await createDetector(tinyDetector, {
    ...{ device, dtype: 'fp32', seed: 7 },
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
    scenes.push(await sceneBatch(2, 'f32', { seed: 100 + i, device }));
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
  test(`has the CPU's losses for ${steps} steps`, { timeout: 1_800_000 }, async () => {
    const cpu = await curve('cpu');
    const gpu = await curve(testDevice === 'cpu' ? 'cuda' : testDevice);
    const first = gpu.slice(0, numBatches).map((loss, i) => Math.abs(loss / cpu[i]! - 1));
    console.log(`the first steps are off by ${first.map((v) => v.toExponential(1)).join(', ')}`);
    expect(Math.max(...first)).toBeLessThan(1e-4);
    if (steps <= numBatches) return;
    const twins = [];
    for (const twin of [1, 2, 3]) twins.push(...deviations(await curve('cpu', { twin }), cpu));
    const found = deviations(gpu, cpu);
    console.log(
      `means of ${windowSteps} steps are off by ${found.map((v) => v.toExponential(1)).join(', ')}`,
    );
    expect(Math.max(...found)).toBeLessThan(Math.max(0.05, 3 * Math.max(...twins)));
    // And it learned: a curve that stands still follows any.
    if (steps >= 200)
      expect(mean(gpu.slice(-windowSteps))).toBeLessThan(0.5 * mean(gpu.slice(0, windowSteps)));
  });
});
