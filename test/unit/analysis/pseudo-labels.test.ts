import { beforeAll, describe, expect, test } from 'vitest';
import {
  analyzePseudoLabels,
  annotatedImages,
  type PseudoLabelOptions,
  thresholdsAround,
} from '../../../lib/analysis/index.js';
import { chartsOf, tablesOf } from '../../../lib/analysis/pseudo-label-page.js';
import { asUnlabelled, ImageCache, makeDataset } from '../../../lib/data/index.js';
import type { Annotations, DetectionDataset } from '../../../lib/data/types.js';
import { MixplError } from '../../../lib/errors.js';
import { loadNative } from '../../../lib/native.js';
import { detections, FakeDetector } from '../semi/fake-detector.js';

beforeAll(() => void loadNative());

const categories = ['rare', 'common', 'absent'].map((name, i) => ({ id: i + 1, name }));
const size = { width: 200, height: 200 };

/** A data set from objects of each image, rows of [x1, y1, x2, y2, label, crowd]; null: unlabelled. */
function datasetOf(...images: (number[][] | null)[]): DetectionDataset {
  const annotationsOf = (rows: number[][]): Annotations => ({
    boxes: Float32Array.from(rows.flatMap((r) => r.slice(0, 4))),
    labels: Int32Array.from(rows, (r) => r[4]!),
    crowd: Uint8Array.from(rows, (r) => r[5] ?? 0),
    areas: Float64Array.from(rows, () => 1),
    ids: Float64Array.from(rows, (_, i) => i + 1),
  });
  return makeDataset({
    ...{ name: 'known', source: 'known', categories },
    images: images.map((rows, i) => ({
      ...{ id: i + 1, fileName: `${i}.png`, path: `${i}`, ...size },
      annotations: rows && annotationsOf(rows),
    })),
  });
}

/** Shown at half its size; finds in image i what row i of `found` says, in the pixels of the original. */
function analyze(dataset: DetectionDataset, found: number[][][], options: PseudoLabelOptions = {}) {
  const detector = new FakeDetector();
  detector.predict_ = async (batch) => {
    const pixels = (await batch.tensor.read()) as Float32Array;
    const per = pixels.length / batch.sizes.length;
    return batch.sizes.map((_, i) => {
      const rows = found[Math.round(pixels[i * per]!)] ?? [];
      return detections(...rows.map((r) => r.map((v, k) => (k < 4 ? v / 2 : v))));
    });
  };
  return analyzePseudoLabels(detector, dataset, {
    resize: { long: 100, short: 100 },
    preprocess: { mean: [0, 0, 0], std: [1, 1, 1], channelOrder: 'rgb', padDivisor: 1 },
    cache: new ImageCache({
      decode: async (path) => {
        if (path === 'bad') throw new MixplError('ERR_BAD_FILE', 'bad: must be a readable image');
        return { ...size, data: new Uint8Array(3 * 200 * 200).fill(Number(path)) };
      },
    }),
    ...options,
  });
}

const images = [
  [
    [0, 0, 20, 20, 1],
    [40, 0, 100, 60, 1],
    [0, 100, 100, 200, 0],
    [150, 150, 200, 200, 1, 1],
  ],
  [],
  [[0, 0, 40, 40, 1]],
];
const found = [
  [
    [0, 0, 20, 20, 0.9, 1], // right, small
    [40, 0, 100, 60, 0.6, 1], // right, medium
    [0, 100, 100, 200, 0.4, 0], // right, large
    [160, 160, 190, 190, 0.7, 1], // on a crowd, small
    [0, 0, 20, 20, 0.35, 1], // again: wrong
  ],
  [[0, 0, 20, 20, 0.8, 0]], // wrong
  [],
];

describe('analyzePseudoLabels', () => {
  test('counts at each threshold, in pixels of the original', async () => {
    const { thresholds, ...rest } = await analyze(datasetOf(...images), found, {
      ...{ thresholds: [0.5, 0.3, 0.5], batch: 2 },
    });
    const scores = { small: [0.9, 0.7, 0.35, 0.8], medium: [0.6], large: [0.4] };
    const mean = (values: number[]) => values.reduce((a, b) => a + b) / values.length;
    expect(rest).toMatchObject({ images: 3, objects: 4 });
    for (const [name, values] of Object.entries({ ...scores, all: Object.values(scores).flat() }))
      expect(rest.meanScore[name as 'all']).toBeCloseTo(mean(values), 6);
    expect(thresholds.map(({ threshold }) => threshold)).toEqual([0.3, 0.5]);
    const [low, high] = thresholds;
    expect(low).toMatchObject({ pseudoLabels: 2, objects: 4 / 3, precision: 0.6, recall: 0.75 });
    expect(high).toMatchObject({
      ...{ pseudoLabels: 4 / 3, objects: 4 / 3, precision: 2 / 3, recall: 0.5 },
      emptyShare: 1 / 3,
      bySize: {
        small: { pseudoLabels: 1, objects: 1 / 3, precision: 0.5, recall: 1 },
        medium: { pseudoLabels: 1 / 3, objects: 2 / 3, precision: 1, recall: 0.5 },
        large: { pseudoLabels: 0, objects: 1 / 3, precision: null, recall: 0 },
      },
    });
    expect(high!.meanScore).toBeCloseTo(mean([0.9, 0.6, 0.7, 0.8]), 6);
    expect(high!.byClass).toEqual([
      { name: 'common', pseudoLabels: 1, objects: 1, precision: 1, recall: 2 / 3 },
      { name: 'rare', pseudoLabels: 1 / 3, objects: 1 / 3, precision: 0, recall: 0 },
      { name: 'absent', pseudoLabels: 0, objects: 0, precision: null, recall: null },
    ]);
  });

  test('a detector that finds nothing, and images that hold nothing', async () => {
    const nothing = await analyze(datasetOf([], []), [], { thresholds: [0.5] });
    expect(nothing).toMatchObject({
      ...{ images: 2, objects: 0 },
      meanScore: { all: null, small: null, medium: null, large: null },
      thresholds: [
        {
          pseudoLabels: 0,
          objects: 0,
          precision: null,
          recall: null,
          emptyShare: 1,
          meanScore: null,
        },
      ],
    });
  });

  test('images that nobody annotated are left out; without any other there is nothing to do', async () => {
    const some = await analyze(datasetOf(null, images[0]!, null), [[], found[0]!], {
      thresholds: [0.5],
    });
    expect(some).toMatchObject({ images: 1, objects: 3 });
    expect(some.thresholds[0]).toMatchObject({ pseudoLabels: 3, precision: 1 });
    await expect(analyze(asUnlabelled(datasetOf(...images)), found)).rejects.toMatchObject({
      code: 'ERR_DATA',
      message: expect.stringMatching(/known: images must have annotations .* got 3 without/),
    });
  });

  test('an unreadable image ends it, or is left out and told', async () => {
    const dataset = datasetOf(...images);
    const broken = makeDataset({
      ...{ ...dataset, source: 'broken' },
      images: dataset.images.map((image, i) => (i === 0 ? { ...image, path: 'bad' } : image)),
    });
    await expect(analyze(broken, found)).rejects.toMatchObject({ code: 'ERR_BAD_FILE' });
    const told: string[] = [];
    const { images: looked, objects } = await analyze(broken, found, {
      unreadable: 'skip',
      onUnreadable: (_, path) => told.push(path),
    });
    expect([looked, objects, told]).toEqual([2, 1, ['bad']]);
  });

  test('thresholds and classes that do not fit are refused; a signal stops it', async () => {
    const dataset = datasetOf(...images);
    for (const thresholds of [[], [0.5, 1.5], [Number.NaN], [-0.1]])
      await expect(analyze(dataset, found, { thresholds })).rejects.toMatchObject({
        code: 'ERR_RANGE',
        message: expect.stringMatching(/thresholds must be one or more of 0 … 1, got /),
      });
    const two = { ...dataset, categories: categories.slice(0, 2) };
    await expect(analyze(two, found)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining('must have 2 classes (those of known: rare, common), got 3'),
    });
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(analyze(dataset, found, { signal })).rejects.toThrow('enough');
  });
});

test('thresholds around one stay scores', () => {
  expect(thresholdsAround(0.4)).toEqual([0.2, 0.3, 0.4, 0.5, 0.6]);
  expect(thresholdsAround(0.05)).toEqual([0.05, 0.15, 0.25]);
  expect(thresholdsAround(0.9)).toEqual([0.7, 0.8, 0.9]);
});

describe('annotatedImages', () => {
  const many = datasetOf(...Array.from({ length: 30 }, (_, i) => (i % 5 === 0 ? null : [])));
  const ids = (options: Parameters<typeof annotatedImages>[1]) =>
    annotatedImages(many, options).images.map(({ id }) => id);

  test('a seeded choice in the order of the data set; a smaller one is part of it', () => {
    expect(ids({})).toHaveLength(24);
    const ten = ids({ limit: 10, seed: 3 });
    expect(ten).toHaveLength(10);
    expect(ten).toEqual([...ten].sort((a, b) => a - b));
    expect(ids({ limit: 10, seed: 3 })).toEqual(ten);
    expect(ten).toEqual(expect.arrayContaining(ids({ limit: 4, seed: 3 })));
    expect(ids({ limit: 10, seed: 4 })).not.toEqual(ten);
    expect(ids({ limit: 99 })).toEqual(ids({}));
  });

  test('a limit is a whole number from 1', () => {
    for (const limit of [0, -1, 1.5, Number.NaN])
      expect(() => annotatedImages(many, { limit })).toThrow(`from 1, got ${limit}`);
  });
});

describe('tables and charts', () => {
  const study = async (iterations: (number | null)[]) => {
    const analysis = await analyze(datasetOf(...images), found, { thresholds: [0.3, 0.5] });
    return {
      dataset: { name: 'known', source: 'known' },
      threshold: 0.5,
      checkpoints: iterations.map((iteration, i) => ({ weights: `w${i}`, iteration, ...analysis })),
    };
  };

  test('of one checkpoint go by threshold and by class', async () => {
    const one = await study([7]);
    const [byThreshold, byClass] = tablesOf(one);
    expect(byThreshold!.rows.map(([at]) => at)).toEqual(['0.3', '0.5', 'objects']);
    expect(byThreshold!.rows.at(-1)!.slice(1, 5)).toEqual(['1.33', '0.33', '0.67', '0.33']);
    expect(new Set(byThreshold!.rows.map((row) => row.length))).toEqual(
      new Set([byThreshold!.columns.length]),
    );
    expect(byClass!.rows).toEqual([
      ['common', '1.00', '1.00', '1.000', '0.667'],
      ['rare', '0.33', '0.33', '0.000', '0.000'],
      ['absent', '0.00', '0.00', '–', '–'],
    ]);
    const charts = chartsOf(one);
    expect(charts.map(({ xLabel }) => xLabel)).toEqual([
      ...['score above', 'score above', 'class', 'class'],
    ]);
    expect(charts[0]!.series.find(({ label }) => label === 'medium, annotated')).toMatchObject({
      ...{ values: [2 / 3, 2 / 3], dashed: true, like: 'medium' },
    });
    expect(charts[2]).toMatchObject({ x: [0, 1, 2], names: ['common', 'rare', 'absent'] });
    for (const { x, series } of charts)
      for (const { values } of series) expect(values).toHaveLength(x.length);
  });

  test('of several go by iteration, too, in its order', async () => {
    const several = await study([20, 10]);
    expect(tablesOf(several)[0]!.rows.map(([iteration]) => iteration)).toEqual(['20', '10']);
    const course = chartsOf(several).filter(({ x }) => x.includes(10));
    expect(course.map(({ x }) => x)).toEqual([
      [10, 20],
      [10, 20],
      [10, 20],
    ]);
    const unknown = chartsOf(await study([null, 10]));
    expect(unknown.some(({ x }) => x.includes(10))).toBe(false);
  });
});
