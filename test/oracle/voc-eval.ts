// Slow truth of the Pascal VOC metric, from section 7.2 of the reference facts.

export interface VocTruth {
  image: number;
  box: readonly number[];
  difficult: boolean;
}
export interface VocDetection {
  image: number;
  box: readonly number[];
  score: number;
}

/** AP of one class, or null without ground truth that counts. */
export function vocAveragePrecision(
  truths: readonly VocTruth[],
  detections: readonly VocDetection[],
  rules: { threshold: number; extra: 0 | 1; elevenPoint: boolean },
): number | null {
  const positives = truths.filter((truth) => !truth.difficult).length;
  if (positives === 0) return null;
  const hit = new Set<VocTruth>();
  let tp = 0;
  let fp = 0;
  const curve: { recall: number; precision: number }[] = [];
  const sorted = [...detections].sort((a, b) =>
    b.score !== a.score ? b.score - a.score : a.image - b.image,
  );
  for (const detection of sorted) {
    const inImage = truths.filter((truth) => truth.image === detection.image);
    const overlaps = inImage.map((truth) => iou(detection.box, truth.box, rules.extra));
    const best = Math.max(...overlaps);
    const truth = inImage[overlaps.indexOf(best)];
    if (!truth || best < rules.threshold) fp++;
    else if (!truth.difficult) {
      if (hit.has(truth)) fp++;
      else tp++;
      hit.add(truth);
    }
    curve.push({ recall: tp / positives, precision: tp + fp > 0 ? tp / (tp + fp) : 0 });
  }
  const beyond = (recall: number) =>
    Math.max(0, ...curve.filter((p) => p.recall >= recall).map((p) => p.precision));
  if (rules.elevenPoint) {
    let sum = 0;
    for (let k = 0; k <= 10; k++) sum += beyond(k * 0.1);
    return sum / 11;
  }
  const steps = [...new Set(curve.map((p) => p.recall))];
  return steps.reduce((sum, recall, i) => sum + (recall - (steps[i - 1] ?? 0)) * beyond(recall), 0);
}

function iou(a: readonly number[], b: readonly number[], extra: number): number {
  const w = Math.max(0, Math.min(a[2]!, b[2]!) - Math.max(a[0]!, b[0]!) + extra);
  const h = Math.max(0, Math.min(a[3]!, b[3]!) - Math.max(a[1]!, b[1]!) + extra);
  const area = (x: readonly number[]) => (x[2]! - x[0]! + extra) * (x[3]! - x[1]! + extra);
  return (w * h) / Math.max(area(a) + area(b) - w * h, 1e-6);
}
