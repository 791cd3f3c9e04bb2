/** The dashboard's one page: a list of runs, and the charts of those that are ticked. */
import { chartScript, html, type PlotAssets, pageStyle } from '../report/page.js';
import { compareCharts } from './compare.js';

export function dashboardHtml(folder: string, { script, style }: PlotAssets): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>mixpl: ${html(folder)}</title>
<style>${style}${pageStyle}${dashboardStyle}</style>
</head>
<body>
<h1>mixpl</h1>
<p>${html(folder)} <span id="link">connecting</span></p>
<table id="runs"><thead><tr><th>run</th><th></th><th>iteration</th><th>AP</th><th>best AP</th>
<th>images/s</th><th>time left</th><th>warnings</th></tr></thead><tbody></tbody></table>
<div id="above"></div>
<div id="charts"></div>
<div id="below"></div>
<script>${script}</script>
<script>${chartScript}
${compareCharts}
${dashboardScript}</script>
</body>
</html>
`;
}

const dashboardStyle = `
#link { opacity: .6; } #link.lost { color: #d55e00; opacity: 1; }
#runs label { display: block; cursor: pointer; } #runs tr.training th { font-weight: 600; }
#runs progress { width: 7rem; vertical-align: middle; }
`;

/** What comes over the wire is {runs, views}, see server.ts; names of runs are only ever text. */
const dashboardScript = `
const chosen = new Set(location.hash ? JSON.parse(decodeURIComponent(location.hash.slice(1))) : []);
const plots = new Map();
const views = new Map(); // of chosen runs, by id; those of a message are new
const byId = (id) => document.getElementById(id);
let source, drawn;

function listen() {
  source?.close();
  const query = [...chosen].map((id) => 'run=' + encodeURIComponent(id)).join('&');
  source = new EventSource('events?' + query);
  source.onopen = () => { byId('link').textContent = ''; byId('link').className = ''; };
  source.onerror = () => { byId('link').textContent = 'connection lost'; byId('link').className = 'lost'; };
  source.onmessage = ({ data }) => show(JSON.parse(data));
}

function choose(id, on) {
  if (on) chosen.add(id); else chosen.delete(id);
  history.replaceState(null, '', '#' + encodeURIComponent(JSON.stringify([...chosen])));
  listen();
}

function show({ runs, views: news }) {
  if (!chosen.size && runs.length) {
    // Nothing ticked yet: what trains, else the last one.
    const training = runs.filter(({ state }) => state === 'training');
    for (const { id } of training.length ? training : runs.slice(-1)) chosen.add(id);
    return listen();
  }
  byId('runs').tBodies[0].replaceChildren(...runs.map(row));
  for (const [id, view] of Object.entries(news)) views.set(id, view);
  const shown = runs.filter(({ id }) => chosen.has(id) && views.has(id));
  const key = JSON.stringify(shown.map(({ label }) => label));
  if (!Object.keys(news).length && key === drawn) return;
  drawn = key;
  const { above = '', below = '' } = shown.length === 1 ? views.get(shown[0].id) : {};
  byId('above').innerHTML = above;
  byId('below').innerHTML = below;
  draw(compareCharts(shown.map(({ id, label }) => ({ name: label, charts: views.get(id).charts }))));
}

function row(run) {
  const tr = document.createElement('tr');
  tr.className = run.state;
  const label = document.createElement('label');
  const box = document.createElement('input');
  box.type = 'checkbox';
  box.checked = chosen.has(run.id);
  box.onchange = () => choose(run.id, box.checked);
  label.append(box, ' ' + run.label);
  const th = document.createElement('th');
  th.append(label);
  const bar = document.createElement('progress');
  bar.max = run.iterations ?? run.iteration;
  bar.value = run.iteration;
  const cells = [run.problem ?? (run.state === 'training' ? bar : run.state), run.iteration + (run.iterations ? ' of ' + run.iterations : ''),
    fixed(run.ap, 3), fixed(run.bestAp, 3), run.state === 'training' ? fixed(run.imagesPerSecond, 1) : '',
    duration(run.secondsLeft), run.warnings || ''];
  tr.append(th, ...cells.map((cell) => { const td = document.createElement('td'); td.append(cell); return td; }));
  return tr;
}

const fixed = (value, digits) => typeof value === 'number' ? value.toFixed(digits) : '';
function duration(seconds) {
  if (seconds === null) return '';
  const minutes = Math.round(seconds / 60);
  return minutes < 1 ? Math.round(seconds) + ' s' : minutes < 100 ? minutes + ' min' : (minutes / 60).toFixed(1) + ' h';
}

/** A chart whose lines are the same gets new numbers; others are drawn anew. */
function draw(charts) {
  const wanted = new Set(charts.map(({ title }) => title));
  for (const [title, { plot, figure }] of plots)
    if (!wanted.has(title)) { plot.destroy(); figure.remove(); plots.delete(title); }
  for (const chart of charts) {
    const lines = JSON.stringify([chart.chosenFrom, ...chart.series.map(({ label, dashed }) => [label, dashed])]);
    let known = plots.get(chart.title);
    if (known?.lines === lines) {
      known.plot.setData([chart.x, ...chart.series.map(({ values }) => values)]);
    } else {
      const figure = known?.figure ?? document.createElement('figure');
      known?.plot.destroy();
      const caption = document.createElement('figcaption');
      const note = document.createElement('small');
      note.textContent = chart.chosenFrom ? 'the most frequent of ' + chart.chosenFrom : '';
      caption.append(chart.title + ' ', note);
      figure.replaceChildren(caption);
      byId('charts').append(figure); // drawing needs its width
      known = { figure, lines, plot: drawChart(figure, chart) };
      plots.set(chart.title, known);
    }
    byId('charts').append(known.figure); // in the order in which they came
  }
}

listen();
`;
