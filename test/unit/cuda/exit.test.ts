// A process that used two devices ends as any other. Its executors had been stopped after the functions
// that they deliver results through: freed memory, which the allocator overwrites here.
import { execFile } from 'node:child_process';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { native } from '../../../lib/index.js';

const entry = pathToFileURL(fileURLToPath(new URL('../../../dist/index.js', import.meta.url)));
const script = `
import { native } from '${entry}';
await Promise.all(['cpu', 'cuda'].map((device) => native.synchronize(device)));
console.log('used');
`;

test.skipIf(!native.devices().some(({ id, usable }) => id !== 'cpu' && usable))(
  'a process that used the CPU and a GPU ends',
  async () => {
    const env = { ...process.env, MALLOC_PERTURB_: '165' };
    const args = ['--input-type=module', '--eval', script];
    const { stdout } = await promisify(execFile)(process.execPath, args, { env });
    expect(stdout).toBe('used\n');
  },
);
