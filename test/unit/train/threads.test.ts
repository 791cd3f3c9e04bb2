import { execFile } from 'node:child_process';
import { platform } from 'node:os';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';

const entry = pathToFileURL(fileURLToPath(new URL('../../../dist/index.js', import.meta.url)));

// A second OpenMP pool would make libgomp count more threads than there are cores and put waiting
// ones to sleep at once, which costs a small network a fifth of its time.
const script = `
import { readdirSync } from 'node:fs';
import { createDetector } from '${entry}';
const threads = () => readdirSync('/proc/self/task').length;
const options = {
  type: 'retinanet',
  numClasses: 2,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 16 },
  neck: { channels: 32 },
  head: { channels: 32, stackedConvs: 1 },
};
const image = { data: new Uint8Array(96 * 128 * 3).fill(99), height: 96, width: 128 };
const target = { boxes: Float32Array.of(10, 10, 60, 60), labels: Int32Array.of(1) };
await Promise.all([1, 2, 3, 4].map(() => import('node:fs/promises').then((fs) => fs.readdir('.'))));
const before = threads();
{
  const detector = await createDetector(options);
  await detector.loss([image], [target]);
  await detector.backward();
  await detector.step({ lr: 1e-3 });
  await detector.predict([image]);
  const teacher = await detector.createTeacher();
  await teacher.ema(detector, 0.5);
  teacher.dispose();
  detector.dispose();
}
console.log(threads() - before);
`;

test.skipIf(platform() !== 'linux')('all native work shares one pool of threads', async () => {
  const { stdout } = await promisify(execFile)(
    process.execPath,
    ['--input-type=module', '--eval', script],
    { env: { ...process.env, OMP_NUM_THREADS: '4', GOMP_SPINCOUNT: '0' } },
  );
  // The executor and its three helpers; Node itself may start one late. A second pool would be three more.
  expect(Number(stdout)).toBeGreaterThanOrEqual(4);
  expect(Number(stdout)).toBeLessThan(7);
});

// oneDNN spins until as many threads as OpenMP promises are there.
test.skipIf(platform() !== 'linux')('a limit below the number of threads is kept to', async () => {
  const args = ['--input-type=module', '--eval', script];
  const env = { ...process.env, OMP_NUM_THREADS: '3', OMP_THREAD_LIMIT: '1' };
  const { stdout } = await promisify(execFile)(process.execPath, args, { env, timeout: 30_000 });
  expect(Number(stdout)).toBeLessThan(4);
});

// A machine that is shared with others would stand still for milliseconds at every barrier.
test.skipIf(platform() !== 'linux')(
  'idle ones sleep soon, and nobody else is told so',
  async () => {
    const uses = `
import { native } from '${entry}';
native.buildInfo();
console.log(process.env.GOMP_SPINCOUNT);
`;
    const settings = async (own: Record<string, string>, program = uses) => {
      const { GOMP_SPINCOUNT: _, ...env } = process.env;
      const args = ['--input-type=module', '--eval', program];
      const display = { ...env, ...own, OMP_DISPLAY_ENV: 'verbose' };
      const { stdout, stderr } = await promisify(execFile)(process.execPath, args, {
        env: display,
      });
      return [/GOMP_SPINCOUNT = '(\d+)'/.exec(stderr)?.[1], stdout.trim()];
    };
    expect(await settings({})).toEqual(['10000', 'undefined']);
    expect(await settings({ GOMP_SPINCOUNT: '77' })).toEqual(['77', '77']);
    // Also those that a worker uses first.
    const inWorker = `
import '${entry}';
import { Worker } from 'node:worker_threads';
new Worker("import('${entry}').then(({ native }) => console.log(native.buildInfo().threads > 0))", { eval: true });
`;
    expect(await settings({}, inWorker)).toEqual(['10000', 'true']);
  },
);
