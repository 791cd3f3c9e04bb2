import { expect, test } from 'vitest';
import type { BenchCase } from '../../../lib/bench/case.js';
import { measure, median } from '../../../lib/bench/harness.js';
import { benchCases, runBench } from '../../../lib/bench/index.js';
import { native } from '../../../lib/native.js';

const limits = { copy: 1e9, gemm: { f32: 1e9, bf16: 1e9 } };
const context = { device: 'cpu', dtype: 'f32' } as const;

function fake(parts: Partial<BenchCase> & { check?: () => Promise<void> } = {}) {
  const calls: string[] = [];
  const { check = async () => {}, ...rest } = parts;
  const bench: BenchCase = {
    name: 'fake',
    shape: '1',
    dtypes: ['f32'],
    bytes: () => 1e6,
    async prepare() {
      return {
        before: async () => void calls.push('before'),
        run: async () => void calls.push('run'),
        check: async () => {
          calls.push('check');
          await check();
        },
        dispose: () => void calls.push('dispose'),
      };
    },
    ...rest,
  };
  return { bench, calls };
}

test('a result is checked once, before anything is timed', async () => {
  const { bench, calls } = fake();
  const result = await measure(bench, context, { limits, repeats: 2 });
  expect(calls).toEqual([
    ...['before', 'run', 'check'],
    ...['before', 'run', 'before', 'run', 'before', 'run', 'dispose'],
  ]);
  expect(result).toMatchObject({ name: 'fake', dtype: 'f32', checked: true, flopPerS: null });
  expect(result.medianMs).toBeGreaterThanOrEqual(result.spread[0]);
  expect(result.medianMs).toBeLessThanOrEqual(result.spread[1]);
});

test('a wrong result is an error and nothing is timed', async () => {
  const { bench, calls } = fake({
    check: async () => {
      throw new Error('y[3]: got 1, want 2');
    },
  });
  await expect(measure(bench, context, { limits, repeats: 2 })).rejects.toMatchObject({
    code: 'ERR_STATE',
    message: 'bench: fake, f32: y[3]: got 1, want 2',
  });
  expect(calls).toEqual(['before', 'run', 'check', 'dispose']);
});

test('the share of the limit is that of the tighter one', async () => {
  const share = async (flops: number | undefined) => {
    const { bench } = fake(flops === undefined ? {} : { flops });
    const { shareOfLimit, medianMs } = await measure(bench, context, { limits, repeats: 3 });
    return shareOfLimit * medianMs; // the floor in ms
  };
  expect(await share(undefined)).toBeCloseTo(1, 9); // 1 MB at 1 GB/s
  expect(await share(5e6)).toBeCloseTo(5, 9);
  expect(await share(1e5)).toBeCloseTo(1, 9);
});

test('the signal ends a run', async () => {
  const { bench, calls } = fake();
  const signal = AbortSignal.abort();
  await expect(measure(bench, context, { limits, signal })).rejects.toBe(signal.reason);
  expect(calls).toEqual(['dispose']);
});

test('a median of an even count is between the two in the middle', () => {
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(median([3, 1, 2])).toBe(2);
});

test('names are unique, and every case says what it moves', () => {
  const cases = benchCases();
  expect(new Set(cases.map((c) => c.name)).size).toBe(cases.length);
  for (const { name, bytes, flops, dtypes } of cases) {
    for (const dtype of dtypes) expect(bytes(dtype), name).toBeGreaterThan(0);
    if (flops !== undefined) expect(flops, name).toBeGreaterThan(0);
  }
});

test('cases are run by name, and a name that none has gets a hint', async () => {
  const results = [];
  for await (const result of runBench({ names: ['nms', 'relu'], dtypes: ['f32'], repeats: 1 }))
    results.push(result);
  expect(results.map((r) => r.name)).toEqual(['relu', 'nms']);
  expect(results.every((r) => r.checked && r.gbPerS > 0 && r.shareOfLimit > 0)).toBe(true);
  await expect(runBench({ names: ['nmss'] }).next()).rejects.toThrow(
    "bench: there is no case 'nmss'; did you mean 'nms'? (--list shows all)",
  );
});

test('nothing stays allocated', async () => {
  const before = native.memoryStats().liveBytes;
  for await (const _ of runBench({ names: ['upsample-add'], dtypes: ['f32'], repeats: 1 }));
  expect(native.memoryStats().liveBytes).toBe(before);
});
