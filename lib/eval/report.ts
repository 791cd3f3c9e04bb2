import { tableOf } from '../text-table.js';
import type { CocoMetrics } from './coco.js';
import { statNames } from './coco.js';
import type { VocInterpolation, VocMetrics } from './voc.js';

const summaryRows: readonly {
  kind: 'AP' | 'AR';
  iou?: '0.50' | '0.75';
  area: string;
  limit: number;
}[] = [
  { kind: 'AP', area: 'all', limit: -1 },
  { kind: 'AP', iou: '0.50', area: 'all', limit: 2 },
  { kind: 'AP', iou: '0.75', area: 'all', limit: 2 },
  { kind: 'AP', area: 'small', limit: 2 },
  { kind: 'AP', area: 'medium', limit: 2 },
  { kind: 'AP', area: 'large', limit: 2 },
  { kind: 'AR', area: 'all', limit: 0 },
  { kind: 'AR', area: 'all', limit: 1 },
  { kind: 'AR', area: 'all', limit: 2 },
  { kind: 'AR', area: 'small', limit: 2 },
  { kind: 'AR', area: 'medium', limit: 2 },
  { kind: 'AR', area: 'large', limit: 2 },
];

/** The twelve lines that the COCO tools print. */
export function formatSummary(metrics: CocoMetrics): string {
  const { iouThresholds, maxDetections } = metrics.tables;
  const range = `${iouThresholds[0]!.toFixed(2)}:${iouThresholds.at(-1)!.toFixed(2)}`;
  const headline = maxDetections.includes(100) ? 100 : maxDetections[2]!;
  const coco = summaryRows
    .map(({ kind, iou, area, limit }, i) => {
      const title = (kind === 'AP' ? 'Average Precision' : 'Average Recall').padEnd(18);
      const most = String(limit < 0 ? headline : maxDetections[limit]).padStart(3);
      const value = metrics.stats[i]!.toFixed(3);
      return ` ${title} (${kind}) @[ IoU=${(iou ?? range).padEnd(9)} | area=${area.padStart(6)} | maxDets=${most} ] = ${value}`;
    })
    .join('\n');
  return metrics.voc ? `${coco}\n${vocLine(metrics.voc)}` : coco;
}

function vocLine({ interpolation, map, mapPerThreshold }: VocMetrics): string {
  const [ap50, all] = [mapPerThreshold[0]!, map].map(shown);
  return ` Pascal VOC (${interpolation}): AP50 = ${ap50}, mean over IoU 0.50:0.95 = ${all}`;
}

/** What the command line prints with --json. */
export interface MetricNumbers {
  /** The twelve numbers in pycocotools' order; -1 where no class has ground truth. */
  stats: number[];
  /** AP by category id; null for a category without ground truth that counts. */
  perClassAP: Record<string, number | null>;
  /** When asked for: Pascal VOC's means, and AP50 by category id. */
  voc?: {
    interpolation: VocInterpolation;
    AP50: number;
    AP: number;
    perClassAP50: Record<string, number | null>;
  };
}

/** The metrics without their tables, as --json prints them; -1 and null as in CocoMetrics. */
export function metricNumbers({ stats, perClass, voc }: CocoMetrics): MetricNumbers {
  return {
    stats,
    perClassAP: Object.fromEntries(perClass.map(({ category, ap }) => [String(category.id), ap])),
    ...(voc && {
      voc: {
        interpolation: voc.interpolation,
        AP50: voc.mapPerThreshold[0]!,
        AP: voc.map,
        perClassAP50: Object.fromEntries(
          voc.perClass.map(({ category, ap }) => [String(category.id), ap[0]!]),
        ),
      },
    }),
  };
}

/** A table with one row per class. */
export async function formatPerClass(metrics: CocoMetrics): Promise<string> {
  const { voc } = metrics;
  const head = ['class', 'boxes', 'AP', 'AP50', 'AP75', 'AP_S', 'AP_M', 'AP_L'];
  const table = await tableOf(voc ? [...head, 'VOC AP50'] : head);
  for (const [label, c] of metrics.perClass.entries())
    table.push([
      c.category.name,
      String(c.numGroundTruths),
      ...[c.ap, c.ap50, c.ap75, c.apSmall, c.apMedium, c.apLarge].map(shown),
      ...(voc ? [shown(voc.perClass[label]!.ap[0]!)] : []),
    ]);
  return table.toString();
}

/**
 * Several evaluations of one data set side by side, e.g. `{ student, teacher }`: the twelve
 * numbers, then AP per class; with two columns also the difference, second minus first.
 */
export async function formatComparison(
  columns: Readonly<Record<string, CocoMetrics>>,
): Promise<string> {
  const names = Object.keys(columns);
  const runs = Object.values(columns);
  const first = runs[0];
  if (!first) return '';
  const table = await tableOf(['metric', ...names, ...(names.length === 2 ? ['difference'] : [])]);
  const add = (name: string, values: readonly (number | null)[]) => {
    const [a, b] = values;
    const difference = a == null || b == null || a < 0 || b < 0 ? '-' : signed(b - a);
    table.push([name, ...values.map(shown), ...(names.length === 2 ? [difference] : [])]);
  };
  statNames(first).forEach((name, i) => {
    add(
      name,
      runs.map((run) => run.stats[i]!),
    );
  });
  if (first.voc)
    add(
      'VOC AP50',
      runs.map((run) => run.voc?.mapPerThreshold[0] ?? null),
    );
  for (const { category } of first.perClass)
    add(
      `AP ${category.name}`,
      runs.map((run) => run.perClass.find((c) => c.category.id === category.id)?.ap ?? null),
    );
  return table.toString();
}

function shown(value: number | null): string {
  return value === null || value < 0 ? '-' : value.toFixed(3);
}

function signed(value: number): string {
  return `${value < 0 ? '' : '+'}${value.toFixed(3)}`;
}
