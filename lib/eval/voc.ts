import { checkKeys } from '../arguments.js';
import { MixplError } from '../errors.js';
import { native } from '../native.js';
import type { DetectedBoxes, EvaluationCategory, GroundTruthBoxes } from './boxes.js';

/** '11point' is VOC2007's mean over eleven recalls, 'area' the rule since VOC2010. */
export type VocInterpolation = '11point' | 'area';

/** How evaluateVoc counts. */
export interface VocOptions {
  /** @defaultValue '11point' */
  interpolation?: VocInterpolation;
  /** [T] in [0, 1]. @defaultValue [0.5] */
  iouThresholds?: readonly number[];
  /** Width is x2 - x1 + 1, edges being inclusive pixel indices. @defaultValue true */
  legacyCoordinates?: boolean;
}

/** Metrics of one class, by IoU threshold. */
export interface VocClassMetrics {
  category: EvaluationCategory;
  /** [T]; null for a class without ground truth that counts. */
  ap: (number | null)[];
  /** [T] final recall. */
  recall: (number | null)[];
  /** Not difficult. */
  numGroundTruths: number;
  numDetections: number;
}

/** Pascal VOC's metrics of a data set. */
export interface VocMetrics {
  interpolation: VocInterpolation;
  iouThresholds: readonly number[];
  /** Mean over thresholds and classes with ground truth; -1 without any. Not rounded. */
  map: number;
  /** [T] mean over classes. */
  mapPerThreshold: number[];
  perClass: VocClassMetrics[];
}

const optionKeys = ['interpolation', 'iouThresholds', 'legacyCoordinates'];

/**
 * Pascal VOC mean average precision.
 *
 * @param input.groundTruth xyxy boxes; `ignore` marks difficult objects
 * @param input.detections  xyxy boxes
 * @throws MixplError ERR_RANGE, ERR_SHAPE, ERR_CONFIG as evaluateCoco
 * @source mmdetection mean_ap.py (eval_map, tpfp_default), in f64 and with a stable sort
 */
export async function evaluateVoc(
  input: { groundTruth: GroundTruthBoxes; detections: DetectedBoxes },
  options: VocOptions = {},
): Promise<VocMetrics> {
  checkKeys('evaluateVoc', options, optionKeys);
  const { interpolation = '11point', iouThresholds = [0.5], legacyCoordinates = true } = options;
  if (interpolation !== '11point' && interpolation !== 'area')
    throw new MixplError(
      'ERR_CONFIG',
      `evaluateVoc: interpolation must be '11point' or 'area', got '${interpolation}'`,
    );
  const { groundTruth, detections } = input;
  const numClasses = groundTruth.categories.length;
  const result = await native.evaluateVoc(groundTruth, detections, {
    numImages: groundTruth.numImages,
    numClasses,
    iouThresholds: Float64Array.from(iouThresholds),
    interpolation,
    legacyCoordinates,
  });
  const column = (table: Float64Array, label: number) =>
    iouThresholds.map((_, t) => {
      const value = table[t * numClasses + label]!;
      return value === -1 ? null : value;
    });
  const perClass = groundTruth.categories.map((category, label) => ({
    category,
    ap: column(result.averagePrecision, label),
    recall: column(result.recall, label),
    numGroundTruths: result.numGroundTruths[label]!,
    numDetections: result.numDetections[label]!,
  }));
  const mapPerThreshold = iouThresholds.map((_, t) =>
    mean(perClass.map(({ ap }) => ap[t] ?? null).filter((ap) => ap !== null)),
  );
  return {
    interpolation,
    iouThresholds: [...iouThresholds],
    map: mean(mapPerThreshold),
    mapPerThreshold,
    perClass,
  };
}

function mean(values: readonly number[]): number {
  return values.length > 0 ? values.reduce((sum, value) => sum + value, 0) / values.length : -1;
}
