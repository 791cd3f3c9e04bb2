import type { TeachableDetector } from '../detector/types.js';
import { MixplError } from '../errors.js';

/** Detectors that a training of this process teaches. */
const learning = new WeakSet<TeachableDetector>();

/**
 * Two trainings would take each other's graphs and gradients.
 * @returns lets go of the detector
 * @throws MixplError ERR_STATE when another training has it, ERR_CONFIG when it is none
 */
export function beginLearning(detector: TeachableDetector): () => void {
  if (typeof detector !== 'object' || detector === null)
    throw new MixplError(
      'ERR_CONFIG',
      `trainSemiSupervised: detector must be one, got ${String(detector)}`,
    );
  if (learning.has(detector))
    throw new MixplError(
      'ERR_STATE',
      'trainSemiSupervised: detector must be free, got one that another training teaches',
    );
  learning.add(detector);
  return () => learning.delete(detector);
}
