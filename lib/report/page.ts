/** A page of tables and charts in one file that loads nothing from anywhere. */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { writeFileWhole } from '../files.js';

export interface Chart {
  title: string;
  /** Its series are the most frequent of so many. */
  chosenFrom?: number;
  /** What x is. @defaultValue 'iteration' */
  xLabel?: string;
  /** Increasing. */
  x: number[];
  /** Bars instead of lines: what stands at x = 0, 1, … */
  names?: string[];
  series: Series[];
  /** Of y, where it is known. */
  range?: [number, number];
  /** y is logarithmic: values are above 0, or null. */
  log?: boolean;
}

export interface Series {
  label: string;
  values: (number | null)[];
  dashed?: boolean;
  /** What it is one of: lines of one kind have one colour, and a chart where runs are compared. @defaultValue its label */
  like?: string;
  /** Which of the colours it has. @defaultValue by its kind, in the order of the chart */
  colour?: number;
}

export interface Table {
  title: string;
  columns: string[];
  rows: string[][];
}

export interface Page {
  title: string;
  /** A sentence below the title. */
  intro: string;
  tables: readonly Table[];
  charts: readonly Chart[];
  /** What was told on the way: a heading and its lines. */
  list?: { title: string; lines: readonly string[] };
  /** Text that is folded away. */
  details?: { title: string; text: string };
}

/** @throws MixplError ERR_IO */
export async function writePage(path: string, page: Page): Promise<void> {
  await writeFileWhole(path, [pageHtml(page, await plotAssets())]);
}

/** uPlot, to be written into a page. */
export interface PlotAssets {
  script: string;
  style: string;
}

export async function plotAssets(): Promise<PlotAssets> {
  const [script, style] = await Promise.all([
    plotAsset('uPlot.iife.min.js'),
    plotAsset('uPlot.min.css'),
  ]);
  return { script, style };
}

/** uPlot is copied beside this file by the build; in a checkout it comes from the package. */
async function plotAsset(name: string): Promise<string> {
  const beside = new URL(`./assets/${name}`, import.meta.url);
  return readFile(beside, 'utf8').catch(() =>
    readFile(createRequire(import.meta.url).resolve(`uplot/dist/${name}`), 'utf8'),
  );
}

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
export const html = (text: string) => text.replace(/[&<>"]/g, (c) => escapes[c]!);

/** JSON that cannot end the script element it stands in. */
const inlineJson = (value: unknown) => JSON.stringify(value).replaceAll('<', '\\u003c');

function pageHtml(page: Page, { script, style }: PlotAssets): string {
  const { title, intro, tables, charts, list, details } = page;
  const { above, below } = tablesHtml(tables);
  const lines = list?.lines.map((line) => `<li>${html(line)}</li>`) ?? [];
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'">
<title>${html(title)}</title>
<style>${style}${pageStyle}</style>
</head>
<body>
<h1>${html(title)}</h1>
<p>${html(intro)}</p>
${above}
${list && lines.length ? `<h2>${html(list.title)}</h2>\n<ul>${lines.join('')}</ul>` : ''}
<p class="hint">${charts.length ? chartHint : ''}</p>
<div id="charts">${charts.map(chartHtml).join('')}</div>
${below}
${details ? `<details><summary>${html(details.title)}</summary><pre>${html(details.text)}</pre></details>` : ''}
<script>${script}</script>
<script>const charts = ${inlineJson(charts)};
${chartScript}
document.querySelectorAll('figure').forEach((figure, i) => drawChart(figure, charts[i]));</script>
</body>
</html>
`;
}

/** A table with more rows stands below the charts, which it would push out of sight. */
const mostRowsAbove = 20;

/** Tables to stand above and below the charts. */
export function tablesHtml(tables: readonly Table[]): { above: string; below: string } {
  const isLong = ({ rows }: Table) => rows.length > mostRowsAbove;
  const block = (some: readonly Table[]) =>
    some.length ? `<div class="tables">${some.map(tableHtml).join('\n')}</div>` : '';
  return {
    above: block(tables.filter((table) => !isLong(table))),
    below: block(tables.filter(isLong)),
  };
}

function tableHtml({ title, columns, rows }: Table): string {
  const cells = (row: readonly string[]) =>
    row.map((cell, i) => (i === 0 ? `<th>${html(cell)}</th>` : `<td>${html(cell)}</td>`)).join('');
  return `<section><h2>${html(title)}</h2>
<table><thead><tr>${columns.map((c) => `<th>${html(c)}</th>`).join('')}</tr></thead>
<tbody>${rows.map((row) => `<tr>${cells(row)}</tr>`).join('')}</tbody></table></section>`;
}

const chartHtml = ({ title, chosenFrom }: Chart) =>
  `<figure><figcaption>${html(title)}${chosenFrom ? ` <small>the most frequent of ${chosenFrom}</small>` : ''}</figcaption></figure>`;

export const pageStyle = `
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 110rem; padding: 0 1rem; overflow-wrap: break-word; }
h1 { margin-bottom: 0; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
.tables { display: flex; flex-wrap: wrap; gap: 0 4rem; }
section, .wide { max-width: 100%; overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .15rem .8rem .15rem 0; text-align: right; white-space: nowrap; }
th:first-child { text-align: left; white-space: normal; min-width: 8rem; } tbody th { font-weight: normal; } thead th { font-weight: 600; }
details { margin-top: 1.6rem; } .hint { opacity: .6; font-size: 13px; margin: 1.6rem 0 .6rem; }
#charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(26rem, 100%), 1fr)); gap: 1rem; }
figure { margin: 0; min-width: 0; } figcaption { font-weight: 600; } figcaption small { font-weight: normal; }
.u-legend { font-size: 12px; text-align: left; display: block; max-height: 8rem; overflow: auto; }
.u-legend th, .u-legend td { border: 0; white-space: normal; min-width: 0; font-weight: normal; } pre { overflow: auto; }
p, ul { max-width: 76rem; } ul { max-height: 12rem; overflow: auto; }
`;

const chartHint =
  'Drag over a chart to zoom in, double-click to see all again; click a name below it to hide a line.';

/**
 * The page's own `drawChart(figure, chart)`, which returns uPlot's object. Okabe and Ito's colours and four more; a
 * solid line each, dashed for what a line is compared with. Without a pointer the legend has the
 * last values of curves over iterations.
 */
export const chartScript = `
const colours = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#999999', '#b5a400',
  '#8a5a2b', '#7048e8', '#d6336c', '#66a80f'];
const chartHint = ${JSON.stringify(chartHint)};
const dark = matchMedia('(prefers-color-scheme: dark)');
dark.onchange = () => location.reload();
const numberText = (value, digits) => value == null ? '–' : String(+value.toPrecision(digits));
function drawChart(figure, { series, x, xLabel = 'iteration', names, range, log }) {
  const ink = dark.matches ? '#ccc' : '#333';
  const axis = { stroke: ink, grid: { stroke: '#8883', width: 1 }, ticks: { stroke: '#8883' } };
  const xAxis = { ...axis, size: 32, label: xLabel, labelSize: 18, labelGap: 0, labelFont: '12px system-ui' };
  const nameOf = (at) => names[at] ?? '';
  const kinds = [...new Set(series.map(({ label, like = label }) => like))];
  const hasLast = xLabel === 'iteration';
  const shown = ({ data }, s, at) => at == null && hasLast ? data[s].findLast((value) => value != null) : data[s][at];
  const drawn = ({ label, dashed, like = label, colour = kinds.indexOf(like) }, s) => {
    const stroke = colours[colour % colours.length];
    const bar = { fill: dashed ? stroke + '40' : stroke, points: { show: false },
      paths: names && uPlot.paths.bars({ size: [0.8 / series.length, 40], align: s ? 1 : -1 }) };
    return { label, stroke, width: 1.5, spanGaps: !log, ...(dashed ? { dash: [6, 4] } : {}),
      value: (plot, _, s, at) => numberText(shown(plot, s, at), 4),
      ...(names ? bar : { points: { show: ({ data }, s) => data[s].filter((value) => value != null).length < 40 } }) };
  };
  const zoom = (plot, scale) => {
    const { scales, data: [x] } = plot;
    if (scale === 'x') plot.zoomed = scales.x.min > x[0] || scales.x.max < x.at(-1);
  };
  const xText = (plot, _, s, at) => names ? nameOf(at) || '–' : shown(plot, s, at)?.toLocaleString() ?? '–';
  const plot = new uPlot({
    width: figure.clientWidth, height: 260,
    cursor: { y: false, sync: { key: xLabel }, hover: { skip: [null] }, focus: { prox: 24 } },
    focus: { alpha: 0.3 },
    hooks: { setScale: [zoom] },
    legend: { markers: { width: 2, dash: (_, s) => series[s - 1]?.dashed ? 'dashed' : 'solid' } },
    scales: { x: { time: false, auto: (plot) => !plot.zoomed, ...(names ? { range: [-0.6, names.length - 0.4] } : {}) },
      ...(range ? { y: { range } } : log ? { y: { distr: 3 } } : {}) },
    axes: [names ? { ...xAxis, incrs: [1, 2, 5, 10, 20, 50], values: (_, ticks) => ticks.map(nameOf) } : xAxis,
      { ...axis, size: (_, texts) => Math.max(60, ...(texts ?? []).map((text) => 22 + 7 * text.length)), values: (_, ticks) => ticks.map((v) => v == null ? '' : numberText(v, 6)) }],
    series: [{ label: xLabel, value: xText }, ...series.map(drawn)],
  }, [x, ...series.map((s) => s.values)], figure);
  const fit = () => plot.root.isConnected && plot.setSize({ width: figure.clientWidth, height: 260 });
  new ResizeObserver(fit).observe(figure);
  return plot;
}`;
