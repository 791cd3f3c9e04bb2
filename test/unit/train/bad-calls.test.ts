import { describe, expect, test } from 'vitest';
import { loadConfig } from '../../../lib/config/index.js';
import {
  type RunOptions,
  runTraining,
  type TrainOptions,
  trainSemiSupervised,
} from '../../../lib/train/index.js';
import { newStudent, options } from './tiny-runs.js';

/** The error that ends a training which should not begin. */
async function refusal(changes: object, student: unknown = newStudent()): Promise<unknown> {
  const made = options(changes as Partial<TrainOptions>);
  try {
    for await (const _ of trainSemiSupervised(student as ReturnType<typeof newStudent>, made));
  } catch (error) {
    return error;
  }
  return null;
}

describe('trainSemiSupervised says what is wrong with', () => {
  test.each([
    [{ outt: 'runs' }, 'ERR_CONFIG', "unknown option 'outt'; did you mean 'out'?"],
    [{ data: {} }, 'ERR_CONFIG', 'data.labelled must be a data set, got none'],
    [{ out: 5 }, 'ERR_CONFIG', 'out must be the path of a folder, got number'],
    [{ signal: 'stop' }, 'ERR_CONFIG', 'signal must be an AbortSignal, got string'],
    [{ decode: async () => undefined }, 'ERR_DTYPE', /^decode: .* a Uint8Array, got undefined/],
  ])('%o', async (changes, code, message) => {
    const text =
      typeof message === 'string'
        ? expect.stringContaining(message)
        : expect.stringMatching(message);
    expect(await refusal(changes)).toMatchObject({ name: 'MixplError', code, message: text });
  });

  test('a detector that is none, or that another training teaches', async () => {
    expect(await refusal({}, null)).toMatchObject({ code: 'ERR_CONFIG' });
    const student = newStudent();
    const first = trainSemiSupervised(student, options());
    await first.next();
    expect(await refusal({}, student)).toMatchObject({
      code: 'ERR_STATE',
      message: expect.stringMatching(
        /detector must be free, got one that another training teaches$/,
      ),
    });
    await first.return();
    expect(await refusal({}, student)).toBeNull();
  });
});

test.each([
  [
    { out: 'runs', outt: 1 },
    'ERR_CONFIG',
    "runTraining: unknown option 'outt'; did you mean 'out'?",
  ],
  [{ out: 5 }, 'ERR_DTYPE', 'runTraining: out must be a string (a path), got Number'],
  [undefined, 'ERR_CONFIG', 'runTraining: options must be an object, got undefined'],
])('runTraining says what is wrong with %o', async (options, code, message) => {
  const config = await loadConfig('small', { withoutData: true });
  await expect(runTraining(config, options as unknown as RunOptions)).rejects.toMatchObject({
    ...{ name: 'MixplError', code, message },
  });
});
