import { afterAll, describe, expect, test } from 'vitest';
import { useRuntime } from '../../../lib/cli/runtime-options.js';
import { native } from '../../../lib/native.js';
import { runCli } from './run-cli.js';

const before = native.buildInfo().threads;
afterAll(() => native.setNumThreads(before));

test('--threads is for the whole process, the rest for the detector', async () => {
  expect(await useRuntime({ device: 'cpu', dtype: 'bf16', threads: 3 })).toEqual({
    device: 'cpu',
    dtype: 'bf16',
  });
  expect(native.buildInfo().threads).toBe(3);
  expect(await useRuntime({ device: 'auto' })).toEqual({ device: 'auto' });
  expect(native.buildInfo().threads).toBe(3);
});

describe('numbers that an option does not take', () => {
  test.each([
    ...[
      ['predict', 'a.png', '--checkpoint', 'c'],
      ['eval', '--checkpoint', 'c'],
      ['demo'],
      ['bench', 'ema'],
    ].flatMap((command) =>
      ['0', '1025', '1.5', 'two', ''].map((value) => [
        [...command, '--threads', value],
        `option '--threads <n>' argument '${value}' is invalid. It must be a whole number in [1, 1024].`,
      ]),
    ),
    [
      ['predict', 'a.png', '--checkpoint', 'c', '--score-thr', '2'],
      "option '--score-thr <number>' argument '2' is invalid. It must be a number in [0, 1].",
    ],
    [
      ['demo', '--iterations', '3'],
      "option '--iterations <n>' argument '3' is invalid. It must be a whole number >= 30.",
    ],
    [
      ['data', 'split', 'x', '--percent', 'ten'],
      "argument 'ten' is invalid. It must be a number in (0, 100].",
    ],
  ] as [string[], string][])('%j', async (args, says) => {
    const { code, stdout, stderr } = await runCli(args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(/^error: .*\n$/);
    expect(stderr).toContain(says);
  });
});
