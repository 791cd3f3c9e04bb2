import { type CocoMetrics, type EvaluationProtocol, evaluateCoco } from '../eval/coco.js';
import { readCocoGroundTruth, readCocoResults } from '../eval/coco-files.js';

export interface FileEvaluation {
  /** The twelve numbers in pycocotools' order; -1 where no class has ground truth. */
  stats: number[];
  /** AP by category id; null for a category without ground truth that counts. */
  perClassAP: Record<string, number | null>;
  /** Everything else, for the report. */
  metrics: CocoMetrics;
  /** What was passed over or assumed; belongs on stderr. */
  warnings: string[];
}

/**
 * Metrics of a COCO results file against a COCO annotation file: what `mixpl eval` prints. With
 * `--json` only `stats` and `perClassAP` are printed; their form is fixed.
 *
 * @throws MixplError ERR_IO, ERR_BAD_FILE, ERR_DATA (naming file and entry), ERR_CONFIG
 */
export async function evaluateFiles(input: {
  annotations: string;
  detections: string;
  /** @defaultValue 'coco' */
  protocol?: EvaluationProtocol;
}): Promise<FileEvaluation> {
  const { protocol = 'coco' } = input;
  const groundTruth = await readCocoGroundTruth(input.annotations);
  const detections = await readCocoResults(input.detections, groundTruth);
  const metrics = await evaluateCoco({ groundTruth, detections }, { protocol });
  return {
    stats: metrics.stats,
    perClassAP: Object.fromEntries(
      metrics.perClass.map(({ category, ap }) => [String(category.id), ap]),
    ),
    metrics,
    warnings: [...groundTruth.warnings, ...detections.warnings],
  };
}
