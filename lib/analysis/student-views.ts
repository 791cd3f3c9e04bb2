/** What a student is shown of some images: their weak and strong views, Pseudo Mixup and Pseudo Mosaic. */
import {
  type ComposeOptions,
  type Composition,
  composeBatch,
  compositionOf,
  drawView,
  dropSmall,
  type Instances,
  joinInstances,
  type PreprocessOptions,
  projectInstances,
  selectInstances,
  type View,
  viewInstances,
} from '../augment/index.js';
import { type ImageCache, withPolicyHint } from '../data/index.js';
import type { DecodedImage, ImageRecord } from '../data/types.js';
import type { Detector } from '../detector/detector.js';
import type { Targets, TeachableDetector } from '../detector/types.js';
import { MixplError } from '../errors.js';
import type { Random } from '../random.js';
import { batchNeeded, cacheNeeded, MixPL, type SemiOptions } from '../semi/index.js';
import type { UnreadableOptions } from '../train/evaluate.js';
import type { TrainSettings } from '../train/settings.js';
import { instancesOf } from '../train/step-views.js';

/** Ways in which the student may see an image. */
export const viewNames = ['weak', 'strong', 'mixup', 'mosaic'] as const;
/** One of viewNames. */
export type ViewName = (typeof viewNames)[number];

/** An input of the student, with what a teacher says is there and what is there. */
export interface StudentView {
  readonly composition: Composition;
  /** Positions of the images that it shows. */
  readonly pictures: readonly number[];
  /** Boxes of the teacher, with every score. */
  readonly pseudo: Instances;
  /** Annotated objects; those of images that nobody annotated are missing. */
  readonly truth: Instances;
}

/** The views of a batch of images, one per image; mosaics show four each. */
export interface ViewStep extends Record<ViewName, readonly StudentView[]> {
  /** Positions of the images in the list. */
  readonly pictures: readonly number[];
}

export interface StudentViewOptions {
  teacher: TeachableDetector;
  settings: Pick<TrainSettings, 'augment' | 'batch'>;
  semi: SemiOptions;
  preprocess: PreprocessOptions;
  dtype: 'f32' | 'bf16';
  device: string;
  cache: ImageCache;
  random: Random;
  signal?: AbortSignal | undefined;
}

/** Mixed images are padded to this multiple at least, as in training. */
const leastDivisor = 32;

/** A strong view whose boxes are the teacher's and, marked by their labels, those that are there. */
interface Entry {
  view: View;
  instances: Instances;
}

/**
 * Walks round the list for ever, a batch of images at a time, as a training with settings would that
 * took them in this order: Pseudo Mixup and Pseudo Mosaic come from the same cache and code. The walk
 * starts so many images before the first one that the cache is full when it is its turn. An image has the
 * same weak and strong view every time.
 * @param pictures one or more, all of them readable
 * @throws MixplError as decoding does; `signal.reason`
 */
export async function* studentViews(
  pictures: readonly ImageRecord[],
  options: StudentViewOptions,
): AsyncGenerator<ViewStep> {
  const { settings, teacher, random, signal } = options;
  const count = Math.min(settings.batch.unlabelled, pictures.length);
  const batches = Array.from({ length: Math.ceil(pictures.length / count) }, (_, b) =>
    pictures.map((_, i) => i).slice(b * count, (b + 1) * count),
  );
  // A rest that is too small for a mosaic joins the batch before it.
  const needed = batchNeeded({ ...options.semi, mosaic: true });
  if (count >= needed && batches.at(-1)!.length < needed) batches.at(-2)!.push(...batches.pop()!);
  const semi = mixing(options.semi, Math.max(...batches.map((batch) => batch.length)));
  const mixed = new MixPL<Entry>(semi);
  const plain = new MixPL<Entry>({ ...semi, mixup: false, mosaic: false });
  const { numClasses } = teacher;
  const positions = new WeakMap<DecodedImage, number>();
  const divisor = Math.max(leastDivisor, options.preprocess.padDivisor);

  let before = 0; // batches that fill the cache
  for (let held = 0; held < semi.cacheSize; before++)
    held += batches.at(-1 - (before % batches.length))!.length;

  for (let step = -before; ; step++) {
    signal?.throwIfAborted();
    const batch = batches[step - batches.length * Math.floor(step / batches.length)]!;
    const shown = await Promise.all(
      batch.map(async (i) => {
        const source = await open(pictures[i]!, options.cache);
        positions.set(source, i);
        const draw = (kind: 'weak' | 'strong') =>
          drawView(source, settings.augment[kind], random.fork(kind, i));
        const truth = instancesOf(pictures[i]!.annotations);
        return { weak: draw('weak'), strong: draw('strong'), truth };
      }),
    );
    const found = await askTeacher(
      shown.map(({ weak }) => weak),
      options,
    );
    const entries = shown.map(({ weak, strong, truth }, i): Entry => {
      const { minBoxSize } = semi;
      const pseudo = projectInstances(found[i]!, weak, strong, minBoxSize);
      const objects = viewInstances(strong, truth, { minSize: minBoxSize });
      return { view: strong, instances: joinInstances([pseudo, marked(objects, numClasses)]) };
    });
    const weak = shown.map(({ weak, truth }, i) => ({
      composition: compositionOf(weak),
      pictures: [batch[i]!],
      pseudo: dropSmall(found[i]!, semi.minBoxSize),
      truth: viewInstances(weak, truth, { minSize: semi.minBoxSize }),
    }));
    // The same draws: a picture is erased in the same places whether it is mixed or not.
    const draws = () => random.fork('mixing', step);
    const [strong] = plain.branches(entries, divisor, draws());
    const [mixup, mosaic] = mixed.branches(entries, divisor, draws());
    if (step < 0) continue;
    const views = (samples: readonly { composition: Composition; instances: Instances }[] = []) =>
      samples.map((sample) => ({
        ...unmarked(sample, numClasses),
        pictures: sample.composition.layers.map(({ source }) => positions.get(source)!),
      }));
    yield {
      pictures: batch,
      weak,
      strong: views(strong!.samples),
      mixup: views(mixup!.samples),
      mosaic: views(mosaic?.samples),
    };
  }
}

async function open({ path }: ImageRecord, cache: ImageCache): Promise<DecodedImage> {
  try {
    return await cache.get(path);
  } catch (problem) {
    if (!(problem instanceof MixplError)) throw problem;
    throw withPolicyHint(problem, 'unreadable-image');
  }
}

/** Everything mixed, also for a run that does not mix, with a cache that is large enough. */
function mixing(semi: SemiOptions, count: number): SemiOptions {
  const mixed = { ...semi, mixup: true, mosaic: true };
  if (count < batchNeeded(mixed)) mixed.indexRule = 'reference';
  return { ...mixed, cacheSize: Math.max(semi.cacheSize, cacheNeeded(mixed, count)) };
}

async function askTeacher(
  views: readonly View[],
  { teacher, preprocess, dtype, device }: StudentViewOptions,
): Promise<Instances[]> {
  const input = await composeBatch(views.map(compositionOf), {
    ...preprocess,
    ...{ dtype, device, padTo: 'image' },
  });
  try {
    return await teacher.predict(input);
  } finally {
    input.dispose();
  }
}

/** Objects travel with the teacher's boxes, under labels from K on: they are mapped, mixed and erased as those are. */
function marked(objects: Instances, numClasses: number): Instances {
  return { ...objects, labels: objects.labels.map((label) => label + numClasses) };
}

function unmarked(
  { composition, instances }: { composition: Composition; instances: Instances },
  numClasses: number,
): Omit<StudentView, 'pictures'> {
  const isObject = (i: number) => instances.labels[i]! >= numClasses;
  const objects = selectInstances(instances, isObject);
  return {
    composition,
    pseudo: selectInstances(instances, (i) => !isObject(i)),
    truth: { ...objects, labels: objects.labels.map((label) => label - numClasses) },
  };
}

/** How a detector takes compositions to learn from. Each has a batch of its own: its padding is no other's. */
export function composeOptionsOf({ preprocess, computeDtype, device }: Detector): ComposeOptions {
  const padDivisor = Math.max(leastDivisor, preprocess.padDivisor);
  return { ...preprocess, padDivisor, dtype: computeDtype, device, padTo: 'batch' };
}

/** What the student is taught where a score must be above `threshold`. */
export function pseudoLabels({ pseudo }: StudentView, threshold: number): Targets {
  return targetsOf(selectInstances(pseudo, (i) => pseudo.scores[i]! > threshold));
}

export function targetsOf({ boxes, labels }: Instances): Targets {
  return { boxes, labels };
}

/**
 * The images that can be read, where others may be left out; else all: the first that cannot be is an
 * error when it is its turn.
 * @throws MixplError ERR_DATA when none can be read
 */
export async function readablePictures(
  pictures: readonly ImageRecord[],
  cache: ImageCache,
  { unreadable = 'refuse', onUnreadable }: UnreadableOptions,
): Promise<readonly ImageRecord[]> {
  if (unreadable === 'refuse') return pictures;
  const readable: ImageRecord[] = [];
  for (const picture of pictures)
    try {
      await cache.get(picture.path);
      readable.push(picture);
    } catch (problem) {
      if (!(problem instanceof MixplError)) throw problem;
      onUnreadable?.(problem, picture.path);
    }
  if (readable.length > 0) return readable;
  throw new MixplError(
    'ERR_DATA',
    `analysis: there must be images that can be read, got ${pictures.length} that cannot`,
  );
}
