import { describe, expect, test } from 'vitest';
import {
  BatchSampler,
  ImageCache,
  type LoadedBatch,
  makeDataset,
  noAnnotations,
} from '../../../lib/data/index.js';
import type { Annotations, DetectionDataset } from '../../../lib/data/types.js';
import { Random } from '../../../lib/random.js';
import { resolveTrainSettings } from '../../../lib/train/settings.js';
import { ViewDrawer } from '../../../lib/train/step-views.js';
import { decodeTiny, tinyData, tinySettings } from './tiny-data.js';

/** Pictures annotated one by one. */
function labelledWith(all: readonly (Annotations | null)[]): DetectionDataset {
  const { images, categories } = tinyData({ labelled: all.length }).labelled;
  return makeDataset({
    name: 'labelled',
    source: 'labelled',
    categories,
    images: images.map((image, i) => ({ ...image, annotations: all[i]! })),
  });
}

const boxes = (crowd: boolean, box = [4, 4, 30, 30]): Annotations => ({
  boxes: Float32Array.from(box),
  labels: Int32Array.of(1),
  crowd: Uint8Array.of(crowd ? 1 : 0),
  areas: Float64Array.of(676),
  ids: Float64Array.of(1),
});

/** Which of the pictures each of so many views of picture 0 shows, and how many boxes. */
async function drawnFrom(labelled: DetectionDataset, count = 30) {
  const images = new ImageCache({ maxBytes: 1e6, decode: decodeTiny });
  const sampler = new BatchSampler([{ images: labelled.images, ratio: 1 }], {
    batchSize: 1,
    seed: 3,
  });
  const { augment } = resolveTrainSettings(tinySettings);
  const drawer = new ViewDrawer({
    ...{ options: augment, random: new Random(5), sampler, labelled, images },
  });
  const record = labelled.images[0]!;
  const image = await images.get(record.path);
  const pictures = await Promise.all(labelled.images.map(({ path }) => images.get(path)));
  const views: { picture: number; objects: number }[] = [];
  for (let step = 0; step < count; step++) {
    const batch = { step, indices: [[0]], after: sampler.state() };
    const loaded: LoadedBatch = { batch, images: [[{ index: 0, record, image }]] };
    const [drawn] = (await drawer.draw(loaded, { teach: false })).labelled;
    views.push({
      picture: pictures.indexOf(drawn!.view.layer.source),
      objects: drawn!.instances.labels.length,
    });
  }
  return views;
}

describe('views of labelled pictures', () => {
  // mmdetection's FilterAnnotations lets a picture through that had no boxes before.
  test('a picture in which nothing is to be found is learned from as background', async () => {
    const views = await drawnFrom(labelledWith([noAnnotations(), boxes(false), boxes(false)]));
    expect(new Set(views.map(({ picture }) => picture))).toEqual(new Set([0]));
    expect(views.every(({ objects }) => objects === 0)).toBe(true);
  });

  test.each([
    ['loses its only box to the picture’s edge', boxes(false, [500, 4, 530, 30])],
    ['has crowds alone', boxes(true)],
    ['nobody annotated', null],
  ])('a picture that %s gives way to any other', async (_, annotations) => {
    const all = [annotations, boxes(false), noAnnotations(), boxes(false)];
    const views = await drawnFrom(labelledWith(all));
    expect(new Set(views.map(({ picture }) => picture))).toEqual(new Set([1, 2, 3]));
    for (const { picture, objects } of views) expect(objects).toBe(picture === 2 ? 0 : 1);
  });

  test('without any other, it is learned from as it is', async () => {
    const views = await drawnFrom(labelledWith([boxes(true), null]), 2);
    expect(views).toEqual([
      { picture: 0, objects: 0 },
      { picture: 0, objects: 0 },
    ]);
  });
});
