import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { bestTokensLoop, detectQueriesLoop } from '../../oracle/query-boxes.js';
import { expectRefused } from '../ops/golden.js';
import { otherwiseEmulated } from '../ops/test-op.js';
import { f32, type Input, i32, numbers, relativeError, run } from './run.js';

const of = (values: readonly number[], ...shape: number[]): Input => ({ f32: values, shape });
const inBf16 = (values: readonly number[], ...shape: number[]): Input => ({ bf16: values, shape });
const filled = <T>(count: number, f: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => f(i));
/** Exact in bf16, and few enough that many are equal. */
const quarters = (random: Random, count: number, most = 4) =>
  filled(count, () => random.integer(-4 * most, 4 * most) / 4);

const refused = (op: string, inputs: Input[], options: object, code: string, message: string) =>
  expectRefused(() => run(op, inputs, options), code, `${op}: ${message}`);

describe('bestTokens', () => {
  const logit = fc.oneof(
    { weight: 8, arbitrary: fc.integer({ min: -3, max: 3 }) },
    { weight: 1, arbitrary: fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, -0) },
    { weight: 1, arbitrary: fc.constant(Number.NEGATIVE_INFINITY) },
  );
  test('is the oracle, ties and NaN included', () =>
    fc.assert(
      fc.asyncProperty(
        fc.record({
          n: fc.nat(3),
          s: fc.integer({ min: 1, max: 40 }),
          c: fc.integer({ min: 1, max: 19 }),
        }),
        fc.infiniteStream(logit),
        fc.nat(),
        fc.boolean(),
        async ({ n, s, c }, stream, pick, bf16) => {
          const logits = filled(n * s * c, () => stream.next().value);
          const count = pick % (s + 1);
          for (const by of [-1, pick % c]) {
            const input = bf16 ? inBf16(logits, n, s, c) : of(logits, n, s, c);
            expect(await numbers('bestTokens', [input], { count, by })).toEqual(
              bestTokensLoop(logits, [n, s, c], count, by),
            );
          }
        },
      ),
      { numRuns: 60 },
    ));

  test.each([
    [2, 1300, 80, 300],
    [1, 700, 91, 700],
    [2, 40, 1203, 9],
    [1, 17_000, 3, 900], // more tokens than a list of a GPU's selection holds
    [1, 17_000, 1, 16_500],
  ])('of sizes as heads have them: %i images, %i tokens, %i classes', async (n, s, c, count) => {
    const random = new Random(5).fork(String(s), String(c));
    const some = quarters(random, n * s * c, 400);
    some[5] = Number.NaN;
    const wanted = bestTokensLoop(some, [n, s, c], count);
    expect(await numbers('bestTokens', [of(some, n, s, c)], { count })).toEqual(wanted);
    const coarse = some.map((x) => Math.round(x / 64));
    expect(await numbers('bestTokens', [inBf16(coarse, n, s, c)], { count })).toEqual(
      bestTokensLoop(coarse, [n, s, c], count),
    );
    const by = c - 1;
    expect(await numbers('bestTokens', [of(some, n, s, c)], { count, by })).toEqual(
      bestTokensLoop(some, [n, s, c], count, by),
    );
  });

  test('for any number of threads, in any order of a GPU’s', async () => {
    const shape = [3, 3300, 20] as const; // tokens enough for three threads
    const some = quarters(new Random(8), 3 * 3300 * 20);
    const wanted = bestTokensLoop(some, shape, 100);
    const check = async () =>
      expect(await numbers('bestTokens', [of(some, ...shape)], { count: 100 })).toEqual(wanted);
    for (const threads of [3, 2, 1]) {
      native.setNumThreads(threads);
      await check();
    }
    await otherwiseEmulated(check);
  });

  test('of all NaN by index; of nothing nothing', async () => {
    expect(
      await numbers('bestTokens', [of(Array(8).fill(Number.NaN), 2, 4, 1)], { count: 3 }),
    ).toEqual([0, 1, 2, 4, 5, 6]);
    for (const [shape, count] of [
      [[0, 5, 3], 2],
      [[2, 0, 3], 0],
      [[2, 2, 1], 0],
    ] as const)
      expect(
        await run('bestTokens', [of(Array(shape[0] * shape[1] * shape[2]).fill(1), ...shape)], {
          count,
        }),
      ).toEqual([{ data: [], shape: [0], dtype: 'i32' }]);
  });

  test('says what was wrong', async () => {
    const zeros = (...shape: number[]) =>
      of(Array(shape.reduce((a, b) => a * b, 1)).fill(0), ...shape);
    const op = 'bestTokens';
    await refused(op, [], {}, 'ERR_SHAPE', 'needs 1 tensors, got 0');
    await refused(op, [i32([1])], {}, 'ERR_DTYPE', 'logits must be f32 or bf16, got i32');
    await refused(
      op,
      [zeros(2, 3)],
      {},
      'ERR_SHAPE',
      'logits must have 3 axes (N, S, C), got [2, 3]',
    );
    await refused(op, [zeros(1, 2, 0)], {}, 'ERR_SHAPE', 'logits must have a class, got [1, 2, 0]');
    await refused(
      op,
      [zeros(1, 2, 2)],
      { count: 3 },
      'ERR_SHAPE',
      'logits must have at least 3 tokens, got [1, 2, 2]',
    );
    await refused(op, [zeros(1, 2, 2)], { count: -1 }, 'ERR_RANGE', 'count must be >= 0, got -1');
    await refused(
      op,
      [zeros(1, 2, 2)],
      { by: 2 },
      'ERR_RANGE',
      'by must be a class below 2, got 2',
    );
  });
});

describe('detectQueries', () => {
  const detect = async (
    logits: number[],
    [n, q, c]: [number, number, number],
    own: number[],
    sizes: number[],
    maxPerImage: number,
    bf16 = false,
  ) => {
    const found = await run(
      'detectQueries',
      [bf16 ? inBf16(logits, n, q, c) : of(logits, n, q, c), of(own, n, q, 4), f32(sizes, 2)],
      { maxPerImage },
    );
    expect(found.length).toBe(3 * n);
    return filled(n, (i) => ({
      boxes: found[3 * i]!.data,
      scores: found[3 * i + 1]!.data,
      labels: found[3 * i + 2]!.data,
    }));
  };

  async function expectOracle(
    random: Random,
    [n, q, c]: [number, number, number],
    most: number,
    change: (logits: number[], own: number[]) => void = () => {},
  ) {
    const logits = quarters(random, n * q * c, 6);
    const own = filled(n * q * 4, () => Math.fround(random.uniform(-0.1, 1)));
    const sizes = filled(n * 2, () => random.integer(30, 1333));
    change(logits, own);
    const wanted = filled(n, (i) =>
      detectQueriesLoop(
        logits.slice(i * q * c, (i + 1) * q * c),
        own.slice(4 * i * q, 4 * (i + 1) * q),
        c,
        sizes.slice(2 * i, 2 * i + 2),
        most,
      ),
    );
    for (const bf16 of [false, true]) {
      const found = await detect(logits, [n, q, c], own, sizes, most, bf16);
      for (const [i, { boxes: corners, scores, labels }] of wanted.entries()) {
        expect(found[i]!.labels).toEqual(labels);
        expect(relativeError(found[i]!.scores, scores)).toBeLessThan(1e-6);
        expect(relativeError(found[i]!.boxes, corners)).toBeLessThan(1e-5);
      }
    }
  }

  test.each<[[number, number, number], number]>([
    [[1, 1, 1], 5],
    [[2, 100, 1], 100],
    [[3, 30, 20], 100],
    [[2, 7, 9], 500],
    [[1, 300, 80], 300],
    [[1, 17, 1203], 100],
    [[1, 1500, 11], 40], // more pairs than a list of a GPU's selection holds, few and most of them
    [[1, 1500, 11], 16_450],
    [[8, 20, 3], 1],
  ])('is the oracle: %j, at most %i', async (shape, most) => {
    await expectOracle(new Random(3).fork(String(shape)), shape, most);
  });

  test('a NaN is no detection; a query whose box is NaN is left out', async () => {
    await expectOracle(new Random(4), [2, 20, 5], 60, (logits, own) => {
      for (let i = 0; i < logits.length; i += 3) logits[i] = Number.NaN;
      own[4 * 3 + 1] = Number.NaN;
      own[4 * 7 + 2] = Number.NaN;
    });
    await expectOracle(new Random(4), [2, 20, 5], 60, (logits) => logits.fill(Number.NaN));
  });

  test('scores that are equal go by index, those of infinite logits too', async () => {
    const inf = Number.POSITIVE_INFINITY;
    const [found] = await detect(
      [-inf, 30, inf, -200, 20, -inf, 0, 25],
      [1, 2, 4],
      [0.5, 0.5, 1, 1, 0.5, 0.5, 0.5, 0.5],
      [100, 200],
      8,
    );
    expect(found!.labels).toEqual([1, 2, 0, 3, 2, 0, 3, 1]);
    expect(found!.scores).toEqual([1, 1, 1, 1, 0.5, 0, 0, 0]);
    expect(found!.boxes.slice(0, 4)).toEqual([0, 0, 200, 100]);
    expect(found!.boxes.slice(8, 12)).toEqual([50, 25, 150, 75]);
  });

  test('clips to the image, which lies in the upper left of its input', async () => {
    const [found] = await detect([1], [1, 1, 1], [0.9, 0.1, 0.4, 0.4], [50, 80], 3);
    expect(relativeError(found!.boxes, [56, 0, 80, 15])).toBeLessThan(1e-6);
  });

  test('finds nothing where there is nothing', async () => {
    expect(await detect([], [0, 3, 2], [], [], 5)).toEqual([]);
    const none = { boxes: [], scores: [], labels: [] };
    expect(await detect([], [2, 0, 2], [], [9, 9, 9, 9], 5)).toEqual([none, none]);
    expect(await detect([], [1, 1, 0], [0, 0, 0, 0], [9, 9], 5)).toEqual([none]);
  });

  test('for any number of threads, in any order of a GPU’s', async () => {
    const random = new Random(6);
    const check = () => expectOracle(random.fork('again'), [4, 40, 7], 50);
    for (const threads of [3, 2, 1]) {
      native.setNumThreads(threads);
      await check();
    }
    await otherwiseEmulated(check);
  });

  test('says what was wrong', async () => {
    const zeros = (...shape: number[]) =>
      of(Array(shape.reduce((a, b) => a * b, 1)).fill(0), ...shape);
    const bad = (inputs: Input[], code: string, message: string, options = {}) =>
      refused('detectQueries', inputs, options, code, message);
    const [logits, own, sizes] = [zeros(1, 2, 3), zeros(1, 2, 4), zeros(1, 2)];
    await bad([logits], 'ERR_SHAPE', 'needs 3 tensors, got 1');
    await bad([i32([1]), own, sizes], 'ERR_DTYPE', 'logits must be f32 or bf16, got i32');
    await bad(
      [zeros(2, 3), own, sizes],
      'ERR_SHAPE',
      'logits must have 3 axes (N, Q, C), got [2, 3]',
    );
    await bad(
      [logits, zeros(1, 3, 4), sizes],
      'ERR_SHAPE',
      'boxes must be [1, 2, 4] (a box for each query), got [1, 3, 4]',
    );
    await bad(
      [logits, inBf16(Array(8).fill(0), 1, 2, 4), sizes],
      'ERR_DTYPE',
      'boxes must be f32, got bf16',
    );
    await bad(
      [logits, own, zeros(2, 2)],
      'ERR_SHAPE',
      'sizes must be [1, 2] (height and width of each image), got [2, 2]',
    );
    await bad([logits, own, sizes], 'ERR_RANGE', 'maxPerImage must be >= 1, got 0', {
      maxPerImage: 0,
    });
  });
});
