/** Charts of several runs in one. */
import type { Chart, Series } from '../report/page.js';

/**
 * Runs in the page: the text of this function is written into it, so it needs nothing but what stands in it.
 *
 * Lines of charts with one title come together, each named after its run where there are several; of a
 * chart that only some runs have, theirs are there; of lines that were chosen from many, those that all of them chose.
 * @param runs in the order of their lines
 */
export function compareCharts(
  runs: readonly { name: string; charts: readonly Chart[] }[],
): Chart[] {
  if (runs.length === 1) return [...runs[0]!.charts];
  const titles = new Set(runs.flatMap(({ charts }) => charts.map(({ title }) => title)));
  const charts = [...titles].map((title) => {
    const parts = runs.flatMap(({ name, charts }) =>
      charts.filter((chart) => chart.title === title).map((chart) => ({ name, chart })),
    );
    const x = [...new Set(parts.flatMap(({ chart }) => chart.x))].sort((a, b) => a - b);
    const at = new Map(x.map((value, i) => [value, i]));
    const everywhere = (label: string) =>
      parts.every(({ chart }) => chart.series.some((line) => line.label === label));
    const shown = ({ chosenFrom, series }: Chart) =>
      chosenFrom ? series.filter(({ label, like = label }) => everywhere(like)) : series;
    const series = parts.flatMap(({ name, chart }) =>
      shown(chart).map((line): Series => {
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
  return charts.filter(({ series }) => series.length > 0);
}
