/** An ONNX file beside the detector that it is of. */
import { checkPath } from '../arguments.js';
import type { Detector } from '../detector/detector.js';
import type { Detections } from '../detector/types.js';
import { MixplError } from '../errors.js';

/** 8-bit RGB of the size that the file takes. */
export interface OnnxPicture {
  data: Uint8Array;
  height: number;
  width: number;
}

/** How far an ONNX file and its detector agree. */
export interface OnnxComparison {
  /** Number of detections of the detector. */
  detections: number;
  /** How many of them the file found, too: the same class, the score within 1e-3, each side within a tenth of a pixel. */
  matched: number;
  /** Number of detections of the file that the detector did not find. */
  others: number;
  /** Largest difference of the scores of matched ones. */
  score: number;
  /** Largest difference of their sides, in pixels. */
  pixels: number;
}

const scoreTolerance = 1e-3;
const pixelTolerance = 0.1;

/**
 * Runs an ONNX file on an image with onnxruntime-node, and the detector, and compares what they find.
 * @param detector in fp32
 * @throws MixplError ERR_CONFIG when onnxruntime-node is not installed; ERR_BAD_FILE when it refuses the file
 */
export async function compareOnnx(
  path: string,
  detector: Detector,
  picture: OnnxPicture,
): Promise<OnnxComparison> {
  const { height, width, data } = picture;
  const found = await runOnnx(path, picture);
  const [wanted] = await detector.predict([{ data, height, width }], { resized: true });
  return compare(wanted!, found);
}

/** What an ONNX file of exportOnnx() finds in an image. @throws as compareOnnx() */
export async function runOnnx(path: string, picture: OnnxPicture): Promise<Detections> {
  checkPath('runOnnx', 'path', path);
  let ort: typeof import('onnxruntime-node');
  try {
    ort = await import('onnxruntime-node');
  } catch (cause) {
    throw new MixplError(
      'ERR_CONFIG',
      'onnx: a check needs the package onnxruntime-node, which is not installed; try `npm install onnxruntime-node`',
      { cause },
    );
  }
  try {
    const session = await ort.InferenceSession.create(path, { logSeverityLevel: 3 });
    try {
      const { data, height, width } = picture;
      const image = new ort.Tensor('uint8', data, [1, height, width, 3]);
      const { boxes, scores, labels } = await session.run({ image });
      return {
        boxes: boxes!.data as Float32Array,
        scores: scores!.data as Float32Array,
        labels: Int32Array.from(labels!.data as BigInt64Array, Number),
      };
    } finally {
      await session.release();
    }
  } catch (cause) {
    throw new MixplError(
      'ERR_BAD_FILE',
      `${path}: must be a file that onnxruntime runs, got: ${(cause as Error).message}`,
      { cause },
    );
  }
}

/** Whatever the order: detections of nearly equal scores change places. */
function compare(wanted: Detections, found: Detections): OnnxComparison {
  const free = new Set(found.scores.keys());
  const report = { detections: wanted.scores.length, matched: 0, others: 0, score: 0, pixels: 0 };
  for (const i of wanted.scores.keys()) {
    for (const j of free) {
      if (wanted.labels[i] !== found.labels[j]) continue;
      const score = Math.abs(wanted.scores[i]! - found.scores[j]!);
      let pixels = 0;
      for (let k = 0; k < 4; k++)
        pixels = Math.max(pixels, Math.abs(wanted.boxes[4 * i + k]! - found.boxes[4 * j + k]!));
      if (!(score <= scoreTolerance && pixels <= pixelTolerance)) continue;
      free.delete(j);
      report.matched++;
      report.score = Math.max(report.score, score);
      report.pixels = Math.max(report.pixels, pixels);
      break;
    }
  }
  return { ...report, others: free.size };
}
