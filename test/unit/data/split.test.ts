import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { boxesPerImage, selectImages } from '../../../lib/data/dataset.js';
import { filterLabelled } from '../../../lib/data/filter.js';
import { Mt19937 } from '../../../lib/data/mt19937.js';
import { repeatedIndices, repeatFactors } from '../../../lib/data/resampling.js';
import { asUnlabelled, splitDataset, splitIndices } from '../../../lib/data/split.js';
import { Random } from '../../../lib/random.js';
import { memoryDataset } from './memory-dataset.js';

test('boxes an annotated image has, by class; crowds and images without annotations do not count', () => {
  const dataset = memoryDataset([[0, 0, 1], [0], [], [1]], { crowd: (image) => image === 3 });
  expect(boxesPerImage(dataset)).toEqual([3 / 4, 1 / 4, 0]);
  const unlabelled = dataset.images.map((image) => ({ ...image, annotations: null }));
  const mixed = [...dataset.images.slice(0, 2), ...unlabelled];
  expect(boxesPerImage(selectImages(dataset, mixed))).toEqual([3 / 2, 1 / 2, 0]);
  expect(boxesPerImage(selectImages(dataset, unlabelled))).toEqual([0, 0, 0]);
});

describe('the published COCO splits', () => {
  const train2017 = 118287;

  test('draw as numpy does: fold 1 at 10% begins as published', () =>
    expect(new Mt19937(1).choice(train2017, 5)).toEqual([98539, 77708, 5192, 98047, 50057]));

  test('the generator is numpy.random.RandomState(1)', () => {
    // numpy.random.seed(1); numpy.random.randint(0, 2**32, 3, dtype=numpy.uint32)
    const random = new Mt19937(1);
    expect([random.nextUint32(), random.nextUint32(), random.nextUint32()]).toEqual([
      1791095845, 4282876139, 3093770124,
    ]);
  });

  const published: Record<number, readonly number[]> = {
    1: [1174, 2329, 5764, 11285],
    2: [1175, 2346, 5772, 11261],
    3: [1174, 2342, 5756, 11234],
    4: [1174, 2337, 5766, 11262],
    5: [1175, 2343, 5762, 11235],
  };
  test.each(Object.entries(published))('fold %s has the published counts', (fold, counts) =>
    expect(
      [1, 2, 5, 10].map(
        (percent) =>
          splitIndices(train2017, { percent, fold: Number(fold), scheme: 'reference' }).length,
      ),
    ).toEqual(counts),
  );

  test('goes by position in the file', () => {
    const dataset = memoryDataset(Array.from({ length: 50 }, () => [0]));
    const reversed = selectImages(dataset, dataset.images.toReversed());
    const options = { percent: 20, scheme: 'reference' } as const;
    const positions = splitIndices(50, options);
    expect(splitDataset(dataset, options).labelled.images.map(({ id }) => id - 1)).toEqual(
      positions,
    );
    expect(splitDataset(reversed, options).labelled.images.map(({ id }) => 50 - id)).toEqual(
      positions,
    );
  });

  test('masks and rejects at powers of two and their neighbours', () =>
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 5000 }), fc.nat(1000), (n, seed) => {
        const drawn = new Mt19937(seed).choice(n, 50);
        expect(drawn.every((value) => value >= 0 && value < n)).toBe(true);
        // By hand: the smallest mask of ones that covers n - 1.
        let mask = 0;
        while (mask < n - 1) mask = 2 * mask + 1;
        const random = new Mt19937(seed);
        const expected: number[] = [];
        while (expected.length < 50 && n > 1) {
          const value = (random.nextUint32() & mask) >>> 0;
          if (value < n) expected.push(value);
        }
        if (n > 1) expect(drawn).toEqual(expected);
      }),
    ));
});

describe('splitDataset', () => {
  const dataset = memoryDataset(Array.from({ length: 60 }, (_, i) => [i % 3]));

  test('exact: every image on one side, the right count, folds differ', () =>
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 60 }),
        fc.double({ min: 0.1, max: 100, noNaN: true }),
        fc.nat(20),
        (count, percent, fold) => {
          const part = selectImages(dataset, dataset.images.slice(0, count));
          const wanted = Math.round((percent * count) / 100);
          if (wanted === 0) {
            expect(() => splitDataset(part, { percent, fold })).toThrow('at least one');
            return;
          }
          const { labelled, unlabelled, hash } = splitDataset(part, { percent, fold });
          expect(labelled.images).toHaveLength(wanted);
          const ids = [...labelled.images, ...unlabelled.images].map(({ id }) => id);
          expect(ids.toSorted((a, b) => a - b)).toEqual(part.images.map(({ id }) => id));
          expect(unlabelled.images.every(({ annotations }) => annotations === null)).toBe(true);
          // Independent of the order of the images.
          const shuffled = new Random(count).permutation(count).map((i) => part.images[i]!);
          expect(splitDataset(selectImages(part, shuffled), { percent, fold }).hash).toBe(hash);
        },
      ),
    ));

  test('smaller percentages are subsets of larger; folds and seeds differ', () => {
    const namesOf = (percent: number, fold: number) =>
      splitDataset(dataset, { percent, fold }).labelled.images.map(({ fileName }) => fileName);
    expect(namesOf(30, 2)).toEqual(expect.arrayContaining(namesOf(10, 2)));
    expect(namesOf(10, 1)).not.toEqual(namesOf(10, 2));
  });

  test('stays the same from release to release', () =>
    expect(splitDataset(dataset, { percent: 10, fold: 1 }).hash).toBe(
      '67327b21d1044523ef542871261e77d6aad20d453ccab283d5c933bc90b1d078',
    ));

  test('names both parts as the reference names its files; keeps annotations on request', () => {
    const { labelled, unlabelled } = splitDataset(dataset, {
      percent: 10,
      fold: 3,
      keepAnnotations: true,
    });
    expect([labelled.name, unlabelled.name]).toEqual(['memory.3@10', 'memory.3@10-unlabeled']);
    expect(labelled.report).toMatchObject({ images: 6, annotations: 6 });
    expect(unlabelled.report).toMatchObject({ images: 54, annotations: 54 });
  });

  test.each([
    [{ percent: 0 }, 'percent must be in (0, 100], got 0'],
    [{ percent: Number.NaN }, 'got NaN'],
    [{ percent: 101 }, 'got 101'],
    [{ percent: 0.1 }, 'at least one of 60 images, got 0.1'],
    [{ percent: 10, fold: -1 }, 'fold must be an integer from 0'],
    [{ percent: 10, fold: 1.5 }, 'got 1.5'],
    [{ percent: 10, scheme: 'rough' as 'exact' }, "'exact' or 'reference', got 'rough'"],
  ])('%j is refused', (options, message) =>
    expect(() => splitDataset(dataset, options)).toThrow(message),
  );

  test('an unlabelled data set cannot be split', () =>
    expect(() => splitDataset(asUnlabelled(dataset), { percent: 10 })).toThrow(
      "every image must be annotated, got '000000.png' without annotations",
    ));
});

describe('filterLabelled', () => {
  test('drops empty and small images; a crowd counts as an annotation', () => {
    const dataset = memoryDataset([[0], [], [1], [2], [0]], {
      crowd: (image) => image === 2,
      size: (image) => ({ width: image === 3 ? 31 : 64, height: image === 4 ? 32 : 48 }),
    });
    const ids = (options = {}) => filterLabelled(dataset, options).images.map(({ id }) => id);
    expect(ids()).toEqual([1, 3, 5]);
    expect(ids({ minSize: 33 })).toEqual([1, 3]);
    expect(ids({ dropEmpty: false, minSize: 0 })).toEqual([1, 2, 3, 4, 5]);
    expect(() => filterLabelled(dataset, { minSize: 100 })).toThrow('sides of at least 100 pixels');
    expect(() => filterLabelled(asUnlabelled(dataset))).toThrow(
      'must have images with annotations',
    );
  });
});

describe('repeatFactors', () => {
  test('by hand: class 1 in a quarter of the images, class 2 in one of sixteen', () => {
    const labels = Array.from({ length: 16 }, (_, i) =>
      i === 0 ? [0, 2, 2] : i < 5 ? [1, 1, 0] : i === 15 ? [] : [0],
    );
    const { images, categories } = repeatFactors(memoryDataset(labels, { classes: 4 }), {
      threshold: 0.5,
    });
    expect([...categories].slice(0, 3)).toEqual(
      [1, Math.SQRT2, Math.sqrt(8)].map((x) => expect.closeTo(x, 12)),
    );
    expect(categories[3]).toBeNaN(); // absent
    expect(images[0]).toBeCloseTo(Math.sqrt(8), 12);
    expect(images[1]).toBeCloseTo(Math.SQRT2, 12);
    expect(images[10]).toBe(1);
    expect(images[15]).toBe(1); // without annotations
  });

  test('crowds may be left out', () => {
    const dataset = memoryDataset([[0, 1], [0], [0], [0]], { crowd: (_, object) => object === 1 });
    const options = { threshold: 1 } as const;
    expect(repeatFactors(dataset, options).images[0]).toBe(2);
    expect(repeatFactors(dataset, { ...options, countCrowd: false }).images[0]).toBe(1);
  });

  test('ceil repeats ceil(r) times; stochastic averages r', () => {
    const labels = [[0, 1], ...Array.from({ length: 4 }, () => [0])];
    const dataset = memoryDataset(labels); // r = sqrt(0.6 * 5) = 1.73
    const random = new Random(5);
    const ceil = repeatFactors(dataset, { threshold: 0.6 });
    expect(repeatedIndices(ceil, random)).toEqual([0, 0, 1, 2, 3, 4]);
    const stochastic = repeatFactors(dataset, { threshold: 0.6, rounding: 'stochastic' });
    let drawn = 0;
    for (let pass = 0; pass < 2000; pass++) {
      const indices = repeatedIndices(stochastic, random.fork(pass));
      expect(indices.length).toBeGreaterThanOrEqual(5);
      expect(indices.length).toBeLessThanOrEqual(6);
      drawn += indices.filter((index) => index === 0).length;
    }
    // Four standard deviations of a mean of 2000 Bernoulli draws.
    expect(Math.abs(drawn / 2000 - Math.sqrt(3))).toBeLessThan(4 * Math.sqrt(0.2 / 2000));
  });

  test('threshold 0 repeats nothing; beyond 0 … 1 is an error', () => {
    const dataset = memoryDataset([[0], [1]]);
    expect([...repeatFactors(dataset, { threshold: 0 }).images]).toEqual([1, 1]);
    for (const threshold of [-0.1, 1.1, Number.NaN])
      expect(() => repeatFactors(dataset, { threshold })).toThrow('threshold must be in [0, 1]');
    expect(() => repeatFactors(dataset, { threshold: 0.5, rounding: 'floor' as 'ceil' })).toThrow(
      "'ceil' or 'stochastic', got 'floor'",
    );
  });
});
