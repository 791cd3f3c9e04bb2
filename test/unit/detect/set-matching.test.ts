import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { type Box, toBoxes } from '../../oracle/boxes.js';
import {
  leastSum,
  type MatchOptions,
  type MatchScene,
  munkresSum,
  queryCosts,
  sharesOf,
} from '../../oracle/set-matching.js';
import { boxes, f32, type Input, i32, numbers, relativeError, run, toBf16 } from './run.js';

const golden = JSON.parse(
  readFileSync(new URL('../../golden/detect/set-matching.json', import.meta.url), 'utf8'),
);

interface GoldenCase {
  // biome-ignore lint/suspicious/noExplicitAny: what the recorder wrote
  [key: string]: any;
}

const rounded = (box: readonly number[]) => box.map(Math.fround) as unknown as Box;

function draw(
  random: Random,
  queries: number,
  objects: number,
  { classes = 4, spread = 3, size = [480, 640] as MatchScene['size'] } = {},
): MatchScene {
  const [height, width] = size;
  const times = <T>(length: number, make: () => T) => Array.from({ length }, make);
  return {
    logits: times(queries, () =>
      times(classes, () => Math.fround(random.uniform(-spread - 2, spread - 2))),
    ),
    boxes: times(queries, () =>
      rounded([
        random.uniform(0.05, 0.95),
        random.uniform(0.05, 0.95),
        random.uniform(0.02, 0.4),
        random.uniform(0.02, 0.4),
      ]),
    ),
    truth: times(objects, () => {
      const [x, y] = [random.uniform(0, 0.8), random.uniform(0, 0.8)];
      const [w, h] = [random.uniform(0.02, 0.2), random.uniform(0.02, 0.2)];
      return rounded([x * width, y * height, (x + w) * width, (y + h) * height]);
    }),
    labels: times(objects, () => random.integer(0, classes)),
    size,
  };
}

/** Layers of a batch; all have the truth and the sizes of the first. */
function inputsOf(layers: readonly (readonly MatchScene[])[], classes = 4, bf16 = false): Input[] {
  const batch = layers[0]!;
  const queries = batch[0]?.logits.length ?? 0;
  return [
    f32(
      batch.flatMap((image) => [...image.size]),
      2,
    ),
    ...layers.flatMap((images): Input[] => {
      const logits = images.flatMap((image) => image.logits.flat());
      const shape = [batch.length, queries, classes];
      return [
        bf16 ? { bf16: logits, shape } : { f32: logits, shape },
        { f32: images.flatMap((image) => image.boxes.flat()), shape: [batch.length, queries, 4] },
      ];
    }),
    ...batch.flatMap((image) => [boxes(image.truth), i32(image.labels)]),
  ];
}

const costsOf = async (scene: MatchScene, options: MatchOptions = {}) => {
  const flat = await numbers('queryCosts', inputsOf([[scene]], scene.logits[0]!.length), options);
  const queries = scene.logits.length;
  return scene.truth.map((_, g) => flat.slice(g * queries, (g + 1) * queries));
};

interface Targets {
  labels: number[];
  boxes: number[];
  weights: number[];
  objects: number[];
  positives: number;
}
async function match(
  layers: readonly (readonly MatchScene[])[],
  options: MatchOptions = {},
  classes = 4,
): Promise<Targets[]> {
  const out = await run('matchQueries', inputsOf(layers, classes), {
    layers: layers.length,
    ...options,
  });
  return layers.map((_, l) => {
    const [labels, targets, weights, objects, positives] = out.slice(5 * l, 5 * l + 5);
    expect(positives!.shape).toEqual([]);
    return {
      labels: labels!.data,
      boxes: targets!.data,
      weights: weights!.data,
      objects: objects!.data,
      positives: positives!.data[0]!,
    };
  });
}

/** The sum of an image's costs; that each object and query is in one pair at most, is checked. */
function sumOf(objects: readonly number[], costs: readonly (readonly number[])[]): number {
  const taken = objects.filter((g) => g >= 0);
  expect(new Set(taken).size).toBe(taken.length);
  expect(taken.length).toBe(Math.min(costs.length, objects.length));
  return objects.reduce((sum, g, q) => (g < 0 ? sum : sum + costs[g]![q]!), 0);
}

describe('queryCosts', () => {
  const settings: [string, MatchOptions][] = [
    ['as DINO has them', {}],
    ['corners compared', { xyxyL1: true }],
    ['other weights', { classification: 1, boxes: 3, iou: 4, alpha: 0.4, eps: 1e-8 }],
    ['gamma 1.5', { gamma: 1.5 }],
    ['gamma 0', { gamma: 0 }],
    ['classes alone', { boxes: 0, iou: 0 }],
  ];
  test.each(settings)('are the oracle’s: %s', async (name, options) => {
    for (const spread of [1, 4, 30]) {
      const scene = draw(new Random(5).fork(name, spread), 70, 9, { spread });
      const want = queryCosts(scene, options);
      expect(relativeError((await costsOf(scene, options)).flat(), want.flat())).toBeLessThan(4e-6);
    }
  });

  test.each(golden.cases as GoldenCase[])(
    `are torch’s, and pairs SciPy ${golden.scipy}’s: $queries queries, gamma $options.gamma, corners $options.xyxyL1`,
    async (c) => {
      const classes = c.logits.length / c.queries;
      const scene: MatchScene = {
        logits: Array.from({ length: c.queries }, (_, q) =>
          c.logits.slice(q * classes, (q + 1) * classes),
        ),
        boxes: toBoxes(c.boxes),
        truth: toBoxes(c.truth),
        labels: c.labels,
        size: c.size,
      };
      const costs = await costsOf(scene, c.options);
      expect(relativeError(costs.flat(), c.costs)).toBeLessThan(4e-6);
      const [targets] = await match([[scene]], c.options, classes);
      expect(targets!.objects).toEqual(c.objects);
    },
  );

  test('of bf16 logits are those of what bf16 keeps', async () => {
    const scene = draw(new Random(6), 30, 5);
    const kept = { ...scene, logits: scene.logits.map((row) => row.map(toBf16)) };
    const inputs = inputsOf([[scene]], 4, true);
    expect(await numbers('queryCosts', inputs)).toEqual((await costsOf(kept)).flat());
    const [, , , objects] = await run('matchQueries', inputs);
    expect(objects!.data).toEqual((await match([[kept]]))[0]!.objects);
  });

  test('are finite whatever is given', async () => {
    const scene = draw(new Random(7), 8, 3);
    const odd = [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 1e38, -1e38];
    odd.forEach((x, q) => {
      scene.logits[q] = [x, x, x, x];
    });
    scene.boxes[5] = [Number.NaN, 0.5, 0.1, 0.1];
    scene.boxes[6] = [0.5, 0.5, Number.POSITIVE_INFINITY, 0.1];
    scene.boxes[7] = [1e30, 0.5, 0.1, 0.1];
    const costs = await costsOf(scene);
    const plain = queryCosts({ ...scene, logits: scene.logits.map(() => [0, 0, 0, 0]) });
    for (const [g, row] of costs.entries()) {
      for (const q of [0, 5, 6, 7]) expect(row[q]).toBe(1e6);
      // Of the class alone: -(1 - alpha) ln(1 / eps) where sure, alpha ln(1 / eps) where sure of no.
      const own = (q: number) => row[q]! - plain[g]![q]! + 2 * 0.25 * Math.LN2 * (0.25 - 0.75);
      const certain = -Math.log(1e-12);
      for (const q of [1, 3]) expect(own(q)).toBeCloseTo(-2 * 0.75 * certain, 4);
      for (const q of [2, 4]) expect(own(q)).toBeCloseTo(2 * 0.25 * certain, 4);
    }
  });
});

describe('matchQueries', () => {
  test('has the least sum of all: every assignment of a few', async () => {
    for (let queries = 1; queries <= 5; ++queries)
      for (let objects = 1; objects <= 6; ++objects) {
        const scene = draw(new Random(11).fork(queries, objects), queries, objects);
        const costs = await costsOf(scene);
        const [targets] = await match([[scene]]);
        expect(sumOf(targets!.objects, costs)).toBeCloseTo(leastSum(costs), 9);
      }
  });

  test.each([
    [300, 20],
    [200, 70],
    [61, 61],
    [70, 160],
    [257, 1],
    [1, 257],
  ])('has the least sum of all: %i queries, %i objects', async (queries, objects) => {
    // Boxes that hardly differ contend for the same queries: long paths.
    const scene = draw(new Random(12).fork(queries, objects), queries, objects, { spread: 0.1 });
    scene.truth = scene.truth.map(([x1, y1, x2, y2]) => rounded([x1 / 9, y1 / 9, x2 / 9, y2 / 9]));
    const costs = await costsOf(scene);
    const [targets] = await match([[scene]]);
    expect(sumOf(targets!.objects, costs)).toBeCloseTo(munkresSum(costs), 7);
  });

  test('more queries than shared memory has room for', async () => {
    const scene = draw(new Random(13), 2750, 3, { classes: 1 });
    const costs = await costsOf(scene);
    const [targets] = await match([[scene]], {}, 1);
    const best = costs.map((row) => row.indexOf(Math.min(...row)));
    expect(new Set(best).size).toBe(3);
    expect(best.map((q) => targets!.objects[q])).toEqual([0, 1, 2]);
    expect(targets!.positives).toBe(3);
  });

  test('says what each query learns, layer by layer, image by image', async () => {
    const random = new Random(14);
    const counts = [3, 0, 25, 1];
    const sizes = [
      [480, 640],
      [333, 500],
      [800, 608],
      [96, 96],
    ] as const;
    const first = counts.map((n, i) => draw(random, 20, n, { size: sizes[i]! }));
    const layers = [
      first,
      ...[1, 2].map(() =>
        first.map((image) => {
          const { logits, boxes } = draw(random, 20, 0);
          return { ...image, logits, boxes };
        }),
      ),
    ];
    const found = await match(layers);
    for (const [l, images] of layers.entries()) {
      const t = found[l]!;
      expect(t.positives).toBe(3 + 0 + 20 + 1);
      let begin = 0;
      for (const [n, image] of images.entries()) {
        const rows = <T>(list: readonly T[], width = 1) =>
          list.slice(n * 20 * width, (n + 1) * 20 * width);
        const alone = (await match([[image]]))[0]!;
        expect(rows(t.objects)).toEqual(alone.objects.map((g) => (g < 0 ? -1 : g + begin)));
        expect(rows(t.labels)).toEqual(alone.objects.map((g) => (g < 0 ? 4 : image.labels[g])));
        expect(rows(t.weights)).toEqual(alone.objects.map((g) => (g < 0 ? 0 : 1)));
        const want = alone.objects.flatMap((g) =>
          g < 0 ? [0, 0, 0, 0] : sharesOf(image.truth[g]!, image.size),
        );
        expect(relativeError(rows(t.boxes, 4), want)).toBeLessThan(1e-6);
        expect(rows(t.boxes, 4)).toEqual(alone.boxes);
        begin += image.truth.length;
      }
    }
  });

  test('more layers than a launch takes are as each alone', async () => {
    const random = new Random(15);
    const truth = draw(random, 6, 4);
    const layers = Array.from({ length: 19 }, () => {
      const { logits, boxes } = draw(random, 6, 0);
      return [{ ...truth, logits, boxes }];
    });
    const together = await match(layers);
    for (const [l, layer] of layers.entries()) expect([together[l]]).toEqual(await match([layer]));
  });

  test('of equal queries the first get objects, in their order', async () => {
    const one = draw(new Random(16), 1, 1);
    const scene: MatchScene = {
      ...one,
      logits: Array.from({ length: 40 }, () => one.logits[0]!),
      boxes: Array.from({ length: 40 }, () => one.boxes[0]!),
      truth: Array.from({ length: 7 }, () => one.truth[0]!),
      labels: Array.from({ length: 7 }, () => one.labels[0]!),
    };
    const inOrder = Array.from({ length: 40 }, (_, q) => (q < 7 ? q : -1));
    expect((await match([[scene]]))[0]!.objects).toEqual(inOrder);
    const few = { ...scene, logits: scene.logits.slice(0, 3), boxes: scene.boxes.slice(0, 3) };
    expect((await match([[few]]))[0]!.objects).toEqual([0, 1, 2]);
  });

  test('NaN and infinity make no pair where another is possible', async () => {
    const scene = draw(new Random(17), 12, 5);
    const bad = [0, 3, 4, 8, 11];
    for (const [k, q] of bad.entries())
      if (k % 2) scene.boxes[q] = [0.5, Number.NaN, 0.1, Number.POSITIVE_INFINITY];
      else scene.logits[q] = [Number.NaN, Number.NaN, Number.NaN, Number.NaN];
    const [targets] = await match([[scene]]);
    expect(targets!.objects.filter((g) => g >= 0).sort()).toEqual([0, 1, 2, 3, 4]);
    for (const q of bad) expect(targets!.objects[q]).toBe(-1);
    // All bad: pairs nonetheless, the same each time.
    const lost = { ...scene, logits: scene.logits.map((row) => row.map(() => Number.NaN)) };
    expect((await match([[lost]]))[0]!.objects).toEqual([
      0, 1, 2, 3, 4, -1, -1, -1, -1, -1, -1, -1,
    ]);
  });

  test('without objects, queries or images', async () => {
    const random = new Random(18);
    const [none] = await match([[draw(random, 5, 0), draw(random, 5, 0)]]);
    expect(none).toEqual({
      labels: Array(10).fill(4),
      boxes: Array(40).fill(0),
      weights: Array(10).fill(0),
      objects: Array(10).fill(-1),
      positives: 0,
    });
    const [idle] = await match([[draw(random, 0, 3)]]);
    expect(idle).toEqual({ labels: [], boxes: [], weights: [], objects: [], positives: 0 });
    const nothing = [f32([], 2), { f32: [], shape: [0, 7, 4] }, { f32: [], shape: [0, 7, 4] }];
    const [labels, , , , positives] = await run('matchQueries', nothing);
    expect([labels!.shape, positives!.data]).toEqual([[0, 7], [0]]);
  });

  test('has the same bits for any number of threads', async () => {
    const random = new Random(19);
    const inputs = inputsOf([[draw(random, 90, 30), draw(random, 90, 100), draw(random, 90, 0)]]);
    const results = [];
    for (const threads of [1, 2, 3]) {
      native.setNumThreads(threads);
      results.push(await run('matchQueries', inputs), await run('queryCosts', inputs));
    }
    native.setNumThreads(1);
    expect(results.slice(2, 4)).toEqual(results.slice(0, 2));
    expect(results.slice(4, 6)).toEqual(results.slice(0, 2));
  });

  test('refuses what does not fit', async () => {
    const inputs = inputsOf([[draw(new Random(20), 6, 2)]]);
    const refusals: [Input[], object, string, string | RegExp][] = [
      [
        inputs.with(4, i32([0, 4])),
        {},
        'ERR_RANGE',
        'matchQueries: labels must be in [0, 3], got 4',
      ],
      [
        inputs.with(0, f32([1, 1, 1, 1], 2)),
        {},
        'ERR_SHAPE',
        'matchQueries: sizes must be [1, 2] (height and width of each image), got [2, 2]',
      ],
      [
        inputs.with(2, { f32: [1, 1, 1, 1], shape: [1, 1, 4] }),
        {},
        'ERR_SHAPE',
        'matchQueries: boxes must be [1, 6, 4] (one per query), got [1, 1, 4]',
      ],
      [
        [...inputs, boxes([]), i32([])],
        {},
        'ERR_SHAPE',
        'matchQueries: axis 0 of logits must be 2 (images), got [1, 6, 4]',
      ],
      [inputs.with(1, { f32: [1], shape: [1, 1] }), {}, 'ERR_SHAPE', /logits must have 3 axes/],
      [
        inputs.with(1, { i32: Array(24).fill(1), shape: [1, 6, 4] }),
        {},
        'ERR_DTYPE',
        /logits must be f32 or bf16/,
      ],
      [inputs.slice(1), {}, 'ERR_SHAPE', /needs sizes, logits and boxes per layer \(1\)/],
      [inputs, { iou: -1 }, 'ERR_RANGE', 'matchQueries: iou must be >= 0, got -1'],
      [inputs, { alpha: 2 }, 'ERR_RANGE', 'matchQueries: alpha must be in [0, 1], got 2'],
      [inputs, { eps: 0 }, 'ERR_RANGE', /eps must be in/],
      [inputs, { layers: 0 }, 'ERR_RANGE', /layers must be in/],
    ];
    for (const [given, options, code, message] of refusals)
      await expect(run('matchQueries', given, options)).rejects.toMatchObject({
        code,
        message: typeof message === 'string' ? message : expect.stringMatching(message),
      });
  });
});
