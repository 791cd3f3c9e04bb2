import { expect } from 'vitest';
import type { Detector } from '../../../lib/index.js';
import { sceneBatch } from './scenes.js';

/** Along the gradient of each parameter the losses' sum rises by the gradient's norm. */
export async function expectSlopes(detector: Detector, names: readonly string[]): Promise<void> {
  const { batch, targets } = await sceneBatch(2, 'f32');
  const total = async () =>
    Object.values(await detector.loss(batch, targets)).reduce((a, b) => a + b, 0);
  for (const name of names) {
    await detector.zeroGradients();
    await total();
    await detector.backward();
    const gradient = (await detector.gradient(name))!;
    const norm = Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0));
    expect(norm, name).toBeGreaterThan(0);
    const values = await detector.readTensor(name);
    const step = 2e-3 / norm;
    const shifted = async (sign: number) => {
      await detector.writeTensor(
        name,
        values.map((v, i) => v + sign * step * gradient[i]!),
      );
      return total();
    };
    const slope = ((await shifted(1)) - (await shifted(-1))) / (2 * step * norm);
    await detector.writeTensor(name, values);
    expect(slope / norm, name).toBeGreaterThan(0.97);
    expect(slope / norm, name).toBeLessThan(1.03);
  }
  batch.dispose();
}
