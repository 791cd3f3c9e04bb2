// Trainings of several processes by the command line, with sums by Gloo.
import { spawn } from 'node:child_process';
import { cp, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeDemoData } from '../../../lib/demo/demo-data.js';
import { native } from '../../../lib/index.js';
import { readSafetensors } from '../../../lib/safetensors.js';
import { freeAddress } from '../processes/groups.js';
import { cliPath, runCli } from './run-cli.js';

// Set where the suites run on an (emulated) GPU: all processes then take the same one.
const device = process.env.MIXPL_TEST_DEVICE === 'cuda' ? 'cuda:0' : 'cpu';
let folder: string;
let config: string;
const at = (name: string) => join(folder, name);

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-processes-'));
  const { images, labelled, unlabelled, test } = await makeDemoData(at('data'), {
    ...{ labelled: 6, unlabelled: 8, test: 5, width: 64, height: 48, seed: 3 },
  });
  config = at('tiny.yaml');
  // A rate at which pseudo labels do not depend on rounding.
  await writeFile(
    config,
    `
name: tiny
device: ${device}
dtype: fp32
threads: 1
data:
  labelled: { format: coco, annotations: ${labelled}, images: ${images} }
  unlabelled: { format: coco, annotations: ${unlabelled}, images: ${images} }
  test: { format: coco, annotations: ${test}, images: ${images} }
model:
  backbone: { depth: 18, style: pytorch, frozenStages: -1, norm: gn, baseWidth: 4 }
  neck: { channels: 8, numOutputs: 3 }
  head: { channels: 8, stackedConvs: 1, norm: gn }
  anchors: { strides: [8, 16, 32] }
  test: { scoreThr: 0.001 }
augment:
  labelled: { resize: { long: 64, short: [40, 48] } }
  weak: { resize: { long: 64, short: [40, 48] } }
  strong: { resize: { long: 64, short: [40, 48] } }
  test: { long: 64, short: 48 }
semi: { mosaicShape: [[24, 32], [48, 64]], burnIn: 1, scoreThr: 0.005, emptyImageRule: per-image }
optimizer: { type: sgd, lr: 1.0e-3 }
batch: { labelled: 2, unlabelled: 2, accumulate: 2 }
schedule: { iterations: 3, warmup: { iterations: 0 } }
validation: { interval: 0 }
checkpoint: { interval: 2, keep: 3 }
logging: { interval: 1 }
`,
  );
});
afterAll(() => rm(folder, { recursive: true }));

const train = (out: string, ...args: string[]) =>
  runCli(['train', config, '--out', at(out), ...args]);

interface Line extends Record<string, unknown> {
  type: string;
  iteration: number;
  losses: Record<string, number>;
  gradNorm: number;
}
const lines = async (out: string): Promise<Line[]> =>
  (await readFile(join(at(out), 'metrics.jsonl'), 'utf8'))
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Line);
const steps = async (out: string) => (await lines(out)).filter(({ type }) => type === 'step');

async function weights(out: string, iteration: number, branch: string) {
  const path = join(at(out), 'checkpoints', `iteration-${String(iteration).padStart(6, '0')}`);
  return (await readSafetensors(join(path, `${branch}.safetensors`))).tensors;
}

describe('two processes', () => {
  test('train as one does, but for rounding', async () => {
    const one = await train('one');
    expect(one.stderr).not.toContain('error');
    const two = await train('two', '--processes', '2', '--json');
    expect(two.stderr).not.toContain('error');
    expect(two.code).toBe(0);
    // One process speaks.
    expect(JSON.parse(two.stdout)).toMatchObject({ reason: 'finished', iteration: 3 });
    expect(two.stderr.match(/labelled, 8 unlabelled/g)).toHaveLength(1);
    const [alone, together] = [await steps('one'), await steps('two')];
    expect(together.map(({ iteration }) => iteration)).toEqual([1, 2, 3]);
    for (const [i, { losses, gradNorm, pseudo }] of alone.entries()) {
      const step = together[i]!;
      const { meanScore, ...counts } = (pseudo ?? {}) as { meanScore?: number };
      expect(step.pseudo ?? {}).toMatchObject(counts);
      if (meanScore) expect(step.pseudo).toMatchObject({ meanScore: expect.closeTo(meanScore, 5) });
      expect(Math.abs(step.gradNorm / gradNorm - 1)).toBeLessThan(1e-3);
      for (const [name, value] of Object.entries(losses))
        expect(step.losses[name]).toBeCloseTo(value, 4);
    }
    for (const branch of ['student', 'teacher']) {
      const [a, b] = [await weights('one', 3, branch), await weights('two', 3, branch)];
      for (const [name, { data }] of a) {
        if (name.startsWith('optimizer.')) continue;
        const largest = Math.max(...data.map(Math.abs), 1e-3);
        const far = data.reduce(
          (d, value, i) => Math.max(d, Math.abs(value - b.get(name)!.data[i]!)),
          0,
        );
        expect(far / largest, `${branch} ${name}`).toBeLessThan(2e-4);
      }
    }
    const caches = async (out: string) =>
      JSON.parse(
        await readFile(join(at(out), 'checkpoints', 'iteration-000003', 'state.json'), 'utf8'),
      ).caches.map((cache: { image: number }[]) => cache.map(({ image }) => image));
    expect(await caches('two')).toEqual(await caches('one'));
  });

  test('give the same bits again, and when they go on from a checkpoint', async () => {
    await cp(at('two'), at('again'), { recursive: true });
    await rm(join(at('again'), 'checkpoints', 'iteration-000003'), { recursive: true });
    const { code, stderr } = await train('again', '--processes', '2', '--resume');
    expect(stderr).toContain('resumed from');
    expect(code).toBe(0);
    for (const branch of ['student', 'teacher']) {
      const [a, b] = [await weights('two', 3, branch), await weights('again', 3, branch)];
      for (const [name, { data }] of a) expect(b.get(name)!.data, name).toEqual(data);
    }
  });

  test('that are started by hand, with an address and a secret', async () => {
    const env = { MIXPL_SECRET: 'known to both of them' };
    const address = await freeAddress();
    const by = (rank: number) => [
      ...['train', config, '--out', at('by-hand'), '--processes', '2'],
      ...['--rank', String(rank), '--address', address],
    ];
    const [first, second] = await Promise.all([0, 1].map((rank) => runCli(by(rank), { env })));
    expect([first!.code, second!.code]).toEqual([0, 0]);
    expect(second!.stdout + second!.stderr).toBe('');
    const losses = async (out: string) => (await steps(out)).map((step) => step.losses);
    expect(await losses('by-hand')).toEqual(await losses('two'));
    const alone = await runCli(by(1));
    expect(alone.stderr).toContain('secret must have at least 8 characters');
    expect(alone.code).toBe(2);
  });
});

// Nothing of it depends on the device.
describe.skipIf(device !== 'cpu')('an end before the end', () => {
  const long = ['--processes', '2', '--set', 'schedule.iterations=100000'];

  /** The command line, and what it has said so far. */
  function start(out: string, onText: (text: string, pid: number) => void) {
    const child = spawn(process.execPath, [cliPath, 'train', config, '--out', at(out), ...long], {
      env: { ...process.env, NO_COLOR: '1' },
    });
    let text = '';
    child.stderr.setEncoding('utf8').on('data', (more: string) => {
      text += more;
      onText(text, child.pid!);
    });
    return new Promise<{ code: number | null; text: string }>((resolve) => {
      child.on('close', (code) => resolve({ code, text }));
    });
  }

  /** Processes that somebody is the parent of. */
  async function childrenOf(pid: number): Promise<number[]> {
    const tasks = await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8');
    return tasks.trim().split(' ').filter(Boolean).map(Number);
  }

  test('Ctrl-C at the first: all finish the step, and there is a checkpoint', async () => {
    let done = false;
    const { code, text } = await start('stopped', (said, pid) => {
      if (done || !/tiny \d+\/100000/.test(said)) return;
      done = true;
      process.kill(pid, 'SIGINT');
    });
    expect(text).toContain('stopping after this step');
    expect(text).toMatch(/checkpoint: .*iteration-/);
    expect(code).toBe(130);
  });

  test('a copy that is killed: the first says so, and what was saved is there', async () => {
    let killed = false;
    let copies: number[] = [];
    const { code, text } = await start('killed', async (said, pid) => {
      if (killed || !said.includes('iteration-000002')) return;
      killed = true;
      copies = await childrenOf(pid);
      for (const copy of copies) process.kill(copy, 'SIGKILL');
    });
    expect(copies).toHaveLength(1);
    expect(text).toContain(
      'error: process 1 of 2 ended the training: its connection ended: was it killed?',
    );
    expect(code).toBe(1);
    expect(await readdir(join(at('killed'), 'checkpoints'))).not.toHaveLength(0);
  });

  test('the first is killed: the copy ends, too', async () => {
    let copies: number[] | null = null;
    const { text } = await start('first-killed', async (said, pid) => {
      if (copies || !said.includes('iteration-000002')) return;
      copies = [];
      copies = await childrenOf(pid);
      process.kill(pid, 'SIGKILL');
    });
    expect(copies).toHaveLength(1);
    // Ended, but perhaps not waited for by anybody.
    const state = () =>
      readFile(`/proc/${copies![0]}/stat`, 'utf8').then(
        (stat) => stat.split(' ')[2],
        () => 'gone',
      );
    await expect.poll(state, { timeout: 5000 }).toMatch(/gone|Z/);
    expect(text).not.toContain('error');
  });

  test('a picture that the copy alone cannot read', async () => {
    const broken = at('broken');
    await cp(at('data'), broken, { recursive: true });
    const { images } = JSON.parse(await readFile(join(broken, 'test.json'), 'utf8'));
    const pictures = join(broken, 'images');
    // The second picture is the second process's.
    await truncate(join(pictures, images[1].file_name), 100);
    const { code, stderr } = await runCli([
      ...['train', config, '--out', at('broken-run'), '--processes', '2'],
      ...['--set', `data.test.images=${pictures}`],
    ]);
    expect(stderr).toMatch(/error: process 1 of 2 ended the training: .*must be a readable image/);
    expect(code).toBe(1);
  });
});

test.each<[string, string[], RegExp, number]>([
  ['three for two parts', ['--processes', '3'], /must be a multiple of 3 .*got 2/, 2],
  ['none', ['--processes', '0'], /must be a whole number/, 2],
  [
    'a rank without an address',
    ['--processes', '2', '--rank', '1'],
    /address must be host:port/,
    2,
  ],
])('%s', async (_, args, message, expected) => {
  const { code, stderr } = await train('refused', ...args);
  expect(stderr).toMatch(message);
  expect(stderr).not.toMatch(/\n\s+at /);
  expect(code).toBe(expected);
});

test.skipIf(device === 'cpu')('more processes than GPUs', async () => {
  const gpus = native.devices().filter(({ id, usable }) => id !== 'cpu' && usable).length;
  const count = 2 ** Math.ceil(Math.log2(gpus + 1));
  const args = ['--processes', String(count), '--set', 'device=cuda'];
  const { code, stderr } = await train('refused', ...args, '--set', `batch.accumulate=${count}`);
  expect(stderr).toMatch(new RegExp(`processes must be at most .*\\(${gpus}\\).*got ${count}`));
  expect(code).toBe(2);
});
