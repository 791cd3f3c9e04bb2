import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { temporaryFolder } from './temporary-folder.js';

const entry = new URL('../../dist/index.js', import.meta.url);
const vitest = fileURLToPath(new URL('../../node_modules/vitest/vitest.mjs', import.meta.url));

// Contexts of node:vm lack Symbol.dispose and Symbol.asyncDispose in Node 20 and 22.
test("the package works in a context of node:vm, as vitest's vmThreads and vmForks are", async () => {
  const folder = await temporaryFolder();
  const file = join(folder, 'a.safetensors');
  await writeFile(join(folder, 'metrics.jsonl'), '{"type":"step","iteration":1,"losses":{}}\n');
  await writeFile(
    join(folder, 'a.test.js'),
    `
import { createDetector, readSafetensors, writeRunReport } from '${entry}';
test('saves, loads, reports and disposes', async () => {
  const detector = await createDetector({ type: 'retinanet', numClasses: 2, backbone: { depth: 18, baseWidth: 8 } });
  await detector.save('${file}');
  await detector.loadWeights('${file}');
  expect((await readSafetensors('${file}')).tensors.size).toBeGreaterThan(9);
  expect(await writeRunReport('${folder}')).toBe('${join(folder, 'report.html')}');
  await detector[Symbol.asyncDispose]();
  await expect(detector.readTensor('x')).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
});`,
  );
  const args = [vitest, 'run', '--globals', '--pool', 'vmThreads', '--root', folder];
  const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 50_000 });
  expect(stdout).toMatch(/1 passed/);
});
