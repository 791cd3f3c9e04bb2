import { expect, test } from 'vitest';
import { loadCoco, loadVoc, type ProblemAction } from '../../../lib/data/index.js';
import { put, putImage, temporaryFolder } from './temporary.js';

const load = {
  coco: async (action?: ProblemAction, more: object = {}) => {
    const root = await temporaryFolder();
    await putImage(root, 'a.png', { width: 64, height: 48 });
    await putImage(root, 'b.png', { width: 64, height: 48 });
    const box = { category_id: 1, bbox: [30, 10, 30, 30], area: 900, iscrowd: 0 };
    const file = await put(root, 'coco.json', {
      images: [
        { id: 1, file_name: 'a.png', width: 64, height: 48 },
        { id: 2, file_name: 'b.png', width: 20, height: 10 },
      ],
      annotations: [
        { id: 1, image_id: 1, ...box },
        { id: 2, image_id: 2, ...box },
      ],
      categories: [{ id: 1, name: 'cat' }],
    });
    return loadCoco(file, { ...(action && { policy: { 'size-mismatch': action } }), ...more });
  },
  voc: async (action?: ProblemAction, more: object = {}) => {
    const root = await temporaryFolder();
    const object =
      '<object><name>cat</name><bndbox><xmin>31</xmin><ymin>11</ymin><xmax>61</xmax><ymax>41</ymax></bndbox></object>';
    for (const [name, size] of [
      ['a', [64, 48]],
      ['b', [20, 10]],
    ] as const) {
      await putImage(root, `JPEGImages/${name}.png`, { width: 64, height: 48 });
      await put(
        root,
        `Annotations/${name}.xml`,
        `<annotation><size><width>${size[0]}</width><height>${size[1]}</height></size>${object}</annotation>`,
      );
    }
    return loadVoc(root, { ...(action && { policy: { 'size-mismatch': action } }), ...more });
  },
};

test.each(['coco', 'voc'] as const)('%s: sizes that differ from the file', async (format) => {
  await expect(load[format]('refuse')).rejects.toThrow(
    /b\.png: b\.png: must be 20 by 10 pixels .*got 64 by 48/,
  );
  for (const purpose of ['training', 'evaluation']) {
    const skipped = await load[format]('skip', { purpose });
    expect(skipped.images.map(({ fileName }) => fileName)).toEqual(['a.png']);
    expect(skipped.report.problems).toMatchObject([{ kind: 'size-mismatch', count: 1 }]);

    // The box lies in the image that the file holds, and in none that is 20 pixels wide.
    const repaired = await load[format]('repair', { purpose });
    expect(repaired.images[1]).toMatchObject({ width: 64, height: 48 });
    expect([...repaired.images[1]!.annotations!.boxes]).toEqual([30, 10, 60, 40]);
    expect(repaired.report.problems).toMatchObject([{ kind: 'size-mismatch', action: 'repair' }]);
  }
  const kept = await load[format]();
  expect(kept.images[1]).toMatchObject({ width: 20, height: 10 });
  expect(kept.report.problems.map(({ kind }) => kind)).toEqual(['box-outside']);
  const unlabelled = await load[format]('refuse', { labelled: false });
  expect(unlabelled.images).toHaveLength(2);
});
