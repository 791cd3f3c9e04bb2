// A whole MixPL run on a GPU: what the CPU computes, the same bits every time, and a checkpoint that the
// CPU goes on from.
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { native, type StepEvent } from '../../../lib/index.js';
import { essence, student, train } from './runs.js';

/**
 * Relative, of losses and gradient norms. f32 in another order is some 1e-6 off after a step; scores of
 * the teacher then choose the same pseudo labels, and every further step multiplies the difference.
 */
const tolerance = 2e-3;

function expectNear(got: readonly StepEvent[], want: readonly StepEvent[]): void {
  expect(got.map((s) => s.iteration)).toEqual(want.map((s) => s.iteration));
  want.forEach((step, i) => {
    expect(got[i]!.pseudo?.boxes, `pseudo labels of step ${i}`).toBe(step.pseudo?.boxes);
    expect(got[i]!.silenced).toEqual(step.silenced);
    for (const [name, value] of Object.entries({ ...step.losses, norm: step.gradNorm }))
      expect(
        Math.abs({ ...got[i]!.losses, norm: got[i]!.gradNorm }[name]! - value),
        `step ${i}: ${name}`,
      ).toBeLessThanOrEqual(tolerance * Math.abs(value) + 1e-6);
  });
}

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-cuda-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe.skipIf(native.cudaReason() !== null)('a MixPL run on a GPU', () => {
  // DINO's n-th query has the n-th best token: where two change places the devices' runs part.
  const parting = ['dino'];
  test.each(['retinanet', 'faster-rcnn', 'dino'])(
    '%s: follows the CPU, repeats itself, goes on from its checkpoint on either device',
    async (type) => {
      const whole = async (device: string) => {
        await using detector = await student(type, device);
        return (await train(detector)).steps;
      };
      const [cpu, gpu] = [await whole('cpu'), await whole('cuda')];
      expect(cpu.some((step) => step.pseudo!.boxes > 0)).toBe(true);
      expect(Object.keys(cpu.at(-1)!.losses).some((name) => name.startsWith('mosaic_'))).toBe(true);
      if (!parting.includes(type)) expectNear(gpu, cpu);

      const stopped = join(folder, 'cuda');
      const controller = new AbortController();
      await using first = await student(type, 'cuda');
      const began = await train(first, { out: stopped, signal: controller.signal }, (step) => {
        if (step.iteration === 3) controller.abort();
      });
      expect(essence(began.steps)).toEqual(essence(gpu.slice(0, 3)));
      await cp(stopped, join(folder, 'cpu'), { recursive: true });
      for (const device of ['cuda', 'cpu']) {
        await using second = await student(type, device);
        const rest = await train(second, { out: join(folder, device), resume: true });
        expect(rest.events[0]).toMatchObject({ type: 'resumed', iteration: 3 });
        if (device === 'cuda') expect(essence(rest.steps)).toEqual(essence(gpu.slice(3)));
        else if (!parting.includes(type)) expectNear(rest.steps, gpu.slice(3));
      }
    },
    600_000,
  );
});
