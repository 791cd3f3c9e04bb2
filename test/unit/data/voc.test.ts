import { describe, expect, test } from 'vitest';
import { checkDataset } from '../../../lib/data/check.js';
import { asUnlabelled, splitDataset } from '../../../lib/data/split.js';
import { type LoadVocOptions, loadVoc } from '../../../lib/data/voc.js';
import { parseVocXml } from '../../../lib/data/voc-xml.js';
import { bccdFolder } from '../../data-folders.js';
import { put, putImage, temporaryFolder } from './temporary.js';

interface ObjectText {
  name?: string;
  box?: readonly (number | string)[];
  difficult?: number | string;
  more?: string;
}

function xml(
  objects: readonly ObjectText[],
  size: readonly (number | string)[] = [64, 48],
): string {
  const body = objects.map(({ name = 'cat', box = [11, 11, 30, 40], difficult = 0, more = '' }) => {
    const corners = ['xmin', 'ymin', 'xmax', 'ymax'].map((tag, i) => `<${tag}>${box[i]}</${tag}>`);
    return `<object>\n<name>${name}</name>${more}\n<difficult>${difficult}</difficult>\n<bndbox>${corners.join('')}</bndbox>\n</object>`;
  });
  return `<annotation>\n<filename>x.jpg</filename>\n<size><width>${size[0]}</width><height>${size[1]}</height><depth>3</depth></size>\n${body.join('\n')}\n</annotation>\n`;
}

/** A VOC folder with an image for each annotation (null: the image alone). */
async function vocFolder(annotations: Record<string, string | null>): Promise<string> {
  const folder = await temporaryFolder();
  for (const [id, text] of Object.entries(annotations)) {
    await putImage(folder, `JPEGImages/${id}.jpg`);
    if (text !== null) await put(folder, `Annotations/${id}.xml`, text);
  }
  await put(folder, 'ImageSets/Main/all.txt', `${Object.keys(annotations).join('\n')}\n`);
  return folder;
}

async function loadOne(text: string, options: LoadVocOptions = {}) {
  const dataset = await loadVoc(await vocFolder({ one: text }), options);
  return { dataset, annotations: dataset.images[0]!.annotations! };
}

describe('parseVocXml', () => {
  test('keys by the whole path: parts do not count', () => {
    const part =
      '<part><name>head</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox></part>';
    const text = xml([{ name: 'person', box: [5, 6, 40, 41] }]).replace(
      '</bndbox>\n</object>',
      `</bndbox>${part}</object>`,
    );
    const { objects, width, height } = parseVocXml(text, 'x.xml');
    expect(objects).toHaveLength(1);
    expect(objects[0]).toMatchObject({ name: 'person', box: [5, 6, 40, 41], line: 4 });
    expect([width, height]).toEqual([64, 48]);
  });

  test('numbers like "1.0", names like "001", CDATA, entities, spaces', () => {
    const box = ['1.0', ' 2 ', '30.5', '4e1'];
    const [first, second] = parseVocXml(
      xml([
        { name: ' 001 ', box },
        { name: '<![CDATA[a & b]]>' },
        { name: 'c &amp; d', difficult: '1' },
      ]),
      'x.xml',
    ).objects;
    expect(first).toMatchObject({ name: '001', box: [1, 2, 30.5, 40], difficult: false });
    expect(second!.name).toBe('a & b');
  });

  test.each([
    ['<annotation><object></annotation>', /^x\.xml:1:33: .*unexpected close tag.*must be XML/i],
    ['', /x\.xml:1:0: document must contain a root element/],
    ['<svg></svg>', /x\.xml:1: must be a Pascal VOC <annotation>, got <svg>/],
    ['hello', /x\.xml:1/],
    ['<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>', /x\.xml:1:.*undefined entity/],
  ])('%j is refused with its place', (text, message) =>
    expect(() => parseVocXml(text, 'x.xml')).toThrow(message),
  );
});

describe('loadVoc', () => {
  test('subtracts one, flags difficult objects, numbers from one', async () => {
    const { dataset, annotations } = await loadOne(xml([{}, { name: 'bee', difficult: 1 }]));
    expect(dataset.categories).toEqual([
      { id: 1, name: 'bee' },
      { id: 2, name: 'cat' },
    ]);
    expect([...annotations.boxes]).toEqual([10, 10, 29, 39, 10, 10, 29, 39]);
    expect([...annotations.labels]).toEqual([1, 0]);
    expect([...annotations.crowd]).toEqual([0, 1]);
    expect([...annotations.areas]).toEqual([19 * 29, 19 * 29]);
    expect([...annotations.ids]).toEqual([1, 2]);
    expect(dataset.images[0]).toMatchObject({ id: 1, fileName: 'one.jpg', width: 64, height: 48 });
    expect(dataset.report).toMatchObject({ images: 1, annotations: 2, crowd: 1, problems: [] });
    const plain = await loadOne(xml([{}]), { subtractOne: false });
    expect([...plain.annotations.boxes]).toEqual([11, 11, 30, 40]);
  });

  test('classes do not depend on the image set', async () => {
    const folder = await vocFolder({ a: xml([{ name: 'zebra' }]), b: xml([{ name: 'ant' }]) });
    await put(folder, 'ImageSets/Main/first.txt', 'a\n');
    const first = await loadVoc(folder, { imageSet: 'first' });
    expect(first.categories.map(({ name }) => name)).toEqual(['ant', 'zebra']);
    expect([...first.images[0]!.annotations!.labels]).toEqual([1]);
    expect(first.name).toMatch(/-first$/);
  });

  test('hidden labels: the images of an unlabelled source, with the boxes that fit them', async () => {
    const folder = await vocFolder({
      a: xml([{}, { name: 'yeti' }, { box: [1, 1, 1, 1] }, { difficult: 1 }]),
      bare: null,
      broken: '<annotation>',
      other: xml([{}], [48, 64]),
      silent: xml([{}], ['?', '?']),
      void: xml([]),
    });
    const categories = [
      { id: 1, name: 'ant' },
      { id: 2, name: 'cat' },
    ];
    const unlabelled = await loadVoc(folder, { labelled: false, categories });
    const hidden = await loadVoc(folder, { labelled: 'hidden', categories });
    expect(asUnlabelled(hidden).fingerprint).toBe(unlabelled.fingerprint);
    expect(hidden.report.problems).toEqual([]);
    const labels = hidden.images.map(({ annotations }) => annotations && [...annotations.labels]);
    expect(labels).toEqual([[1, 1], null, null, null, [1], []]);
    expect([...hidden.images[0]!.annotations!.crowd]).toEqual([0, 1]);
    const none = await loadVoc(await vocFolder({ a: xml([]), b: null }), { labelled: 'hidden' });
    expect(none.images.map(({ annotations }) => annotations)).toEqual([null, null]);
  });

  test('given categories decide labels; chosen classes leave the others out', async () => {
    const text = xml([{ name: 'ant' }, { name: 'bee' }]);
    const categories = [
      { id: 7, name: 'bee' },
      { id: 9, name: 'ant' },
    ];
    expect([...(await loadOne(text, { categories })).annotations.labels]).toEqual([1, 0]);
    const chosen = await loadOne(text, { classes: ['bee'] });
    expect(chosen.dataset.categories).toEqual([{ id: 2, name: 'bee' }]);
    expect([...chosen.annotations.labels]).toEqual([0]);
    const both = await loadOne(text, { categories, classes: ['ant'] });
    expect([...both.annotations.labels]).toEqual([0]);
    expect(both.dataset.report.problems).toEqual([]);
    await expect(loadOne(text, { classes: ['bees'] })).rejects.toThrow(
      /got 'bees'; did you mean 'bee'\?/,
    );
  });

  test.each([
    ['box-zero-size', { box: [20, 20, 20, 20] }],
    ['box-reversed', { box: [30, 20, 20, 30] }],
    ['box-outside', { box: [100, 10, 120, 20] }],
  ])('%s is skipped and reported with its line', async (kind, object) => {
    const { dataset, annotations } = await loadOne(xml([{}, object]));
    expect(annotations.labels).toHaveLength(1);
    expect(dataset.report.problems).toMatchObject([
      { kind, action: 'skip', count: 1, examples: [{ kind, line: 9, id: 'one.jpg' }] },
    ]);
    expect(dataset.report.problems[0]!.examples[0]!.file).toMatch(/one\.xml$/);
    await expect(loadOne(xml([object]), { policy: { [kind]: 'refuse' } })).rejects.toMatchObject({
      code: 'ERR_DATA',
    });
  });

  test.each([
    ['box-not-finite', { box: ['nan', 1, 2, 3] }],
    ['box-huge', { box: [1, 1, 1e9, 40] }],
    ['invalid-annotation', { box: ['', 1, 2, 3] }],
    ['invalid-annotation', { box: ['one', 1, 2, 3] }],
    ['invalid-annotation', { name: '' }],
  ])('%s is refused unless skipped', async (kind, object) => {
    await expect(loadOne(xml([{}, object]))).rejects.toMatchObject({
      code: 'ERR_DATA',
      message: expect.stringMatching(new RegExp(`'${kind}'.*\n.*one\\.xml:9: one\\.jpg: `)),
    });
    const { annotations } = await loadOne(xml([{}, object]), { policy: { [kind]: 'skip' } });
    expect(annotations.labels).toHaveLength(1);
  });

  test('an unknown class is refused with the nearest name', () =>
    expect(
      loadOne(xml([{ name: 'cats' }]), { categories: [{ id: 1, name: 'cat' }] }),
    ).rejects.toThrow(/name must be one of cat, got 'cats'; did you mean 'cat'\?/));

  test('a box from 0 reaches outside after the subtraction, and is kept', async () => {
    const { dataset, annotations } = await loadOne(xml([{ box: [0, 0, 20, 20] }]));
    expect([...annotations.boxes]).toEqual([-1, -1, 19, 19]);
    expect(dataset.report.problems).toMatchObject([{ kind: 'box-partly-outside', action: 'keep' }]);
  });

  test('sizes of 0 come from the image file', async () => {
    const { dataset } = await loadOne(xml([{}], [0, 0]));
    expect(dataset.images[0]).toMatchObject({ width: 64, height: 48 });
    expect(dataset.report.problems).toMatchObject([
      { kind: 'invalid-image-size', action: 'repair', count: 1 },
    ]);
  });

  test('an annotation without objects is an empty image', async () => {
    const { annotations } = await loadOne(xml([]), { categories: [{ id: 1, name: 'cat' }] });
    expect(annotations.labels).toHaveLength(0);
  });

  test('broken XML is refused with its place, or skipped', async () => {
    const folder = await vocFolder({ a: xml([{}]), b: '<annotation><object>' });
    await expect(loadVoc(folder)).rejects.toThrow(/b\.xml:1: b: column 20: unclosed tag/);
    const dataset = await loadVoc(folder, { policy: { 'invalid-annotation': 'skip' } });
    expect(dataset.images.map(({ fileName }) => fileName)).toEqual(['a.jpg']);
  });

  test('lists: missing images and annotations, repeated ids, columns, unknown lists', async () => {
    const folder = await vocFolder({ a: xml([{}]), b: null });
    await put(folder, 'ImageSets/Main/list.txt', 'gone\r\n\r\nb  1\r\na -1\r\na 1\r\n');
    const policy = {
      'missing-image': 'skip',
      'missing-annotation': 'skip',
      'duplicate-image-id': 'skip',
    } as const;
    const dataset = await loadVoc(folder, { imageSet: 'list', policy });
    expect(dataset.images.map(({ fileName }) => fileName)).toEqual(['a.jpg']);
    expect(
      dataset.report.problems.map(({ kind, examples }) => [
        kind,
        examples[0]!.id,
        examples[0]!.line,
      ]),
    ).toEqual([
      ['missing-image', 'gone', 1],
      ['duplicate-image-id', 'a', 5],
      ['missing-annotation', 'b', 3],
    ]);
    await expect(loadVoc(folder, { imageSet: 'trian' })).rejects.toThrow(
      /imageSet must be one of all, list \(or the path of a list\), got 'trian'/,
    );
    const unlabelled = await loadVoc(folder, { imageSet: 'all', labelled: false });
    expect(unlabelled.images.map(({ annotations }) => annotations)).toEqual([null, null]);
    expect(unlabelled.images[1]).toMatchObject({ width: 64, height: 48 });
  });

  test('a folder that is not VOC', async () => {
    const folder = await temporaryFolder();
    await expect(loadVoc(folder)).rejects.toThrow(/JPEGImages must be a readable folder of images/);
  });
});

describe.skipIf(!bccdFolder)('BCCD photographs', () => {
  test('counts, classes and the two boxes of no size', async () => {
    const [trainval, testSet] = await Promise.all([
      loadVoc(bccdFolder!, { imageSet: 'trainval' }),
      loadVoc(bccdFolder!, { imageSet: 'test' }),
    ]);
    expect(trainval.categories).toEqual([
      { id: 1, name: 'Platelets' },
      { id: 2, name: 'RBC' },
      { id: 3, name: 'WBC' },
    ]);
    expect(testSet.categories).toEqual(trainval.categories);
    expect([trainval.images.length, testSet.images.length]).toEqual([292, 72]);
    expect(trainval.report.annotations + testSet.report.annotations).toBe(4886);
    const problems = [...trainval.report.problems, ...testSet.report.problems];
    expect(
      problems.filter(({ kind }) => kind === 'box-zero-size').flatMap(({ examples }) => examples),
    ).toMatchObject([{ line: expect.any(Number) }, { line: expect.any(Number) }]);
    const checked = await checkDataset(testSet);
    expect(checked.images).toMatchObject({ total: 72, unlabelled: 0, portrait: 0 });
    expect(checked.problems.map(({ kind }) => kind)).not.toContain('size-mismatch');
  });

  test.each([
    [2, 6],
    [5, 15],
    [10, 29],
  ])('%i%% labels are %i images in every fold', async (percent, count) => {
    const dataset = await loadVoc(bccdFolder!, { imageSet: 'trainval' });
    const splits = [1, 2, 3].map((fold) => splitDataset(dataset, { percent, fold }));
    for (const { labelled, unlabelled } of splits) {
      expect(labelled.images).toHaveLength(count);
      expect(unlabelled.images).toHaveLength(292 - count);
    }
    expect(new Set(splits.map(({ hash }) => hash)).size).toBe(3);
  });
});
