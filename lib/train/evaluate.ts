import {
  composeBatch,
  compositionOf,
  mapBoxes,
  type PreprocessOptions,
  type TestResizeOptions,
  testView,
} from '../augment/index.js';
import { type ImageCache, prefetch, selectImages, withPolicyHint } from '../data/index.js';
import type { DecodedImage, DetectionDataset, ImageRecord } from '../data/types.js';
import type { Detections, TeachableDetector } from '../detector/types.js';
import { MixplError } from '../errors.js';
import {
  type CocoMetrics,
  type EvaluationProtocol,
  evaluateDetections,
  type VocInterpolation,
} from '../eval/index.js';

/** How a data set is shown to a detector. */
export interface DetectOptions {
  /** How the pictures are resized. */
  resize: TestResizeOptions;
  preprocess: PreprocessOptions;
  dtype: 'f32' | 'bf16';
  /** Where the pictures are composed. @defaultValue 'cpu' */
  device?: string;
  /** Pictures at a time. @defaultValue 1 */
  batch?: number;
  cache: ImageCache;
  /** Stops between batches, with its reason. */
  signal?: AbortSignal | undefined;
  /** Pictures looked at, of how many. */
  onProgress?: (done: number, total: number) => void;
}

/** What to do with pictures that cannot be read. */
export interface UnreadableOptions {
  /** 'skip': they are left out of the evaluation. @defaultValue 'refuse' */
  unreadable?: 'refuse' | 'skip' | undefined;
  /** Told of each that is left out. */
  onUnreadable?: ((problem: MixplError, path: string) => void) | undefined;
}

/**
 * A detector's boxes for every picture of a data set, in original pixels, clipped to the picture.
 * @throws MixplError ERR_BAD_FILE, ERR_IO for a picture that cannot be read; `signal.reason`
 */
export async function detectDataset(
  detector: TeachableDetector,
  dataset: DetectionDataset,
  options: DetectOptions,
): Promise<Detections[]> {
  return (await detectReadable(detector, dataset, options)).detections;
}

/** As detectDataset, with the part of the data set that could be read. @throws as detectDataset */
export async function detectReadable(
  detector: TeachableDetector,
  dataset: DetectionDataset,
  options: DetectOptions & UnreadableOptions,
): Promise<{ dataset: DetectionDataset; detections: Detections[] }> {
  const { unreadable = 'refuse', onUnreadable } = options;
  const open = async (path: string): Promise<DecodedImage | null> => {
    try {
      return await options.cache.get(path);
    } catch (problem) {
      if (!(problem instanceof MixplError)) throw problem;
      if (unreadable === 'refuse') throw withPolicyHint(problem, 'unreadable-image');
      onUnreadable?.(problem, path);
      return null;
    }
  };
  const { resize, preprocess, dtype, device = 'cpu', batch = 1, signal, onProgress } = options;
  const detections: Detections[] = [];
  const readable: ImageRecord[] = [];
  const groups = Array.from({ length: Math.ceil(dataset.images.length / batch) }, (_, i) =>
    dataset.images.slice(i * batch, (i + 1) * batch),
  );
  const decoded = prefetch(groups, (group) => Promise.all(group.map(({ path }) => open(path))), {
    concurrency: 2,
    ...(signal ? { signal } : {}),
  });
  const look = async (images: readonly DecodedImage[]) => {
    const views = images.map((image) => testView(image, resize));
    const input = await composeBatch(views.map(compositionOf), {
      ...preprocess,
      dtype,
      device,
      padTo: 'image',
    });
    try {
      for (const [i, { boxes, ...rest }] of (await detector.predict(input)).entries())
        detections.push({ ...rest, boxes: mapBoxes(views[i]!.layer.map, boxes, images[i]!) });
    } finally {
      input.dispose();
    }
  };
  let done = 0;
  for await (const opened of decoded) {
    const images = opened.filter((image) => image !== null);
    if (images.length > 0) await look(images);
    readable.push(...groups[done++]!.filter((_, i) => opened[i]));
    onProgress?.(Math.min(done * batch, dataset.images.length), dataset.images.length);
  }
  if (readable.length === 0 && dataset.images.length > 0)
    throw new MixplError(
      'ERR_DATA',
      `${dataset.name}: must have images that can be read, got ${dataset.images.length} that cannot`,
    );
  const whole = readable.length === dataset.images.length;
  return { dataset: whole ? dataset : selectImages(dataset, readable), detections };
}

/** COCO (and VOC) metrics of a detector on an annotated data set. @throws as detectDataset and evaluateDetections */
export async function evaluateDetector(
  detector: TeachableDetector,
  dataset: DetectionDataset,
  options: DetectOptions &
    UnreadableOptions & { protocol?: EvaluationProtocol; voc?: VocInterpolation | null },
): Promise<CocoMetrics> {
  const { protocol = 'coco', voc = null, ...detect } = options;
  const found = await detectReadable(detector, dataset, detect);
  return evaluateDetections(found, { protocol, voc });
}
