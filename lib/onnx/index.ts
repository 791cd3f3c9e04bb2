/** A detector as an ONNX file, from 8-bit pixels to detections. */
import { checkKeys, checkPath, keysOf } from '../arguments.js';
import type { Detector } from '../detector/detector.js';
import type { OpenedDetector } from '../detector/open.js';
import { MixplError } from '../errors.js';
import { writeFileWhole } from '../files.js';
import { packageVersion } from '../version.js';

export { compareOnnx, type OnnxComparison, type OnnxPicture, runOnnx } from './check.js';

/** What an ONNX file takes, and says of itself. */
export interface OnnxOptions {
  /** Pixels of the images that the file takes. */
  height: number;
  width: number;
  /** In label order; written into the file's metadata. @defaultValue those of the weights file, if it is given */
  categories?: readonly { id: number; name: string }[];
  /** More of what the file says about itself, beside the config's `name`, if a weights file has it. */
  metadata?: Readonly<Record<string, string>>;
}

const optionKeys = keysOf<OnnxOptions>({ height: 0, width: 0, categories: 0, metadata: 0 });

/**
 * Writes a detector as one ONNX file (opset 16) that finds in an image what `predict` finds in it:
 * normalisation, padding, network, decoding and suppression are inside.
 *
 * Input: `image`, uint8 [1, height, width, 3], RGB, already of this size. Outputs, of as many detections as there
 * are: `boxes` f32 [n, 4], x1 y1 x2 y2 in pixels of the image; `scores` f32 [n], descending; `labels` int64 [n].
 * Metadata: `categories`; `detector`, its type; `resize`, how predict scales images, as JSON; `mixpl`, the version.
 *
 * All detectors have a form in ONNX, on every backbone; PAA without score voting.
 * @param source a detector on the CPU, in fp32; or a weights file, a checkpoint (its teacher) or the folder of
 *   a run (its best weights)
 * @throws MixplError ERR_CONFIG for a detector without a form in ONNX; ERR_RANGE; ERR_IO; as openDetector()
 */
export async function exportOnnx(
  source: Detector | string,
  out: string,
  options: OnnxOptions,
): Promise<{ bytes: number; nodes: number }> {
  checkPath('exportOnnx', 'out', out);
  checkKeys('exportOnnx', options, optionKeys);
  checkSize(options);
  if (typeof source !== 'string') return writeOnnx(source, out, options);
  const [{ openDetector }, { findWeights }] = await Promise.all([
    import('../detector/open.js'),
    import('../train/weights-file.js'),
  ]);
  const { headline } = await findWeights(source);
  const opened = await openDetector(headline, { device: 'cpu', dtype: 'fp32' });
  try {
    const { categories, metadata } = ofWeights(opened);
    return await writeOnnx(opened.detector, out, {
      categories,
      ...options,
      metadata: { ...metadata, ...options.metadata },
    });
  } finally {
    opened.detector.dispose();
  }
}

/** What an ONNX file says that the weights file says. */
export function ofWeights({
  categories,
  metadata: { name },
}: Pick<OpenedDetector, 'categories' | 'metadata'>): Required<
  Pick<OnnxOptions, 'categories' | 'metadata'>
> {
  return { categories, metadata: name === undefined ? {} : { name } };
}

/** @throws MixplError ERR_RANGE */
function checkSize({ height, width }: OnnxOptions): void {
  for (const [name, side] of Object.entries({ height, width }))
    if (!Number.isInteger(side) || side < 32 || side > 16_384)
      throw new MixplError(
        'ERR_RANGE',
        `onnx: ${name} must be a whole number of pixels in [32, 16384], got ${side}`,
      );
}

async function writeOnnx(
  detector: Detector,
  out: string,
  { height, width, categories = [], metadata = {} }: OnnxOptions,
): Promise<{ bytes: number; nodes: number }> {
  if (detector.dtype !== 'f32' || detector.device !== 'cpu')
    throw new MixplError(
      'ERR_CONFIG',
      `onnx: the detector must compute in fp32 on the CPU, got ${detector.dtype} on ${detector.device}; try openDetector(file, { device: 'cpu', dtype: 'fp32' })`,
    );
  // What writes protocol buffers is read when it is needed.
  const { modelPieces, onnxModel } = await import('./model.js');
  const model = await onnxModel(detector, {
    height,
    width,
    metadata: {
      ...metadata,
      categories: JSON.stringify(categories),
      detector: detector.options.type,
      resize: JSON.stringify(detector.preprocess.resize),
      mixpl: packageVersion(),
    },
  });
  const file = modelPieces(model);
  await writeFileWhole(out, file);
  return { bytes: file.bytes, nodes: model.nodes.length };
}
