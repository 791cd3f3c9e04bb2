/** What a run's metrics.jsonl says, as tables and charts. */
import type { Chart, Series, Table } from './page.js';

type Numbers = Record<string, number | null>;
type Branch = Numbers & { perClass?: Numbers };

/** A line of metrics.jsonl, as lib/train writes it. */
export interface MetricsRecord {
  type: 'step' | 'validation' | 'warning';
  iteration: number;
  total?: number;
  losses?: Record<string, number>;
  lr?: number;
  gradNorm?: number;
  imagesPerSecond?: number;
  /** Of an iteration. */
  seconds?: number;
  pseudo?: {
    perImage: number;
    emptyShare: number;
    meanScore: number | null;
    perClass: Record<string, number>;
    small: number;
    medium: number;
    large: number;
    /** Where the unlabelled images are annotated. */
    truth?: {
      perImage: number;
      precision: number | null;
      recall: number | null;
      perClass: Record<string, number>;
      small: number;
      medium: number;
      large: number;
    };
  } | null;
  headline?: 'teacher' | 'student';
  teacher?: Branch | null;
  student?: Branch;
  best?: boolean;
  message?: string;
}

/** Metrics and classes of the last validation, the best one beside it. */
export function tablesOf(records: readonly MetricsRecord[]): Table[] {
  const validations = records.filter((r) => r.type === 'validation');
  const last = validations.at(-1);
  if (!last?.student) return [];
  const best = validations.findLast((r) => r.best) ?? last;
  const columns: [string, Branch][] = [];
  if (last.teacher) columns.push(['teacher', last.teacher]);
  columns.push(['student', last.student]);
  const bestBranch = best[best.headline ?? 'student'];
  if (best !== last && bestBranch)
    columns.push([`${best.headline} at ${best.iteration}, the best`, bestBranch]);
  const heads = columns.map(([name]) => name);
  const table = (title: string, of: (branch: Branch) => Numbers): Table => ({
    title,
    columns: ['', ...heads],
    rows: Object.keys(of(last.student!)).map((name) => [
      name,
      ...columns.map(([, branch]) => numberText(of(branch)[name])),
    ]),
  });
  const all = table(`Test images, iteration ${last.iteration}`, ({ perClass: _, ...rest }) => rest);
  const classes = table('AP of each class', (branch) => branch.perClass ?? {});
  return classes.rows.length > 0 ? [all, classes] : [all];
}

const numberText = (value: number | null | undefined) =>
  typeof value === 'number' ? value.toFixed(3) : '–';

/** Curves over the iterations; a chart without numbers is left out. */
export function chartsOf(records: readonly MetricsRecord[]): Chart[] {
  const steps = records.filter((r) => r.type === 'step');
  const validations = records.filter((r) => r.type === 'validation');
  const taught = steps.some((r) => r.pseudo);
  const precision = (branch: 'teacher' | 'student', name: string) => ({
    label: `${branch} ${name}`,
    values: validations.map((r) => r[branch]?.[name] ?? null),
    ...(branch === 'student' && taught ? { dashed: true } : {}),
  });
  type Values = Record<string, (r: MetricsRecord) => number | null | undefined>;
  const curve = (of: Values[string]) => steps.map((r) => finite(of(r)));
  const over = (title: string, values: Values, range?: [number, number]): Chart => ({
    title,
    x: steps.map((r) => r.iteration),
    series: Object.entries(values).map(([label, of]) => ({ label, values: curve(of) })),
    ...(range ? { range } : {}),
  });
  /** The same of the annotated objects, dashed, in the colours of the pseudo labels. */
  const besideTruth = (chart: Chart, truth: Values): Chart => ({
    ...chart,
    series: [
      ...chart.series,
      ...Object.entries(truth).map(
        ([label, of]): Series => ({
          label: `${label}, annotated`,
          values: curve(of),
          dashed: true,
          like: label,
        }),
      ),
    ],
  });
  const names = (of: (r: MetricsRecord) => object | null | undefined) => [
    ...new Set(steps.flatMap((r) => Object.keys(of(r) ?? {}))),
  ];
  const each = <Name extends string>(
    list: readonly Name[],
    of: (r: MetricsRecord, name: Name) => number | undefined,
  ) => Object.fromEntries(list.map((name) => [name, (r: MetricsRecord) => of(r, name)]));
  const classes = names((r) => r.pseudo?.perClass);
  const sizes = ['small', 'medium', 'large'] as const;

  const charts: Chart[] = [
    {
      title: 'Average precision on the test images',
      x: validations.map((r) => r.iteration),
      series: ['AP', 'AP50'].flatMap((name) =>
        (taught ? (['teacher', 'student'] as const) : (['student'] as const)).map((branch) =>
          precision(branch, name),
        ),
      ),
      range: [0, 1],
    },
    over('Total loss', { total: (r) => r.total }),
    over(
      'Losses',
      each(
        names((r) => r.losses),
        (r, name) => r.losses?.[name],
      ),
    ),
    besideTruth(
      over(
        'Pseudo labels per image, by class',
        each(classes, (r, name) => r.pseudo?.perClass[name]),
      ),
      each(classes, (r, name) => r.pseudo?.truth?.perClass[name]),
    ),
    besideTruth(
      over('Pseudo labels per image, by size', {
        all: (r) => r.pseudo?.perImage,
        ...each(sizes, (r, name) => r.pseudo?.[name]),
      }),
      {
        all: (r) => r.pseudo?.truth?.perImage,
        ...each(sizes, (r, name) => r.pseudo?.truth?.[name]),
      },
    ),
    over(
      'Pseudo labels that are right',
      {
        'precision: right among the labels': (r) => r.pseudo?.truth?.precision,
        'recall: found among the objects': (r) => r.pseudo?.truth?.recall,
      },
      [0, 1],
    ),
    over(
      'Pseudo labels',
      {
        'images without any': (r) => r.pseudo?.emptyShare,
        'mean score': (r) => r.pseudo?.meanScore,
      },
      [0, 1],
    ),
    over('Gradient norm', { 'before clipping': (r) => r.gradNorm }),
    over('Learning rate', { 'learning rate': (r) => r.lr }),
    over('Images per second', { 'images per second': (r) => r.imagesPerSecond }),
  ];
  return charts
    .map((chart) => ({
      ...chart,
      series: chart.series.filter(({ values }) => values.some((v) => v !== null)),
    }))
    .filter(({ series }) => series.length > 0);
}

/** Infinite and missing numbers, which the log keeps as text, are gaps. */
function finite(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? value : null;
}
