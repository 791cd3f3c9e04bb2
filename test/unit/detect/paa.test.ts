import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { anchorGrid, type Box, type Deltas } from '../../oracle/boxes.js';
import { type PaaLevel, paaCost, paaDetections, selectPaa } from '../../oracle/paa.js';
import { expectRefused } from '../ops/golden.js';
import { boxes, f32, type Input, i32, numbers, relativeError, run, toBf16 } from './run.js';

const golden = JSON.parse(
  readFileSync(new URL('../../golden/detect/paa.json', import.meta.url), 'utf8'),
) as { sklearn: string; cases: { kind: string; losses: number[]; foreground: number[] }[] };

const select = (
  levels: number[],
  assigned: readonly number[],
  losses: readonly number[],
  options: { boxes: number; topK?: number },
) => numbers('selectPaa', [i32(assigned), f32(losses)], { levels, ...options });

describe('selectPaa', () => {
  test.each(golden.cases)(
    `is scikit-learn ${golden.sklearn}: $kind, $losses.length losses`,
    async ({ losses, foreground }) => {
      const assigned = losses.map(() => 0);
      const out = await select([losses.length], assigned, losses, {
        boxes: 1,
        topK: losses.length,
      });
      expect(out.flatMap((a, i) => (a >= 0 ? [i] : []))).toEqual(foreground);
    },
  );

  /** Anchors of `count` boxes over three levels, with losses of two kinds. */
  function drawn(seed: number, count: number) {
    const random = new Random(seed);
    const levels = [120, 40, 12];
    const all = 172;
    const assigned = Array.from({ length: all }, () => random.integer(-2, count));
    const losses = assigned.map(() =>
      Math.fround(
        Math.abs(
          random.uniform(0, 1) < 0.4 ? 0.5 + 0.1 * random.normal() : 2 + 0.5 * random.normal(),
        ),
      ),
    );
    return { levels, assigned, losses };
  }

  test.each([1, 3, 8, 40, 170])('is the oracle: %i boxes', async (count) => {
    for (let seed = 0; seed < 10; seed++) {
      const { levels, assigned, losses } = drawn(seed, count);
      const want = selectPaa(levels, assigned, losses);
      expect(await select(levels, assigned, losses, { boxes: count })).toEqual(want);
      if (count < 100) expect(want.filter((a) => a >= 0).length).toBeGreaterThan(0);
    }
  });

  test('a box with one anchor has none; equal losses keep the first; NaN is no candidate', async () => {
    expect(await select([3], [0, -1, -2], [1, 1, 1], { boxes: 1 })).toEqual([-1, -1, -2]);
    expect(await select([3], [0, 0, 0], [1, 1, 1], { boxes: 1 })).toEqual([0, -1, -1]);
    const nan = Number.NaN;
    expect(await select([3], [0, 0, 0], [nan, 1, nan], { boxes: 1 })).toEqual([-1, -1, -1]);
    expect(await select([2, 1], [0, 0, 0], [nan, 1, 2], { boxes: 1 })).toEqual([-1, 0, -1]);
    expect(await select([2], [-1, -2], [nan, nan], { boxes: 0 })).toEqual([-1, -2]);
    expect(await select([], [], [], { boxes: 5 })).toEqual([]);
  });

  test('has the same bits for any number of threads', async () => {
    const { levels, assigned, losses } = drawn(3, 20);
    const results = [];
    for (const threads of [1, 2, 3]) {
      native.setNumThreads(threads);
      results.push(await select(levels, assigned, losses, { boxes: 20 }));
    }
    native.setNumThreads(1);
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
  });

  test('says what was wrong', async () => {
    const refused = (message: string, code: string, ...args: Parameters<typeof select>) =>
      expectRefused(() => select(...args), code, `selectPaa: ${message}`);
    await refused('assigned must be in [-2, 0], got 1', 'ERR_RANGE', [2], [0, 1], [1, 1], {
      boxes: 1,
    });
    await refused(
      'losses must be [2] (one an anchor of the levels), got [1]',
      'ERR_SHAPE',
      [2],
      [0, 0],
      [1],
      { boxes: 1 },
    );
    await refused('topK must be in [1, 65536], got 0', 'ERR_RANGE', [1], [0], [1], {
      boxes: 1,
      topK: 0,
    });
  });
});

const grid = { height: 6, width: 8, stride: 16 };
const anchorsOf = (g: typeof grid) => anchorGrid(g, { stride: g.stride, ratios: [1], scales: [4] });

describe('paaCosts', () => {
  test.each(['f32', 'bf16'] as const)('is the oracle on %s outputs', async (dtype) => {
    const keep = dtype === 'f32' ? Math.fround : toBf16;
    const random = new Random(8);
    const [anchors, classes] = [anchorsOf(grid), 5];
    const draw = (n: number, f: () => number) => Array.from({ length: n }, () => keep(f()));
    const n = anchors.length;
    const logits = draw(2 * n * classes, () => 3 * random.normal() - 2);
    const deltas = draw(2 * n * 4, () => 2 * random.normal());
    const truth: Box[] = [
      [5, 8, 60, 50],
      [40, 20, 44, 90],
      [0, 0, 128, 96],
    ];
    const labels = [4, 0, 2];
    const assigned = anchors.map(() => random.integer(-2, 3));
    for (const image of [0, 1]) {
      const got = await numbers(
        'paaCosts',
        [
          { [dtype]: logits, shape: [2, 6, 8, classes] } as unknown as Input,
          { [dtype]: deltas, shape: [2, 6, 8, 4] } as unknown as Input,
          boxes(anchors),
          boxes(truth),
          i32(labels),
          i32(assigned),
        ],
        { image, classes },
      );
      const want = assigned.map((a, i) => {
        if (a < 0) return 0;
        const at = image * n + i;
        return paaCost(
          logits.slice(at * classes, (at + 1) * classes),
          deltas.slice(4 * at, 4 * at + 4),
          { anchor: anchors[i]!, box: truth[a]!, label: labels[a]! },
        );
      });
      expect(relativeError(got, want)).toBeLessThan(3e-6);
    }
  });

  test('refuses what does not fit', async () => {
    const inputs = [
      f32([0, 0], 2),
      f32([0, 0, 0, 0], 4),
      boxes([[0, 0, 8, 8]]),
      boxes([[0, 0, 9, 9]]),
      i32([0]),
      i32([0]),
    ];
    expect(await numbers('paaCosts', inputs, { classes: 2 })).toHaveLength(1);
    await expectRefused(
      () => numbers('paaCosts', inputs, { classes: 3 }),
      'ERR_SHAPE',
      'paaCosts: logits must hold 3 numbers for 1 anchors of image 0, got [1, 2]',
    );
    await expectRefused(
      () => numbers('paaCosts', inputs.with(5, i32([1])), { classes: 2 }),
      'ERR_RANGE',
      'paaCosts: assigned must be in [-2, 0], got 1',
    );
  });
});

describe('densePostProcess with a quality, per anchor, with votes', () => {
  const classes = 3;
  const sizes = [
    { height: 90, width: 121 },
    { height: 70, width: 128 },
  ];
  const grids = [{ height: 12, width: 16, stride: 8 }, grid];
  const wanted = { scoreThr: 0.05, nmsIou: 0.6, maxPerImage: 100 };

  function headOutputs(seed: number, keep: (x: number) => number) {
    const random = new Random(seed);
    return grids.map((g) => {
      const anchors = anchorsOf(g).map((b) => b.map(Math.fround) as unknown as Box);
      const draw = (n: number, f: () => number) =>
        Array.from({ length: 2 * n * anchors.length }, () => keep(f()));
      return {
        g,
        anchors,
        logits: draw(classes, () => 2 * random.normal() - 3),
        quality: draw(1, () => random.normal()),
        deltas: draw(4, () => 0.3 * random.normal()),
      };
    });
  }

  test.each([
    ['f32', 1000],
    ['f32', 30],
    ['bf16', 30],
  ] as const)('is the oracle on %s outputs, %i anchors a level', async (dtype, nmsPre) => {
    const levels = headOutputs(9, dtype === 'f32' ? Math.fround : toBf16);
    const inputs = levels.flatMap(({ g, anchors, logits, quality, deltas }): Input[] => {
      const make = (values: number[], channels: number) =>
        ({ [dtype]: values, shape: [2, g.height, g.width, channels] }) as unknown as Input;
      return [make(logits, classes), make(quality, 1), make(deltas, 4), boxes(anchors)];
    });
    const results = await run('densePostProcess', inputs, {
      ...{ ...wanted, nmsPre, classes },
      ...{ scoreRule: 'geometricMean', perAnchor: true, vote: true },
      heights: sizes.map((s) => s.height),
      widths: sizes.map((s) => s.width),
    });
    for (const [n, size] of sizes.entries()) {
      const mine = levels.map(({ anchors, logits, quality, deltas }): PaaLevel => {
        const rows = (values: number[], each: number) =>
          anchors.map((_, i) => {
            const at = (n * anchors.length + i) * each;
            return values.slice(at, at + each);
          });
        return {
          anchors,
          logits: rows(logits, classes),
          quality: rows(quality, 1).flat(),
          deltas: rows(deltas, 4) as unknown as Deltas[],
        };
      });
      const truth = paaDetections(mine, { ...wanted, nmsPre, ...size });
      expect(truth.length).toBeGreaterThan(30);
      const [found, scores, labels] = results.slice(3 * n, 3 * n + 3);
      expect(labels!.data).toEqual(truth.map((d) => d.label));
      const scoresWanted = truth.map((d) => d.score);
      expect(relativeError(scores!.data, scoresWanted)).toBeLessThan(1e-6);
      const boxesWanted = truth.flatMap((d) => d.box);
      expect(relativeError(found!.data, boxesWanted, 100)).toBeLessThan(1e-5);
    }
  });

  test('a box alone stays where it is; an unknown rule is refused', async () => {
    const inputs = [f32([2], 1), f32([1], 1), f32([0, 0, 0, 0], 4), boxes([[3, 4, 20, 30]])];
    const options = { heights: [50], widths: [50], classes: 1, perAnchor: true, vote: true };
    const [found] = await run('densePostProcess', inputs, {
      ...options,
      scoreRule: 'geometricMean',
    });
    expect(found!.data).toEqual([3, 4, 20, 30]);
    await expectRefused(
      () => run('densePostProcess', inputs, { ...options, scoreRule: 'sum' }),
      'ERR_CONFIG',
      "densePostProcess: scoreRule must be 'classes', 'product', 'geometricMean' or 'probabilities', got 'sum'",
    );
    await expectRefused(
      () => run('densePostProcess', inputs, { ...options, scoreRule: 'classes' }),
      'ERR_SHAPE',
      'densePostProcess: needs logits, deltas, anchors per level, got 4 tensors',
    );
  });
});
