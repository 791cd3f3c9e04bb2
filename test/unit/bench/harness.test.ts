import { fileURLToPath } from 'node:url';
import { expect, onTestFinished, test, vi } from 'vitest';
import type { BenchCase, BenchResult, RightResult } from '../../../lib/bench/case.js';
import { measure } from '../../../lib/bench/harness.js';
import { benchCases, chosen, runBench } from '../../../lib/bench/index.js';
import type { Limits } from '../../../lib/bench/limits.js';
import { failuresOf, lineOf } from '../../../lib/bench/report.js';
import { runsFor, sample } from '../../../lib/bench/sample.js';
import { median } from '../../../lib/bench/statistics.js';
import { native } from '../../../lib/native.js';
import { runCli } from '../cli/run-cli.js';

const limits: Limits = {
  ...{ copy: 1e9, gemm: { f32: 1e9, bf16: 1e9 } },
  source: { copy: 'the test', gemm: {} },
};
const context = { device: 'cpu', dtype: 'f32' } as const;
const fakePeer = fileURLToPath(new URL('fake-peer.mjs', import.meta.url));

function right(result: BenchResult): RightResult {
  if (!result.checked) throw new Error(result.error);
  return result;
}

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
        alone: true,
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
  const result = right(await measure(bench, context, { limits, repeats: 2 }));
  expect(calls).toEqual([
    ...['before', 'run', 'check'],
    ...['before', 'run', 'before', 'run', 'before', 'run', 'dispose'],
  ]);
  expect(result).toMatchObject({ name: 'fake', dtype: 'f32', checked: true, flopPerS: null });
  expect(result.medianMs).toBeGreaterThanOrEqual(result.spread[0]);
  expect(result.medianMs).toBeLessThanOrEqual(result.spread[1]);
});

test('a single repeat has no warm-up but the run that is checked', async () => {
  const { bench, calls } = fake();
  await measure(bench, context, { limits, repeats: 1 });
  expect(calls).toEqual(['before', 'run', 'check', 'before', 'run', 'dispose']);
});

test('the slower side says how many samples fit', async () => {
  const seen = async (ms: number) => {
    let count = -1; // its warm-up
    const { bench } = fake({ peer: { op: 'fake' } });
    const run = async () => {
      count++;
      return ms;
    };
    const peer = { name: 'peer', prepare: async () => ({ run }) };
    await measure(bench, context, { limits, peer });
    return count;
  };
  expect(await seen(50)).toBe(10);
  expect(await seen(5000)).toBe(5);
});

test('a wrong result is told and not timed', async () => {
  const { bench, calls } = fake({
    check: async () => {
      throw new Error('y[3]: got 1, want 2');
    },
  });
  const none = { medianMs: null, spread: null, gbPerS: null, flopPerS: null, shareOfLimit: null };
  const result = await measure(bench, context, { limits, repeats: 2 });
  expect(result).toEqual({
    ...{ name: 'fake', shape: '1', dtype: 'f32', checked: false, error: 'y[3]: got 1, want 2' },
    ...none,
  });
  expect(calls).toEqual(['before', 'run', 'check', 'dispose']);
  expect(lineOf(result)).toMatch(/^fake +f32 +FAILED +y\[3\]: got 1, want 2; not timed$/);
  expect(failuresOf([result])).toBe('bench: 1 of 1 results are wrong or missing');
});

test('a case that cannot be prepared is told, too', async () => {
  const { bench } = fake({ prepare: () => Promise.reject(new Error('no memory')) });
  const result = await measure(bench, context, { limits });
  expect(result).toMatchObject({ checked: false, error: 'no memory', medianMs: null });
});

test('a peer that fails leaves our times', async () => {
  const { bench } = fake({ peer: { op: 'fake' } });
  const run = async () => {
    throw new Error('no kernel image');
  };
  const peer = { name: 'peer', prepare: async () => ({ run }) };
  const result = right(await measure(bench, context, { limits, repeats: 3, peer }));
  expect(result.medianMs).toBeGreaterThan(0);
  expect(result.peer).toEqual({
    ...{ name: 'peer', medianMs: null, ratio: null, error: 'no kernel image' },
  });
  expect(lineOf(result)).toContain('torch FAILED: no kernel image');
  expect(failuresOf([result])).toBe('bench: the peer failed at 1');
});

test('a peer without the case is no failure', async () => {
  const { bench } = fake({ peer: { op: 'fake' } });
  const peer = { name: 'peer', prepare: async () => null };
  const result = right(await measure(bench, context, { limits, repeats: 1, peer }));
  expect(result).not.toHaveProperty('peer');
  expect(failuresOf([result])).toBeNull();
});

test('a peer that ends at one case is there for the next, and the exit code says so', async () => {
  const args = ['bench', 'nms', 'relu', 'upsample-add', 'ema'].concat([
    ...['--dtype', 'fp32', '--repeats', '1', '--peer', 'torch', '--json'],
  ]);
  const peer = { ends: ['relu'], fails: ['upsample-add'], lacks: ['nms'] };
  const { code, stdout, stderr } = await runCli(args, {
    env: { BENCH_PYTHON: fakePeer, FAKE_PEER: JSON.stringify(peer) },
  });
  expect(code).toBe(1);
  expect(stderr).toContain('bench: the peer failed at 2');
  const { results } = JSON.parse(stdout) as { results: RightResult[] };
  expect(results.every((r) => r.checked && r.medianMs > 0)).toBe(true);
  const peers = Object.fromEntries(results.map((r) => [r.name, r.peer]));
  expect(peers.relu).toMatchObject({ medianMs: null, error: expect.stringMatching(/memory$/) });
  expect(peers['upsample-add']).toMatchObject({
    ratio: null,
    error: expect.stringMatching(/image$/),
  });
  expect(peers.nms).toBeUndefined();
  expect(peers.ema).toMatchObject({ name: 'torch 0, torchvision 0', medianMs: results[3]!.runs });
});

test.each(['SIGINT', 'SIGTERM'])('%s leaves what was measured', async (signal) => {
  const args = ['bench', 'relu', 'nms', 'ema', '--dtype', 'fp32', '--repeats', '1', '--json'];
  const { code, stdout, stderr } = await runCli([...args, '--peer', 'torch'], {
    env: { BENCH_PYTHON: fakePeer, FAKE_PEER: JSON.stringify({ signals: { nms: signal } }) },
  });
  expect(code).toBe(130);
  expect(stderr).toContain(`stopped by ${signal} after 1 result`);
  const { device, limits, results, interrupted } = JSON.parse(stdout);
  expect(interrupted).toBe(`stopped by ${signal}`);
  expect(device).toBe('cpu');
  expect(limits.copy).toBeGreaterThan(0);
  expect(results).toMatchObject([
    { name: 'relu', checked: true, peer: { ratio: expect.any(Number) } },
  ]);
});

test('stopped before the first result there is none', async () => {
  const { code, stdout } = await runCli(['bench', 'relu', '--peer', 'torch', '--json'], {
    env: { BENCH_PYTHON: fakePeer, FAKE_PEER: JSON.stringify({ signals: { linear: 'SIGINT' } }) },
  });
  expect(code).toBe(130);
  expect(JSON.parse(stdout)).toMatchObject({ error: { code: 'ERR_ABORTED' } });
});

test('short runs are timed together, as many of the peer, long ones alone', async () => {
  const clock = { ms: 0 };
  const watch = vi.spyOn(performance, 'now').mockImplementation(() => clock.ms);
  onTestFinished(() => watch.mockRestore());
  const measured = async (ms: number) => {
    const seen: number[] = [];
    let [now, most] = [0, 0];
    const { bench } = fake({
      peer: { op: 'fake' },
      async prepare() {
        return {
          async run() {
            most = Math.max(most, ++now);
            await new Promise(setImmediate);
            clock.ms += ms;
            now--;
          },
          check: async () => {},
          dispose: () => {},
        };
      },
    });
    const run = async (runs: number) => seen.push(runs);
    const peer = { name: 'peer', prepare: async () => ({ run }) };
    const { runs } = right(await measure(bench, context, { limits, repeats: 2, peer }));
    return { runs, most, seen };
  };
  // None waits for the one before.
  expect(await measured(0.5)).toEqual({ runs: 11, most: 11, seen: [11, 11] });
  expect(await measured(0.05)).toEqual({ runs: 110, most: 32, seen: [110, 110] });
  expect(await measured(3)).toEqual({ runs: 1, most: 1, seen: [1, 1] });
});

test('a run that fails among others is told once all have ended', async () => {
  let ended = 0;
  const run = (i: number) =>
    new Promise<void>((resolve, reject) =>
      setTimeout(() => {
        ended++;
        if (i % 2) reject(new Error(`run ${i}`));
        else resolve();
      }, i),
    );
  let i = 0;
  await expect(sample('cpu', () => run(i++), 8)).rejects.toThrow('run 1');
  expect(ended).toBe(8);
});

test('a sample is made long enough, but of no more than 1000 runs', async () => {
  const runs = async (device: string, ms: number, overhead = 0, looks?: number) => {
    const asked: number[] = [];
    const sampleOf = async (n: number) => {
      asked.push(n);
      return ms + overhead / n;
    };
    const found = await runsFor(device, sampleOf, looks);
    if (looks) expect(asked.length).toBeLessThanOrEqual(1 + looks);
    expect(asked.at(-1)).toBe(found);
    return found;
  };
  expect(await runs('cpu', 1)).toBe(1);
  expect(await runs('cuda:0', 1)).toBe(6);
  expect(await runs('cuda:0', 5)).toBe(1);
  const launch = await runs('cuda:0', 0.01, 0.05); // what is no run does not count as one
  expect(launch * 0.01).toBeGreaterThan(4.9);
  expect(await runs('cuda:0', 0.01, 0.05, 1)).toBe(92); // a look that is not far enough
  expect(await runs('cuda:0', 1e-4)).toBe(1000);
});

test('the share of the limit is that of the tighter one', async () => {
  const share = async (flops: number | undefined) => {
    const { bench } = fake(flops === undefined ? {} : { flops });
    const measured = await measure(bench, context, { limits, repeats: 3 });
    const { shareOfLimit, medianMs } = right(measured);
    return shareOfLimit * medianMs; // the floor in ms
  };
  expect(await share(undefined)).toBeCloseTo(1, 9); // 1 MB at 1 GB/s
  expect(await share(5e6)).toBeCloseTo(5, 9);
  expect(await share(1e5)).toBeCloseTo(1, 9);
  const layers = [
    { bytes: 1e6, flops: 5e6 },
    { bytes: 3e6, flops: 1e6 },
  ];
  const { bench } = fake({ work: () => layers });
  const step = right(await measure(bench, context, { limits, repeats: 3 }));
  expect(step.shareOfLimit * step.medianMs).toBeCloseTo(8, 9); // not max(4, 6)
  expect((step.flopPerS! * step.medianMs) / 1000).toBeCloseTo(6e6, 3);
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
  const results: RightResult[] = [];
  for await (const result of runBench({ names: ['nms', 'relu'], dtypes: ['f32'], repeats: 1 }))
    results.push(right(result));
  expect(results.map((r) => r.name)).toEqual(['nms', 'relu']);
  expect(results.every((r) => r.gbPerS > 0 && r.shareOfLimit > 0)).toBe(true);
  await expect(runBench({ names: ['nmss'] }).next()).rejects.toThrow(
    "bench: there is no case 'nmss'; did you mean 'nms'? (--list shows all)",
  );
});

test('cases come in the order of the names, and each once', async () => {
  const run = runBench({
    names: ['nms', 'conv/fpn.p7', 'conv/fpn.p7/forward', 'relu', 'nms'],
    dtypes: ['f32'],
    repeats: 1,
  });
  const names: string[] = [];
  for await (const { name } of run) names.push(name);
  const passes = (of: string) =>
    ['forward', 'data-gradient', 'weight-gradient'].map((pass) => `${of}/${pass}`);
  expect(names).toEqual(['nms', ...passes('conv/fpn.p7'), 'relu']);
});

test('what is large runs on the CPU only where more than its first word is named', () => {
  const cases = benchCases();
  const names = (...wanted: string[]) => chosen(cases, wanted, true).map(({ name }) => name);
  const large = 'train/dino-swin-l';
  expect(names()).not.toContain(large);
  expect(names('train')).toContain('train/dino');
  expect(names('train')).not.toContain(large);
  expect(names(large)).toEqual([large]);
  expect(names('mixpl/dino-swin-l')).toEqual(['mixpl/dino-swin-l/1+4', 'mixpl/dino-swin-l/4+4']);
  expect(chosen(cases, [], false)).toHaveLength(cases.length);
});

test('nothing stays allocated', async () => {
  const before = native.memoryStats().liveBytes;
  for await (const _ of runBench({ names: ['upsample-add'], dtypes: ['f32'], repeats: 1 }));
  expect(native.memoryStats().liveBytes).toBe(before);
});
