import { checkKeys, keysOf } from '../arguments.js';
import { composeBatch } from '../augment/index.js';
import type { DetectionDataset } from '../data/types.js';
import type { Detector } from '../detector/detector.js';
import {
  type GradientDensity,
  gradientDensity,
  type SampleType,
  sampleTypes,
} from '../detector/probe.js';
import type { Targets } from '../detector/types.js';
import { MixplError } from '../errors.js';
import { annotatedImages } from './annotated-images.js';
import { thresholdsAround } from './pseudo-labels.js';
import {
  composeOptionsOf,
  pseudoLabels,
  type StudentView,
  targetsOf,
  type ViewName,
  viewNames,
} from './student-views.js';
import {
  checkClassCount,
  ownThreshold,
  type StudentViewChoices,
  walkPictures,
} from './view-walk.js';

export interface GradientOptions extends StudentViewChoices {
  /** Score thresholds of pseudo labels. @defaultValue thresholdsAround the paper's for the detector */
  thresholds?: readonly number[] | undefined;
  /** Views to analyse. @defaultValue all */
  views?: readonly ViewName[] | undefined;
  /** Number of bins of each density. @defaultValue 30 */
  bins?: number | undefined;
}

const optionKeys = keysOf<GradientOptions>({
  ...{ teacher: 0, settings: 0, cache: 0, signal: 0 },
  ...{ onProgress: 0, seed: 0, unreadable: 0, onUnreadable: 0 },
  ...{ limit: 0, thresholds: 0, views: 0, bins: 0 },
});

/** Samples of one type. */
export interface TypedGradients {
  samples: number;
  /** Samples with a norm above 0.5. */
  aboveHalf: number;
  /** Bin b of n counts the norms in [b, b + 1) / n; the last one holds 1, too. */
  counts: number[];
}

/** Gradients in one kind of view at a threshold. */
export interface GradientsAtThreshold extends Record<SampleType, TypedGradients> {
  threshold: number;
}

/** Gradients of class scores by view and threshold. */
export interface GradientAnalysis {
  images: number;
  bins: number;
  views: {
    view: ViewName;
    /** Inputs of the student: one per image; a mosaic shows four. */
    inputs: number;
    /** In ascending order; counts of all inputs. */
    thresholds: GradientsAtThreshold[];
  }[];
}

/**
 * The gradient norms of a student's class scores, by whether pseudo labels and annotations agree: the paper's
 * Figures 6 and A7. A sample is an (anchor, class) entry; its norm is g = |p - p*|, p its score and
 * p* what the pseudo label makes it learn. Every image is seen weakly and strongly augmented (erased, as
 * in training), in a Pseudo Mixup and in a Pseudo Mosaic; the teacher's boxes and the annotations go through
 * the same maps, and both are assigned to the same anchors. Images without a pseudo label count, which a
 * training may leave out.
 * @param student RetinaNet, FCOS, ATSS, PAA, or TOOD before it aligns its tasks; see gradientDensity
 * @param dataset annotated, with the student's classes in their order; crowds are no objects
 * @throws MixplError ERR_CONFIG (another detector, other classes), ERR_DATA when nothing is annotated, ERR_RANGE
 *   for thresholds, views and bins; ERR_BAD_FILE, ERR_IO for an image that cannot be read; `signal.reason`
 */
export async function analyzeGradients(
  student: Detector,
  dataset: DetectionDataset,
  options: GradientOptions = {},
): Promise<GradientAnalysis> {
  checkKeys('analyzeGradients', options, optionKeys);
  const {
    thresholds = thresholdsAround(ownThreshold(student, options)),
    views = viewNames,
    bins = 30,
  } = options;
  check(thresholds, views);
  checkClassCount('analyzeGradients', student, dataset);
  const { limit, seed } = options;
  const ascending = [...new Set(thresholds)].sort((a, b) => a - b);
  const shown = viewNames.filter((view) => views.includes(view));
  const { images } = annotatedImages(dataset, { limit, seed });
  const { pictures, walk } = await walkPictures(student, images, options);
  const sums = new Map(shown.map((view) => [view, ascending.map(() => emptySums(bins))]));
  const inputs = new Map(shown.map((view) => [view, 0]));
  let done = 0;
  for await (const step of walk) {
    for (const view of shown)
      for (const input of step[view]) {
        const densities = await densitiesOf(student, input, { thresholds: ascending, bins });
        densities.forEach((density, t) => {
          addTo(sums.get(view)![t]!, density);
        });
        inputs.set(view, inputs.get(view)! + 1);
      }
    done += step.pictures.length;
    options.onProgress?.(done, pictures.length);
    if (done >= pictures.length) break;
  }
  return {
    images: pictures.length,
    bins,
    views: shown.map((view) => ({
      view,
      inputs: inputs.get(view)!,
      thresholds: sums.get(view)!.map((types, t) => ({ threshold: ascending[t]!, ...types })),
    })),
  };
}

function check(thresholds: readonly number[], views: readonly ViewName[]): void {
  const bad = thresholds.find((threshold) => !(threshold >= 0 && threshold <= 1));
  if (bad !== undefined || thresholds.length === 0)
    throw new MixplError(
      'ERR_RANGE',
      `analyzeGradients: thresholds must be one or more of 0 … 1, got ${bad ?? 'none'}`,
    );
  const unknown = views.find((view) => !viewNames.includes(view));
  if (unknown !== undefined || views.length === 0)
    throw new MixplError(
      'ERR_RANGE',
      `analyzeGradients: views must be one or more of ${viewNames.join(', ')}, got ${unknown ?? 'none'}`,
    );
}

/** A density for every threshold. Each set of pseudo labels is part of the one before: of equal size they are equal. */
async function densitiesOf(
  student: Detector,
  view: StudentView,
  { thresholds, bins }: { thresholds: readonly number[]; bins: number },
): Promise<GradientDensity[]> {
  const sets = thresholds.map((threshold) => pseudoLabels(view, threshold));
  const bySize = new Map<number, Targets>(sets.map((set) => [set.labels.length, set]));
  const pseudo = [...bySize.values()].map((set) => [set]);
  const batch = await composeBatch([view.composition], composeOptionsOf(student));
  try {
    const found = await gradientDensity(student, batch, {
      ...{ truth: [targetsOf(view.truth)], pseudo, bins },
    });
    const sizes = [...bySize.keys()];
    return sets.map(({ labels }) => found[sizes.indexOf(labels.length)]![0]!);
  } finally {
    batch.dispose();
  }
}

function emptySums(bins: number): Record<SampleType, TypedGradients> {
  const empty = () => ({ samples: 0, aboveHalf: 0, counts: new Array<number>(bins).fill(0) });
  return { tp: empty(), fp: empty(), fn: empty(), tn: empty() };
}

function addTo(sums: Record<SampleType, TypedGradients>, density: GradientDensity): void {
  for (const type of sampleTypes) {
    const sum = sums[type];
    sum.aboveHalf += density.aboveHalf[type];
    density.counts[type].forEach((count, bin) => {
      sum.counts[bin]! += count;
      sum.samples += count;
    });
  }
}
