import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { parseConfig } from '../../../lib/config/index.js';
import { Random } from '../../../lib/random.js';
import type { CachedView, SemiChanges } from '../../../lib/semi/index.js';
import { cacheNeeded, checkMixing, MixPL, resolveSemiOptions } from '../../../lib/semi/index.js';
import { cached } from './pictures.js';

const noErase = { erase: null } as const;

/** Runs batches of consecutive picture numbers; gives the branches of each step. */
function play(steps: number, changes: SemiChanges, { count = 4, seed = 1, width = 64 } = {}) {
  const policy = new MixPL<CachedView>(resolveSemiOptions({ ...noErase, ...changes }));
  const root = new Random(seed);
  const history = Array.from({ length: steps }, (_, step) =>
    policy.branches(
      Array.from({ length: count }, (_, i) => cached(step * count + i, { width })),
      32,
      root.fork('mixing', step),
    ),
  );
  return { policy, history };
}

/** Picture numbers (their grey level) of every layer of a branch. */
function pictures(branch: ReturnType<MixPL['branches']>[number]): number[][] {
  return branch.samples.map((s) => s.composition.layers.map((layer) => layer.source.data[0]!));
}

describe('index rule of the reference', () => {
  test('nothing is mixed until the cache is full', () => {
    const { history } = play(2, {});
    for (const [step, branches] of history.entries()) {
      expect(branches.map((b) => b.name)).toEqual(['mixup_unsup_']);
      expect(pictures(branches[0]!)).toEqual([0, 1, 2, 3].map((i) => [4 * step + i]));
    }
  });

  test('partners are the oldest batch, tiles the one after it', () => {
    const { history } = play(6, {});
    for (let step = 2; step < 6; step++) {
      const [mixup, mosaic] = history[step]!;
      expect(mixup!.name).toBe('mixup_unsup_');
      expect(mosaic).toMatchObject({ name: 'mosaic_unsup_', weight: 0.5 });
      const layers = pictures(mixup!);
      expect(layers.map((l) => l[0])).toEqual([0, 1, 2, 3].map((i) => 4 * step + i));
      const partners = layers.map((l) => l[1]!).sort((a, b) => a - b);
      expect(partners).toEqual([0, 1, 2, 3].map((i) => 4 * (step - 2) + i));
      const tiles = pictures(mosaic!)[0]!.sort((a, b) => a - b);
      expect(tiles).toEqual([0, 1, 2, 3].map((i) => 4 * (step - 1) + i));
    }
  });

  test('pairing and tile order are drawn', () => {
    const pairings = new Set<string>();
    const orders = new Set<string>();
    for (let seed = 0; seed < 40; seed++) {
      const [mixup, mosaic] = play(3, {}, { seed }).history[2]!;
      pairings.add(String(pictures(mixup!).map((l) => l[1])));
      orders.add(String(pictures(mosaic!)));
    }
    expect(pairings.size).toBeGreaterThan(10);
    expect(orders.size).toBeGreaterThan(10);
  });

  test('other batch sizes use the same windows', () => {
    const { history } = play(5, {}, { count: 2 });
    const [mixup, mosaic] = history[4]!; // the cache holds pictures 0 … 7
    expect(
      pictures(mixup!)
        .map((l) => l[1]!)
        .sort(),
    ).toEqual([0, 1]);
    expect(pictures(mosaic!)[0]!.sort()).toEqual([2, 3, 4, 5]);
  });

  test('a cache that is too small for the batch is refused with the size it needs', () => {
    const options = resolveSemiOptions();
    expect(() => checkMixing(options, 5)).toThrow(/cacheSize must be at least 9 with 5 unlabelled/);
    expect(() => checkMixing({ ...options, mosaic: false }, 8)).not.toThrow();
    expect(() => checkMixing({ ...options, mosaic: false }, 9)).toThrow(/at least 9/);
    expect(() => checkMixing({ ...options, mosaic: false, mixup: false }, 99)).not.toThrow();
    expect(() => checkMixing({ ...options, indexRule: 'paper' }, 1)).toThrow(/at least 2/);
    expect(() => checkMixing({ ...options, indexRule: 'paper' }, 9)).toThrow(/different partners/);
  });
});

test('a config accepts what the mixer can serve, and nothing else', () => {
  const data = {
    labelled: { format: 'coco' as const, annotations: 'a.json' },
    unlabelled: { format: 'folder' as const, images: 'u' },
  };
  const works = (call: () => unknown) => {
    try {
      call();
      return true;
    } catch (error) {
      expect(error).toMatchObject({ code: 'ERR_CONFIG' });
      return false;
    }
  };
  const flags = [false, true];
  for (const indexRule of ['reference', 'paper'] as const)
    for (const [mixup, mosaic] of flags.flatMap((a) => flags.map((b) => [a, b] as const)))
      for (let count = 1; count <= 5; count++)
        for (let cacheSize = 1; cacheSize <= 10; cacheSize++) {
          const semi = { indexRule, mixup, mosaic, cacheSize };
          const accepted = works(() => parseConfig({ data, semi, batch: { unlabelled: count } }));
          // Enough steps to fill the cache.
          const mixes = works(() => {
            const [plain, tiles] = play(11, semi, { count }).history[10]!;
            const layers = pictures(plain!);
            expect(layers.map((each) => each.length)).toEqual(Array(count).fill(mixup ? 2 : 1));
            if (mixup) expect(new Set(layers.map(([, partner]) => partner)).size).toBe(count);
            expect(tiles ? new Set(pictures(tiles)[0]).size : 0).toBe(mosaic ? 4 : 0);
          });
          expect({ ...semi, count, accepted }).toEqual({ ...semi, count, accepted: mixes });
        }
});

test('the cache that is needed', () => {
  const needed = (mixup: boolean, mosaic: boolean, indexRule: 'reference' | 'paper') =>
    cacheNeeded({ mixup, mosaic, indexRule }, 3);
  for (const rule of ['reference', 'paper'] as const) {
    expect(needed(false, false, rule)).toBe(1);
    expect(needed(true, false, rule)).toBe(3);
  }
  expect(needed(true, true, 'reference')).toBe(7);
  expect(needed(false, true, 'reference')).toBe(7);
  expect(needed(true, true, 'paper')).toBe(3);
});

test('the rule of the paper draws different partners, and tiles from current and partners', () => {
  fc.assert(
    fc.property(fc.integer({ min: 0, max: 2 ** 31 }), (seed) => {
      const [mixup, mosaic] = play(3, { indexRule: 'paper' }, { seed }).history[2]!;
      const partners = pictures(mixup!).map((l) => l[1]!);
      expect(new Set(partners).size).toBe(4);
      expect(partners.every((p) => p < 8)).toBe(true);
      const tiles = pictures(mosaic!)[0]!;
      expect(new Set(tiles).size).toBe(4);
      const pool = new Set([8, 9, 10, 11, ...partners]);
      expect(tiles.every((t) => pool.has(t))).toBe(true);
    }),
    { numRuns: 40 },
  );
});

describe('switches', () => {
  test('mixup off: plain strong views under the plain name, mosaic stays', () => {
    const [plain, mosaic] = play(3, { mixup: false }).history[2]!;
    expect(plain!.name).toBe('unsup_');
    expect(pictures(plain!)).toEqual([[8], [9], [10], [11]]);
    expect(pictures(mosaic!)[0]!.length).toBe(4);
  });

  test('mosaic off: one branch', () => {
    const branches = play(3, { mosaic: false }).history[2]!;
    expect(branches.map((b) => b.name)).toEqual(['mixup_unsup_']);
    expect(pictures(branches[0]!).every((l) => l.length === 2)).toBe(true);
  });

  test('both off is DetMeanTeacher and caches nothing', () => {
    const { policy, history } = play(4, { mixup: false, mosaic: false });
    expect(history[3]!.map((b) => b.name)).toEqual(['unsup_']);
    expect(policy.cache).toEqual([]);
  });
});

describe('cache', () => {
  test('keeps the newest views, un-erased and un-mixed, with every score', () => {
    const { policy } = play(5, { erase: {} });
    expect(policy.cache.map((c) => c.image)).toEqual([12, 13, 14, 15, 16, 17, 18, 19]);
    for (const entry of policy.cache) {
      expect(entry.view.layer.erase).toEqual([]);
      expect(entry.view.layer.weight).toBe(1);
      expect(entry).toEqual(cached(entry.image));
    }
  });

  test('every use erases anew', () => {
    const branches = play(3, { erase: {} }).history[2]!;
    const erased = branches.flatMap((b) =>
      b.samples.flatMap((s) => s.composition.layers.map((l) => JSON.stringify(l.erase))),
    );
    expect(new Set(erased).size).toBe(erased.length);
  });

  test('a restored cache continues as if nothing had happened', () => {
    const whole = play(6, { erase: {} }).history;
    const first = play(4, { erase: {} }).policy;
    const second = new MixPL<CachedView>(resolveSemiOptions({ erase: {} }));
    second.restore(first.cache);
    const root = new Random(1);
    for (const step of [4, 5]) {
      const views = [0, 1, 2, 3].map((i) => cached(4 * step + i));
      expect(second.branches(views, 32, root.fork('mixing', step))).toEqual(whole[step]);
    }
  });
});

test('mosaic canvases are multiples of 32 and at most twice the largest tile', () => {
  for (let seed = 0; seed < 30; seed++) {
    const { composition } = play(3, {}, { seed }).history[2]![1]!.samples[0]!;
    for (const side of [composition.width, composition.height]) {
      expect(side % 32).toBe(0);
      expect(side).toBeLessThanOrEqual(1600);
    }
  }
});

test('partners are scaled to the padded canvas and mirrored', () => {
  const { composition, instances } = play(3, {}).history[2]![0]!.samples[0]!;
  // 64 × 48 pictures, canvas 64 × 64: no enlargement, the ratio binds.
  expect(composition).toMatchObject({ width: 64, height: 48 });
  expect([...instances.boxes]).toEqual([8, 8, 40, 40, 24, 8, 56, 40]);
  // 60 × 48 pictures, canvas 64 × 64, not 60 × 48: partners are enlarged by 64/60, to 64 × 51.
  const enlarged = play(3, {}, { width: 60 }).history[2]![0]!.samples[0]!;
  expect(enlarged.composition).toMatchObject({ width: 64, height: 51 });
  const s = 64 / 60;
  const offset = enlarged.instances.boxes[0]! - 8; // of the picture itself, on a canvas that is larger
  expect([0, 1, 2, 3, 4]).toContain(offset);
  const partner = [...enlarged.instances.boxes.subarray(4)];
  expect(partner).toEqual(
    [64 - 40 * s, 8 * s, 64 - 8 * s, 40 * s].map((v) => expect.closeTo(v, 4)),
  );
});
