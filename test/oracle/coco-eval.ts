// Slow truth of the COCO box metrics: a plain loop per (class, image, area range, threshold) from
// the rules of section 7.1 of the reference facts, in float64, without shortcuts.

export interface OracleTruth {
  image: number;
  label: number;
  box: readonly [number, number, number, number];
  area: number;
  crowd: boolean;
  id: number;
}
export interface OracleDetection {
  image: number;
  label: number;
  box: readonly [number, number, number, number];
  score: number;
}
export interface OracleTables {
  /** [t][r][k][a][m] flattened in that order. */
  precision: number[];
  scores: number[];
  /** [t][k][a][m] */
  recall: number[];
}
export interface OracleOptions {
  numImages: number;
  numClasses: number;
  thresholds: readonly number[];
  recallPoints: readonly number[];
  areas: readonly (readonly [number, number])[];
  limits: readonly number[];
}

interface Judged {
  score: number;
  rank: number;
  matched: boolean;
  ignored: boolean;
}

export function cocoTables(
  truths: readonly OracleTruth[],
  detections: readonly OracleDetection[],
  options: OracleOptions,
): OracleTables {
  const { numImages, numClasses, thresholds, recallPoints, areas, limits } = options;
  const out: OracleTables = { precision: [], scores: [], recall: [] };
  const cells = new Map<string, { precision: number[]; scores: number[]; recall: number }>();
  for (let k = 0; k < numClasses; k++)
    for (const [a, range] of areas.entries())
      for (const [t, threshold] of thresholds.entries())
        for (const [m, limit] of limits.entries()) {
          const all: Judged[] = [];
          let positives = 0;
          for (let image = 0; image < numImages; image++) {
            const gt = truths.filter((x) => x.image === image && x.label === k);
            const dt = detections.filter((x) => x.image === image && x.label === k);
            const largest = limits[limits.length - 1]!;
            const judged = judgeImage(gt, dt, { threshold, range, largest });
            positives += judged.positives;
            all.push(...judged.detections.filter((d) => d.rank < limit));
          }
          cells.set([t, k, a, m].join(), curve(all, positives, recallPoints));
        }
  for (const t of thresholds.keys()) {
    for (const r of recallPoints.keys())
      for (let k = 0; k < numClasses; k++)
        for (const a of areas.keys())
          for (const m of limits.keys()) {
            const cell = cells.get([t, k, a, m].join())!;
            out.precision.push(cell.precision[r]!);
            out.scores.push(cell.scores[r]!);
          }
    for (let k = 0; k < numClasses; k++)
      for (const a of areas.keys())
        for (const m of limits.keys()) out.recall.push(cells.get([t, k, a, m].join())!.recall);
  }
  return out;
}

function judgeImage(
  gt: readonly OracleTruth[],
  dt: readonly OracleDetection[],
  rules: { threshold: number; range: readonly [number, number]; largest: number },
): { detections: Judged[]; positives: number } {
  const [low, high] = rules.range;
  const isIgnored = (x: OracleTruth) => x.crowd || x.area < low || x.area > high;
  const truths = [...gt.filter((x) => !isIgnored(x)), ...gt.filter(isIgnored)];
  const taken = truths.map(() => false);
  // Array.prototype.sort is stable.
  const sorted = [...dt].sort((x, y) => y.score - x.score).slice(0, rules.largest);
  const judged = sorted.map((d, rank): Judged => {
    let best = Math.min(rules.threshold, 1 - 1e-10);
    let match = -1;
    for (const [g, truth] of truths.entries()) {
      if (taken[g] && !truth.crowd) continue;
      if (match >= 0 && !isIgnored(truths[match]!) && isIgnored(truth)) break;
      const overlap = iou(d.box, truth.box, truth.crowd);
      if (overlap < best) continue;
      best = overlap;
      match = g;
    }
    const area = d.box[2] * d.box[3];
    const matched = match >= 0 && truths[match]!.id !== 0;
    let ignored = match >= 0 && isIgnored(truths[match]!);
    if (match >= 0) taken[match] = true;
    if (!matched && (area < low || area > high)) ignored = true;
    return { score: d.score, rank, matched, ignored };
  });
  return { detections: judged, positives: gt.filter((x) => !isIgnored(x)).length };
}

function iou(d: readonly number[], g: readonly number[], crowd: boolean): number {
  const w = Math.min(d[2]! + d[0]!, g[2]! + g[0]!) - Math.max(d[0]!, g[0]!);
  const h = Math.min(d[3]! + d[1]!, g[3]! + g[1]!) - Math.max(d[1]!, g[1]!);
  if (w <= 0 || h <= 0) return 0;
  const union = crowd ? d[2]! * d[3]! : d[2]! * d[3]! + g[2]! * g[3]! - w * h;
  return (w * h) / union;
}

function curve(all: readonly Judged[], positives: number, points: readonly number[]) {
  if (positives === 0)
    return { precision: points.map(() => -1), scores: points.map(() => -1), recall: -1 };
  const sorted = [...all].sort((x, y) => y.score - x.score);
  let tp = 0;
  let fp = 0;
  const recall: number[] = [];
  const precision: number[] = [];
  for (const d of sorted) {
    if (!d.ignored && d.matched) tp++;
    if (!d.ignored && !d.matched) fp++;
    recall.push(tp / positives);
    precision.push(tp / (fp + tp + Number.EPSILON));
  }
  const reached = points.map((point) => recall.findIndex((value) => value >= point));
  return {
    precision: reached.map((i) => (i < 0 ? 0 : Math.max(...precision.slice(i)))),
    scores: reached.map((i) => (i < 0 ? 0 : sorted[i]!.score)),
    recall: recall.at(-1) ?? 0,
  };
}
