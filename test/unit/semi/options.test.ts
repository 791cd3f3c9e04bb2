import { describe, expect, test } from 'vitest';
import {
  defaultScoreThr,
  emaMomentum,
  resolveSemiOptions,
  type SemiChanges,
  semiDefaults,
} from '../../../lib/semi/index.js';

test('EMA share of the reference, including where it reaches its floor', () => {
  const { ema } = semiDefaults;
  const due = Array.from({ length: 9 }, (_, i) => emaMomentum(ema, i));
  expect(due.map((m) => m !== null)).toEqual([0, 0, 1, 0, 0, 1, 0, 0, 1].map(Boolean));
  expect(due[2]).toBeCloseTo(0.6667, 4);
  expect(due[5]).toBeCloseTo(0.4444, 4);
  expect(due[8]).toBeCloseTo(0.3333, 4);
  expect(emaMomentum(ema, 19994)).toBeCloseTo(2.0002e-4, 9);
  expect(emaMomentum(ema, 19994)).toBeGreaterThan(2e-4);
  for (const i of [19997, 20000, 179999]) expect(emaMomentum(ema, i)).toBe(2e-4);
});

test('EMA without a warm phase', () => {
  const ema = { momentum: 0.01, gamma: 0, interval: 1, buffers: 'skip' } as const;
  expect([0, 1, 2].map((i) => emaMomentum(ema, i))).toEqual([0.01, 0.01, 0.01]);
});

test('score thresholds by detector', () => {
  const thresholds = ['retinanet', 'tood', 'dino', 'fcos', 'faster-rcnn', 'cascade-rcnn'].map(
    defaultScoreThr,
  );
  expect(thresholds).toEqual([0.4, 0.4, 0.4, 0.3, 0.7, 0.7]);
});

describe('resolveSemiOptions', () => {
  test('fills in the defaults, nested ones too', () => {
    const options = resolveSemiOptions({ ema: { gamma: 12 }, erase: { threshold: 0.5 } });
    expect(options).toEqual({
      ...semiDefaults,
      ema: { ...semiDefaults.ema, gamma: 12 },
      erase: { ...semiDefaults.erase, threshold: 0.5 },
    });
    expect(resolveSemiOptions({ erase: null }).erase).toBeNull();
    expect(resolveSemiOptions()).toEqual(semiDefaults);
  });

  test.each<[SemiChanges, RegExp]>([
    [{ scoreThr: 1.2 }, /scoreThr must be in \[0, 1\], got 1.2/],
    [{ scoreThr: Number.NaN }, /scoreThr must be/],
    [{ cacheSize: 2.5 }, /cacheSize must be an integer >= 1, got 2.5/],
    [{ leastNum: -1 }, /leastNum/],
    [{ unsupWeight: -1 }, /unsupWeight must be >= 0/],
    [{ mosaicShape: [] }, /mosaicShape/],
    [
      {
        mosaicShape: [
          [400, 400],
          [300, 500],
        ],
      },
      /mosaicShape must be an integer >= 400, got 300/,
    ],
    [{ ema: { interval: 0 } }, /ema.interval/],
    [{ ema: { momentum: 2 } }, /ema.momentum/],
    [{ erase: { patches: [3, 3] } }, /erase.patches must be an integer >= 4/],
    [{ erase: { ratio: [0, 1.5] } }, /erase.ratio/],
    [
      { emptyImageRule: 'none' as 'per-image' },
      /emptyImageRule must be one of branch-gate, per-image/,
    ],
    [{ mixUp: true } as SemiChanges, /unknown option 'mixUp'; did you mean 'mixup'\?/],
    [{ ema: { gama: 1 } as object }, /semi.ema: unknown option 'gama'; did you mean 'gamma'\?/],
  ])('refuses %j', (changes, message) => {
    expect(() => resolveSemiOptions(changes)).toThrow(message);
    expect(() => resolveSemiOptions(changes)).toThrow(
      expect.objectContaining({ code: 'ERR_CONFIG' }) as Error,
    );
  });
});
