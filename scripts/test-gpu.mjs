// Runs the suites that compute on a device on a real GPU: `npm run test:gpu`, or without npm
// `node scripts/test-gpu.mjs [vitest's arguments]`. Needs a build with CUDA (`npm run build:native --
// --CDMIXPL_CUDA=ON`) and a GPU; says what is missing and fails without. Where the native tests were built
// with CUDA as well (build/native-tests-cuda), they run, too. Leaves bench/results/<device>-tests.json.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join, relative, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
process.chdir(root);
const suites = ['ops', 'detect', 'image', 'optim', 'detector', 'devices.test.ts'];
const device = process.env.MIXPL_DEVICE ?? 'cuda';
// Of detectors, whose device is 'auto'; of ops.
const environment = { MIXPL_DEVICE: device, MIXPL_TEST_DEVICE: device };
const gpu = findGpu();
const folder = mkdtempSync(join(tmpdir(), 'mixpl-test-gpu-'));
const report = join(folder, 'vitest.json');
const nativeReport = join(folder, 'native.json');

const began = performance.now();
const arguments_ = process.argv.slice(2);
const chosen = arguments_.length ? arguments_ : suites.map((name) => `test/unit/${name}`);
const vitest = spawnSync(
  process.execPath,
  [
    'node_modules/vitest/vitest.mjs',
    'run',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
    ...chosen,
  ],
  { stdio: 'inherit', env: { ...process.env, ...environment } },
);
const nativeTests = 'build/native-tests-cuda/mixpl_tests';
const native = existsSync(nativeTests)
  ? spawnSync(nativeTests, ['--gtest_brief=1', `--gtest_output=json:${nativeReport}`], {
      stdio: 'inherit',
    })
  : null;
if (!native) console.log(`native tests: skipped, there is no ${nativeTests}`);

const result = {
  device: gpu,
  node: process.version,
  seconds: Math.round((performance.now() - began) / 1000),
  vitest: read(report, vitestCounts),
  native: native && read(nativeReport, nativeCounts),
};
mkdirSync('bench/results', { recursive: true });
const name = gpu.name.toLowerCase().replaceAll(/[^a-z0-9]+/g, '-');
const path = `bench/results/${name}-tests.json`;
writeFileSync(path, `${JSON.stringify(result, null, 1)}\n`);
rmSync(folder, { recursive: true });
const parts = [result.vitest, ...(native ? [result.native] : [])];
const sum = (key) => parts.reduce((total, part) => total + (part?.[key] ?? 0), 0);
console.log(`${gpu.name}: ${sum('passed')} passed, ${sum('failed')} failed, ${path}`);
const broken = vitest.status !== 0 || (native && native.status !== 0) || parts.includes(null);
process.exit(broken || sum('failed') > 0 ? 1 : 0);

/** The device under test, as the addon describes it; ends the process where there is none. */
function findGpu() {
  const require = createRequire(import.meta.url);
  const other = process.env.MIXPL_ADDON;
  try {
    const addon = other ? require(resolve(other)) : require('node-gyp-build')(root);
    const id = addon.resolveDevice(device);
    const { usable, freeBytes, ...facts } = addon.devices().find((found) => found.id === id);
    return { ...facts, architectures: addon.buildInfo().cudaArchitectures };
  } catch (error) {
    console.error(`test:gpu: ${error.message}`);
    process.exit(1);
  }
}

function read(file, count) {
  return existsSync(file) ? count(JSON.parse(readFileSync(file, 'utf8'))) : null;
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
