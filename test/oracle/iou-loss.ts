import { type NdArray, scalar } from './array.js';

export interface IouLossOptions {
  kind?: 'iou' | 'giou' | 'diou' | 'ciou';
  eps?: number;
}

const area = (b: number[]): number => Math.max(0, b[2]! - b[0]!) * Math.max(0, b[3]! - b[1]!);

function parts(p: number[], t: number[], eps: number) {
  const overlap = [
    Math.max(p[0]!, t[0]!),
    Math.max(p[1]!, t[1]!),
    Math.min(p[2]!, t[2]!),
    Math.min(p[3]!, t[3]!),
  ];
  const hull = [
    Math.min(p[0]!, t[0]!),
    Math.min(p[1]!, t[1]!),
    Math.max(p[2]!, t[2]!),
    Math.max(p[3]!, t[3]!),
  ];
  const inter = area(overlap);
  const union = area(p) + area(t) - inter;
  const iou = inter / (union + eps);
  const aspect = (b: number[]) =>
    Math.atan2(Math.max(0, b[2]! - b[0]!), Math.max(0, b[3]! - b[1]!));
  const v = (4 / Math.PI ** 2) * (aspect(t) - aspect(p)) ** 2;
  return { hull, union, iou, v };
}

/**
 * Sum of weight * (1 - IoU + penalty), formulas of Rezatofighi et al. 2019 (giou) and Zheng et al.
 * 2020 (diou, ciou). The trade-off factor of ciou is taken at `base`: it counts as a constant.
 */
export function iouLossLoop(
  inputs: Record<string, NdArray>,
  options: IouLossOptions = {},
  base: Record<string, NdArray> = inputs,
): NdArray {
  const { kind = 'giou', eps = 1e-7 } = options;
  const box = (array: NdArray, i: number) => Array.from(array.data.slice(4 * i, 4 * i + 4));
  let sum = 0;
  inputs.weight!.data.forEach((weight, i) => {
    if (weight === 0) return;
    const p = box(inputs.pred!, i);
    const t = box(inputs.target!, i);
    const { hull, union, iou, v } = parts(p, t, eps);
    let loss = 1 - iou;
    const hullArea = area(hull);
    if (kind === 'giou') loss += (hullArea - union) / (hullArea + eps);
    if (kind === 'diou' || kind === 'ciou') {
      const dx = (p[0]! + p[2]! - t[0]! - t[2]!) / 2;
      const dy = (p[1]! + p[3]! - t[1]! - t[3]!) / 2;
      const diagonal = (hull[2]! - hull[0]!) ** 2 + (hull[3]! - hull[1]!) ** 2;
      loss += (dx * dx + dy * dy) / (diagonal + eps);
    }
    if (kind === 'ciou') {
      const fixed = parts(box(base.pred!, i), box(base.target!, i), eps);
      loss += (fixed.v / (1 - fixed.iou + fixed.v + eps)) * v;
    }
    sum += weight * loss;
  });
  return scalar(sum);
}
