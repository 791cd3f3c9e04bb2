import { checkKeys, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { ImageCache } from './image-cache.js';
import { prefetch } from './prefetch.js';
import { type DatasetProblem, withPolicyHint } from './problems.js';
import type { BatchSampler, SampledBatch } from './sampler.js';
import type { DecodedImage, DetectionDataset, ImageRecord } from './types.js';

/** How loadBatches decodes. */
export interface LoadBatchesOptions {
  /** @defaultValue a cache of its own with 1 GiB */
  cache?: ImageCache;
  /** Images being decoded at the same time. @defaultValue 4 */
  concurrency?: number;
  /** Batches decoded ahead of the consumer. @defaultValue 2 */
  ahead?: number;
  /**
   * A labelled image that cannot be decoded: end with its error, or take a random other one. An
   * unlabelled one is always replaced: nothing is lost with it. @defaultValue 'refuse'
   */
  unreadable?: 'refuse' | 'skip';
  /**
   * A labelled image whose pixels have another size than its record (boxes would not fit): end with
   * an error, take a random other one, or use it. Unlabelled images are always used. @defaultValue 'refuse'
   */
  sizeMismatch?: 'refuse' | 'skip' | 'keep';
  /** Called once for each file that is replaced ('skip'), and for the first that is used in spite of its size ('keep'). */
  onProblem?: (problem: DatasetProblem, action: 'skip' | 'keep') => void;
  /** Which batches, by their step, are wanted: those of one of several processes. @defaultValue all */
  wanted?: (step: number) => boolean;
  signal?: AbortSignal;
}

const optionKeys = keysOf<LoadBatchesOptions>({
  ...{ cache: 0, concurrency: 0, ahead: 0, unreadable: 0 },
  ...{ sizeMismatch: 0, onProblem: 0, wanted: 0, signal: 0 },
});

/** A decoded image of a batch. */
export interface LoadedImage {
  /** Position in its data set. */
  readonly index: number;
  readonly record: ImageRecord;
  readonly image: DecodedImage;
}

/** A batch of a BatchSampler with its pixels. */
export interface LoadedBatch {
  readonly batch: SampledBatch;
  /** Per source, in the order of `batch.indices`. */
  readonly images: readonly (readonly LoadedImage[])[];
}

const maxAttempts = 20;

/**
 * Decodes the images of the sampler's batches ahead of the consumer. Endless; the order is the
 * sampler's, whatever the number of workers. To resume after a batch, restore `batch.after`.
 *
 * @throws MixplError ERR_BAD_FILE or ERR_IO for a labelled image that cannot be decoded, ERR_DATA for
 *   one of another size than recorded (each unless skipped), or `signal.reason`
 */
export async function* loadBatches(
  sampler: BatchSampler,
  datasets: readonly DetectionDataset[],
  options: LoadBatchesOptions = {},
): AsyncGenerator<LoadedBatch, void, undefined> {
  checkKeys('loadBatches', options, optionKeys);
  const { concurrency = 4, ahead = 2, signal } = options;
  const batchSize = sampler.counts.reduce((sum, count) => sum + count, 0);
  const load = imageLoader(sampler, datasets, options);
  const results = prefetch(placesOf(sampler, options.wanted), load, {
    concurrency,
    ahead: Math.max(1, ahead) * batchSize,
    signal,
  });
  let images: LoadedImage[][] = datasets.map(() => []);
  let count = 0;
  for await (const { place, loaded } of results) {
    images[place.source]!.push(loaded);
    if (++count < batchSize) continue;
    yield { batch: place.batch, images };
    images = datasets.map(() => []);
    count = 0;
  }
}

/** A place in a batch that wants an image. */
interface Place {
  batch: SampledBatch;
  source: number;
  slot: number;
  index: number;
}

function* placesOf(
  sampler: BatchSampler,
  wanted: (step: number) => boolean = () => true,
): Generator<Place> {
  for (const batch of sampler) {
    if (!wanted(batch.step)) continue;
    for (const [source, indices] of batch.indices.entries())
      for (const [slot, index] of indices.entries()) yield { batch, source, slot, index };
  }
}

function imageLoader(
  sampler: BatchSampler,
  datasets: readonly DetectionDataset[],
  options: LoadBatchesOptions,
): (place: Place) => Promise<{ place: Place; loaded: LoadedImage }> {
  const { cache = new ImageCache(), unreadable = 'refuse', sizeMismatch = 'refuse' } = options;
  const bad = new Map<string, MixplError>();
  /** One stands for all that are used in spite of their size. */
  let toldKept = false;

  /** The image, or why it cannot be used. */
  const open = async (record: ImageRecord): Promise<DecodedImage | MixplError> => {
    const known = bad.get(record.path);
    if (known) return known;
    let kind: 'unreadable-image' | 'size-mismatch' = 'unreadable-image';
    let problem: MixplError;
    try {
      const image = await cache.get(record.path);
      const fits = image.width === record.width && image.height === record.height;
      if (fits || !record.annotations || (sizeMismatch === 'keep' && toldKept)) return image;
      kind = 'size-mismatch';
      problem = new MixplError(
        'ERR_DATA',
        `${record.path}: must be ${record.width} by ${record.height} pixels (as its annotations say, EXIF orientation applied), ` +
          `got ${image.width} by ${image.height}`,
      );
    } catch (reason) {
      if (!(reason instanceof MixplError)) throw reason;
      problem = reason;
    }
    const action = kind === 'size-mismatch' ? sizeMismatch : unreadable;
    const message = problem.message.replace(`${record.path}: `, '');
    const report = { kind, file: record.path, id: record.fileName, message };
    if (action === 'keep') {
      toldKept = true;
      options.onProblem?.(report, action);
      return cache.get(record.path);
    }
    if (action === 'refuse' && record.annotations) throw withPolicyHint(problem, kind);
    if (!bad.has(record.path)) {
      bad.set(record.path, problem);
      options.onProblem?.(report, 'skip');
    }
    return problem;
  };

  return async (place) => {
    const { batch, source, slot } = place;
    const { images, name } = datasets[source]!;
    let { index } = place;
    for (let attempt = 0; ; attempt++) {
      const record = images[index]!;
      const image = await open(record);
      if (!(image instanceof MixplError)) return { place, loaded: { index, record, image } };
      if (attempt === maxAttempts)
        throw new MixplError(
          image.code,
          `loadBatches: ${name} must have images that can be used, got ${maxAttempts} in a row that cannot, last ${image.message}`,
          { cause: image },
        );
      index = sampler.substitute(source, { step: batch.step, slot, attempt });
    }
  };
}
