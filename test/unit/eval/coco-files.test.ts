import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { evaluateFiles } from '../../../lib/cli/eval-files.js';
import type { EvaluationDataset, ImageDetections } from '../../../lib/eval/boxes.js';
import { evaluateDetections } from '../../../lib/eval/coco.js';
import {
  parseCocoGroundTruth,
  parseCocoResults,
  writeCocoResults,
} from '../../../lib/eval/coco-files.js';
import { metricNumbers } from '../../../lib/eval/report.js';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-eval-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function file(name: string, content: unknown): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, typeof content === 'string' ? content : JSON.stringify(content));
  return path;
}

const truth = () => ({
  images: [{ id: 7 }, { id: 3 }],
  categories: [
    { id: 5, name: 'cat' },
    { id: 2, name: 'dog' },
  ],
  annotations: [
    { id: 1, image_id: 7, category_id: 5, bbox: [10, 10, 40, 40], area: 1600, iscrowd: 0 },
    { id: 2, image_id: 3, category_id: 5, bbox: [0, 0, 20, 10], area: 200, iscrowd: 0 },
  ] as Record<string, unknown>[],
});
const results = () =>
  [
    { image_id: 7, category_id: 5, bbox: [10, 10, 40, 40], score: 0.9 },
    { image_id: 3, category_id: 5, bbox: [0, 0, 20, 10], score: 0.8 },
  ] as Record<string, unknown>[];

describe('evaluateFiles', () => {
  test('gives the twelve numbers and AP by category id', async () => {
    const annotations = await file('gt.json', truth());
    const detections = await file('dt.json', `\uFEFF${JSON.stringify(results())}`);
    const { metrics, warnings } = await evaluateFiles({ annotations, detections });
    const { stats, perClassAP } = metricNumbers(metrics);
    expect(stats).toHaveLength(12);
    expect(stats[0]).toBeCloseTo(1, 12);
    expect(stats[5]).toBe(-1);
    expect(Object.keys(perClassAP).sort()).toEqual(['2', '5']);
    expect(perClassAP['2']).toBeNull();
    expect(perClassAP['5']).toBeCloseTo(1, 12);
    expect(warnings).toEqual([]);
  });

  test('no detections at all score 0', async () => {
    const annotations = await file('gt.json', truth());
    const detections = await file('none.json', []);
    const { stats } = (await evaluateFiles({ annotations, detections })).metrics;
    expect(stats.slice(0, 2)).toEqual([0, 0]);
  });

  test.each([
    ['missing file', undefined, 'ERR_IO', /absent\.json: must be a readable JSON file/],
    ['empty file', '', 'ERR_BAD_FILE', /must hold JSON, got an empty file/],
    ['cut file', '[{"image_id": 7,\n "bb', 'ERR_BAD_FILE', /bad\.json:2:5: .*cut off here/],
    [
      'NaN',
      '[\n{"image_id": 7, "bbox": [0, NaN, 1, 1]}]',
      'ERR_DATA',
      /\[0\]\.bbox\[1\] must be a finite.*NaN/,
    ],
    ['UTF-16', '[\0]\0', 'ERR_BAD_FILE', /bad\.json:1:1: must be UTF-8/],
    ['zero bytes', '\0\0\0', 'ERR_BAD_FILE', /bad\.json:1:1: .*got zero bytes/],
    ['text', 'hello', 'ERR_BAD_FILE', /bad\.json:1:1: must have .* \(to be JSON\)/],
    ['an object', '{}', 'ERR_DATA', /must be a list of/],
    [
      'overflow',
      '[{"image_id":7,"category_id":5,"bbox":[0,0,1e999,1],"score":1}]',
      'ERR_DATA',
      /\[0\]\.bbox\[2\] must be a finite number, got "Infinity"/,
    ],
  ])('%s is one readable error', async (_, content, code, message) => {
    const annotations = await file('gt.json', truth());
    const detections =
      content === undefined ? join(folder, 'absent.json') : await file('bad.json', content);
    await expect(evaluateFiles({ annotations, detections })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });
});

describe('results', () => {
  const groundTruth = parseCocoGroundTruth(truth());
  const withChange = (change: Record<string, unknown>) => [{ ...results()[0], ...change }];

  test.each([
    ['image_id', 8, /detections: \[0\]\.image_id must be the id of an image.*got 8/],
    ['image_id', '7', /image_id must be.*got "7"/],
    ['bbox', [1, 2, 3], /\[0\]\.bbox must be \[x, y, width, height\], got \[1,2,3\]/],
    ['bbox', [1, 2, 3, '4'], /\[0\]\.bbox\[3\] must be a finite number, got "4"/],
    ['score', undefined, /\[0\]\.score must be a finite number, got nothing/],
    ['score', null, /\[0\]\.score must be a finite number, got null/],
    ['category_id', 'cat', /\[0\]\.category_id must be the id of a category.*got "cat"/],
  ])('refuses %s %j', (key, value, message) => {
    const call = () => parseCocoResults(withChange({ [key]: value }), groundTruth);
    expect(call).toThrow(expect.objectContaining({ code: 'ERR_DATA' }));
    expect(call).toThrow(message);
  });

  test('a category the ground truth lacks is passed over with a warning, or refused', () => {
    const list = [...results(), { ...results()[0], category_id: 99 }];
    const read = parseCocoResults(list, groundTruth);
    expect(read.scores).toHaveLength(2);
    expect(read.warnings).toEqual([
      'detections: 1 detections of categories that the ground truth lacks (such as 99)',
    ]);
    expect(() => parseCocoResults(list, groundTruth, { unknownCategories: 'refuse' })).toThrow(
      'detections: [2].category_id must be the id of a category of the ground truth, got 99',
    );
  });
});

describe('ground truth', () => {
  test('images and categories ascend by id', () => {
    const read = parseCocoGroundTruth(truth());
    expect(read.imageIds).toEqual([3, 7]);
    expect(read.categories.map(({ id }) => id)).toEqual([2, 5]);
    expect([...read.images]).toEqual([1, 0]);
    expect([...read.labels]).toEqual([1, 1]);
  });

  test('string image ids order by code point', () => {
    const json = truth();
    json.images = ['b', 'a', 'B', '10', '9'].map((id) => ({ id })) as never;
    json.annotations = [];
    expect(parseCocoGroundTruth(json).imageIds).toEqual(['10', '9', 'B', 'a', 'b']);
  });

  test('what is passed over or assumed is counted', () => {
    const json = truth();
    json.annotations.push(
      { id: 2, image_id: 3, category_id: 5, bbox: [5, 5, 4, 4] },
      { id: 3, image_id: 99, category_id: 5, bbox: [0, 0, 1, 1], area: 1, iscrowd: 0 },
      { id: 4, image_id: 3, category_id: 98, bbox: [0, 0, 1, 1], area: 1, iscrowd: 0 },
      { id: 0, image_id: 3, category_id: 2, bbox: [0, 0, 1, 1], area: 1, iscrowd: true },
    );
    const read = parseCocoGroundTruth(json, 'gt.json');
    // Both places of the repeated id 2 hold its last annotation.
    expect([...read.ids]).toEqual([2, 2, 0, 1]);
    expect([...read.areas]).toEqual([16, 16, 1, 1600]);
    expect([...read.ignore]).toEqual([0, 0, 1, 0]);
    expect(read.warnings.map((line) => line.replace(/ \(such as.*/, ''))).toEqual([
      'gt.json: 1 repeated annotation ids, of which the last counts',
      'gt.json: 1 annotation ids of 0, which never count as matched',
      'gt.json: 1 annotations of images that are not listed',
      'gt.json: 1 annotations of categories that are not listed',
      "gt.json: 2 annotations without an area, of which the box's is taken",
      'gt.json: 2 annotations without iscrowd, taken as 0',
    ]);
  });

  test.each([
    ['a list', [], 'annotations must be a COCO annotation object, got []'],
    ['no images', { annotations: [] }, 'annotations: images must be a list, got nothing'],
    [
      'a box of text',
      { bbox: 'x' },
      'annotations: annotations[0].bbox must be [x, y, width, height], got "x"',
    ],
    [
      'an area of null',
      { area: null },
      'annotations: annotations[0].area must be a finite number, got null',
    ],
    ['no id', { id: undefined }, 'annotations: annotations[0].id must be a number, got nothing'],
  ])('refuses %s', (name, change, message) => {
    const json = truth();
    if (!Array.isArray(change) && name !== 'no images') Object.assign(json.annotations[0]!, change);
    const input = Array.isArray(change) || name === 'no images' ? change : json;
    expect(() => parseCocoGroundTruth(input)).toThrow(
      expect.objectContaining({ code: 'ERR_DATA', message }),
    );
  });

  test('refuses image ids of mixed types and beyond 2^53', () => {
    const json = truth();
    json.images = [{ id: 1 }, { id: 'a' }] as never;
    expect(() => parseCocoGroundTruth(json)).toThrow('must be a number as the ids before it');
    json.images = [{ id: 2 ** 60 }];
    expect(() => parseCocoGroundTruth(json)).toThrow('must be a number up to 2^53');
  });
});

describe('a data set in memory', () => {
  const dataset: EvaluationDataset = {
    name: 'pair',
    categories: [
      { id: 5, name: 'cat' },
      { id: 2, name: 'dog' },
    ],
    images: [7, 3].map((id, i) => ({
      id,
      annotations: {
        boxes: i ? Float32Array.of(0, 0, 20, 10) : Float32Array.of(10, 10, 50, 50),
        labels: Int32Array.of(0),
        crowd: Uint8Array.of(0),
        areas: Float64Array.of(i ? 200 : 1600),
      },
    })),
  };
  const detections: ImageDetections[] = [
    {
      boxes: Float32Array.of(10.3, 10, 50, 50, 1, 1, 5, 5),
      scores: Float32Array.of(0.9, 0.1),
      labels: Int32Array.of(0, 1),
    },
    { boxes: new Float32Array(), scores: new Float32Array(), labels: new Int32Array() },
  ];

  test('scores as the same boxes do through files', async () => {
    const path = join(folder, 'written.json');
    await writeCocoResults(path, { dataset, detections });
    const annotations = await file('gt.json', truth());
    const fromFiles = await evaluateFiles({ annotations, detections: path });
    const inMemory = await evaluateDetections({ dataset, detections });
    expect(inMemory.stats).toEqual(fromFiles.metrics.stats);
    expect(inMemory.stats[8]).toBeCloseTo(0.5, 12);
    const written = JSON.parse(await readFile(path, 'utf8')) as { category_id: number }[];
    expect(written.map((entry) => entry.category_id)).toEqual([5, 2]);
  });

  test('scores the same whatever the ids of its annotations are', async () => {
    const withId = (id: number): EvaluationDataset => ({
      ...dataset,
      images: dataset.images.map((image) => ({
        ...image,
        annotations: { ...image.annotations!, ids: Float64Array.of(id) },
      })),
    });
    const [zero, other] = await Promise.all(
      [0, 5].map((id) => evaluateDetections({ dataset: withId(id), detections })),
    );
    expect(zero!.stats[8]).toBeCloseTo(0.5, 12);
    expect(zero).toEqual(other);
  });

  test('nothing found is an empty list', async () => {
    const path = join(folder, 'empty.json');
    await writeCocoResults(path, { dataset, detections: [detections[1]!, detections[1]!] });
    expect(JSON.parse(await readFile(path, 'utf8'))).toEqual([]);
  });

  test('bad detections are refused and no file is left', async () => {
    const bad: ImageDetections[] = [
      { ...detections[0]!, labels: Int32Array.of(0, 2) },
      detections[1]!,
    ];
    const path = join(folder, 'refused.json');
    await expect(writeCocoResults(path, { dataset, detections: bad })).rejects.toMatchObject({
      code: 'ERR_RANGE',
    });
    expect((await readdir(folder)).filter((name) => name.includes('refused'))).toEqual([]);
    await expect(evaluateDetections({ dataset, detections: bad })).rejects.toMatchObject({
      code: 'ERR_RANGE',
      message: 'detectionsOf: labels[1] of detections[0] (image 7) must be in [0, 2), got 2',
    });
    await expect(
      evaluateDetections({ dataset, detections: detections.slice(1) }),
    ).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'detectionsOf: detections must have 2 entries (one per image), got 1',
    });
    const nan = { ...detections[0]!, scores: Float32Array.of(Number.NaN, 0) };
    await expect(
      evaluateDetections({ dataset, detections: [nan, detections[1]!] }),
    ).rejects.toMatchObject({
      code: 'ERR_RANGE',
      message: expect.stringMatching(/scores\[0\].*must be finite, got NaN/),
    });
  });

  test('a read-only or missing folder is one readable error', async () => {
    await expect(
      writeCocoResults(join(folder, 'absent', 'x.json'), { dataset, detections }),
    ).rejects.toMatchObject({
      code: 'ERR_IO',
      message: expect.stringMatching(/x\.json: must be a writable file/),
    });
  });

  test('an unlabelled image has no metric', async () => {
    const unlabelled = {
      ...dataset,
      images: [{ id: 1, annotations: null }],
    };
    await expect(
      evaluateDetections({ dataset: unlabelled, detections: [detections[1]!] }),
    ).rejects.toMatchObject({
      code: 'ERR_DATA',
      message: expect.stringMatching(/image 1 of pair without annotations/),
    });
  });
});
