import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { DetectedBoxes, GroundTruthBoxes } from '../../../lib/eval/boxes.js';
import { type CocoMetrics, evaluateCoco } from '../../../lib/eval/coco.js';
import { parseCocoGroundTruth, parseCocoResults } from '../../../lib/eval/coco-files.js';
import {
  formatComparison,
  formatPerClass,
  formatSummary,
  metricNumbers,
} from '../../../lib/eval/report.js';
import { evaluateVoc } from '../../../lib/eval/voc.js';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { cocoTables, type OracleDetection, type OracleTruth } from '../../oracle/coco-eval.js';

interface Recorded {
  stats: number[];
  perClassAP: Record<string, number | null>;
  summary?: string[];
}
interface Golden {
  tool: string;
  cases: { truth: object; detections: object[]; coco: Recorded; mmdetection: Recorded }[];
}
const golden = JSON.parse(
  readFileSync(new URL('../../golden/coco-eval/random.json', import.meta.url), 'utf8'),
) as Golden;

const areaRanges = {
  all: [0, 1e10],
  small: [0, 1024],
  medium: [1024, 9216],
  large: [9216, 1e10],
} as const;

function groundTruthBoxes(
  truths: readonly OracleTruth[],
  sizes: { numImages: number; numClasses: number },
): GroundTruthBoxes {
  return {
    categories: Array.from({ length: sizes.numClasses }, (_, id) => ({ id, name: `c${id}` })),
    numImages: sizes.numImages,
    boxes: Float64Array.from(truths.flatMap((x) => [...x.box])),
    images: Int32Array.from(truths, (x) => x.image),
    labels: Int32Array.from(truths, (x) => x.label),
    ignore: Uint8Array.from(truths, (x) => (x.crowd ? 1 : 0)),
    areas: Float64Array.from(truths, (x) => x.area),
    ids: Float64Array.from(truths, (x) => x.id),
  };
}

function detectedBoxes(detections: readonly OracleDetection[]): DetectedBoxes {
  return {
    boxes: Float64Array.from(detections.flatMap((x) => [...x.box])),
    scores: Float64Array.from(detections, (x) => x.score),
    images: Int32Array.from(detections, (x) => x.image),
    labels: Int32Array.from(detections, (x) => x.label),
  };
}

/** A small data set full of ties: boxes and scores sit on coarse grids, truths repeat. */
function randomDataset(random: Random) {
  const numImages = random.integer(1, 4);
  const numClasses = random.integer(1, 4);
  const grid = random.next() < 0.6 ? random.integer(1, 4) : 0;
  const extent = random.next() < 0.7 ? 12 : 150;
  const levels = random.integer(1, 6);
  const number = (low: number, high: number) =>
    grid > 0 ? low + grid * random.integer(0, Math.ceil(high / grid)) : random.uniform(low, high);
  const box = (): [number, number, number, number] => [
    number(0, extent),
    number(0, extent),
    number(grid, extent),
    number(grid, extent),
  ];
  const near = (source: readonly number[]) =>
    source.map((v) => v + (grid || 1) * random.integer(-1, 2)) as [number, number, number, number];
  const truths: OracleTruth[] = [];
  for (let i = random.integer(0, 10); i > 0; i--) {
    const other = truths[random.integer(0, Math.max(1, truths.length))];
    const b = other && random.next() < 0.4 ? other.box : box();
    truths.push({
      image: random.integer(0, numImages),
      label: random.integer(0, numClasses),
      box: b,
      area: random.next() < 0.6 ? b[2] * b[3] : [0, 1024, 5000, 9216, 2e10][random.integer(0, 5)]!,
      crowd: random.next() < 0.2,
      id: random.next() < 0.05 ? 0 : i,
    });
  }
  const detections: OracleDetection[] = [];
  for (let i = random.integer(0, 24); i > 0; i--) {
    const like = truths[random.integer(0, Math.max(1, truths.length))];
    const copies = like !== undefined && random.next() < 0.7;
    detections.push({
      image: copies ? like.image : random.integer(0, numImages),
      label: copies && random.next() < 0.9 ? like.label : random.integer(0, numClasses),
      box: copies ? (random.next() < 0.4 ? like.box : near(like.box)) : box(),
      score: random.integer(0, levels + 1) / levels,
    });
  }
  return { numImages, numClasses, truths, detections };
}

function largestDifference(a: ArrayLike<number>, b: ArrayLike<number>): number {
  expect(a.length).toBe(b.length);
  let worst = 0;
  for (let i = 0; i < a.length; i++) worst = Math.max(worst, Math.abs(a[i]! - b[i]!));
  return worst;
}

describe('evaluateCoco', () => {
  test(`equals ${golden.tool} on recorded data sets, under both limits`, async () => {
    expect(golden.cases.length).toBeGreaterThan(30);
    for (const { truth, detections, ...recorded } of golden.cases) {
      const groundTruth = parseCocoGroundTruth(truth);
      const results = parseCocoResults(detections, groundTruth);
      for (const protocol of ['coco', 'mmdetection'] as const) {
        const metrics = await evaluateCoco({ groundTruth, detections: results }, { protocol });
        const expected = recorded[protocol];
        expect(largestDifference(metrics.stats, expected.stats)).toBeLessThan(1e-9);
        expect(metrics.perClass.map(({ category }) => String(category.id)).sort()).toEqual(
          Object.keys(expected.perClassAP).sort(),
        );
        for (const { category, ap } of metrics.perClass) {
          const truth = expected.perClassAP[category.id]!;
          if (truth === null) expect(ap).toBeNull();
          else expect(ap).toBeCloseTo(truth, 9);
        }
        if (expected.summary) expect(formatSummary(metrics)).toBe(expected.summary.join('\n'));
      }
    }
  });

  test('equals the slow loop in every cell of the tables', async () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    let compared = 0;
    for (let i = 0; i < 1500; i++) {
      const data = randomDataset(new Random(seed).fork('coco', i));
      const limits = i % 2 ? ([1, 3, 100] as const) : ([1, 2, 5] as const);
      const thresholds = i % 3 ? [0.5, 0.75] : [0.5, 0.55, 0.95, 1];
      const metrics = await evaluateCoco(
        {
          groundTruth: groundTruthBoxes(data.truths, data),
          detections: detectedBoxes(data.detections),
        },
        { iouThresholds: thresholds, areaRanges, maxDetections: limits },
      );
      const truth = cocoTables(data.truths, data.detections, {
        ...data,
        thresholds,
        recallPoints: metrics.tables.recallPoints,
        areas: Object.values(areaRanges),
        limits,
      });
      for (const name of ['precision', 'scores', 'recall'] as const) {
        const worst = largestDifference(metrics.tables[name], truth[name]);
        if (worst > 1e-12)
          throw new Error(`${name} differs by ${worst} with seed ${seed}, case ${i}`);
        compared += truth[name].length;
      }
    }
    expect(compared).toBeGreaterThan(1e6);
  });

  test('a perfect detector scores 1, and AP is 0 where nothing was detected', async () => {
    const truths: OracleTruth[] = [0, 1, 2].map((image) => ({
      image,
      label: image % 2,
      box: [10, 10, 20 + 40 * image, 20],
      area: 20 * (20 + 40 * image),
      crowd: false,
      id: image + 1,
    }));
    const groundTruth = groundTruthBoxes(truths, { numImages: 4, numClasses: 3 });
    const detections = detectedBoxes(truths.map((truth) => ({ ...truth, score: 0.5 })));
    const perfect = await evaluateCoco({ groundTruth, detections });
    // The reference adds 2^-52 to the denominator of the precision, so 1 is met to rounding.
    const ones = [1, 1, 1, 1, 1, -1, 1, 1, 1, 1, 1, -1];
    expect(largestDifference(perfect.stats, ones)).toBeLessThan(1e-12);
    expect(perfect.perClass.map(({ ap }) => ap && Math.round(ap * 1e12) / 1e12)).toEqual([
      1,
      1,
      null,
    ]);
    expect(perfect.perClass.map(({ numGroundTruths }) => numGroundTruths)).toEqual([2, 1, 0]);
    const nothing = await evaluateCoco({ groundTruth, detections: detectedBoxes([]) });
    expect(nothing.stats).toEqual([0, 0, 0, 0, 0, -1, 0, 0, 0, 0, 0, -1]);
    const empty = await evaluateCoco({
      groundTruth: groundTruthBoxes([], { numImages: 0, numClasses: 0 }),
      detections: detectedBoxes([]),
    });
    expect(empty.stats).toEqual(new Array(12).fill(-1));
  });

  test('of two equal ground truths the later one is taken, and an id of 0 is no match', async () => {
    const twin = { image: 0, label: 0, box: [0, 0, 30, 30] as const, area: 900, crowd: false };
    const detections = detectedBoxes([{ image: 0, label: 0, box: [0, 0, 30, 30], score: 1 }]);
    const recallWithIds = async (first: number, second: number) => {
      const truths = [
        { ...twin, id: first },
        { ...twin, id: second },
      ];
      const groundTruth = groundTruthBoxes(truths, { numImages: 1, numClasses: 1 });
      return (await evaluateCoco({ groundTruth, detections })).stats[8];
    };
    expect(await recallWithIds(1, 2)).toBe(0.5);
    expect(await recallWithIds(0, 2)).toBe(0.5);
    expect(await recallWithIds(1, 0)).toBe(0);
  });

  test('is the same for any number of threads and many calls at once', async () => {
    const data = randomDataset(new Random(3).fork('threads'));
    const input = {
      groundTruth: groundTruthBoxes(data.truths, data),
      detections: detectedBoxes(data.detections),
    };
    const runs: CocoMetrics[] = [];
    for (const threads of [1, 2, 5]) {
      native.setNumThreads(threads);
      runs.push(...(await Promise.all([evaluateCoco(input), evaluateCoco(input)])));
    }
    native.setNumThreads(1);
    for (const run of runs) expect(run).toEqual(runs[0]);
  });

  test('refuses what would make the numbers meaningless', async () => {
    const groundTruth = groundTruthBoxes(
      [{ image: 0, label: 0, box: [0, 0, 9, 9], area: 81, crowd: false, id: 1 }],
      { numImages: 1, numClasses: 1 },
    );
    const detections = detectedBoxes([{ image: 0, label: 0, box: [0, 0, 9, 9], score: 1 }]);
    const bad = (change: Partial<DetectedBoxes>) =>
      evaluateCoco({ groundTruth, detections: { ...detections, ...change } });
    await expect(bad({ scores: Float64Array.of(Number.NaN) })).rejects.toMatchObject({
      code: 'ERR_RANGE',
      message: 'evaluateCoco: detections.scores[0] must be finite, got nan',
    });
    await expect(
      bad({ boxes: Float64Array.of(0, 0, Number.POSITIVE_INFINITY, 1) }),
    ).rejects.toMatchObject({
      code: 'ERR_RANGE',
      message: 'evaluateCoco: detections.boxes[2] must be finite, got inf',
    });
    await expect(bad({ images: Int32Array.of(1) })).rejects.toMatchObject({
      code: 'ERR_RANGE',
      message: 'evaluateCoco: detections.images[0] must be in [0, 1), got 1',
    });
    await expect(bad({ labels: Int32Array.of(-1) })).rejects.toMatchObject({ code: 'ERR_RANGE' });
    await expect(bad({ boxes: new Float64Array(3) })).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'evaluateCoco: detections.boxes must have 4 entries (four per detection), got 3',
    });
    await expect(
      bad({ scores: Float32Array.of(1) as unknown as Float64Array }),
    ).rejects.toMatchObject({
      code: 'ERR_DTYPE',
      message: 'evaluateCoco: detections.scores must be a Float64Array, got a typed array of 1',
    });
    await expect(
      evaluateCoco({ groundTruth, detections }, { protocl: 'coco' } as object),
    ).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining("'protocl'; did you mean 'protocol'?"),
    });
    await expect(
      evaluateCoco({ groundTruth, detections }, { maxDetections: [10, 1, 100] }),
    ).rejects.toMatchObject({ code: 'ERR_CONFIG' });
    await expect(
      evaluateCoco({ groundTruth, detections }, { protocol: 'lvis' as 'coco' }),
    ).rejects.toMatchObject({ code: 'ERR_CONFIG' });
    await expect(
      evaluateCoco({ groundTruth, detections }, { iouThresholds: [1.5] }),
    ).rejects.toMatchObject({ code: 'ERR_RANGE' });
  });
});

describe("VOC's metrics beside COCO's", () => {
  // A duplicate, and an object that does not count (crowd, difficult) found twice: COCO passes over
  // both, VOC over both, too, but it measures boxes with inclusive edges.
  const groundTruth = groundTruthBoxes(
    [
      { image: 0, label: 0, box: [10, 10, 20, 20], area: 400, crowd: false, id: 1 },
      { image: 0, label: 0, box: [50, 50, 20, 20], area: 400, crowd: false, id: 2 },
      { image: 0, label: 0, box: [90, 0, 30, 30], area: 900, crowd: true, id: 3 },
    ],
    { numImages: 1, numClasses: 2 },
  );
  const detections = detectedBoxes([
    { image: 0, label: 0, box: [10, 10, 20, 20], score: 0.9 },
    { image: 0, label: 0, box: [90, 0, 30, 30], score: 0.8 },
    { image: 0, label: 0, box: [12, 10, 20, 20], score: 0.7 },
    { image: 0, label: 0, box: [50, 56, 20, 20], score: 0.6 },
  ]);

  test('the same as evaluateVoc gives for corners', async () => {
    const { voc } = await evaluateCoco({ groundTruth, detections }, { voc: '11point' });
    const corners = (flat: Float64Array) =>
      flat.map((value, i) => (i % 4 < 2 ? value : value + flat[i - 2]!));
    const direct = await evaluateVoc(
      {
        groundTruth: { ...groundTruth, boxes: corners(groundTruth.boxes) },
        detections: { ...detections, boxes: corners(detections.boxes) },
      },
      { iouThresholds: [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95] },
    );
    expect(voc!.map).toBeCloseTo(direct.map, 12);
    // Inclusive edges: 21 * 15 of 2 * 441 - 315, IoU 0.556. Precision 1 up to recall 1/2, then 2/3.
    expect(voc!.mapPerThreshold[0]).toBeCloseTo((6 + 5 * (2 / 3)) / 11, 12);
    expect(voc!.mapPerThreshold[2]).toBeCloseTo(6 / 11, 12);
    const area = await evaluateCoco({ groundTruth, detections }, { voc: 'area' });
    expect(area.voc!.mapPerThreshold[0]).toBeCloseTo(0.5 + 0.5 * (2 / 3), 12);
    expect((await evaluateCoco({ groundTruth, detections })).voc).toBeNull();
  });

  test('in numbers and tables', async () => {
    const metrics = await evaluateCoco({ groundTruth, detections }, { voc: '11point' });
    const ap50 = metrics.voc!.mapPerThreshold[0]!;
    expect(metricNumbers(metrics).voc).toEqual({
      ...{ interpolation: '11point', AP50: ap50, AP: metrics.voc!.map },
      perClassAP50: { 0: ap50, 1: null },
    });
    expect(formatSummary(metrics)).toContain('Pascal VOC (11point): AP50 = 0.848');
    expect(await formatPerClass(metrics)).toMatch(/VOC AP50.*c0.*0\.848/s);
    const both = await formatComparison({ student: metrics, teacher: metrics });
    expect(both).toMatch(/VOC AP50 +│ +0\.848 │ +0\.848 │ +\+0\.000/);
    await expect(
      evaluateCoco({ groundTruth, detections }, { voc: '2007' as never }),
    ).rejects.toThrow(/interpolation must be '11point' or 'area', got '2007'/);
  });
});

describe('reports', () => {
  test('puts teacher and student side by side with their difference', async () => {
    const truths: OracleTruth[] = [
      { image: 0, label: 0, box: [0, 0, 50, 50], area: 2500, crowd: false, id: 1 },
    ];
    const groundTruth = groundTruthBoxes(truths, { numImages: 1, numClasses: 2 });
    const student = await evaluateCoco({ groundTruth, detections: detectedBoxes([]) });
    const teacher = await evaluateCoco({
      groundTruth,
      detections: detectedBoxes([{ image: 0, label: 0, box: [0, 0, 50, 50], score: 1 }]),
    });
    const lines = (await formatComparison({ student, teacher })).split('\n');
    const row = (name: string) =>
      lines
        .find((line) => line.split('│')[1]?.trim() === name)
        ?.split('│')
        .map((cell) => cell.trim())
        .slice(1, -1);
    expect(row('metric')).toEqual(['metric', 'student', 'teacher', 'difference']);
    expect(row('AP')).toEqual(['AP', '0.000', '1.000', '+1.000']);
    expect(row('AP_S')).toEqual(['AP_S', '-', '-', '-']);
    expect(row('AP c0')).toEqual(['AP c0', '0.000', '1.000', '+1.000']);
    expect(row('AP c1')).toEqual(['AP c1', '-', '-', '-']);
    expect(await formatPerClass(teacher)).toMatch(/c0 +│ +1 │ 1\.000/);
  });
});
