import { type NdArray, scalar } from './array.js';

/**
 * Sum over anchors and classes of eq. 5 of Lin et al. 2017, straight from the formula; `weight` holds a
 * factor of each of its equal runs of anchors.
 */
export function focalLossLoop(
  inputs: Record<string, NdArray>,
  options: { alpha?: number; gamma?: number } = {},
): NdArray {
  const { alpha = 0.25, gamma = 2 } = options;
  const logits = inputs.logits!;
  const labels = inputs.labels!;
  const classes = labels.data.length ? logits.data.length / labels.data.length : 1;
  const weight = inputs.weight?.data ?? [1];
  const run = labels.data.length / weight.length;
  let sum = 0;
  labels.data.forEach((label, anchor) => {
    if (label < 0) return;
    const factor = weight[Math.floor(anchor / run)]!;
    for (let c = 0; c < classes; c++) {
      const x = logits.data[anchor * classes + c]!;
      const z = c === label ? x : -x; // logit of the right answer
      const logP = z > 0 ? -Math.log1p(Math.exp(-z)) : z - Math.log1p(Math.exp(z));
      const wrong = 1 / (1 + Math.exp(z)); // 1 - p
      sum -= factor * (c === label ? alpha : 1 - alpha) * wrong ** gamma * logP;
    }
  });
  return scalar(sum);
}
