import { readFile } from 'node:fs/promises';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { describe, expect, test, vi } from 'vitest';
import { ImageCache } from '../../../lib/data/image-cache.js';
import { loadImageFolder } from '../../../lib/data/image-folder.js';
import { loadDataset } from '../../../lib/data/load.js';
import { type LoadedBatch, loadBatches } from '../../../lib/data/loader.js';
import { BatchSampler } from '../../../lib/data/sampler.js';
import { asUnlabelled } from '../../../lib/data/split.js';
import type { DetectionDataset } from '../../../lib/data/types.js';
import { bccdFolder } from '../../data-folders.js';
import { memoryDataset } from './memory-dataset.js';
import { put, putImage, temporaryFolder } from './temporary.js';

const folder = await temporaryFolder();
const labelled = memoryDataset([[0], [1], [2], [0], [1]], { folder });
for (const { fileName } of labelled.images) await putImage(folder, fileName);
const unlabelled = asUnlabelled(labelled);
const datasets = [labelled, unlabelled];
const samplerOf = (sources: readonly DetectionDataset[] = datasets) =>
  new BatchSampler(
    sources.map(({ images }) => ({ images, ratio: 1 })),
    { batchSize: 2 * sources.length, seed: 3 },
  );

async function take(batches: AsyncGenerator<LoadedBatch>, count: number): Promise<LoadedBatch[]> {
  const taken: LoadedBatch[] = [];
  for await (const batch of batches) if (taken.push(batch) === count) break;
  return taken;
}

describe('loadBatches', () => {
  test("gives the sampler's batches in order, decoded, whatever the concurrency", async () => {
    for (const concurrency of [1, 3]) {
      const batches = await take(loadBatches(samplerOf(), datasets, { concurrency }), 12);
      const expected = samplerOf();
      for (const { batch, images } of batches) {
        expect(batch).toEqual(expected.next());
        expect(images.map((list) => list.map(({ index }) => index))).toEqual(batch.indices);
        for (const [source, list] of images.entries())
          for (const { index, record, image } of list) {
            expect(record).toBe(datasets[source]!.images[index]);
            expect(image.data).toHaveLength(64 * 48 * 3);
          }
      }
    }
  });

  test('resumes after any batch', async () => {
    const all = await take(loadBatches(samplerOf(), datasets), 8);
    const sampler = samplerOf();
    sampler.restore(all[3]!.batch.after);
    const rest = await take(loadBatches(sampler, datasets), 4);
    expect(rest.map(({ batch }) => batch)).toEqual(all.slice(4).map(({ batch }) => batch));
  });

  test('decodes a small data set once', async () => {
    const cache = new ImageCache();
    await take(loadBatches(samplerOf(), datasets, { cache }), 30);
    expect(cache.stats.misses).toBe(5);
  });

  test('an abort ends it with its reason', async () => {
    const controller = new AbortController();
    const batches = loadBatches(samplerOf(), datasets, { signal: controller.signal });
    await batches.next();
    controller.abort(new Error('enough'));
    await expect(batches.next()).rejects.toThrow('enough');
  });
});

describe('images that cannot be used', () => {
  const broken = async () => {
    const own = await temporaryFolder();
    const dataset = memoryDataset([[0], [1], [2], [0], [1]], { folder: own });
    for (const { fileName } of dataset.images) await putImage(own, fileName);
    const bytes = await readFile(`${own}/000002.png`);
    const path = await put(own, '000002.png', bytes.subarray(0, bytes.length / 2));
    return { dataset, path };
  };

  test('end the loading with path and reason', async () => {
    const { dataset, path } = await broken();
    await expect(take(loadBatches(samplerOf([dataset]), [dataset]), 10)).rejects.toMatchObject({
      code: 'ERR_BAD_FILE',
      message: expect.stringMatching(
        new RegExp(`^${path}: must be a readable image[^]*unreadable-image=skip`),
      ),
    });
  });

  test('unlabelled ones are replaced in any case', async () => {
    const { dataset } = await broken();
    const images = dataset.images.map((image) => ({ ...image, annotations: null }));
    const onProblem = vi.fn();
    const unlabelled = { ...dataset, images };
    await take(loadBatches(samplerOf([unlabelled]), [unlabelled], { onProblem }), 20);
    expect(onProblem).toHaveBeenCalledTimes(1);
  });

  test('or are replaced, reported once, and the same way every time', async () => {
    const { dataset, path } = await broken();
    const runs = [];
    for (const concurrency of [1, 4]) {
      const onProblem = vi.fn();
      const options = { unreadable: 'skip', onProblem, concurrency } as const;
      const batches = await take(loadBatches(samplerOf([dataset]), [dataset], options), 20);
      expect(onProblem).toHaveBeenCalledTimes(1);
      expect(onProblem).toHaveBeenCalledWith(
        {
          kind: 'unreadable-image',
          file: path,
          id: '000002.png',
          message: expect.stringMatching(/^must be a readable image, got /),
        },
        'skip',
      );
      runs.push(batches.map(({ images }) => images[0]!.map(({ index }) => index)));
      expect(runs.at(-1)!.flat()).not.toContain(2);
    }
    expect(runs[1]).toEqual(runs[0]);
    // Only what was broken is replaced.
    const sampler = samplerOf([dataset]);
    for (const indices of runs[0]!)
      sampler.next().indices[0]!.forEach((index, slot) => {
        if (index !== 2) expect(indices[slot]).toBe(index);
      });
  });

  test('nothing but broken images is an error, not an endless search', async () => {
    const dataset = memoryDataset([[0], [1]], { folder: '/nowhere' });
    await expect(
      take(loadBatches(samplerOf([dataset]), [dataset], { unreadable: 'skip' }), 1),
    ).rejects.toThrow(/must have images that can be used, got 20 in a row that cannot/);
  });

  test('a labelled image of another size than recorded is refused, skipped or kept', async () => {
    const dataset = memoryDataset([[0], [1]], {
      folder,
      size: (i) => (i === 1 ? { width: 48, height: 64 } : { width: 64, height: 48 }),
    });
    const run = (sizeMismatch?: 'refuse' | 'skip' | 'keep', source = dataset) => {
      const onProblem = vi.fn();
      const sampler = new BatchSampler([{ images: source.images, ratio: 1 }], {
        batchSize: 2,
        seed: 0,
        groupByAspect: false,
      });
      const options = { onProblem, ...(sizeMismatch ? { sizeMismatch } : {}) };
      return take(loadBatches(sampler, [source], options), 4).then((batches) => ({
        onProblem,
        indices: batches.flatMap(({ images }) => images[0]!.map(({ index }) => index)),
      }));
    };
    await expect(run()).rejects.toMatchObject({
      code: 'ERR_DATA',
      message: expect.stringMatching(/must be 48 by 64 pixels .*, got 64 by 48/),
    });
    const skipped = await run('skip');
    expect(skipped.indices).not.toContain(1);
    expect(skipped.onProblem).toHaveBeenCalledTimes(1);
    const kept = await run('keep');
    expect(kept.indices).toContain(1);
    // One is told for all.
    expect(kept.onProblem.mock.calls).toEqual([
      [expect.objectContaining({ kind: 'size-mismatch', id: '000001.png' }), 'keep'],
    ]);
    expect((await run('refuse', asUnlabelled(dataset))).indices).toContain(1);
  });
});

test('loadDataset reads each format as a config names it', async () => {
  const plain = await loadDataset({ format: 'folder', images: folder });
  expect(plain.fingerprint).toBe((await loadImageFolder(folder)).fingerprint);
  const annotations = await put(folder, 'coco.json', {
    images: [{ id: 1, file_name: '000000.png', width: 64, height: 48 }],
    annotations: [],
    categories: [{ id: 1, name: 'x' }],
  });
  const coco = await loadDataset({ format: 'coco', annotations, images: folder }, { name: 'n' });
  expect([coco.name, coco.images[0]!.annotations!.labels.length]).toEqual(['n', 0]);
});

describe.skipIf(!bccdFolder)('on BCCD photographs', () => {
  test('decodes and caches 292 photographs without holding up the event loop', async () => {
    const dataset = await loadDataset({ format: 'voc', folder: bccdFolder!, imageSet: 'trainval' });
    const sampler = new BatchSampler([{ images: dataset.images, ratio: 1 }], {
      batchSize: 4,
      seed: 1,
    });
    const cache = new ImageCache();
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    await take(loadBatches(sampler, [dataset], { cache }), 73);
    delay.disable();
    expect(cache.stats).toMatchObject({ images: 292, misses: 292, bytes: 292 * 640 * 480 * 3 });
    // Other processes share this machine's cores: the median is ours, the tail may be theirs.
    expect(delay.percentile(50) / 1e6).toBeLessThan(20);
  });
});
