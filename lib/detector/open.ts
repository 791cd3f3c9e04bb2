import { checkPath } from '../arguments.js';
import { MixplError } from '../errors.js';
import { FileBytes } from '../file-bytes.js';
import { SafetensorsReader } from '../safetensors.js';
import { createDetector, type DetectorPreprocess, type DetectorRuntime } from './create.js';
import type { Detector } from './detector.js';
import { dtypeChoices } from './dtype.js';
import type { DetectorOptions } from './options.js';

/** A detector that came from a file, and its classes. */
export interface OpenedDetector {
  detector: Detector;
  /** In label order; none when the file does not name them. */
  categories: { id: number; name: string }[];
  /** Everything else that the file says about itself. */
  metadata: Record<string, string>;
}

/**
 * Builds the detector that a weights file describes (of `detector.save`, or of a training) and loads
 * its weights. It computes in the type that the detector was asked for that wrote the file ('auto': what this device is good at),
 * unless `runtime` says otherwise.
 * @throws MixplError ERR_IO, ERR_BAD_FILE (no safetensors, cut off, not of mixpl), ERR_CHECKPOINT
 */
export async function openDetector(
  path: string,
  runtime: Omit<DetectorRuntime, 'seed'> = {},
): Promise<OpenedDetector> {
  checkPath('openDetector', 'path', path);
  const metadata = await metadataOf(path);
  if (metadata.format !== 'mixpl' || metadata.detector === undefined)
    throw new MixplError(
      'ERR_BAD_FILE',
      `${path}: must be a weights file of mixpl (its metadata describes the detector), got one without; ` +
        'try `mixpl import FILE --config CONFIG --out OUT`, or createDetector and then loadWeights',
    );
  const part = <T>(name: string, missing: T): T => {
    const text = metadata[name];
    if (text === undefined) return missing;
    try {
      return JSON.parse(text) as T;
    } catch (cause) {
      throw new MixplError('ERR_BAD_FILE', `${path}: metadata.${name} must be JSON, got ${text}`, {
        cause,
      });
    }
  };
  const options = part<DetectorOptions | null>('detector', null)!;
  const preprocess = part<Partial<DetectorPreprocess>>('preprocess', {});
  const firstLabel = part<number>('firstLabel', 0);
  const dtype = dtypeChoices.find((name) => name === metadata.dtype) ?? 'auto';
  const given = { ...runtime, dtype: runtime.dtype ?? dtype };
  const detector = await createDetector(options, { preprocess, firstLabel, ...given });
  try {
    await detector.loadWeights(path);
  } catch (error) {
    detector.dispose();
    throw error;
  }
  return { detector, categories: part('categories', []), metadata };
}

/** What a weights file says about itself. */
async function metadataOf(path: string): Promise<Record<string, string>> {
  await using file = await SafetensorsReader.open(await FileBytes.open(path));
  return file.metadata;
}
