/** The page that a run leaves behind: numbers, curves, warnings and the config, in one file. */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, join, resolve } from 'node:path';
import { writeFileWhole } from '../files.js';
import { type Chart, chartsOf, type MetricsRecord, tablesOf } from './run-metrics.js';

/**
 * Writes `report.html` of a run's folder from its `metrics.jsonl` and `config.yaml`. The page loads
 * nothing from anywhere. Lines that are not JSON (a run that is being written) are passed over.
 * @returns the path of the page; null when the folder has no metrics
 * @throws MixplError ERR_IO
 */
export async function writeRunReport(folder: string): Promise<string | null> {
  const text = await textOf(join(folder, 'metrics.jsonl'));
  const records = text.split('\n').flatMap(parseLine);
  if (records.length === 0) return null;
  const config = await textOf(join(folder, 'config.yaml'));
  const title = /^name: *(.+)$/m.exec(config)?.[1] ?? basename(resolve(folder));
  const [script, style] = await Promise.all([
    plotAsset('uPlot.iife.min.js'),
    plotAsset('uPlot.min.css'),
  ]);
  const path = join(folder, 'report.html');
  const page = pageOf({ title, records, config, script, style });
  await writeFileWhole(path, [page]);
  return path;
}

async function textOf(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}

function parseLine(line: string): MetricsRecord[] {
  try {
    return [JSON.parse(line) as MetricsRecord];
  } catch {
    return [];
  }
}

/** uPlot is copied beside this file by the build; in a checkout it comes from the package. */
async function plotAsset(name: string): Promise<string> {
  const beside = new URL(`./assets/${name}`, import.meta.url);
  return readFile(beside, 'utf8').catch(() =>
    readFile(createRequire(import.meta.url).resolve(`uplot/dist/${name}`), 'utf8'),
  );
}

const escapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };
const html = (text: string) => text.replace(/[&<>"]/g, (c) => escapes[c]!);

/** JSON that cannot end the script element it stands in. */
const inlineJson = (value: unknown) => JSON.stringify(value).replaceAll('<', '\\u003c');

interface Page {
  title: string;
  records: readonly MetricsRecord[];
  config: string;
  script: string;
  style: string;
}

function pageOf({ title, records, config, script, style }: Page): string {
  const charts = chartsOf(records);
  const iteration = Math.max(...records.map((r) => r.iteration));
  const warnings = records.filter((r) => r.type === 'warning');
  const list = warnings.map((w) => `<li>iteration ${w.iteration}: ${html(w.message ?? '')}</li>`);
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
<p>After ${iteration} iterations.</p>
<div class="tables">${tablesOf(records).map(tableHtml).join('\n')}</div>
${warnings.length ? `<h2>Warnings</h2>\n<ul>${list.join('')}</ul>` : ''}
<div id="charts">${charts.map(chartHtml).join('')}</div>
${config ? `<details><summary>Config</summary><pre>${html(config)}</pre></details>` : ''}
<script>${script}</script>
<script>const charts = ${inlineJson(charts)};
${pageScript}</script>
</body>
</html>
`;
}

function tableHtml({ title, columns, rows }: ReturnType<typeof tablesOf>[number]): string {
  const cells = (row: readonly string[]) =>
    row.map((cell, i) => (i === 0 ? `<th>${html(cell)}</th>` : `<td>${html(cell)}</td>`)).join('');
  return `<section><h2>${html(title)}</h2>
<table><thead><tr>${columns.map((c) => `<th>${html(c)}</th>`).join('')}</tr></thead>
<tbody>${rows.map((row) => `<tr>${cells(row)}</tr>`).join('')}</tbody></table></section>`;
}

const chartHtml = ({ title }: Chart) => `<figure><figcaption>${html(title)}</figcaption></figure>`;

const pageStyle = `
:root { color-scheme: light dark; --line: #8884; }
body { font: 15px/1.4 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
.tables { display: flex; flex-wrap: wrap; gap: 0 4rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: .15rem .8rem .15rem 0; text-align: right; }
th:first-child { text-align: left; font-weight: normal; } thead th { font-weight: 600; }
#charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(28rem, 1fr)); gap: 1rem; margin-top: 1.6rem; }
figure { margin: 0; min-width: 0; } figcaption { font-weight: 600; }
.u-legend { font-size: 12px; text-align: left; } pre { overflow: auto; }
`;

/** Okabe and Ito's colours; a solid line each, dashed for the student beside a teacher. */
const pageScript = `
const colours = ['#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#999999', '#b5a400'];
const ink = matchMedia('(prefers-color-scheme: dark)').matches ? '#ccc' : '#333';
document.querySelectorAll('figure').forEach((figure, i) => {
  const { series, x, range } = charts[i];
  const axis = { stroke: ink, grid: { stroke: '#8883', width: 1 }, ticks: { stroke: '#8883' } };
  const plot = new uPlot({
    width: figure.clientWidth, height: 260,
    scales: { x: { time: false }, ...(range ? { y: { range } } : {}) },
    axes: [axis, { ...axis, size: 60, values: (_, ticks) => ticks.map((v) => +v.toPrecision(3)) }],
    series: [{ label: 'iteration' }, ...series.map(({ label, dashed }, s) => ({
      label, stroke: colours[s % colours.length], width: 1.5, spanGaps: true,
      ...(dashed ? { dash: [6, 4] } : {}), points: { show: x.length < 40 },
    }))],
  }, [x, ...series.map((s) => s.values)], figure);
  addEventListener('resize', () => plot.setSize({ width: figure.clientWidth, height: 260 }));
});
`;
