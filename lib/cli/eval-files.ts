import { type CocoMetrics, type EvaluationProtocol, evaluateCoco } from '../eval/coco.js';
import { readCocoGroundTruth, readCocoResults } from '../eval/coco-files.js';
import type { VocInterpolation } from '../eval/voc.js';

export interface FileEvaluation {
  metrics: CocoMetrics;
  /** What was passed over or assumed; belongs on stderr. */
  warnings: string[];
}

/**
 * Metrics of a COCO results file against a COCO annotation file.
 *
 * @throws MixplError ERR_IO, ERR_BAD_FILE, ERR_DATA (naming file and entry), ERR_CONFIG
 */
export async function evaluateFiles(input: {
  annotations: string;
  detections: string;
  /** @defaultValue 'coco' */
  protocol?: EvaluationProtocol;
  /** @defaultValue null */
  voc?: VocInterpolation | null | undefined;
  signal?: AbortSignal | undefined;
}): Promise<FileEvaluation> {
  const { protocol = 'coco', voc = null, signal } = input;
  const groundTruth = await readCocoGroundTruth(input.annotations, { signal });
  const detections = await readCocoResults(input.detections, groundTruth, { signal });
  const metrics = await evaluateCoco({ groundTruth, detections }, { protocol, voc });
  return { metrics, warnings: [...groundTruth.warnings, ...detections.warnings] };
}
