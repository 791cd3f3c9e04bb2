// Runs the tests on a real GPU: `npm run test:gpu`, or without npm
// `node scripts/test-gpu.mjs [--parts=LIST] [vitest's arguments]`. Needs a build with CUDA and a GPU; says
// what is missing and fails without. LIST names some of
//   vitest     suites that compute on a device, and a training beside the CPU's
//   native     the native tests (`scripts/test-native.sh --cuda` builds them)
//   memcheck, racecheck   those of kernels again under compute-sanitizer, where it is found
// Leaves bench/results/<device>-tests.json; what an earlier run of the same addon left of other parts stays.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism, tmpdir } from 'node:os';
import { delimiter, join, relative, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
process.chdir(root);
const suites = [
  'ops',
  'detect',
  'image',
  'optim',
  'kernels',
  'detector',
  'cuda',
  'devices.test.ts',
];
const device = process.env.MIXPL_DEVICE ?? 'cuda';
// Of detectors, whose device is 'auto'; of ops.
const environment = { MIXPL_DEVICE: device, MIXPL_TEST_DEVICE: device };
const nativeTests = 'build/mixpl_tests';
const runners = { vitest: runVitest, native: runNative, memcheck: sanitize, racecheck: sanitize };
const arguments_ = process.argv.slice(2);
const parts = (
  /^--parts=(.*)$/.exec(arguments_[0] ?? '')?.[1] ?? Object.keys(runners).join()
).split(',');
if (arguments_[0]?.startsWith('--parts=')) arguments_.shift();
const unknown = parts.filter((part) => !(part in runners));
if (unknown.length)
  end(`--parts: unknown ${unknown.join(', ')}; there are ${Object.keys(runners).join(', ')}`);

const { gpu, addon } = findGpu();
const folder = mkdtempSync(join(tmpdir(), 'mixpl-test-gpu-'));
const name = gpu.name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');
const path = `bench/results/${name}-tests.json`;
const before = existsSync(path) ? JSON.parse(readFileSync(path, 'utf8')) : {};
const result = {
  device: gpu,
  node: process.version,
  addon,
  parts: before.addon === addon ? before.parts : {},
};
for (const part of parts) {
  const began = performance.now();
  const found = await runners[part](part);
  result.parts[part] = { seconds: Math.round((performance.now() - began) / 1000), ...found };
  if (found.skipped && found.reason) console.log(`${part}: skipped, ${found.reason}`);
  // After each: a machine may be taken away at any time.
  mkdirSync('bench/results', { recursive: true });
  writeFileSync(path, `${JSON.stringify(result, null, 1)}\n`);
}
rmSync(folder, { recursive: true });
const sum = (key) => parts.reduce((total, part) => total + (result.parts[part][key] ?? 0), 0);
console.log(
  `${gpu.name}: ${sum('passed')} passed, ${sum('failed')} failed, ${sum('skipped')} skipped, ${path}`,
);
process.exit(sum('failed') > 0 ? 1 : 0);

function runVitest() {
  const report = join(folder, 'vitest.json');
  const chosen = arguments_.length
    ? arguments_
    : ['test/gpu', ...suites.map((name) => `test/unit/${name}`)];
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const { status } = spawnSync(
    process.execPath,
    ['node_modules/vitest/vitest.mjs', 'run', ...reporters, ...chosen],
    { stdio: 'inherit', env: { ...process.env, ...environment } },
  );
  return counted(report, status, vitestCounts);
}

function runNative() {
  if (!existsSync(nativeTests)) return { skipped: 1, reason: `there is no ${nativeTests}` };
  const report = join(folder, 'native.json');
  const { status } = spawnSync(nativeTests, ['--gtest_brief=1', `--gtest_output=json:${report}`], {
    stdio: 'inherit',
  });
  return counted(report, status, nativeCounts);
}

/** The native tests of kernels under a tool of compute-sanitizer, in shards beside one another. */
async function sanitize(tool) {
  if (!existsSync(nativeTests)) return { skipped: 1, reason: `there is no ${nativeTests}` };
  const folders = [...process.env.PATH.split(delimiter), '/usr/local/cuda/bin'];
  if (process.env.CUDA_HOME) folders.unshift(join(process.env.CUDA_HOME, 'bin'));
  const program = folders.map((at) => join(at, 'compute-sanitizer')).find(existsSync);
  if (!program)
    return {
      skipped: 1,
      reason: 'there is no compute-sanitizer on the path, in CUDA_HOME or /usr/local/cuda',
    };
  // A shard's host waits for the GPU or instruments code, most of the time.
  const shards = Math.max(1, Math.min(8, availableParallelism() >> 1));
  const found = await Promise.all(
    Array.from({ length: shards }, (_, index) => sanitizeShard(program, tool, { index, shards })),
  );
  const sum = (key) => found.reduce((total, one) => total + (one[key] ?? 0), 0);
  const logs = found.filter((one) => one.failed).map((one) => one.log.slice(0, 20_000));
  return {
    ...{ passed: sum('passed'), failed: sum('failed'), skipped: sum('skipped') },
    failures: found.flatMap((one) => one.failures ?? []),
    summary: [...new Set(found.map((one) => one.summary))].join('\n'),
    ...(logs.length ? { logs } : {}),
  };
}

async function sanitizeShard(program, tool, { index, shards }) {
  const report = join(folder, `${tool}-${index}.json`);
  const log = join(folder, `${tool}-${index}.log`);
  const child = spawn(
    program,
    [
      // Errors that calls return are what some tests want.
      ...['--tool', tool, '--error-exitcode', '86', '--log-file', log],
      ...(tool === 'memcheck' ? ['--report-api-errors', 'no'] : []),
      ...[nativeTests, '--gtest_brief=1', `--gtest_output=json:${report}`],
      '--gtest_filter=*Cuda*:Kernels*:TensorOnGpu*',
    ],
    {
      stdio: 'inherit',
      env: { ...process.env, GTEST_TOTAL_SHARDS: `${shards}`, GTEST_SHARD_INDEX: `${index}` },
    },
  );
  const [status] = await once(child, 'exit');
  const text = existsSync(log) ? readFileSync(log, 'utf8') : '';
  const summary = text
    .split('\n')
    .filter((line) => line.includes('SUMMARY'))
    .join('\n');
  return { ...counted(report, status, nativeCounts), summary, log: text };
}

/** A report's counts; a run that ended badly without a failed test counts as one. */
function counted(report, status, count) {
  const counts = existsSync(report)
    ? count(JSON.parse(readFileSync(report, 'utf8')))
    : { failed: 0 };
  return status !== 0 && !counts.failed ? { ...counts, failed: 1, status } : counts;
}

function end(message) {
  console.error(`test:gpu: ${message}`);
  process.exit(1);
}

/** The device under test, as the addon describes it; ends the process where there is none. */
function findGpu() {
  const require = createRequire(import.meta.url);
  const load = require('node-gyp-build');
  try {
    const file = process.env.MIXPL_ADDON ? resolve(process.env.MIXPL_ADDON) : load.resolve(root);
    const addon = require(file);
    const id = addon.resolveDevice(device);
    const { usable, freeBytes, ...facts } = addon.devices().find((found) => found.id === id);
    const gpu = { ...facts, architectures: addon.buildInfo().cudaArchitectures };
    return {
      gpu,
      addon: createHash('sha256').update(readFileSync(file)).digest('hex').slice(0, 16),
    };
  } catch (error) {
    return end(error.message);
  }
}

function vitestCounts({ testResults, numPassedTests, numFailedTests, numPendingTests }) {
  const files = testResults.map(({ name, status, startTime, endTime, assertionResults }) => {
    const count = (wanted) => assertionResults.filter((test) => test.status === wanted).length;
    const failures = assertionResults.filter((test) => test.status === 'failed');
    return {
      file: relative(root, name),
      passed: count('passed'),
      failed: failures.length,
      skipped: count('pending') + count('skipped'),
      seconds: Number(((endTime - startTime) / 1000).toFixed(1)),
      ...(failures.length || status === 'failed'
        ? { failures: failures.map((test) => test.fullName) }
        : {}),
    };
  });
  const broken = testResults.filter((f) => f.status === 'failed' && !f.assertionResults.length);
  return {
    passed: numPassedTests,
    failed: numFailedTests + broken.length,
    skipped: numPendingTests,
    files,
  };
}

function nativeCounts({ tests, failures, testsuites }) {
  const all = testsuites.flatMap(({ name, testsuite }) =>
    testsuite.map((test) => ({ ...test, name: `${name}.${test.name}` })),
  );
  const skipped = all.filter((test) => test.result === 'SKIPPED').length;
  return {
    passed: tests - failures - skipped,
    failed: failures,
    skipped,
    failures: all.filter((test) => test.failures).map((test) => test.name),
  };
}
