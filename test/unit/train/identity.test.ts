import { describe, expect, test } from 'vitest';
import { checkIdentity, differencesOf } from '../../../lib/train/identity.js';

const config = {
  seed: 1,
  semi: { scoreThr: 0.4, ema: { gamma: 4 }, mosaicShape: [[400, 400]] },
  schedule: { iterations: 100 },
  loader: { prefetch: 2 },
  name: 'a',
};
const data = { labelled: 'aaaa', unlabelled: 'bbbb', test: 'cccc' };

describe('differencesOf', () => {
  test('names the option with both values', () => {
    const changed = { ...config, semi: { ...config.semi, scoreThr: 0.5, ema: { gamma: 12 } } };
    expect(differencesOf(config, changed)).toEqual([
      { key: 'semi.scoreThr', was: '0.4', now: '0.5' },
      { key: 'semi.ema.gamma', was: '4', now: '12' },
    ]);
  });

  test('lists are compared whole; absent options say so', () => {
    const { seed: _, ...rest } = config;
    const changed = { ...rest, semi: { ...config.semi, mosaicShape: [[1, 2]], extra: true } };
    expect(differencesOf(config, changed)).toEqual([
      { key: 'seed', was: '1', now: 'absent' },
      { key: 'semi.mosaicShape', was: '[[400,400]]', now: '[[1,2]]' },
      { key: 'semi.extra', was: 'absent', now: 'true' },
    ]);
  });

  test('an option that a checkpoint does not know yet may name nothing', () => {
    const added = (groups: unknown, biasDecay: unknown = null) => ({
      ...config,
      optimizer: { groups, biasDecay },
    });
    expect(differencesOf(config, added([]))).toEqual([]);
    expect(differencesOf(added([]), config)).toEqual([]);
    expect(differencesOf(config, added([{ match: 'neck' }], 0))).toEqual([
      { key: 'optimizer.groups', was: 'absent', now: '[{"match":"neck"}]' },
      { key: 'optimizer.biasDecay', was: 'absent', now: '0' },
    ]);
    expect(differencesOf(added([], 0), added([]))).toHaveLength(1);
    expect(differencesOf(added(null), added([]))).toHaveLength(1);
  });

  test('what changes no number is free, what is allowed too', () => {
    expect(differencesOf(config, { ...config, name: 'b', loader: { prefetch: 9 } })).toEqual([]);
    const longer = { ...config, schedule: { iterations: 200 } };
    expect(differencesOf(config, longer)).toHaveLength(1);
    expect(differencesOf(config, longer, ['schedule.iterations'])).toEqual([]);
    expect(differencesOf(config, longer, ['schedule'])).toEqual([]);
    expect(differencesOf(config, longer, ['sched'])).toHaveLength(1);
  });
});

describe('checkIdentity', () => {
  const checkpoint = { path: 'runs/x/iteration-5', identity: { config, data } };

  test('accepts the same run', () => {
    expect(() => checkIdentity(checkpoint, { config, data })).not.toThrow();
  });

  test('another training set is refused, another test set is not', () => {
    expect(() =>
      checkIdentity(checkpoint, { config, data: { ...data, labelled: 'dddd' } }),
    ).toThrow(/runs\/x\/iteration-5: .*\n {2}labelled data: checkpoint aaaa, now dddd$/);
    expect(() =>
      checkIdentity(checkpoint, { config, data: { ...data, test: null } }),
    ).not.toThrow();
  });

  test('shows every difference and the way out', () => {
    const changed = { ...config, seed: 2, schedule: { iterations: 7 } };
    expect(() => checkIdentity(checkpoint, { config: changed, data })).toThrow(
      expect.objectContaining({
        code: 'ERR_CHECKPOINT',
        message: expect.stringMatching(
          /seed: checkpoint 1, now 2\n.*schedule.iterations: checkpoint 100, now 7; try another output folder, or allow these changes \(--allow-change\): seed, schedule.iterations/,
        ),
      }) as Error,
    );
  });
});
