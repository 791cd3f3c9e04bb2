import type { Matrix3 } from '../geometry.js';
import type { Size } from './compose.js';
import type { EraseRect, Instances } from './composition.js';

/**
 * Boxes through a homography: the hull of the four corners, clipped to `size`.
 * @param boxes [4 n] xyxy
 * @source mmdetection bbox_project (corners, homogeneous division, min and max per axis, clip)
 */
export function mapBoxes(matrix: Matrix3, boxes: Float32Array, size: Size): Float32Array {
  const out = new Float32Array(boxes.length);
  for (let i = 0; i < boxes.length; i += 4) {
    let x1 = Number.POSITIVE_INFINITY;
    let y1 = Number.POSITIVE_INFINITY;
    let x2 = Number.NEGATIVE_INFINITY;
    let y2 = Number.NEGATIVE_INFINITY;
    for (let corner = 0; corner < 4; corner++) {
      const x = boxes[i + (corner & 1 ? 2 : 0)]!;
      const y = boxes[i + (corner & 2 ? 3 : 1)]!;
      const w = matrix[6] * x + matrix[7] * y + matrix[8];
      const u = (matrix[0] * x + matrix[1] * y + matrix[2]) / w;
      const v = (matrix[3] * x + matrix[4] * y + matrix[5]) / w;
      x1 = Math.min(x1, u);
      y1 = Math.min(y1, v);
      x2 = Math.max(x2, u);
      y2 = Math.max(y2, v);
    }
    out[i] = clamp(x1, size.width);
    out[i + 1] = clamp(y1, size.height);
    out[i + 2] = clamp(x2, size.width);
    out[i + 3] = clamp(y2, size.height);
  }
  return out;
}

function clamp(value: number, high: number): number {
  return Math.min(Math.max(value, 0), high);
}

/** The instances through `matrix`, clipped to `size`. */
export function mapInstances(matrix: Matrix3, instances: Instances, size: Size): Instances {
  return { ...instances, boxes: mapBoxes(matrix, instances.boxes, size) };
}

/** The instances for which `keep(index)` holds. */
export function selectInstances(instances: Instances, keep: (index: number) => boolean): Instances {
  const kept: number[] = [];
  for (let i = 0; i < instances.labels.length; i++) if (keep(i)) kept.push(i);
  if (kept.length === instances.labels.length) return instances;
  return {
    boxes: Float32Array.from(kept.flatMap((i) => [...instances.boxes.subarray(4 * i, 4 * i + 4)])),
    labels: Int32Array.from(kept, (i) => instances.labels[i]!),
    scores: Float32Array.from(kept, (i) => instances.scores[i]!),
  };
}

/** Drops boxes whose width or height is not above `least` pixels. */
export function dropSmall(instances: Instances, least: number): Instances {
  const { boxes } = instances;
  return selectInstances(
    instances,
    (i) =>
      boxes[4 * i + 2]! - boxes[4 * i]! > least && boxes[4 * i + 3]! - boxes[4 * i + 1]! > least,
  );
}

/**
 * Drops boxes of which at least `threshold` is erased. Where patches overlap their areas count twice,
 * so the share can exceed 1, as in the reference.
 */
export function dropErased(
  instances: Instances,
  rects: readonly EraseRect[],
  threshold: number,
): Instances {
  const { boxes } = instances;
  return selectInstances(instances, (i) => {
    const x1 = boxes[4 * i]!;
    const y1 = boxes[4 * i + 1]!;
    const x2 = boxes[4 * i + 2]!;
    const y2 = boxes[4 * i + 3]!;
    let erased = 0;
    for (const r of rects) {
      const w = Math.min(x2, r.x2) - Math.max(x1, r.x1);
      const h = Math.min(y2, r.y2) - Math.max(y1, r.y1);
      if (w > 0 && h > 0) erased += w * h;
    }
    return erased / ((x2 - x1) * (y2 - y1) + 1e-7) < threshold;
  });
}

/** All instances of the parts, in order. */
export function joinInstances(parts: readonly Instances[]): Instances {
  const count = parts.reduce((sum, part) => sum + part.labels.length, 0);
  const out = {
    boxes: new Float32Array(4 * count),
    labels: new Int32Array(count),
    scores: new Float32Array(count),
  };
  let at = 0;
  for (const part of parts) {
    out.boxes.set(part.boxes, 4 * at);
    out.labels.set(part.labels, at);
    out.scores.set(part.scores, at);
    at += part.labels.length;
  }
  return out;
}
