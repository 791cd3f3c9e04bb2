/** The parts of a run's options in the form that the layers below take them. */
import type { DetectorOptions, OptimizerOptions } from '../detector/detector.js';
import type { SemiOptions } from '../semi/index.js';
import type { ResolvedConfig } from './schema.js';

/** What createDetector builds. `numClasses` comes from the data, unless the config names it. */
export function detectorOptions(
  { model }: Pick<ResolvedConfig, 'model'>,
  numClasses: number,
): DetectorOptions {
  const { weights: _, ...options } = model;
  return { ...options, numClasses: model.numClasses ?? numClasses };
}

export function optimizerOptions({
  optimizer,
}: Pick<ResolvedConfig, 'optimizer'>): OptimizerOptions {
  const { lr: _, normDecay, ...options } = optimizer;
  return { ...options, normDecay: normDecay ?? optimizer.weightDecay };
}

/** What MeanTeacher and MixPL take; a plain mean teacher mixes nothing. */
export function semiOptions({ semi }: Pick<ResolvedConfig, 'semi'>): SemiOptions {
  const { method, burnIn: _, resampling: __, ...options } = semi;
  return method === 'mixpl' ? options : { ...options, mixup: false, mosaic: false };
}
