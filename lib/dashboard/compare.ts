/** Charts of several runs beside each other. */
import type { Chart, Series } from '../report/page.js';

/**
 * Runs in the page: the text of this function is written into it, so it needs nothing but what stands in it.
 *
 * Of several runs each kind of line has a chart of its own, and each run its colour. Of a chart that only some runs
 * have, theirs are there; of lines that were chosen from many, those that all of them chose.
 * @param runs in the order of their lines
 */
export function compareCharts(
  runs: readonly { name: string; colour: number; charts: readonly Chart[] }[],
): Chart[] {
  if (runs.length === 1) return [...runs[0]!.charts];
  const kindOf = ({ label, like = label }: Series) => like;
  const linesOf = ({ series }: Chart, kind: string) =>
    series.filter((line) => kindOf(line) === kind);
  const titles = new Set(runs.flatMap(({ charts }) => charts.map(({ title }) => title)));
  return [...titles].flatMap((title) => {
    const parts = runs.flatMap(({ name, colour, charts }) =>
      charts.filter((chart) => chart.title === title).map((chart) => ({ name, colour, chart })),
    );
    const { chart: first } = parts[0]!;
    const kinds = [...new Set(parts.flatMap(({ chart }) => chart.series.map(kindOf)))];
    const shown = kinds.filter((kind) =>
      parts.every(({ chart }) => !chart.chosenFrom || linesOf(chart, kind).length > 0),
    );
    return shown.map((kind): Chart => {
      const having = parts.filter(({ chart }) => linesOf(chart, kind).length > 0);
      const x = [...new Set(having.flatMap(({ chart }) => chart.x))].sort((a, b) => a - b);
      const at = new Map(x.map((value, i) => [value, i]));
      const series = having.flatMap(({ name, colour, chart }) =>
        linesOf(chart, kind).map((line): Series => {
          const values: (number | null)[] = new Array(x.length).fill(null);
          chart.x.forEach((value, i) => {
            values[at.get(value)!] = line.values[i] ?? null;
          });
          const label = line.label === kind ? name : `${name}: ${line.label}`;
          return { ...line, label, values, colour };
        }),
      );
      const { chosenFrom: _, ...rest } = first;
      return { ...rest, title: kinds.length > 1 ? `${title}: ${kind}` : title, x, series };
    });
  });
}
