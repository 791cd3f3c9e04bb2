import { checkKeys, keysOf } from '../arguments.js';
import type { PreprocessOptions, TestResizeOptions } from '../augment/index.js';
import { ImageCache } from '../data/index.js';
import type { DetectionDataset } from '../data/types.js';
import { defaultPreprocess } from '../detector/create.js';
import { Detector } from '../detector/detector.js';
import type { TeachableDetector } from '../detector/types.js';
import { MixplError } from '../errors.js';
import { areaOf, type SizeName, sizeNames, sizeOf } from '../eval/matching.js';
import { testResize } from '../image/index.js';
import { defaultScoreThr, type PseudoLabelReport } from '../semi/index.js';
import {
  clipped,
  countPseudoLabels,
  type JudgedPicture,
  judgePicture,
  precisionOf,
  recallOf,
  type TruthCounts,
} from '../semi/pseudo-labels.js';
import { detectReadable, type UnreadableOptions } from '../train/evaluate.js';
import { annotatedImages, type SampleOptions } from './annotated-images.js';

export interface PseudoLabelOptions extends SampleOptions, UnreadableOptions {
  /** Score thresholds of pseudo labels. @defaultValue thresholdsAround the paper's for the detector */
  thresholds?: readonly number[];
  /** How images are resized. @defaultValue as the detector resizes, else the paper's evaluation */
  resize?: TestResizeOptions;
  /** @defaultValue the detector's own, else ImageNet's statistics */
  preprocess?: PreprocessOptions;
  /** Data type of the image batches. @defaultValue the detector's own, else f32 */
  dtype?: 'f32' | 'bf16';
  /** @defaultValue the detector's own, else the CPU */
  device?: string;
  /** Images per pass. @defaultValue 1 */
  batch?: number;
  /** @defaultValue one of its own */
  cache?: ImageCache;
  /** Stops between batches, with its reason. */
  signal?: AbortSignal | undefined;
  /** Called with the number of images done, and of all. */
  onProgress?: (done: number, total: number) => void;
}

const optionKeys = keysOf<PseudoLabelOptions>({
  ...{ limit: 0, seed: 0, unreadable: 0, onUnreadable: 0 },
  ...{ thresholds: 0, resize: 0, preprocess: 0, dtype: 0 },
  ...{ device: 0, batch: 0, cache: 0, signal: 0 },
  ...{ onProgress: 0 },
});

/** Counts of pseudo labels of a kind, and of the objects of that kind. */
export interface LabelCounts {
  /** Pseudo labels per image. */
  pseudoLabels: number;
  /** Annotated objects per image, without crowds. */
  objects: number;
  /** Share of the pseudo labels that are right, without those on crowds; null if there are none. */
  precision: number | null;
  /** Share of the objects that were found; null if there are none. */
  recall: number | null;
}

/** A teacher's pseudo labels at a threshold. */
export interface AtThreshold extends LabelCounts {
  threshold: number;
  /** Share of images without a pseudo label. */
  emptyShare: number;
  /** Mean score of the pseudo labels; null if there are none. */
  meanScore: number | null;
  /** By size, from the area in the original image: pseudo labels by theirs, objects by theirs. */
  bySize: Record<SizeName, LabelCounts>;
  /** The class with most objects first. */
  byClass: ({ name: string } & LabelCounts)[];
}

/** What a teacher finds in images whose objects are known. */
export interface PseudoLabelAnalysis {
  images: number;
  /** Number of annotated objects, without crowds. */
  objects: number;
  /** Mean score of all boxes before any threshold (the paper's Table 2); null if there are none. */
  meanScore: Record<'all' | SizeName, number | null>;
  /** In ascending order. */
  thresholds: AtThreshold[];
}

/**
 * Compares the pseudo labels that a detector would give with the annotations of the images, as in the paper's
 * section on pseudo labels: how many, of what size and class, how many are right. Images are seen
 * whole, at the size of evaluation; a training's teacher sees them at random sizes. A label is right that
 * finds an object of its class with an IoU of 0.5 which no better one found (matchObjects). Sizes are by
 * the area of the box in the original image. Images without annotations are left out.
 *
 * @param dataset with the detector's classes, in their order
 * @throws MixplError ERR_DATA when nothing is annotated, ERR_CONFIG when the classes do not fit, ERR_RANGE for
 *   thresholds outside [0, 1]; ERR_BAD_FILE, ERR_IO for an image that cannot be read; `signal.reason`
 * @source arXiv:2312.07006, Figures 2 and 3, Table 2
 */
export async function analyzePseudoLabels(
  detector: TeachableDetector,
  dataset: DetectionDataset,
  options: PseudoLabelOptions = {},
): Promise<PseudoLabelAnalysis> {
  checkKeys('analyzePseudoLabels', options, optionKeys);
  const own = detector instanceof Detector ? detector : null;
  const {
    thresholds = thresholdsAround(defaultScoreThr(own?.options.type ?? '')),
    limit,
    seed,
    ...looking
  } = options;
  checkThresholds(thresholds);
  const numClasses = dataset.categories.length;
  if (numClasses !== detector.numClasses)
    throw new MixplError(
      'ERR_CONFIG',
      `analyzePseudoLabels: detector must have ${numClasses} classes (those of ${dataset.name}: ` +
        `${dataset.categories.map(({ name }) => name).join(', ')}), got ${detector.numClasses}`,
    );
  const looked = await detectReadable(detector, annotatedImages(dataset, { limit, seed }), {
    ...looking,
    preprocess: options.preprocess ?? own?.preprocess ?? defaultPreprocess,
    resize: options.resize ?? own?.preprocess.resize ?? testResize,
    dtype: options.dtype ?? own?.computeDtype ?? 'f32',
    device: options.device ?? own?.device ?? 'cpu',
    cache: options.cache ?? new ImageCache(),
  });
  const shownOf = (boxes: Float32Array) => (i: number) => areaOf(boxes, i) > 0;
  const judged = looked.dataset.images.map((image, i) => {
    const found = looked.detections[i]!;
    const objects = clipped(image.annotations!, image);
    return judgePicture(
      { instances: found, shown: shownOf(found.boxes) },
      { instances: objects, shown: shownOf(objects.boxes) },
    );
  });
  const names = dataset.categories.map(({ name }) => name);
  const ascending = [...new Set(thresholds)].sort((a, b) => a - b);
  const reports = ascending.map((scoreThr) => countPseudoLabels(judged, { numClasses, scoreThr }));
  return {
    images: judged.length,
    objects: reports[0]!.truth!.objects,
    meanScore: meanScores(judged),
    thresholds: reports.map((report, i) => atThreshold(ascending[i]!, report, names)),
  };
}

/** The threshold, and those 0.1 and 0.2 below and above it. */
export function thresholdsAround(scoreThr: number): number[] {
  return [-2, -1, 0, 1, 2]
    .map((tenths) => Math.round(1000 * scoreThr + 100 * tenths) / 1000)
    .filter((threshold) => threshold >= 0 && threshold < 1);
}

function checkThresholds(thresholds: readonly number[]): void {
  const bad = thresholds.find((threshold) => !(threshold >= 0 && threshold <= 1));
  if (bad === undefined && thresholds.length > 0) return;
  throw new MixplError(
    'ERR_RANGE',
    `analyzePseudoLabels: thresholds must be one or more of 0 … 1, got ${bad ?? 'none'}`,
  );
}

function atThreshold(
  threshold: number,
  report: PseudoLabelReport,
  names: readonly string[],
): AtThreshold {
  const truth = report.truth!;
  const { images } = truth;
  const rates = (counts: TruthCounts): LabelCounts => ({
    pseudoLabels: counts.boxes / images,
    objects: counts.objects / images,
    precision: precisionOf(counts),
    recall: recallOf(counts),
  });
  const [small, medium, large] = truth.bySize;
  return {
    threshold,
    ...rates(truth),
    emptyShare: report.emptyImages / images,
    meanScore: report.meanScore,
    bySize: { small: rates(small), medium: rates(medium), large: rates(large) },
    byClass: truth.perClass
      .map((counts, label) => ({ name: names[label]!, ...rates(counts) }))
      .sort((a, b) => b.objects - a.objects),
  };
}

function meanScores(judged: readonly JudgedPicture[]): PseudoLabelAnalysis['meanScore'] {
  const sums = { all: 0, small: 0, medium: 0, large: 0 };
  const counts = { ...sums };
  for (const { found } of judged)
    found.instances.scores.forEach((score, i) => {
      if (!found.shown(i)) return;
      for (const name of ['all', sizeNames[sizeOf(found.instances.boxes, i)]] as const) {
        sums[name] += score;
        counts[name]++;
      }
    });
  const mean = (name: keyof typeof sums) => (counts[name] > 0 ? sums[name] / counts[name] : null);
  return { all: mean('all'), small: mean('small'), medium: mean('medium'), large: mean('large') };
}
