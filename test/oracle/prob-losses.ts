// Focal losses that are not those of plain logits, from their formulas in float64.
import { type NdArray, scalar } from './array.js';

type Inputs = Record<string, NdArray>;

/** Lin et al. 2017, eq. 5, on probabilities. */
export function probFocalLoop(
  { probabilities, labels }: Inputs,
  { alpha = 0.25, gamma = 2 }: { alpha?: number; gamma?: number } = {},
): NdArray {
  const classes = probabilities!.shape.at(-1)!;
  let sum = 0;
  probabilities!.data.forEach((p, i) => {
    const label = labels!.data[Math.floor(i / classes)]!;
    if (label < 0) return;
    sum +=
      label === i % classes
        ? -alpha * (1 - p) ** gamma * Math.log(p)
        : -(1 - alpha) * p ** gamma * Math.log1p(-p);
  });
  return scalar(sum);
}

/** Li et al. 2020, eq. 2: target = quality for the label's class, 0 for the others. */
export function probQualityFocalLoop(
  { probabilities, labels, quality }: Inputs,
  { beta = 2 }: { beta?: number } = {},
): NdArray {
  const classes = probabilities!.shape.at(-1)!;
  let sum = 0;
  probabilities!.data.forEach((p, i) => {
    const row = Math.floor(i / classes);
    const label = labels!.data[row]!;
    if (label < 0) return;
    const target = label === i % classes ? quality!.data[row]! : 0;
    const entropy = -target * Math.log(p) - (1 - target) * Math.log1p(-p);
    sum += Math.abs(target - p) ** beta * entropy;
  });
  return scalar(sum);
}

/** The classification loss of the updated CenterNet (mmdetection's CenterNetUpdateHead). */
export function gaussianFocalLoop(
  { logits, heat, positives }: Inputs,
  options: {
    alpha?: number;
    gamma?: number;
    positiveWeight?: number;
    negativeWeight?: number;
    clamp?: number;
  } = {},
): NdArray {
  const {
    alpha = 2,
    gamma = 4,
    positiveWeight = 0.25,
    negativeWeight = 0.75,
    clamp = 1e-4,
  } = options;
  const classes = logits!.shape.at(-1)!;
  const probability = (x: number) => {
    const p = 1 / (1 + Math.exp(-x));
    return Math.min(Math.max(p, clamp), 1 - clamp);
  };
  let sum = 0;
  logits!.data.forEach((x, i) => {
    const p = probability(x);
    sum -= negativeWeight * p ** alpha * (1 - heat!.data[i]!) ** gamma * Math.log(1 - p);
  });
  for (let i = 0; i < positives!.data.length; i += 2) {
    if (positives!.data[i]! < 0) continue;
    const p = probability(logits!.data[positives!.data[i]! * classes + positives!.data[i + 1]!]!);
    sum -= positiveWeight * (1 - p) ** alpha * Math.log(p);
  }
  return scalar(sum);
}
