// Boxes [x1, y1, x2, y2] in float64, written from the definitions.

export type Box = readonly [number, number, number, number];

export function toBoxes(flat: ArrayLike<number>): Box[] {
  return Array.from({ length: flat.length / 4 }, (_, i) => [
    flat[4 * i]!,
    flat[4 * i + 1]!,
    flat[4 * i + 2]!,
    flat[4 * i + 3]!,
  ]);
}

export function area([x1, y1, x2, y2]: Box): number {
  return (x2 - x1) * (y2 - y1);
}

function intersection(a: Box, b: Box): number {
  const w = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const h = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  return Math.max(w, 0) * Math.max(h, 0);
}

export function iou(a: Box, b: Box): number {
  const inter = intersection(a, b);
  return inter / Math.max(area(a) + area(b) - inter, 1e-6);
}

/** Rezatofighi et al. 2019, algorithm 1. */
export function giou(a: Box, b: Box): number {
  const union = area(a) + area(b) - intersection(a, b);
  const hull =
    (Math.max(a[2], b[2]) - Math.min(a[0], b[0])) * (Math.max(a[3], b[3]) - Math.min(a[1], b[1]));
  return iou(a, b) - (hull - union) / hull;
}

/** Zheng et al. 2020, eq. 7. */
export function diou(a: Box, b: Box): number {
  const centre = (box: Box, axis: 0 | 1) => (box[axis] + box[axis + 2]!) / 2;
  const apart = Math.hypot(centre(a, 0) - centre(b, 0), centre(a, 1) - centre(b, 1));
  const diagonal = Math.hypot(
    Math.max(a[2], b[2]) - Math.min(a[0], b[0]),
    Math.max(a[3], b[3]) - Math.min(a[1], b[1]),
  );
  return iou(a, b) - (apart / diagonal) ** 2;
}

/** Zheng et al. 2020, eqs. 8-11. */
export function ciou(a: Box, b: Box): number {
  const angle = (box: Box) => Math.atan((box[2] - box[0]) / (box[3] - box[1]));
  const v = (4 / Math.PI ** 2) * (angle(a) - angle(b)) ** 2;
  const alpha = v === 0 ? 0 : v / (1 - iou(a, b) + v);
  return diou(a, b) - alpha * v;
}

export type Deltas = readonly [number, number, number, number];

/** R-CNN, appendix C. */
export function encode(anchor: Box, box: Box): Deltas {
  const [w, h] = [anchor[2] - anchor[0], anchor[3] - anchor[1]];
  return [
    ((box[0] + box[2]) / 2 - (anchor[0] + anchor[2]) / 2) / w,
    ((box[1] + box[3]) / 2 - (anchor[1] + anchor[3]) / 2) / h,
    Math.log((box[2] - box[0]) / w),
    Math.log((box[3] - box[1]) / h),
  ];
}

export function decode(anchor: Box, [dx, dy, dw, dh]: Deltas, bothSides = true): Box {
  const limit = Math.log(1000 / 16);
  const hold = (d: number) => Math.min(bothSides ? Math.max(d, -limit) : d, limit);
  const [w, h] = [anchor[2] - anchor[0], anchor[3] - anchor[1]];
  const cx = (anchor[0] + anchor[2]) / 2 + dx * w;
  const cy = (anchor[1] + anchor[3]) / 2 + dy * h;
  const [bw, bh] = [w * Math.exp(hold(dw)), h * Math.exp(hold(dh))];
  return [cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2];
}

/** Section "Anchors" of mmdetection's AnchorGenerator, cell by cell. */
export function anchorGrid(
  { height, width }: { height: number; width: number },
  {
    stride,
    ratios = [0.5, 1, 2],
    scales = [4, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3)],
  }: { stride: number; ratios?: number[]; scales?: number[] },
): Box[] {
  const out: Box[] = [];
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      for (const ratio of ratios)
        for (const scale of scales) {
          const w = (stride * scale) / Math.sqrt(ratio);
          const h = stride * scale * Math.sqrt(ratio);
          const [cx, cy] = [x * stride, y * stride];
          out.push([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2]);
        }
  return out;
}
