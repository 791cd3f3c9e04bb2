/** Gradient densities as tables and charts. */
import { type SampleType, sampleTypes } from '../detector/probe.js';
import type { Chart, Page, Table } from '../report/page.js';
import type { GradientAnalysis, TypedGradients } from './gradients.js';

/** What `mixpl analyze gradients --json` prints. */
export interface GradientStudy extends GradientAnalysis {
  dataset: { name: string; source: string };
  /** Weights files: whose gradients, and whose boxes. */
  student: string;
  teacher: string;
}

const typeNames: Record<SampleType, string> = {
  tp: 'TP: objects taught as objects',
  fp: 'FP: background taught as objects',
  fn: 'FN: objects taught as background',
  tn: 'TN: background taught as background',
};

export function pageOf(study: GradientStudy): Page {
  const { dataset, student, images } = study;
  return {
    title: `Gradient norms on ${dataset.name}`,
    intro:
      `${student} on ${images} images. A sample is an (anchor, class) entry, its norm g = |p - p*|; ` +
      'numbers are samples per input of the network.',
    tables: [tableOf(study)],
    charts: chartsOf(study),
  };
}

export function tableOf({ views }: GradientAnalysis): Table {
  return {
    title: 'Samples per input, and the share of them with a norm above 0.5',
    columns: [
      ...['view', 'score above', 'inputs'],
      ...sampleTypes.flatMap((type) => [type.toUpperCase(), 'g > 0.5']),
    ],
    rows: views.flatMap(({ view, inputs, thresholds }) =>
      thresholds.map((at) => [
        ...[view, String(at.threshold), String(inputs)],
        ...sampleTypes.flatMap((type) => [
          (at[type].samples / inputs).toFixed(1),
          shareOf(at[type]),
        ]),
      ]),
    ),
  };
}

function shareOf({ samples, aboveHalf }: TypedGradients): string {
  return samples > 0 ? (aboveHalf / samples).toPrecision(3) : '–';
}

/** One of each type and threshold, a curve a view. */
export function chartsOf({ views, bins }: GradientAnalysis): Chart[] {
  const x = Array.from({ length: bins }, (_, bin) => (bin + 0.5) / bins);
  const thresholds = views[0]!.thresholds.map(({ threshold }) => threshold);
  return sampleTypes.flatMap((type) =>
    thresholds.map((threshold, t) => ({
      title: `${typeNames[type]} (score above ${threshold})`,
      ...{ xLabel: 'gradient norm', x, log: true },
      series: views.map(({ view, inputs, thresholds }) => ({
        label: view,
        // A logarithm has no place for none.
        values: thresholds[t]![type].counts.map((count) => (count > 0 ? count / inputs : null)),
      })),
    })),
  );
}
