import { execFile } from 'node:child_process';
import { copyFile, mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { temporaryFolder } from './temporary-folder.js';

const run = promisify(execFile);
const entry = new URL('../../dist/index.js', import.meta.url);
const folder = await temporaryFolder();
// A program of its own: what goes wrong here ends the process.
const program = join(folder, 'program.mjs');
await writeFile(
  program,
  `
import { Worker, isMainThread, workerData } from 'node:worker_threads';
const load = () => import('${entry}');
const options = {
  type: 'retinanet',
  numClasses: 2,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 32 },
  neck: { channels: 32 },
  head: { channels: 32, stackedConvs: 1 },
  device: 'cpu',
};
const image = { data: new Uint8Array(96 * 128 * 3).fill(99), height: 96, width: 128, resized: true };
const worker = (data) =>
  new Promise((done) => new Worker(new URL(import.meta.url), { workerData: data }).on('exit', done));
const programs = {
  async exits() {
    const codes = [];
    for (let i = 0; i < 6; i++) codes.push(await worker('exit'));
    console.log(...codes, await worker('end'));
  },
  async repeats() {
    await worker('end');
    const before = process.memoryUsage.rss();
    for (let i = 0; i < 5; i++) await worker('end');
    console.log((process.memoryUsage.rss() - before) / 2 ** 20);
  },
  async ends() {
    const { native } = await load();
    for (let i = 0; i < 6; i++) await worker('making');
    console.log(native.memoryStats().liveBytes / 2 ** 20);
  },
  async forgets() {
    const { createDetector } = await load();
    const before = process.memoryUsage.rss();
    for (let i = 0; i < 40; i++) await createDetector({ ...options, seed: i });
    console.log((process.memoryUsage.rss() - before) / 2 ** 20);
  },
};
if (isMainThread) await programs[process.argv[2]]();
else {
  const { createDetector } = await load();
  if (workerData === 'making') {
    for (let i = 0; i < 3; i++) void createDetector(options);
    setTimeout(() => process.exit(0), 5);
    await new Promise(() => {});
  }
  const detector = await createDetector(options);
  await detector.predict([image]);
  if (workerData === 'exit') {
    for (let i = 0; i < 20; i++) void detector.predict([image]);
    process.exit(7);
  } else detector.dispose();
}
`,
);
const outputOf = async (what: string) =>
  (await run(process.execPath, [program, what], { timeout: 50_000 })).stdout.trim();

describe('workers', () => {
  test('may call process.exit() while their detectors work', async () => {
    expect(await outputOf('exits')).toBe('7 7 7 7 7 7 0');
  });

  test('leave nothing behind, also where the main thread has no detector', async () => {
    expect(Number(await outputOf('repeats'))).toBeLessThan(50);
  });

  // A detector's weights are 11 MB.
  test('leave nothing of calls that they do not see the end of', async () => {
    expect(Number(await outputOf('ends'))).toBeLessThan(5);
  });
});

// The weights of 40 are 440 MB.
test('detectors that nobody disposed of are collected', async () => {
  expect(Number(await outputOf('forgets'))).toBeLessThan(250);
});

test('an addon that cannot be loaded is told on first use, not by the import', async () => {
  const asks = `
const { native } = await import('${entry}');
try {
  native.buildInfo();
} catch ({ code }) {
  console.log(code);
}`;
  const { stdout } = await run(process.execPath, ['--input-type=module', '--eval', asks], {
    env: { ...process.env, MIXPL_ADDON: '/nowhere/mixpl.node' },
  });
  expect(stdout.trim()).toBe('ERR_ADDON');
});

// Node refuses it where a module awaits at its top level.
test('CommonJS can require the package', async () => {
  const asks = `console.log(typeof require('${fileURLToPath(entry)}').openDetector)`;
  expect((await run(process.execPath, ['--eval', asks])).stdout.trim()).toBe('function');
});

test('code that a bundler has taken from the package says what to do', async () => {
  const bundle = join(folder, 'application', 'dist');
  await mkdir(bundle, { recursive: true });
  for (const name of ['addon-file.js', 'errors.js'])
    await copyFile(new URL(name, entry), join(bundle, name));
  await writeFile(
    join(bundle, '..', 'package.json'),
    '{ "name": "application", "type": "module" }',
  );
  const { requireAddon } = await import(join(bundle, 'addon-file.js'));
  expect(requireAddon).toThrow(
    expect.objectContaining({
      code: 'ERR_ADDON',
      message: expect.stringMatching(
        /got its code bundled into .*application; try to mark it as external/,
      ),
    }),
  );
});
