import { checkKeys, keysOf } from '../arguments.js';
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
import type { ProcessGroup } from '../processes/index.js';

/** How a data set is shown to a detector. */
export interface DetectOptions {
  /** How the images are resized. */
  resize: TestResizeOptions;
  preprocess: PreprocessOptions;
  dtype: 'f32' | 'bf16';
  /** Where the images are composed. @defaultValue 'cpu' */
  device?: string;
  /** Images per pass. @defaultValue 1 */
  batch?: number;
  cache: ImageCache;
  /** Stops between batches, with its reason. */
  signal?: AbortSignal | undefined;
  /** Called with the number of images done, and of all. */
  onProgress?: (done: number, total: number) => void;
}

/** What to do with images that cannot be read. */
export interface UnreadableOptions {
  /** 'skip': they are left out of the evaluation. @defaultValue 'refuse' */
  unreadable?: 'refuse' | 'skip' | undefined;
  /** Called for each image that is left out. */
  onUnreadable?: ((problem: MixplError, path: string) => void) | undefined;
}

const detectKeys = keysOf<DetectOptions>({
  ...{ resize: 0, preprocess: 0, dtype: 0, device: 0, batch: 0 },
  ...{ cache: 0, signal: 0, onProgress: 0 },
});
const unreadableKeys = keysOf<UnreadableOptions>({ unreadable: 0, onUnreadable: 0 });

/**
 * A detector's boxes for every image of a data set, in original pixels, clipped to the image.
 * @throws MixplError ERR_BAD_FILE, ERR_IO for an image that cannot be read; `signal.reason`
 */
export async function detectDataset(
  detector: TeachableDetector,
  dataset: DetectionDataset,
  options: DetectOptions,
): Promise<Detections[]> {
  checkOptions('detectDataset', options);
  return (await detect(detector, dataset, options)).detections;
}

/** As detectDataset, with the part of the data set that could be read. @throws as detectDataset */
export async function detectReadable(
  detector: TeachableDetector,
  dataset: DetectionDataset,
  options: DetectOptions & UnreadableOptions,
): Promise<{ dataset: DetectionDataset; detections: Detections[] }> {
  checkOptions('detectReadable', options, unreadableKeys);
  return detect(detector, dataset, options);
}

/** COCO (and VOC) metrics of a detector on an annotated data set. @throws as detectDataset and evaluateDetections */
export async function evaluateDetector(
  detector: TeachableDetector,
  dataset: DetectionDataset,
  options: DetectOptions & UnreadableOptions & MetricOptions,
): Promise<CocoMetrics> {
  checkOptions('evaluateDetector', options, [...unreadableKeys, ...metricKeys]);
  return metricsOf(await detect(detector, dataset, options), options);
}

/**
 * evaluateDetector() by several processes, each with a share of the images; all have the metrics.
 * @returns null when the signal of one of them has stopped it, and then they are all told to stop
 * @throws as evaluateDetector; MixplError ERR_PROCESS
 */
export async function evaluateTogether(
  processes: ProcessGroup,
  detector: TeachableDetector,
  dataset: DetectionDataset,
  options: DetectOptions & UnreadableOptions & MetricOptions,
): Promise<CocoMetrics | null> {
  checkOptions('evaluateTogether', options, [...unreadableKeys, ...metricKeys]);
  const { signal, onUnreadable } = options;
  const groups = groupsOf(dataset, options);
  const share = groups.filter((_, i) => i % processes.processes === processes.rank);
  const problems: [problem: MixplError, path: string][] = [];
  const told: UnreadableOptions['onUnreadable'] = (...problem) => problems.push(problem);
  const found = await detectGroups(detector, share, { ...options, onUnreadable: told }).catch(
    (error: unknown) => {
      if (signal?.aborted && error === signal.reason) return null;
      throw error;
    },
  );
  const lost = problems.map(([{ code, message }, path]) => ({ code, message, path }));
  const all = await processes.gather({ found, lost });
  let metrics: CocoMetrics | null = null;
  if (all?.every((one) => one.found)) {
    for (const { code, message, path } of all.flatMap((one) => one.lost))
      onUnreadable?.(new MixplError(code, message), path);
    const inOrder = groups.flatMap(
      (_, i) => all[i % all.length]!.found![Math.floor(i / all.length)]!,
    );
    metrics = await metricsOf(readablePart(dataset, inOrder), options);
  }
  metrics = await processes.broadcast(metrics);
  if (!metrics) processes.stop();
  return metrics;
}

/** Which metrics to compute. */
export interface MetricOptions {
  protocol?: EvaluationProtocol;
  voc?: VocInterpolation | null;
}

const metricKeys = keysOf<MetricOptions>({ protocol: 0, voc: 0 });

/** @throws MixplError ERR_CONFIG for an option that is not known, ERR_RANGE for the batch */
function checkOptions(call: string, options: DetectOptions, more: readonly string[] = []): void {
  checkKeys(call, options, [...detectKeys, ...more]);
  const { batch = 1 } = options;
  if (!Number.isSafeInteger(batch) || batch < 1)
    throw new MixplError('ERR_RANGE', `${call}: batch must be a whole number >= 1, got ${batch}`);
}

async function detect(
  detector: TeachableDetector,
  dataset: DetectionDataset,
  options: DetectOptions & UnreadableOptions,
): Promise<{ dataset: DetectionDataset; detections: Detections[] }> {
  const groups = groupsOf(dataset, options);
  return readablePart(dataset, (await detectGroups(detector, groups, options)).flat());
}

function metricsOf(
  found: { dataset: DetectionDataset; detections: Detections[] },
  { protocol = 'coco', voc = null }: MetricOptions,
): Promise<CocoMetrics> {
  return evaluateDetections(found, { protocol, voc });
}

/** Images that a detector looks at together. */
function groupsOf(
  { images }: DetectionDataset,
  { batch = 1 }: Pick<DetectOptions, 'batch'>,
): ImageRecord[][] {
  return Array.from({ length: Math.ceil(images.length / batch) }, (_, i) =>
    images.slice(i * batch, (i + 1) * batch),
  );
}

/** What a detector finds, by group and image; null in one that cannot be read. */
async function detectGroups(
  detector: TeachableDetector,
  groups: readonly (readonly ImageRecord[])[],
  options: DetectOptions & UnreadableOptions,
): Promise<(Detections | null)[][]> {
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
  const { resize, preprocess, dtype, device = 'cpu', signal, onProgress } = options;
  const decoded = prefetch(groups, (group) => Promise.all(group.map(({ path }) => open(path))), {
    concurrency: 2,
    ...(signal ? { signal } : {}),
  });
  const look = async (images: readonly DecodedImage[]): Promise<Detections[]> => {
    if (images.length === 0) return [];
    const views = images.map((image) => testView(image, resize));
    const input = await composeBatch(views.map(compositionOf), {
      ...preprocess,
      dtype,
      device,
      padTo: 'image',
    });
    try {
      return (await detector.predict(input)).map(({ boxes, ...rest }, i) => ({
        ...rest,
        boxes: mapBoxes(views[i]!.layer.map, boxes, images[i]!),
      }));
    } finally {
      input.dispose();
    }
  };
  const total = groups.flat().length;
  let done = 0;
  const found: (Detections | null)[][] = [];
  for await (const opened of decoded) {
    const detections = await look(opened.filter((image) => image !== null));
    found.push(opened.map((image) => image && detections.shift()!));
    onProgress?.((done += opened.length), total);
  }
  return found;
}

/** @throws MixplError ERR_DATA when no image could be read */
function readablePart(
  dataset: DetectionDataset,
  found: readonly (Detections | null)[],
): { dataset: DetectionDataset; detections: Detections[] } {
  const detections = found.filter((one) => one !== null);
  if (detections.length === 0 && dataset.images.length > 0)
    throw new MixplError(
      'ERR_DATA',
      `${dataset.name}: must have images that can be read, got ${dataset.images.length} that cannot`,
    );
  if (detections.length === found.length) return { dataset, detections };
  return {
    dataset: selectImages(
      dataset,
      dataset.images.filter((_, i) => found[i]),
    ),
    detections,
  };
}
