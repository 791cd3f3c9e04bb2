/** What a run's metrics.jsonl says, as tables and charts. */
import type { Chart, Series, Table } from './page.js';
import type { Branch, MetricsRecord, RunRecords } from './run-records.js';

type Numbers = Record<string, number | null>;

/** A chart of classes has a line for each of so many: colours, too, are eight. */
const mostClasses = 8;

/** Metrics of the last validation, the best one beside it, and what is known of the classes. */
export function tablesOf(records: RunRecords): Table[] {
  return [...validationTables(records), ...pseudoLabelTable(records)];
}

function validationTables({ validations, best }: RunRecords): Table[] {
  const last = validations.at(-1);
  if (!last?.student) return [];
  const columns: [string, Branch][] = [];
  if (last.teacher) columns.push(['teacher', last.teacher]);
  columns.push(['student', last.student]);
  const bestBranch = best?.[best.headline ?? 'student'];
  if (best !== last && bestBranch)
    columns.push([`best: ${best!.headline} at iteration ${best!.iteration}`, bestBranch]);
  const heads = columns.map(([name]) => name);
  const table = (title: string, names: string[], of: (branch: Branch) => Numbers): Table => ({
    title,
    columns: ['', ...heads],
    rows: names.map((name) => [name, ...columns.map(([, branch]) => numberText(of(branch)[name]))]),
  });
  const { perClass: first, ...metrics } = columns[0]![1];
  const perClass = first ?? {};
  const all = table(
    `Test images, iteration ${last.iteration}`,
    Object.keys(metrics),
    ({ perClass: _, ...rest }) => rest,
  );
  const byAp = downwards(Object.keys(perClass), (name) => perClass[name] ?? -1);
  const classes = table('AP of each class', byAp, (branch) => branch.perClass ?? {});
  return byAp.length > 0 ? [all, classes] : [all];
}

/** Where there are more classes than a chart has lines. */
function pseudoLabelTable({ steps }: RunRecords): Table[] {
  const rates = classRates(steps);
  if (rates.length <= mostClasses) return [];
  const known = rates.some(({ objects }) => objects !== null);
  return [
    {
      title: 'Pseudo labels per image, mean over the points of the curves',
      columns: ['', 'pseudo labels', ...(known ? ['annotated'] : [])],
      rows: downwards(rates, ({ labels }) => labels).map(({ name, labels, objects }) => [
        name,
        numberText(labels),
        ...(known ? [numberText(objects)] : []),
      ]),
    },
  ];
}

interface ClassRate {
  name: string;
  /** Pseudo labels per image. */
  labels: number;
  /** Annotated objects per image; null where the unlabelled images have no annotations. */
  objects: number | null;
}

/** In the order of the data. */
function classRates(steps: readonly MetricsRecord[]): ClassRate[] {
  const taught = steps.flatMap(({ pseudo }) => pseudo ?? []);
  const truths = taught.flatMap(({ truth }) => truth ?? []);
  const names = new Set(taught.flatMap(({ perClass }) => Object.keys(perClass ?? {})));
  const mean = (of: readonly { perClass: Record<string, number> }[], name: string) =>
    of.reduce((sum, { perClass }) => sum + (perClass?.[name] ?? 0), 0) / of.length;
  return [...names].map((name) => ({
    name,
    labels: mean(taught, name),
    objects: truths.length > 0 ? mean(truths, name) : null,
  }));
}

/** Those with most first. */
function downwards<T>(list: readonly T[], of: (one: T) => number): T[] {
  return [...list].sort((a, b) => of(b) - of(a));
}

/** The newest warnings, and how many there were before. */
export function warningLines({ warnings, numWarnings }: RunRecords): string[] {
  const before = numWarnings - warnings.length;
  return [
    ...(before > 0 ? [`${before} earlier ones are in metrics.jsonl`] : []),
    ...warnings.map(({ iteration, message = '' }) => `iteration ${iteration}: ${message}`),
  ];
}

const numberText = (value: number | null | undefined) =>
  typeof value === 'number' ? value.toFixed(3) : '–';

/** Curves over the iterations; a chart without numbers is left out. */
export function chartsOf({ steps, validations }: RunRecords): Chart[] {
  const taught = steps.some((r) => r.pseudo);
  const precision = (branch: 'teacher' | 'student', name: string) => ({
    label: taught ? `${branch} ${name}` : name,
    like: name,
    values: validations.map((r) => finite(r[branch]?.[name])),
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
  const rates = classRates(steps);
  const frequent = new Set(downwards(rates, ({ labels }) => labels).slice(0, mostClasses));
  const classes = rates.filter((rate) => frequent.has(rate)).map(({ name }) => name);
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
    },
    over('Total loss', { total: (r) => r.total }),
    over(
      'Losses',
      each(
        names((r) => r.losses),
        (r, name) => r.losses?.[name],
      ),
    ),
    {
      ...besideTruth(
        over(
          'Pseudo labels per image, by class',
          each(classes, (r, name) => r.pseudo?.perClass?.[name]),
        ),
        each(classes, (r, name) => r.pseudo?.truth?.perClass?.[name]),
      ),
      ...(rates.length > mostClasses ? { chosenFrom: rates.length } : {}),
    },
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
        'precision (right among the labels)': (r) => r.pseudo?.truth?.precision,
        'recall (found among the objects)': (r) => r.pseudo?.truth?.recall,
      },
      [0, 1],
    ),
    over(
      'Pseudo labels',
      {
        'share of images without any': (r) => r.pseudo?.emptyShare,
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

/** As many digits as a chart shows. Infinite and missing numbers, which the log keeps as text, are gaps. */
function finite(value: unknown): number | null {
  return typeof value === 'number' && Number.isFinite(value) ? Number(value.toPrecision(5)) : null;
}
