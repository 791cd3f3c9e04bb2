// A MixPL run on a GPU once it is warm: nothing allocated, one wait per part and one more per iteration.
import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/index.js';
import { settings, student, train } from './runs.js';

describe.skipIf(native.cudaReason() !== null)('a MixPL run on a GPU', () => {
  test.each([
    ['retinanet', 1],
    ['faster-rcnn', 1],
    ['dino', 1],
    ['retinanet', 3],
    ['faster-rcnn', 2],
  ])(
    '%s, %i parts: allocates nothing once it is warm, and is waited for once a part and for the update',
    async (type, accumulate) => {
      await using detector = await student(type, 'cuda');
      const counts: { allocations: number; waits: number }[] = [];
      let before = native.memoryStats('cuda');
      const schedule = { ...settings.schedule, iterations: 16 };
      const batch = { ...settings.batch, accumulate };
      const { steps } = await train(
        detector,
        { settings: { ...settings, schedule, batch } },
        () => {
          const now = native.memoryStats('cuda');
          counts.push({
            allocations: now.systemAllocations - before.systemAllocations,
            waits: now.synchronisations - before.synchronisations,
          });
          before = now;
        },
      );
      expect(steps.slice(-4).map((step) => step.silenced)).toEqual(Array(4).fill({}));
      // The teacher's boxes of each part; the losses of all branches with the norm of the gradient.
      expect(counts.slice(-4)).toEqual(Array(4).fill({ allocations: 0, waits: accumulate + 1 }));
    },
    600_000,
  );
});
