import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { evaluateFiles } from '../../../lib/cli/eval-files.js';
import { type LoadCocoOptions, loadCoco } from '../../../lib/data/coco.js';
import { toCoco, writeCoco } from '../../../lib/data/coco-writer.js';
import { makeDataset } from '../../../lib/data/dataset.js';
import { type ProblemKind, problemRules } from '../../../lib/data/problems.js';
import { asUnlabelled } from '../../../lib/data/split.js';
import type { DetectionDataset } from '../../../lib/data/types.js';
import { evaluateDetections } from '../../../lib/eval/coco.js';
import { put, putImage, temporaryFolder } from './temporary.js';

const folder = await temporaryFolder();
for (const name of ['a.jpg', 'b.jpg', 'sub/c.png']) await putImage(folder, name);

type Entry = Record<string, unknown>;
const image = (id: number, fileName: string, more: Entry = {}): Entry => ({
  id,
  file_name: fileName,
  width: 64,
  height: 48,
  ...more,
});
const annotation = (id: number, more: Entry = {}): Entry => ({
  id,
  image_id: 5,
  category_id: 18,
  bbox: [1.5, 2, 10, 20],
  area: 123.5,
  iscrowd: 0,
  ...more,
});
const categories = [
  { id: 18, name: 'dog' },
  { id: 3, name: 'cat' },
];
const images = [image(9, 'a.jpg'), image(5, 'b.jpg')];

async function load(content: Entry | string, options: LoadCocoOptions = {}) {
  return loadCoco(await put(folder, 'set.json', content), options);
}
const loadAnnotations = (annotations: unknown[], options: LoadCocoOptions = {}) =>
  load({ images, annotations, categories }, options);

describe('loadCoco', () => {
  test('keeps the order of images and categories, and every field', async () => {
    const dataset = await loadAnnotations([
      annotation(7),
      annotation(900100000000, { image_id: 9, category_id: 3, iscrowd: 1, area: 5 }),
      annotation(8, { category_id: 3, bbox: [0, 0, 64, 48] }),
    ]);
    expect(dataset.name).toBe('set');
    expect(dataset.categories).toEqual(categories);
    expect(dataset.images.map(({ id, fileName }) => [id, fileName])).toEqual([
      [9, 'a.jpg'],
      [5, 'b.jpg'],
    ]);
    const [first, second] = dataset.images.map(({ annotations }) => annotations!);
    expect(first).toEqual({
      boxes: Float32Array.of(1.5, 2, 11.5, 22),
      labels: Int32Array.of(1),
      crowd: Uint8Array.of(1),
      areas: Float64Array.of(5),
      ids: Float64Array.of(900100000000),
    });
    expect(second).toEqual({
      boxes: Float32Array.of(1.5, 2, 11.5, 22, 0, 0, 64, 48),
      labels: Int32Array.of(0, 1),
      crowd: Uint8Array.of(0, 0),
      areas: Float64Array.of(123.5, 123.5),
      ids: Float64Array.of(7, 8),
    });
    expect(dataset.images[0]!.path).toBe(`${folder}/a.jpg`);
    expect(dataset.report).toEqual({
      source: `${folder}/set.json`,
      images: 2,
      annotations: 3,
      crowd: 1,
      problems: [],
    });
  });

  test('the lists may come in any order, among other keys', async () => {
    const parts = { info: { year: 1 }, licenses: [], categories, images, extra: 'x' };
    const annotations = [annotation(1)];
    const forwards = await load({ ...parts, annotations });
    const backwards = await load({ annotations, ...parts });
    expect(backwards.fingerprint).toBe(forwards.fingerprint);
    expect(backwards.images[1]!.annotations!.labels).toHaveLength(1);
  });

  test('without an area the box has one', async () => {
    const { images: loaded } = await loadAnnotations([annotation(1, { area: undefined })]);
    expect([...loaded[1]!.annotations!.areas]).toEqual([200]);
  });

  interface ProblemCase {
    kind: ProblemKind;
    annotations?: unknown[];
    images?: unknown[];
    /** What the message says. */
    says: string;
    /** Images and annotations that are left when it is skipped. */
    left?: [number, number];
  }
  const annotationCase = (kind: ProblemKind, more: Entry, says: string): ProblemCase => ({
    kind,
    annotations: [annotation(1), annotation(2, more)],
    says,
  });
  const imageCase = (kind: ProblemKind, entry: unknown, says: string): ProblemCase => ({
    kind,
    images: [...images, entry],
    says,
  });
  const cases: ProblemCase[] = [
    annotationCase('box-zero-size', { bbox: [5, 5, 0, 4] }, 'got 0 by 4'),
    annotationCase('box-zero-size', { bbox: [5, 5, 0.5, 4] }, 'got 0.5 by 4'),
    annotationCase(
      'box-reversed',
      { bbox: [5, 5, -3, 4] },
      'annotations[1]: box must have a width and height above 0, got [5, 5, -3, 4]',
    ),
    annotationCase('box-outside', { bbox: [64, 0, 10, 10] }, '0 … 64 by 0 … 48'),
    annotationCase('box-outside', { bbox: [-10, 0, 10, 10] }, 'got [-10, 0, 10, 10]'),
    annotationCase('box-huge', { bbox: [0, 0, 1e30, 10] }, 'got [0, 0, 1e+30, 10]'),
    annotationCase('box-partly-outside', { bbox: [-4, 0, 10, 10] }, 'got [-4, 0, 10, 10]'),
    annotationCase('area-not-positive', { area: 0 }, 'area must be positive, got 0'),
    annotationCase('ignored-annotation', { ignore: 1 }, 'flagged ignore'),
    annotationCase('unknown-image', { image_id: 6 }, 'got 6'),
    annotationCase('unknown-category', { category_id: 1 }, 'one of 18 dog, 3 cat, got 1'),
    annotationCase('duplicate-annotation-id', { id: 1 }, 'got 1'),
    annotationCase('invalid-annotation', { id: 'x' }, 'an integer id, got "x"'),
    annotationCase('invalid-annotation', { image_id: null }, 'an integer image_id, got null'),
    annotationCase('invalid-annotation', { category_id: 1.5 }, 'an integer category_id, got 1.5'),
    annotationCase('invalid-annotation', { bbox: [1, 2, 3] }, 'got [1,2,3]'),
    annotationCase('invalid-annotation', { bbox: [1, 2, 3, '4'] }, 'got [1,2,3,"4"]'),
    annotationCase('invalid-annotation', { bbox: undefined }, 'got nothing'),
    annotationCase('invalid-annotation', { area: 'big' }, 'a finite area, got "big"'),
    annotationCase('invalid-annotation', { iscrowd: 2 }, 'an iscrowd of 0 or 1, got 2'),
    { kind: 'invalid-annotation', annotations: [annotation(1), 5], says: 'got nothing' },
    imageCase('missing-image', image(3, 'gone.jpg'), 'got no such file'),
    imageCase('missing-image', image(3, 'A.JPG'), 'got no such file (there is a.jpg)'),
    imageCase('missing-image', image(3, 'no/a.jpg'), `got no folder ${folder}/no`),
    imageCase('duplicate-image-id', image(5, 'sub/c.png'), "got 5 ('sub/c.png')"),
    imageCase('duplicate-file-name', image(6, 'a.jpg'), "got 'a.jpg'"),
    imageCase('invalid-image', { id: 3 }, 'got {"id":3}'),
    imageCase('invalid-image', { id: '3', file_name: 'a.jpg' }, 'got {"id":"3"'),
    imageCase('invalid-image', null, 'got null'),
    imageCase('invalid-image-size', image(3, 'sub/c.png', { width: -64 }), 'got -64 by 48'),
    imageCase('invalid-image-size', image(3, 'sub/c.png', { width: 64.5 }), 'got 64.5 by 48'),
    imageCase('invalid-image-size', { id: 3, file_name: 'sub/c.png' }, 'got nothing by nothing'),
  ];
  describe.each(cases)('$kind: $says', ({ kind, says, ...parts }) => {
    const content = { images, annotations: [annotation(1)], categories, ...parts };
    const { actions } = problemRules[kind];

    test('is refused on request, with its line', async () => {
      const text = JSON.stringify(content, null, 1);
      const at = 'images' in parts ? 'images' : 'annotations';
      await expect(load(text, { policy: { [kind]: 'refuse' } })).rejects.toMatchObject({
        code: 'ERR_DATA',
        message: expect.stringContaining(says),
      });
      const error = (await load(text, { policy: { [kind]: 'refuse' } }).catch((e) => e)) as Error;
      expect(error.message).toContain(`('${kind}', 1)`);
      // The line where the last element of the list begins.
      const lines = text.split('\n');
      const end = lines.findIndex(
        (line, i) => i > lines.indexOf(` "${at}": [`) && line.startsWith(' ]'),
      );
      const last = lines.findLastIndex(
        (line, i) => i < end && /^ {2}\S/.test(line) && !line.startsWith('  }'),
      );
      expect(error.message).toContain(`set.json:${last + 1}: `);
    });

    test('is left out on request, and counted', async () => {
      const dataset = await load(content, { policy: { [kind]: 'skip' } });
      expect(dataset.images).toHaveLength(2);
      expect(dataset.report.annotations).toBe(1);
      expect(dataset.report.problems).toMatchObject([
        { kind, action: 'skip', count: 1, examples: [{ kind, line: 1 }] },
      ]);
      expect(dataset.report.problems[0]!.examples[0]!.message).toContain(says);
    });

    if ((actions as readonly string[]).includes('keep'))
      test('is kept on request', async () => {
        const dataset = await load(content, { policy: { [kind]: 'keep' } });
        expect(dataset.images.length + dataset.report.annotations).toBe(4);
        expect(dataset.report.problems).toMatchObject([{ kind, action: 'keep', count: 1 }]);
      });

    test('the default is the first action', async () => {
      const loading = load(content);
      if (actions[0] === 'refuse') await expect(loading).rejects.toThrow(says);
      else expect((await loading).report.problems).toMatchObject([{ kind, action: actions[0] }]);
    });
  });

  test('an evaluation counts what the file has: the same metrics as of the file itself', async () => {
    const boxes: [number[], Entry][] = [
      [[2, 2, 20, 20], {}],
      [[30, 10, 20, 20], { ignore: 1 }],
      [[10, 30, 15, 0.5], {}],
      [[40, 40, 10, -5], {}],
      [[70, 10, 10, 10], {}],
      [[30, 30, 12, 12], { area: 0 }],
      [[5, 25, 10, 15], { iscrowd: 1 }],
    ];
    const annotations = boxes.map(([bbox, more], i) => annotation(i + 1, { bbox, ...more }));
    const file = await put(folder, 'test.json', { images, annotations, categories });
    const training = await loadCoco(file);
    expect(training.report.annotations).toBe(2);
    const dataset = await loadCoco(file, { purpose: 'evaluation' });
    expect(dataset.report.annotations).toBe(7);
    expect(dataset.report.problems.map(({ action }) => action)).toEqual(Array(5).fill('keep'));
    // Of every annotated box a detection, some of them shifted.
    const found = annotations.map(({ bbox, category_id }, i) => {
      const [x, y, w, h] = bbox as [number, number, number, number];
      return { image_id: 5, category_id, bbox: [x + (i % 3), y, w, h], score: 0.9 - 0.1 * i };
    });
    const { metrics: expected } = await evaluateFiles({
      annotations: file,
      detections: await put(folder, 'found.json', found),
    });
    const none = new Float32Array(0);
    const empty = { boxes: none, scores: none, labels: new Int32Array(0) };
    const all = {
      boxes: Float32Array.from(
        found.flatMap(({ bbox: [x, y, w, h] }) => [x!, y!, x! + w!, y! + h!]),
      ),
      scores: Float32Array.from(found, ({ score }) => score),
      labels: new Int32Array(found.length),
    };
    const { stats } = await evaluateDetections({ dataset, detections: [empty, all] });
    stats.forEach((value, i) => {
      expect(value).toBeCloseTo(expected.stats[i]!, 6);
    });
    expect(expected.stats[0]).toBeGreaterThan(0.2);
    // A policy that refuses still does, and one that skips is about training.
    const refuse = { policy: { 'ignored-annotation': 'refuse' }, purpose: 'evaluation' } as const;
    await expect(loadCoco(file, refuse)).rejects.toThrow(/flagged ignore/);
    const skip = { policy: { 'box-outside': 'skip' }, purpose: 'evaluation' } as const;
    expect((await loadCoco(file, skip)).report.annotations).toBe(7);
    await expect(loadCoco(file, { purpose: 'test' as never })).rejects.toThrow(
      /purpose must be 'training' or 'evaluation', got 'test'/,
    );
  });

  test('NaN and Infinity as Python writes them', async () => {
    const text = JSON.stringify({ images, annotations: [annotation(4)], categories });
    for (const number of ['NaN', 'Infinity', '-Infinity']) {
      const content = text.replace('1.5', number);
      await expect(load(content)).rejects.toThrow(
        /boxes with NaN or infinity.*\n.*set.json:1: 4: /,
      );
      const dataset = await load(content, { policy: { 'box-not-finite': 'skip' } });
      expect(dataset.report.annotations).toBe(0);
    }
  });

  test('an invalid size is repaired from the file', async () => {
    const content = { images: [{ id: 1, file_name: 'a.jpg' }], annotations: [], categories };
    expect((await load(content)).images[0]).toMatchObject({ width: 64, height: 48 });
  });

  test('counts all, keeps a few examples, names three', async () => {
    const annotations = Array.from({ length: 50 }, (_, i) => annotation(i, { image_id: 77 }));
    await expect(loadAnnotations(annotations)).rejects.toThrow(
      /'unknown-image', 50.*… and 47 more/s,
    );
    const { report } = await loadAnnotations(annotations, { policy: { 'unknown-image': 'skip' } });
    expect(report.problems[0]!.count).toBe(50);
    expect(report.problems[0]!.examples).toHaveLength(20);
  });

  test('a dropped image takes its annotations along', async () => {
    const dataset = await load(
      {
        images: [...images, image(3, 'gone.jpg')],
        annotations: [annotation(1, { image_id: 3 })],
        categories,
      },
      { policy: { 'missing-image': 'skip' } },
    );
    expect(dataset.report).toMatchObject({ images: 2, annotations: 0 });
    expect(dataset.report.problems.map(({ kind }) => kind)).toEqual(['missing-image']);
  });

  test('an unlabelled file needs neither annotations nor categories', async () => {
    const dataset = await load({ images }, { labelled: false, categories });
    expect(dataset.categories).toEqual(categories);
    expect(dataset.images.map(({ annotations }) => annotations)).toEqual([null, null]);
    const full = await load({ images, annotations: [{}], categories }, { labelled: false });
    expect(full.images[0]!.annotations).toBeNull();
    expect(full.report.problems).toEqual([]);
  });

  test('hidden labels: what can be used, and no word on the rest', async () => {
    const wrong = [
      annotation(2, { image_id: 77 }),
      annotation(3, { category_id: 99 }),
      annotation(4, { bbox: [1, 2, 'three', 4] }),
      annotation(1),
      annotation(5, { ignore: 1 }),
    ];
    const file = { images, annotations: [annotation(1), ...wrong], categories };
    await expect(load(file)).rejects.toMatchObject({ code: 'ERR_DATA' });
    const hidden = await load(file, { labelled: 'hidden', categories });
    expect(hidden.report).toMatchObject({ annotations: 1, problems: [] });
    expect(hidden.images.map((image) => image.annotations?.labels.length)).toEqual([0, 1]);
    const passedOver = await load(file, { labelled: false, categories });
    expect(asUnlabelled(hidden).fingerprint).toBe(passedOver.fingerprint);
  });

  test.each([
    ['no list of annotations', { images, categories }],
    ['an empty list', { images, annotations: [], categories }],
    ['only what cannot be used', { images, annotations: [{}], categories }],
    ['ids without the names of their classes', { images, annotations: [annotation(1)] }],
  ])('hidden labels: %s is none', async (_, file) => {
    const dataset = await load(file, { labelled: 'hidden', categories });
    expect(dataset.images.map(({ annotations }) => annotations)).toEqual([null, null]);
  });

  test('given categories are matched by name', async () => {
    const given = [
      { id: 1, name: 'cat' },
      { id: 2, name: 'bird' },
      { id: 3, name: 'dog' },
    ];
    const dataset = await loadAnnotations([annotation(1), annotation(2, { category_id: 3 })], {
      categories: given,
    });
    expect(dataset.categories).toEqual([
      { id: 3, name: 'cat' },
      { id: 2, name: 'bird' },
      { id: 18, name: 'dog' },
    ]);
    expect([...dataset.images[1]!.annotations!.labels]).toEqual([2, 0]);
    await expect(
      loadAnnotations([annotation(1)], { categories: [{ id: 1, name: 'cat' }] }),
    ).rejects.toThrow('category_id must be one of 3 cat, got 18 (dog)');
  });

  test('of classes that a list of categories lacks: refused, or left out on request', async () => {
    const annotations = [annotation(1), annotation(2, { category_id: 3 })];
    const cats = [{ id: 1, name: 'cat' }];
    await expect(loadAnnotations(annotations, { categories: cats })).rejects.toThrow(
      /category_id must be one of 3 cat, got 18 \(dog\)/,
    );
    const dataset = await loadAnnotations(annotations, { categories: cats, otherClasses: 'skip' });
    expect(dataset.report).toMatchObject({ annotations: 1, problems: [] });
    // One that the file does not list either is still a contradiction.
    await expect(
      loadAnnotations([annotation(1, { category_id: 5 })], {
        categories: cats,
        otherClasses: 'skip',
      }),
    ).rejects.toThrow(/got 5/);
  });

  test('chosen classes keep the order of the file', async () => {
    const annotations = [annotation(1), annotation(2, { category_id: 3 })];
    const dataset = await loadAnnotations(annotations, { classes: ['cat'] });
    expect(dataset.categories).toEqual([{ id: 3, name: 'cat' }]);
    expect([...dataset.images[1]!.annotations!.ids]).toEqual([2]);
    expect(dataset.report.problems).toEqual([]);
    const both = await loadAnnotations(annotations, { classes: ['cat', 'dog'] });
    expect(both.categories).toEqual(categories);
    await expect(loadAnnotations(annotations, { classes: ['dogs'] })).rejects.toThrow(
      /got 'dogs'; did you mean 'dog'\?/,
    );
  });

  test.each([
    ['{"images": []}', "must have a list 'annotations'"],
    [{ images, annotations: [] }, "must have a list 'categories'"],
    [{ annotations: [], categories }, "must be a COCO annotation object with a list 'images'"],
    [{ images: {}, annotations: [], categories }, "'images' must be a list, got {}"],
    [{ images: [], annotations: [], categories }, 'must have at least one image, got none'],
    [{ images, annotations: [], categories: [{ id: 1 }] }, 'categories[0] must have an integer id'],
    [
      { images, annotations: [], categories: [categories[0], { id: 18, name: 'x' }] },
      "unique ids, got 18 twice (second: 'x')",
    ],
    [
      { images, annotations: [], categories: [categories[0], { id: 19, name: 'dog' }] },
      "unique names, got 'dog' twice",
    ],
    ['[{"image_id": 1}]', 'got a list (a results file?)'],
    ['{"images": [], "images": []}', "'images' must appear only once"],
    ['{"images": [,]}', 'set.json:1:13: must have a value here'],
  ] as [Entry | string, string][])('%j is refused', (content, message) =>
    expect(load(content)).rejects.toThrow(message),
  );

  test('a policy that is not one', async () => {
    await expect(
      loadAnnotations([], { policy: { 'box-outsid': 'skip' } as object }),
    ).rejects.toThrow("got 'box-outsid'; did you mean 'box-outside'?");
    await expect(loadAnnotations([], { policy: { 'box-outside': 'keep' } })).rejects.toThrow(
      "policy['box-outside'] must be one of skip, refuse, got 'keep'",
    );
  });

  test('every image missing', () =>
    expect(
      load({ images, annotations: [], categories }, { images: `${folder}/nowhere` }),
    ).rejects.toThrow(
      /its images must be in .*nowhere, got none of 2 there: .*got no folder .*; try to name the folder of its images/,
    ));

  test('a file with paths of Windows, and one of another extension', async () => {
    await putImage(folder, 'win/sub/1.png');
    const one = (file_name: string) => ({
      images: [{ id: 1, file_name, width: 64, height: 48 }, images[0]],
      ...{ annotations: [], categories },
    });
    const options = { images: `${folder}/win`, policy: { 'missing-image': 'skip' } } as const;
    const [image] = (await load(one('sub\\1.png'), options)).images;
    expect(image).toMatchObject({ fileName: 'sub/1.png', path: `${folder}/win/sub/1.png` });
    await expect(load(one('sub/1.JPG'), { images: `${folder}/win` })).rejects.toThrow(
      'got no such file (there is 1.png)',
    );
  });

  test('Ctrl-C ends the search for files', async () => {
    const reason = new Error('stopped');
    const many = Array.from({ length: 5000 }, (_, i) => ({
      ...images[0],
      id: i + 1,
      file_name: `${i}.jpg`,
    }));
    const content = { images: many, annotations: [], categories };
    const path = await put(folder, 'many.json', content);
    const controller = new AbortController();
    setImmediate(() => controller.abort(reason));
    await expect(loadCoco(path, { signal: controller.signal })).rejects.toBe(reason);
  });

  test('boxes that are corners are told, a few or those at the edge are not', async () => {
    const at = (count: number, bbox: number[]) =>
      Array.from({ length: count }, (_, i) => annotation(i + 1, { bbox, area: 100 }));
    await expect(loadAnnotations(at(10, [30, 20, 60, 40]))).rejects.toThrow(
      'bbox must be [x, y, width, height], got what fits its image only as [x1, y1, x2, y2] in 10 of 10',
    );
    // Of the classes that are chosen, whatever else the file holds.
    const others = at(30, [1, 1, 9, 9]).map((one) => ({
      ...one,
      id: Number(one.id) + 100,
      category_id: 3,
    }));
    await expect(
      loadAnnotations([...at(10, [30, 20, 60, 40]), ...others], { classes: ['dog'] }),
    ).rejects.toThrow('only as [x1, y1, x2, y2] in 10 of 10');
    const { report } = await loadAnnotations(at(10, [30, 20, 60, 40]), {
      policy: { 'box-corners': 'keep' },
    });
    expect(report.annotations).toBe(10);
    for (const few of [at(9, [30, 20, 60, 40]), at(20, [1, 1, 64, 48])])
      expect((await loadAnnotations(few)).report.annotations).toBe(few.length);
  });

  test('an id that numbers cannot tell apart is told so', () =>
    expect(
      load(
        `{"images":[{"id":9007199254741002,"file_name":"1.png"}],"annotations":[],"categories":[{"id":1,"name":"a"}]}`,
      ),
    ).rejects.toThrow('images[0] must have an integer id below 2^53 and a file_name'));

  test('fingerprint: same content elsewhere, same; other content, other', async () => {
    const base = await loadAnnotations([annotation(1)]);
    const elsewhere = await load(
      { images, annotations: [annotation(77)], categories },
      { images: `${folder}/sub/..`, name: 'x' },
    );
    expect(elsewhere.fingerprint).toBe(base.fingerprint);
    expect(base.fingerprint).toMatch(/^[0-9a-f]{64}$/);
    const changes: unknown[][] = [
      [annotation(1, { bbox: [1.5, 2, 10, 21] })],
      [annotation(1, { category_id: 3 })],
      [annotation(1, { iscrowd: 1 })],
      [],
    ];
    const others: string[] = [];
    for (const changed of changes) others.push((await loadAnnotations(changed)).fingerprint);
    expect(new Set([base.fingerprint, ...others]).size).toBe(5);
  });
});

describe('writeCoco', () => {
  const records = fc.array(
    fc.record({
      width: fc.integer({ min: 1, max: 9000 }),
      height: fc.integer({ min: 1, max: 9000 }),
      // f32 edges of a box inside, at least a pixel wide and high
      boxes: fc.array(
        fc.record({
          edges: fc.array(fc.float({ min: 0, max: 1, noNaN: true }), {
            minLength: 4,
            maxLength: 4,
          }),
          label: fc.integer({ min: 0, max: 1 }),
          crowd: fc.integer({ min: 0, max: 1 }),
          area: fc.double({ min: 0.1, max: 1e7, noNaN: true }),
        }),
        { maxLength: 4 },
      ),
    }),
    { minLength: 1, maxLength: 5 },
  );

  test('gives the same data set back, bit for bit', () =>
    fc.assert(
      fc.asyncProperty(records, async (list) => {
        let nextId = 1;
        const dataset = makeDataset({
          name: 'round',
          source: 'memory',
          categories,
          images: list.map(({ width, height, boxes }, i) => ({
            id: i * 3,
            fileName: `${i}.jpg`,
            path: `${folder}/${i}.jpg`,
            width,
            height,
            annotations: {
              boxes: Float32Array.from(
                boxes.flatMap(({ edges: [a, b, c, d] }) => [
                  a! * 0.4 * width,
                  b! * 0.4 * height,
                  1 + (0.5 + c!) * width,
                  1 + (0.5 + d!) * height,
                ]),
              ),
              labels: Int32Array.from(boxes, ({ label }) => label),
              crowd: Uint8Array.from(boxes, ({ crowd }) => crowd),
              areas: Float64Array.from(boxes, ({ area }) => area),
              ids: Float64Array.from(boxes, () => nextId++),
            },
          })),
        });
        const path = `${folder}/round.json`;
        await writeCoco(dataset, path);
        const back = await loadCoco(path, { checkFiles: false });
        expect(back.images).toEqual(dataset.images);
        expect(back.fingerprint).toBe(dataset.fingerprint);
      }),
      { numRuns: 60 },
    ));

  test('writes short numbers, and toCoco the same', async () => {
    const dataset = await loadAnnotations([annotation(1, { bbox: [10.1, 20.2, 30.3, 5.7] })]);
    expect(toCoco(dataset)).toEqual({
      images: [image(9, 'a.jpg'), image(5, 'b.jpg')],
      annotations: [annotation(1, { bbox: [10.1, 20.2, 30.3, 5.7] })],
      categories,
    });
  });

  test('an unlabelled data set has no annotations; a folder that is not there is an error', async () => {
    const unlabelled: DetectionDataset = await load({ images }, { labelled: false, categories });
    expect(toCoco(unlabelled).annotations).toEqual([]);
    await writeCoco(unlabelled, `${folder}/u.json`);
    const back = await loadCoco(`${folder}/u.json`);
    expect(back.images[0]!.annotations!.labels).toHaveLength(0);
    await expect(writeCoco(unlabelled, `${folder}/no/u.json`)).rejects.toMatchObject({
      code: 'ERR_IO',
    });
  });
});
