/** Gradient density by a plain loop, from what two passes show. Reference-facts 10.2. */

/** Scores of a level: rows of `classes` numbers, image after image, and a label a row. */
export interface LabelledScores {
  classes: number;
  values: Float32Array;
  labels: Int32Array;
}

/** [tp, fp, fn, tn], each [bins], of one image. */
export function gradientDensityLoop(
  pseudo: readonly LabelledScores[],
  truth: readonly LabelledScores[],
  {
    image,
    images,
    bins,
    probabilities,
  }: { image: number; images: number; bins: number; probabilities: boolean },
): { counts: number[][]; aboveHalf: number[] } {
  const counts = Array.from({ length: 4 }, () => new Array<number>(bins).fill(0));
  const aboveHalf = [0, 0, 0, 0];
  pseudo.forEach(({ classes, values, labels }, level) => {
    const each = labels.length / images;
    for (let row = image * each; row < (image + 1) * each; row++) {
      const learned = labels[row]!;
      const real = truth[level]!.labels[row]!;
      if (learned === -1 || real === -1) continue;
      for (let k = 0; k < classes; k++) {
        const score = values[row * classes + k]!;
        const p = probabilities ? score : 1 / (1 + Math.exp(-score));
        const target = learned === k ? 1 : 0;
        const g = Math.abs(p - target);
        const type = 2 * (1 - target) + (real === k ? 0 : 1);
        counts[type]![Math.min(Math.floor(g * bins), bins - 1)]!++;
        if (g > 0.5) aboveHalf[type]!++;
      }
    }
  });
  return { counts, aboveHalf };
}
