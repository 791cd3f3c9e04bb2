import { expect, test } from 'vitest';
import { createDetector, type DetectorOptions, native } from '../../../lib/index.js';
import { sceneBatch } from '../detector/scenes.js';
import { faster, roi } from '../detector/two-stage-options.js';

// On a GPU lists of regions have empty places, which are no part of a batch. Weights that differ by 1e-6 move
// losses by 1e-7, statistics by 2e-6 and these gradients, where a ReLU switches, by up to 8e-3 of their norm;
// empty places that count move them by 2e-5, 1e-2 and 0.03 to 0.1.
test.skipIf(native.cudaReason() !== null)(
  'a box head normalises by its regions, as on the CPU',
  async () => {
    const options = { ...faster, roi: { ...roi, convs: 2, convChannels: 32, norm: 'bn' } };
    const results = [];
    for (const device of ['cpu', 'cuda']) {
      await using detector = await createDetector(options as DetectorOptions, {
        ...{ dtype: 'fp32', seed: 3, device },
      });
      const { batch, targets } = await sceneBatch(2, 'f32');
      const losses = await detector.loss(batch, targets);
      await detector.backward();
      batch.dispose();
      const numbers = new Map<string, Float32Array>();
      for (const { name, kind } of detector.parameters())
        if (name.includes('shared_convs'))
          numbers.set(
            name,
            (await (kind === 'buffer' ? detector.readTensor(name) : detector.gradient(name)))!,
          );
      results.push({ losses, numbers });
    }
    const [want, got] = results as [(typeof results)[0], (typeof results)[0]];
    for (const [key, value] of Object.entries(want.losses))
      expect(Math.abs(got.losses[key]! / value - 1), key).toBeLessThan(1e-5);
    for (const [key, values] of want.numbers) {
      const norm = Math.hypot(...values);
      const distance = Math.hypot(...values.map((v, i) => v - got.numbers.get(key)![i]!));
      expect(norm, key).toBeGreaterThan(0);
      expect(distance / norm, key).toBeLessThan(key.includes('running') ? 1e-5 : 2e-2);
    }
  },
);
