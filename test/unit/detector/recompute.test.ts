import { describe, expect, test } from 'vitest';
import { createDetector, type DetectorOptions, type ResNetOptions } from '../../../lib/index.js';
import { native } from '../../../lib/native.js';
import { onDevice, testDevices } from '../ops/test-op.js';
import { sceneBatch, tinyDetector } from './scenes.js';

type Norm = NonNullable<ResNetOptions['norm']>;

interface Setting {
  norm: Norm;
  recompute: boolean;
  frozenStages?: number;
  dtype?: 'fp32' | 'bf16';
  device: string;
  /** Of the pictures. */
  size?: { width: number; height: number };
}

/** Two passes that add up: losses, all gradients and running statistics, and the memory they took. */
async function passes(setting: Setting) {
  const { norm, recompute, frozenStages = -1, dtype = 'fp32', device, size } = setting;
  const options = {
    ...tinyDetector,
    backbone: { ...tinyDetector.backbone, norm, frozenStages, recompute },
  } as DetectorOptions;
  await using detector = await createDetector(options, { seed: 4, dtype, device });
  const { batch, targets } = await sceneBatch(size ? 1 : 2, detector.computeDtype, {
    device,
    ...size,
  });
  const losses: Record<string, number>[] = [];
  const before = native.memoryStats(device).liveBytes;
  native.resetPeakMemory(device);
  for (let pass = 0; pass < 2; pass++) {
    losses.push(await detector.loss(batch, targets));
    await detector.backward();
  }
  const memory = native.memoryStats(device).peakLiveBytes - before;
  batch.dispose();
  const numbers = new Map<string, Float32Array | null>();
  for (const { name, kind } of detector.parameters())
    numbers.set(
      name,
      await (kind === 'buffer' ? detector.readTensor(name) : detector.gradient(name)),
    );
  return { losses, numbers, memory };
}

describe('a backbone that computes its activations again', () => {
  for (const device of testDevices) {
    const cases: Omit<Setting, 'recompute' | 'device'>[] = [
      { norm: 'gn' },
      { norm: 'gn', dtype: 'bf16' },
      { norm: 'frozen-bn', frozenStages: 1 },
      { norm: 'bn-eval' },
      { norm: 'bn' },
    ];
    for (const setting of cases)
      test(`gives the same bits: ${JSON.stringify(setting)}${onDevice(device)}`, async () => {
        const plain = await passes({ ...setting, device, recompute: false });
        const again = await passes({ ...setting, device, recompute: true });
        expect(again.losses).toEqual(plain.losses);
        expect(again.numbers).toEqual(plain.numbers);
        expect([...plain.numbers.values()].some((v) => v?.some((x) => x !== 0))).toBe(true);
      });

    // The larger the pictures, the more: gradients of weights stay what they are, and so does what a GPU's
    // matrix products put their partial sums into, some megabytes.
    test(`takes less memory${onDevice(device)}`, async () => {
      const size = { width: 640, height: 512 };
      const plain = await passes({ norm: 'gn', device, size, recompute: false });
      const again = await passes({ norm: 'gn', device, size, recompute: true });
      expect(again.memory).toBeLessThan(0.7 * plain.memory);
    });
  }
});
