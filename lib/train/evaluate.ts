import {
  composeBatch,
  compositionOf,
  mapBoxes,
  type PreprocessOptions,
  type TestResizeOptions,
  testView,
} from '../augment/index.js';
import { type ImageCache, prefetch } from '../data/index.js';
import type { DetectionDataset } from '../data/types.js';
import type { Detections, TeachableDetector } from '../detector/types.js';
import {
  type CocoMetrics,
  type EvaluationProtocol,
  evaluateDetections,
  type VocInterpolation,
} from '../eval/index.js';

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

/**
 * A detector's boxes for every picture of a data set, in original pixels, clipped to the picture.
 * @throws MixplError ERR_BAD_FILE, ERR_IO for a picture that cannot be read; `signal.reason`
 */
export async function detectDataset(
  detector: TeachableDetector,
  dataset: DetectionDataset,
  options: DetectOptions,
): Promise<Detections[]> {
  const {
    resize,
    preprocess,
    dtype,
    device = 'cpu',
    batch = 1,
    cache,
    signal,
    onProgress,
  } = options;
  const found: Detections[] = [];
  const groups = Array.from({ length: Math.ceil(dataset.images.length / batch) }, (_, i) =>
    dataset.images.slice(i * batch, (i + 1) * batch),
  );
  const decoded = prefetch(
    groups,
    (group) => Promise.all(group.map(({ path }) => cache.get(path))),
    { concurrency: 2, ...(signal ? { signal } : {}) },
  );
  for await (const images of decoded) {
    const views = images.map((image) => testView(image, resize));
    const input = await composeBatch(views.map(compositionOf), {
      ...preprocess,
      dtype,
      device,
      padTo: 'image',
    });
    try {
      const detections = await detector.predict(input);
      for (const [i, { boxes, ...rest }] of detections.entries())
        found.push({ ...rest, boxes: mapBoxes(views[i]!.layer.map, boxes, images[i]!) });
    } finally {
      input.dispose();
    }
    onProgress?.(found.length, dataset.images.length);
  }
  return found;
}

/** COCO (and VOC) metrics of a detector on an annotated data set. @throws as detectDataset and evaluateDetections */
export async function evaluateDetector(
  detector: TeachableDetector,
  dataset: DetectionDataset,
  options: DetectOptions & { protocol?: EvaluationProtocol; voc?: VocInterpolation | null },
): Promise<CocoMetrics> {
  const { protocol = 'coco', voc = null, ...detect } = options;
  const detections = await detectDataset(detector, dataset, detect);
  return evaluateDetections({ dataset, detections }, { protocol, voc });
}
