import { mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { demoMethods, runDemo } from '../../../lib/demo/run-demo.js';

let out: string;
beforeEach(async () => {
  out = await mkdtemp(join(tmpdir(), 'mixpl-demo-'));
});
afterEach(() => rm(out, { recursive: true }));

test('three methods and two pictures; once more, it shows what it had found', async () => {
  const phases = new Map<string, Set<string>>();
  const first = await runDemo({
    out,
    iterations: 16,
    onEvent(method, event) {
      if (event.type !== 'step') return;
      const seen = phases.get(method) ?? new Set();
      phases.set(method, seen.add(event.phase));
    },
  });
  expect([...phases.keys()]).toEqual([...demoMethods]);
  expect([...phases.get('mixpl')!]).toEqual(['burn-in', 'semi-supervised']);
  for (const method of demoMethods) expect(first.metrics[method].stats).toHaveLength(12);
  for (const picture of first.pictures) expect((await stat(picture)).size).toBeGreaterThan(1000);

  let steps = 0;
  const again = await runDemo({
    out,
    iterations: 16,
    onEvent: (_, event) => {
      steps += Number(event.type === 'step');
    },
  });
  expect(steps).toBe(0);
  expect(again.metrics).toEqual(first.metrics);
}, 300_000);
