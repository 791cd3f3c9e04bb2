import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { repeatFactors } from '../../../lib/data/resampling.js';
import {
  BatchSampler,
  type BatchSamplerOptions,
  type SampledBatch,
  type SamplerSource,
} from '../../../lib/data/sampler.js';
import { memoryDataset } from './memory-dataset.js';

const wide = { width: 64, height: 48 };
const tall = { width: 48, height: 64 };
const square = { width: 48, height: 48 };
const sizes = (wides: number, talls: number) => [
  ...Array<typeof wide>(wides).fill(wide),
  ...Array<typeof tall>(talls).fill(tall),
];
const take = (sampler: BatchSampler, count: number): SampledBatch[] =>
  Array.from({ length: count }, () => sampler.next());
const indicesOf = (batches: readonly SampledBatch[]) => batches.map(({ indices }) => indices);

describe('counts per source', () => {
  const counts = (batchSize: number, ...ratios: number[]) =>
    new BatchSampler(
      ratios.map((ratio) => ({ images: [wide], ratio })),
      { batchSize, seed: 0 },
    ).counts;
  test('int(B * ratio / sum), remainder to the first', () => {
    expect(counts(5, 1, 4)).toEqual([1, 4]);
    expect(counts(8, 4, 4)).toEqual([4, 4]);
    expect(counts(7, 1, 4)).toEqual([2, 5]);
    expect(counts(10, 1, 1, 1)).toEqual([4, 3, 3]);
    expect(counts(4, 1)).toEqual([4]);
    expect(counts(4, 1, 0)).toEqual([4, 0]);
  });
  test.each([
    [
      () => counts(2, 4, 1),
      'batchSize must give every source at least one image (ratios 4:1), got 2',
    ],
    [() => counts(0, 1), 'batchSize must be a positive integer, got 0'],
    [() => counts(2.5, 1), 'got 2.5'],
    [() => counts(2, -1, 3), 'ratios must be >= 0, and at least one > 0'],
    [() => counts(2, 0, 0), 'got [0, 0]'],
    [() => counts(2), 'sources must have at least one entry'],
    [
      () => new BatchSampler([{ images: [], ratio: 1 }], { batchSize: 1, seed: 0 }),
      'source 0 must have images',
    ],
    [
      () =>
        new BatchSampler([{ images: [wide], ratio: 1 }], {
          batchSize: 1,
          seed: 0,
          rank: 2,
          worldSize: 2,
        }),
      'rank must be in 0 … worldSize-1, got 2 of 2',
    ],
    [
      () =>
        new BatchSampler(
          [
            {
              images: [wide],
              ratio: 1,
              repeat: repeatFactors(memoryDataset([[0], [1]]), { threshold: 1 }),
            },
          ],
          { batchSize: 1, seed: 0 },
        ),
      'a repeat factor per image (1), got 2',
    ],
  ])('%s', (make, message) => {
    expect(make).toThrow(message);
    expect(make).toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }));
  });
});

describe('streams', () => {
  test('every pass shows every image once', () =>
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 9 }),
        fc.nat(1000),
        (labelled, unlabelled, seed) => {
          const sampler = new BatchSampler(
            [
              { images: sizes(labelled, 0), ratio: 1 },
              { images: sizes(unlabelled, 0), ratio: 2 },
            ],
            { batchSize: 3, seed, groupByAspect: false },
          );
          const batches = take(sampler, labelled * unlabelled);
          for (const [source, size] of [labelled, unlabelled].entries()) {
            const drawn = batches.flatMap(({ indices }) => indices[source]!);
            for (let at = 0; at + size <= drawn.length; at += size)
              expect(drawn.slice(at, at + size).sort((a, b) => a - b)).toEqual(
                Array.from({ length: size }, (_, i) => i),
              );
          }
        },
      ),
    ));

  test('passes, seeds and sources are shuffled differently', () => {
    const images = sizes(50, 0);
    const make = (seed: number) =>
      new BatchSampler(
        [
          { images, ratio: 1 },
          { images, ratio: 1 },
        ],
        { batchSize: 100, seed },
      );
    const [first, second] = take(make(1), 2);
    const orders = [...first!.indices, ...second!.indices, make(2).next().indices[0]];
    expect(new Set(orders.map((order) => JSON.stringify(order))).size).toBe(5);
    expect(indicesOf(take(make(1), 2))).toEqual([first!.indices, second!.indices]);
  });

  test('the ranks share the stream of one', () => {
    const sources = [
      { images: sizes(7, 0), ratio: 1 },
      { images: sizes(11, 5), ratio: 2 },
    ];
    const options = { batchSize: 3, seed: 3, groupByAspect: false };
    const whole = take(new BatchSampler(sources, options), 40).flatMap(
      ({ indices }) => indices[1]!,
    );
    const ranks = [0, 1].map((rank) =>
      take(new BatchSampler(sources, { ...options, rank, worldSize: 2 }), 20).flatMap(
        ({ indices }) => indices[1]!,
      ),
    );
    expect(ranks[0]!.flatMap((index, i) => [index, ranks[1]![i]!])).toEqual(whole);
  });

  test('a world larger than the data set still goes round', () => {
    const sampler = new BatchSampler([{ images: sizes(3, 0), ratio: 1 }], {
      batchSize: 1,
      seed: 0,
      rank: 7,
      worldSize: 8,
    });
    const drawn = take(sampler, 300).flatMap(({ indices }) => indices[0]!);
    for (const image of [0, 1, 2])
      expect(drawn.filter((i) => i === image).length).toBeGreaterThan(60);
  });

  test('repeat factors: ceil each pass, stochastic redrawn each pass', () => {
    const dataset = memoryDataset([[0, 1], ...Array.from({ length: 4 }, () => [0])]);
    const drawn = (rounding: 'ceil' | 'stochastic', count: number) => {
      const repeat = repeatFactors(dataset, { threshold: 0.6, rounding });
      const sampler = new BatchSampler([{ images: dataset.images, ratio: 1, repeat }], {
        batchSize: 1,
        seed: 1,
      });
      return take(sampler, count).flatMap(({ indices }) => indices[0]!);
    };
    expect(drawn('ceil', 6).sort()).toEqual([0, 0, 1, 2, 3, 4]);
    const many = drawn('stochastic', 6000);
    const perPass = (index: number) => many.filter((i) => i === index).length;
    // sqrt(3) = 1.73 of 5.73 images a pass
    expect(perPass(0) / perPass(1)).toBeGreaterThan(1.6);
    expect(perPass(0) / perPass(1)).toBeLessThan(1.85);
  });
});

describe('aspect groups', () => {
  test('a batch is of one group; groups come by their share; square is landscape', () => {
    const sources: SamplerSource[] = [
      { images: [tall, wide, tall, square], ratio: 1 },
      { images: sizes(12, 4), ratio: 3 },
    ];
    const sampler = new BatchSampler(sources, { batchSize: 4, seed: 9 });
    let portrait = 0;
    for (const { indices } of take(sampler, 2000)) {
      const groups = new Set(
        indices.flatMap((list, source) =>
          list.map((index) => {
            const { width, height } = sources[source]!.images[index]!;
            return width < height;
          }),
        ),
      );
      expect(groups.size).toBe(1);
      if (groups.has(true)) portrait++;
    }
    // 6 of 20 images; four standard deviations
    expect(Math.abs(portrait / 2000 - 0.3)).toBeLessThan(4 * Math.sqrt(0.21 / 2000));
  });

  test('a group that one source lacks does not hang: its other group fills in', () => {
    const sampler = new BatchSampler(
      [
        { images: sizes(2, 0), ratio: 1 },
        { images: sizes(3, 3), ratio: 1 },
      ],
      { batchSize: 2, seed: 0 },
    );
    const batches = take(sampler, 100);
    expect(batches.every(({ indices }) => indices[0]![0]! < 2)).toBe(true);
    expect(batches.some(({ indices }) => indices[1]![0]! >= 3)).toBe(true);
  });

  test('a source without a share does not count', () => {
    const sampler = new BatchSampler(
      [
        { images: sizes(3, 0), ratio: 1 },
        { images: sizes(0, 50), ratio: 0 },
      ],
      { batchSize: 2, seed: 0 },
    );
    expect(take(sampler, 20).every(({ indices }) => indices[1]!.length === 0)).toBe(true);
  });
});

describe('resume', () => {
  const dataset = memoryDataset(
    Array.from({ length: 9 }, (_, i) => (i === 0 ? [0, 1] : [0])),
    { size: (i) => (i % 3 ? wide : tall) },
  );
  const sources: SamplerSource[] = [
    {
      images: dataset.images,
      ratio: 1,
      repeat: repeatFactors(dataset, { threshold: 0.9, rounding: 'stochastic' }),
    },
    { images: sizes(5, 8), ratio: 2 },
  ];
  const options: BatchSamplerOptions = { batchSize: 5, seed: 4 };

  test('from the state after any batch, through JSON, the rest is the same', () =>
    fc.assert(
      fc.property(fc.nat(60), fc.boolean(), (cut, groupByAspect) => {
        const own = { ...options, groupByAspect };
        const all = take(new BatchSampler(sources, own), cut + 31);
        const resumed = new BatchSampler(sources, own);
        resumed.restore(JSON.parse(JSON.stringify(all[cut]!.after)));
        expect(take(resumed, 30)).toEqual(all.slice(cut + 1));
      }),
      { numRuns: 40 },
    ));

  test('a substitute is an image of its source, the same every time, and moves nothing', () => {
    const [a, b] = [new BatchSampler(sources, options), new BatchSampler(sources, options)];
    const place = { step: 3, slot: 1, attempt: 0 };
    const drawn = Array.from({ length: 50 }, (_, attempt) =>
      a.substitute(1, { ...place, attempt }),
    );
    expect(drawn.every((index) => index >= 0 && index < 13)).toBe(true);
    expect(new Set(drawn).size).toBeGreaterThan(8);
    expect(b.substitute(1, place)).toBe(drawn[0]);
    expect(take(a, 5)).toEqual(take(new BatchSampler(sources, options), 5));
  });

  test.each([
    [sources, { ...options, seed: 5 }],
    [sources, { ...options, batchSize: 6 }],
    [sources, { ...options, groupByAspect: false }],
    [[sources[0]!, { images: sizes(5, 7), ratio: 2 }], options],
    [[{ ...sources[0]!, repeat: undefined }, sources[1]!], options],
  ])('the state of another sampler is refused', (otherSources, otherOptions) => {
    const state = new BatchSampler(sources, options).state();
    const error = expect.objectContaining({ code: 'ERR_CHECKPOINT' });
    expect(() => new BatchSampler(otherSources, otherOptions).restore(state)).toThrow(error);
  });
});
