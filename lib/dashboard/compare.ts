/** Charts of several runs in one. */
import type { Chart, Series } from '../report/page.js';

/** More points than this tell no more, and a browser is slow with them. */
const mostPoints = 2000;

/**
 * Lines of charts with one title come together, each named after its run where there are several; of a
 * chart that only some runs have, theirs are there.
 * @param runs in the order of their lines
 */
export function compareCharts(
  runs: readonly { name: string; charts: readonly Chart[] }[],
): Chart[] {
  if (runs.length === 1) return runs[0]!.charts.map(thinned);
  const titles = new Set(runs.flatMap(({ charts }) => charts.map(({ title }) => title)));
  return [...titles].map((title) => {
    const parts = runs.flatMap(({ name, charts }) =>
      charts
        .filter((chart) => chart.title === title)
        .map((chart) => ({ name, chart: thinned(chart) })),
    );
    const x = [...new Set(parts.flatMap(({ chart }) => chart.x))].sort((a, b) => a - b);
    const at = new Map(x.map((value, i) => [value, i]));
    const series = parts.flatMap(({ name, chart }) =>
      chart.series.map((line): Series => {
        const values: (number | null)[] = new Array(x.length).fill(null);
        chart.x.forEach((value, i) => {
          values[at.get(value)!] = line.values[i] ?? null;
        });
        const like = line.like === undefined ? {} : { like: `${name}: ${line.like}` };
        return { ...line, label: `${name}: ${line.label}`, values, ...like };
      }),
    );
    const { chart } = parts[0]!;
    return { ...chart, x, series };
  });
}

/** Every n-th point, and the last one. */
function thinned(chart: Chart): Chart {
  const { length } = chart.x;
  const stride = Math.ceil(length / mostPoints);
  if (stride <= 1) return chart;
  const keep = (_: unknown, i: number) => (length - 1 - i) % stride === 0;
  return {
    ...chart,
    x: chart.x.filter(keep),
    series: chart.series.map((line) => ({ ...line, values: line.values.filter(keep) })),
  };
}
