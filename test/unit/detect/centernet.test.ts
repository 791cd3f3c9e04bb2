import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import type { Box } from '../../oracle/boxes.js';
import {
  type CenterNetLevel,
  centerNetClassPositives,
  centerNetTargets,
  type Sides,
  type Truth,
} from '../../oracle/centernet.js';
import { boxes, type Input, i32, relativeError, run } from './run.js';

const strides = [8, 16, 32];
const ranges = [
  [0, 40],
  [32, 80],
  [64, 1e9],
] as const;
const options = { strides, regressFrom: [0, 32, 64], regressTo: [40, 80] };

/** Levels over an image of height x width with predictions near what the boxes ask for. */
function pyramid(random: Random, height: number, width: number, truths: readonly Truth[]) {
  return strides.map((stride, l): CenterNetLevel => {
    const [h, w] = [Math.ceil(height / stride), Math.ceil(width / stride)];
    const predicted = truths.map((truth) =>
      Array.from({ length: h * w }, (_, cell): Sides => {
        const [x, y] = [((cell % w) + 0.5) * stride, (Math.floor(cell / w) + 0.5) * stride];
        // The box whose centre is nearest, with an error of up to a third of a side.
        const near = [...truth.boxes].sort(
          (a, b) =>
            Math.hypot((a[0] + a[2]) / 2 - x, (a[1] + a[3]) / 2 - y) -
            Math.hypot((b[0] + b[2]) / 2 - x, (b[1] + b[3]) / 2 - y),
        )[0] ?? [0, 0, 9, 9];
        const sides = [x - near[0], y - near[1], near[2] - x, near[3] - y];
        return sides.map((s) =>
          Math.fround(Math.max(0, (s / stride) * random.uniform(0.67, 1.33))),
        ) as unknown as Sides;
      }),
    );
    return { stride, height: h, width: w, range: ranges[l]!, predicted };
  });
}

function inputsOf(levels: readonly CenterNetLevel[], truths: readonly Truth[]): Input[] {
  return [
    ...levels.map(({ height, width, predicted }) => ({
      f32: predicted.flat(2),
      shape: [truths.length, height, width, 4],
    })),
    ...truths.flatMap((t) => [boxes(t.boxes), i32(t.labels)]),
  ];
}

async function check(levels: CenterNetLevel[], truths: readonly Truth[], classes: number) {
  const out = await run('centerNetTargets', inputsOf(levels, truths), { ...options, classes });
  const positives = truths.map((truth, n) =>
    centerNetClassPositives(levels, n, truth, { classes }),
  );
  let regressed = 0;
  for (const [l, level] of levels.entries()) {
    const [heat, sides, positive, pairs] = out.slice(4 * l, 4 * l + 4);
    const cells = level.height * level.width;
    expect(heat!.shape).toEqual([truths.length, cells, classes]);
    const want = truths.map((truth) => centerNetTargets(level, truth, { classes }));
    expect(
      relativeError(
        heat!.data,
        want.flatMap((w) => w.heat.flat()),
      ),
    ).toBeLessThan(2e-6);
    expect(positive!.data).toEqual(want.flatMap((w) => w.sides.map((s) => (s ? 1 : 0))));
    expect(
      relativeError(
        sides!.data,
        want.flatMap((w) => w.sides.flatMap((s) => s ?? [0, 0, 0, 0])),
      ),
    ).toBeLessThan(2e-6);
    regressed += positive!.data.reduce((a, b) => a + b, 0);
    expect(pairs!.data).toEqual(
      positives.flatMap((list, n) =>
        list.filter((p) => p.level === l).flatMap((p) => [n * cells + p.cell, p.label]),
      ),
    );
  }
  return { regressed, classified: positives.flat().length };
}

function randomTruth(random: Random, count: number, classes: number, side: number): Truth {
  return {
    boxes: Array.from({ length: count }, (): Box => {
      const [x, y] = [random.uniform(-5, 100), random.uniform(-5, 70)];
      const box = [x, y, x + random.uniform(side / 4, side), y + random.uniform(side / 4, side)];
      return box.map(Math.fround) as unknown as Box;
    }),
    labels: Array.from({ length: count }, () => random.integer(0, classes)),
  };
}

describe('centerNetTargets', () => {
  test.each([
    ['a few boxes', [3, 5], 3, 120],
    ['no boxes in one image', [4, 0, 2], 4, 90],
    ['one class, one box', [1], 1, 60],
    ['boxes smaller than a stride', [20, 30], 2, 7],
    ['500 boxes', [500], 5, 100],
    ['no boxes at all', [0, 0], 2, 1],
  ])('is the oracle: %s', async (name, counts, classes, side) => {
    const random = new Random(17).fork(name);
    const truths = counts.map((n) => randomTruth(random, n, classes, side));
    const levels = pyramid(random, 128, 160, truths);
    const { regressed, classified } = await check(levels, truths, classes);
    if (counts.some((n) => n > 0)) {
      expect(regressed).toBeGreaterThan(0);
      expect(classified).toBeGreaterThan(0);
    }
  });

  test('equal boxes: the first is regressed, both are classified', async () => {
    const box: Box = [20, 20, 60, 60];
    const truth = { boxes: [box, box], labels: [1, 1] };
    const levels = pyramid(new Random(1), 128, 160, [truth]);
    const { classified } = await check(levels, [truth], 2);
    expect(classified % 2).toBe(0);
    expect(classified).toBeGreaterThan(0);
  });

  test('the heat is 1 at the centre cell, and nothing without boxes', async () => {
    const truths = [
      { boxes: [[40, 40, 50, 48] as Box], labels: [0] },
      { boxes: [], labels: [] },
    ];
    const levels = pyramid(new Random(2), 128, 160, truths);
    const [heat] = await run('centerNetTargets', inputsOf(levels, truths), {
      ...options,
      classes: 1,
    });
    // Centre (45, 44): cell (5, 5) of a map 20 cells wide.
    expect(heat!.data[5 * 20 + 5]).toBe(1);
    expect(Math.max(...heat!.data.slice(320))).toBe(0);
  });

  test('a prediction of NaN is no positive', async () => {
    const truth = { boxes: [[20, 20, 60, 60] as Box], labels: [0] };
    const levels = pyramid(new Random(2), 128, 160, [truth]).map((level) => ({
      ...level,
      predicted: level.predicted.map((image) =>
        image.map(() => [Number.NaN, 1, 1, 1] as unknown as Sides),
      ),
    }));
    const out = await run('centerNetTargets', inputsOf(levels, [truth]), {
      ...options,
      classes: 1,
    });
    // What is left are the centre cells of the level that fits (half diagonal 28).
    expect(out.map((t) => t.shape).filter((_, i) => i % 4 === 3)).toEqual([
      [1, 2],
      [0, 2],
      [0, 2],
    ]);
  });

  test('has the same bits for any number of threads', async () => {
    const random = new Random(5);
    const truths = [randomTruth(random, 40, 3, 90), randomTruth(random, 9, 3, 90)];
    const inputs = inputsOf(pyramid(random, 128, 160, truths), truths);
    const results = [];
    for (const threads of [1, 2, 3]) {
      native.setNumThreads(threads);
      results.push(await run('centerNetTargets', inputs, { ...options, classes: 3 }));
    }
    native.setNumThreads(1);
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
  });

  test('refuses what does not fit', async () => {
    const truth = { boxes: [[2, 2, 9, 9] as Box], labels: [0] };
    const inputs = inputsOf(pyramid(new Random(1), 64, 64, [truth]), [truth]);
    const call = (list: Input[], more: object) =>
      run('centerNetTargets', list, { ...options, classes: 1, ...more });
    await expect(call(inputs, { regressTo: [40] })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: 'train.regressTo must hold one number per level but the last (2), got 1',
    });
    await expect(call(inputs, { heatMinRadius: 0 })).rejects.toMatchObject({ code: 'ERR_CONFIG' });
    await expect(call(inputs.with(-1, i32([1])), {})).rejects.toMatchObject({
      code: 'ERR_RANGE',
      message: 'centerNetTargets: labels must be in [0, 0], got 1',
    });
    await expect(call(inputs.with(-1, i32([0, 0])), {})).rejects.toMatchObject({
      code: 'ERR_SHAPE',
    });
  });
});
