import { checkKeys } from '../arguments.js';
import { MixplError } from '../errors.js';
import { native } from '../native.js';
import {
  asCorners,
  type DetectedBoxes,
  detectionsOf,
  type EvaluationCategory,
  type EvaluationDataset,
  type GroundTruthBoxes,
  groundTruthOf,
  type ImageDetections,
} from './boxes.js';
import { evaluateVoc, type VocInterpolation, type VocMetrics } from './voc.js';

/**
 * Whose limits of detections per image and class: the COCO tools' (1, 10, 100), or mmdetection's
 * (100, 300, 1000), where AP is taken at 100 and everything else with a single limit at 1000.
 */
export type EvaluationProtocol = 'coco' | 'mmdetection';

/** How evaluateCoco counts. */
export interface CocoOptions {
  /** Pascal VOC's metrics, too, at IoU 0.50:0.05:0.95, by this rule. @defaultValue null */
  voc?: VocInterpolation | null;
  /** @defaultValue 'coco' */
  protocol?: EvaluationProtocol;
  /** [T] in [0, 1]. @defaultValue 0.50:0.05:0.95 */
  iouThresholds?: readonly number[];
  /** Square pixels, inclusive. @defaultValue all, small (to 32²), medium (to 96²), large */
  areaRanges?: Readonly<Record<string, readonly [low: number, high: number]>>;
  /** Three ascending limits per image and class; the default follows the protocol. */
  maxDetections?: readonly [number, number, number];
}

/** Metrics of one class; null where the class has no ground truth that counts. */
export interface ClassMetrics {
  category: EvaluationCategory;
  /** Over all thresholds, at the largest limit of detections. */
  ap: number | null;
  ap50: number | null;
  ap75: number | null;
  apSmall: number | null;
  apMedium: number | null;
  apLarge: number | null;
  /** Mean final recall over all thresholds. */
  ar: number | null;
  /** Boxes that count (no crowds) in the range 'all'. */
  numGroundTruths: number;
}

/** Row-major tables as pycocotools' `eval`; -1 marks classes without ground truth. */
export interface CocoTables {
  iouThresholds: readonly number[];
  recallPoints: readonly number[];
  areaNames: readonly string[];
  maxDetections: readonly number[];
  /** [T, R, K, A, M] */
  precision: Float64Array;
  /** [T, R, K, A, M] */
  scores: Float64Array;
  /** [T, K, A, M] */
  recall: Float64Array;
}

/** COCO's metrics of a data set. */
export interface CocoMetrics {
  protocol: EvaluationProtocol;
  /**
   * AP, AP50, AP75, AP_S, AP_M, AP_L, AR at the three limits, AR_S, AR_M, AR_L, in pycocotools'
   * order. -1: no class has ground truth for it.
   */
  stats: number[];
  perClass: ClassMetrics[];
  tables: CocoTables;
  /** When asked for. Difficult objects and crowds count as difficult. */
  voc: VocMetrics | null;
}

/** Names of CocoMetrics.stats, in order; the AR limits are those of the COCO tools. */
export const cocoStatNames = [
  'AP',
  'AP50',
  'AP75',
  'AP_S',
  'AP_M',
  'AP_L',
  'AR1',
  'AR10',
  'AR100',
  'AR_S',
  'AR_M',
  'AR_L',
] as const;

/** Names of the twelve numbers with the limits that were used, e.g. AR300 under mmdetection's. */
export function statNames(metrics: CocoMetrics): string[] {
  const limits = metrics.tables.maxDetections;
  return cocoStatNames.map((name, i) => (i >= 6 && i <= 8 ? `AR${limits[i - 6]}` : name));
}

const defaultAreaRanges: Required<CocoOptions>['areaRanges'] = {
  all: [0, 1e10],
  small: [0, 32 ** 2],
  medium: [32 ** 2, 96 ** 2],
  large: [96 ** 2, 1e10],
};
const protocolLimits: Record<EvaluationProtocol, readonly [number, number, number]> = {
  coco: [1, 10, 100],
  mmdetection: [100, 300, 1000],
};
const optionKeys = ['voc', 'protocol', 'iouThresholds', 'areaRanges', 'maxDetections'];

/** numpy.linspace, bit for bit: the thresholds decide ties. */
function linspace(start: number, stop: number, count: number): number[] {
  const step = (stop - start) / (count - 1);
  return Array.from({ length: count }, (_, i) => (i === count - 1 ? stop : i * step + start));
}

/**
 * COCO box metrics, equal to pycocotools on any finite input.
 *
 * @param input.groundTruth xywh boxes; `ignore` marks crowds
 * @param input.detections  xywh boxes
 * @throws MixplError ERR_RANGE for a value that is not finite or an index outside; ERR_SHAPE for
 *   arrays whose sizes disagree; ERR_CONFIG for an unknown option or protocol
 * @source pycocotools 2.0 COCOeval (bbox); mmdetection CocoMetric for its protocol
 */
export async function evaluateCoco(
  input: { groundTruth: GroundTruthBoxes; detections: DetectedBoxes },
  options: CocoOptions = {},
): Promise<CocoMetrics> {
  checkKeys('evaluateCoco', options, optionKeys);
  const {
    voc = null,
    protocol = 'coco',
    iouThresholds = linspace(0.5, 0.95, 10),
    areaRanges = defaultAreaRanges,
  } = options;
  if (!Object.hasOwn(protocolLimits, protocol))
    throw new MixplError(
      'ERR_CONFIG',
      `evaluateCoco: protocol must be 'coco' or 'mmdetection', got '${protocol}'`,
    );
  const maxDetections = options.maxDetections ?? protocolLimits[protocol];
  if (
    maxDetections.length !== 3 ||
    maxDetections.some((m, i) => !Number.isInteger(m) || m < (maxDetections[i - 1] ?? 1)) ||
    maxDetections[2] >= 2 ** 31
  )
    throw new MixplError(
      'ERR_CONFIG',
      `evaluateCoco: maxDetections must be three ascending positive integers, got [${maxDetections.join(', ')}]`,
    );

  const { groundTruth, detections } = input;
  const recallPoints = linspace(0, 1, 101);
  const areaNames = Object.keys(areaRanges);
  const result = await native.evaluateCoco(groundTruth, detections, {
    numImages: groundTruth.numImages,
    numClasses: groundTruth.categories.length,
    iouThresholds: Float64Array.from(iouThresholds),
    recallPoints: Float64Array.from(recallPoints),
    areaRanges: Float64Array.from(Object.values(areaRanges).flat()),
    maxDetections: Int32Array.from(maxDetections),
  });
  const tables: CocoTables = {
    iouThresholds: [...iouThresholds],
    recallPoints,
    areaNames,
    maxDetections: [...maxDetections],
    precision: result.precision,
    scores: result.scores,
    recall: result.recall,
  };
  const view = new TableView(tables, groundTruth.categories.length);
  return {
    protocol,
    stats: view.stats(),
    perClass: groundTruth.categories.map((category, label) =>
      view.classMetrics(category, { label, numGroundTruths: result.numGroundTruths }),
    ),
    tables,
    voc: voc && (await vocMetrics(input, voc)),
  };
}

async function vocMetrics(
  { groundTruth, detections }: { groundTruth: GroundTruthBoxes; detections: DetectedBoxes },
  interpolation: VocInterpolation,
): Promise<VocMetrics> {
  return evaluateVoc(
    { groundTruth: asCorners(groundTruth), detections: asCorners(detections) },
    { interpolation, iouThresholds: linspace(0.5, 0.95, 10) },
  );
}

/**
 * COCO box metrics of detections in original pixels, one entry per image of the data set.
 * @throws as groundTruthOf, detectionsOf and evaluateCoco
 */
export async function evaluateDetections(
  input: { dataset: EvaluationDataset; detections: readonly ImageDetections[] },
  options: CocoOptions = {},
): Promise<CocoMetrics> {
  return evaluateCoco(
    {
      groundTruth: groundTruthOf(input.dataset),
      detections: detectionsOf(input.dataset, input.detections),
    },
    options,
  );
}

/** Which cells of the tables a mean covers; undefined means all of the axis. */
interface Selection {
  iou?: number;
  area: string;
  limit: number;
  label?: number;
}

class TableView {
  readonly #tables: CocoTables;
  readonly #numClasses: number;

  constructor(tables: CocoTables, numClasses: number) {
    this.#tables = tables;
    this.#numClasses = numClasses;
  }

  stats(): number[] {
    const limits = this.#tables.maxDetections;
    const last = limits.length - 1;
    // The COCO tools look for the limit 100 by value; without one the largest stands in.
    const headline = limits.includes(100) ? limits.indexOf(100) : last;
    const ap = (selection: Selection) => this.averagePrecision(selection);
    const ar = (selection: Selection) => this.averageRecall(selection);
    return [
      ap({ area: 'all', limit: headline }),
      ap({ area: 'all', limit: last, iou: 0.5 }),
      ap({ area: 'all', limit: last, iou: 0.75 }),
      ap({ area: 'small', limit: last }),
      ap({ area: 'medium', limit: last }),
      ap({ area: 'large', limit: last }),
      ar({ area: 'all', limit: 0 }),
      ar({ area: 'all', limit: 1 }),
      ar({ area: 'all', limit: 2 }),
      ar({ area: 'small', limit: last }),
      ar({ area: 'medium', limit: last }),
      ar({ area: 'large', limit: last }),
    ];
  }

  classMetrics(
    category: EvaluationCategory,
    { label, numGroundTruths }: { label: number; numGroundTruths: Int32Array },
  ): ClassMetrics {
    const { areaNames, maxDetections } = this.#tables;
    const limit = maxDetections.length - 1;
    const orNull = (value: number) => (value === -1 ? null : value);
    const ap = (area: string, iou?: number) =>
      orNull(this.averagePrecision({ area, limit, label, ...(iou === undefined ? {} : { iou }) }));
    const all = areaNames.indexOf('all');
    return {
      category,
      ap: ap('all'),
      ap50: ap('all', 0.5),
      ap75: ap('all', 0.75),
      apSmall: ap('small'),
      apMedium: ap('medium'),
      apLarge: ap('large'),
      ar: orNull(this.averageRecall({ area: 'all', limit, label })),
      numGroundTruths: all < 0 ? 0 : numGroundTruths[label * areaNames.length + all]!,
    };
  }

  averagePrecision(selection: Selection): number {
    const points = this.#tables.recallPoints.length;
    return this.#mean(this.#tables.precision, { points, selection });
  }

  averageRecall(selection: Selection): number {
    return this.#mean(this.#tables.recall, { points: 1, selection });
  }

  /** Mean over the selected cells of [T, points, K, A, M] that are not -1, or -1 without any. */
  #mean(
    table: Float64Array,
    { points, selection }: { points: number; selection: Selection },
  ): number {
    const { iouThresholds, areaNames, maxDetections } = this.#tables;
    const area = areaNames.indexOf(selection.area);
    if (area < 0) return -1;
    let sum = 0;
    let count = 0;
    for (const [t, threshold] of iouThresholds.entries()) {
      if (selection.iou !== undefined && threshold !== selection.iou) continue;
      for (let r = 0; r < points; r++) {
        const first = selection.label ?? 0;
        const end = selection.label === undefined ? this.#numClasses : first + 1;
        for (let k = first; k < end; k++) {
          const row = ((t * points + r) * this.#numClasses + k) * areaNames.length + area;
          const value = table[row * maxDetections.length + selection.limit]!;
          if (value > -1) {
            sum += value;
            count++;
          }
        }
      }
    }
    return count > 0 ? sum / count : -1;
  }
}
