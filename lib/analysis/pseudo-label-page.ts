/** Analyses of pseudo labels as tables and charts. */
import { sizeNames } from '../eval/matching.js';
import type { Chart, Page, Series, Table } from '../report/page.js';
import type { AtThreshold, LabelCounts, PseudoLabelAnalysis } from './pseudo-labels.js';

/** One checkpoint of a study. */
export interface CheckpointAnalysis extends PseudoLabelAnalysis {
  /** The weights file. */
  weights: string;
  /** Null where the file does not say. */
  iteration: number | null;
}

/** What `mixpl analyze pseudo-labels --json` prints. */
export interface PseudoLabelStudy {
  dataset: { name: string; source: string };
  /** The one of the thresholds that classes and the course of a training are shown at. */
  threshold: number;
  /** One or more, of the same images. */
  checkpoints: CheckpointAnalysis[];
}

/** The study as the page that stands beside a run's report: the last checkpoint, and the course of all. */
export function pageOf(study: PseudoLabelStudy): Page {
  const { dataset, checkpoints } = study;
  const { weights, images, objects } = checkpoints.at(-1)!;
  return {
    title: `Pseudo labels of ${dataset.name}`,
    intro: `${weights} on ${images} images with ${objects} annotated objects.`,
    tables: tablesOf(study),
    charts: chartsOf(study),
  };
}

export function tablesOf(study: PseudoLabelStudy): Table[] {
  const { checkpoints, threshold } = study;
  const last = checkpoints.at(-1)!;
  const shown = shownAt(last, threshold);
  const counts = ({ pseudoLabels, bySize }: AtThreshold) =>
    [pseudoLabels, ...sizeNames.map((size) => bySize[size].pseudoLabels)].map(rate);
  const sums = ['labels', ...sizeNames];
  const rights = ({ precision, recall, meanScore }: AtThreshold) =>
    [precision, recall, meanScore].map(share);
  const objects = [shown.objects, ...sizeNames.map((size) => shown.bySize[size].objects)].map(rate);
  const byThreshold: Table = {
    title: 'Pseudo labels and objects per image',
    columns: ['score above', ...sums, 'empty images', 'precision', 'recall', 'mean score'],
    rows: [
      ...last.thresholds.map((at) => [
        String(at.threshold),
        ...counts(at),
        share(at.emptyShare),
        ...rights(at),
      ]),
      ['objects', ...objects, '', '', '', ''],
    ],
  };
  const byClass: Table = {
    title: `Classes, score above ${threshold}`,
    columns: ['class', 'labels', 'objects', 'precision', 'recall'],
    rows: shown.byClass.map((of) => [
      of.name,
      ...[of.pseudoLabels, of.objects].map(rate),
      ...[of.precision, of.recall].map(share),
    ]),
  };
  const scores: Table = {
    title: 'Mean score of all boxes',
    columns: ['size', 'mean score'],
    rows: (['all', ...sizeNames] as const).map((size) => [size, share(last.meanScore[size])]),
  };
  if (checkpoints.length === 1) return [byThreshold, byClass, scores];
  const course: Table = {
    title: `Over training, score above ${threshold}`,
    columns: ['iteration', ...sums, 'precision', 'recall', 'mean score'],
    rows: checkpoints.map((checkpoint) => {
      const at = shownAt(checkpoint, threshold);
      return [String(checkpoint.iteration ?? checkpoint.weights), ...counts(at), ...rights(at)];
    }),
  };
  return [course, byThreshold, byClass, scores];
}

export function chartsOf(study: PseudoLabelStudy): Chart[] {
  const { checkpoints, threshold } = study;
  const last = checkpoints.at(-1)!;
  const { byClass } = shownAt(last, threshold);
  const classes = (title: string, series: Series[], range?: [number, number]): Chart => ({
    title: `${title}, by class (score above ${threshold})`,
    ...{ xLabel: 'class', x: byClass.map((_, i) => i), names: byClass.map(({ name }) => name) },
    series,
    ...(range ? { range } : {}),
  });
  const ofClasses = (label: string, of: (counts: LabelCounts) => number | null): Series => ({
    label,
    values: byClass.map(of),
  });
  return [
    ...courseOf(checkpoints, threshold),
    ...curvesOf(last.thresholds, {
      xLabel: 'score above',
      x: last.thresholds.map((at) => at.threshold),
      suffix: '',
    }),
    classes('Pseudo labels per image', [
      ofClasses('pseudo labels', (of) => of.pseudoLabels),
      { ...ofClasses('objects', (of) => of.objects), dashed: true, like: 'pseudo labels' },
    ]),
    classes(
      'Pseudo labels that are right',
      [ofClasses('precision', (of) => of.precision), ofClasses('recall', (of) => of.recall)],
      [0, 1],
    ),
  ];
}

/** Of a training, where its checkpoints say when they were made. */
function courseOf(checkpoints: readonly CheckpointAnalysis[], threshold: number): Chart[] {
  const known = checkpoints.flatMap((checkpoint) =>
    checkpoint.iteration === null ? [] : { ...checkpoint, iteration: checkpoint.iteration },
  );
  const course = known.sort((a, b) => a.iteration - b.iteration);
  if (course.length < 2) return [];
  const x = course.map(({ iteration }) => iteration);
  return [
    ...curvesOf(
      course.map((checkpoint) => shownAt(checkpoint, threshold)),
      { xLabel: 'iteration', x, suffix: ` (score above ${threshold})` },
    ),
    {
      title: 'Mean score of all boxes, by size',
      x,
      series: (['all', ...sizeNames] as const).map((size) => ({
        label: size,
        values: course.map(({ meanScore }) => meanScore[size]),
      })),
      range: [0, 1],
    },
  ];
}

function curvesOf(
  points: readonly AtThreshold[],
  { xLabel, x, suffix }: { xLabel: string; x: number[]; suffix: string },
): Chart[] {
  const sizes: [string, (at: AtThreshold) => LabelCounts][] = [
    ['all', (at) => at],
    ...sizeNames.map((size): [string, (at: AtThreshold) => LabelCounts] => [
      size,
      (at) => at.bySize[size],
    ]),
  ];
  return [
    {
      title: `Pseudo labels per image, by size${suffix}`,
      ...{ xLabel, x },
      series: [
        ...sizes.map(([label, of]) => ({
          label,
          values: points.map((at) => of(at).pseudoLabels),
        })),
        ...sizes.map(([label, of]) => ({
          label: `${label}, annotated`,
          values: points.map((at) => of(at).objects),
          ...{ dashed: true, like: label },
        })),
      ],
    },
    {
      title: `Pseudo labels that are right${suffix}`,
      ...{ xLabel, x },
      series: [
        { label: 'precision (right among the labels)', values: points.map((at) => at.precision) },
        { label: 'recall (found among the objects)', values: points.map((at) => at.recall) },
      ],
      range: [0, 1],
    },
  ];
}

function shownAt({ thresholds }: PseudoLabelAnalysis, threshold: number): AtThreshold {
  return thresholds.find((at) => at.threshold === threshold)!;
}

const rate = (value: number) => value.toFixed(2);
const share = (value: number | null) => (value === null ? '–' : value.toFixed(3));
