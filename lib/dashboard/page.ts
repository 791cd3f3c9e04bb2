/** The dashboard's one page: a list of runs, and the charts of those that are ticked. */
import { basename } from 'node:path';
import { chartScript, html, type PlotAssets, pageStyle } from '../report/page.js';
import { compareCharts } from './compare.js';

export function dashboardHtml(folder: string, { script, style }: PlotAssets): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${html(basename(folder) || folder)} – mixpl</title>
<style>${style}${pageStyle}${dashboardStyle}</style>
</head>
<body>
<h1>mixpl</h1>
<p>${html(folder)} <span id="link" role="status">reading the runs</span></p>
<div class="wide"><table id="runs"><thead><tr><th><label><input type="checkbox" id="all"> run</label></th><th></th>
<th>iteration</th><th>AP</th><th>best AP</th><th>images/s</th><th>time left</th><th>warnings</th></tr></thead>
<tbody></tbody></table></div>
<div id="above"></div>
<p id="hint" class="hint"></p>
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
#link { opacity: .6; }
#link.lost { position: fixed; inset: auto 0 0; padding: .5rem; z-index: 200; background: #d55e00; color: #fff; opacity: 1; text-align: center; }
#runs label { display: block; cursor: pointer; } #runs th:first-child { max-width: 30rem; }
#runs td:nth-child(2) { max-width: 30rem; white-space: normal; text-align: left; } #runs tr.training th { font-weight: 600; }
#runs input { width: 1rem; height: 1rem; vertical-align: -.15rem; }
#runs progress { width: 7rem; vertical-align: middle; }
`;

/** What comes over the wire is {runs, views}, see server.ts; names of runs are only ever text. */
const dashboardScript = `
const chosen = new Map(); // ids of runs, and which colours they have
const rows = new Map();
const plots = new Map();
const views = new Map(); // of chosen runs, by id; those of a message are new
const byId = (id) => document.getElementById(id);
let source, drawn, listed;
let runs = [];
let touched = false; // what is ticked was asked for

/** The address says which runs are ticked: run=a&run=b. */
function readAddress() {
  chosen.clear();
  const asked = new URLSearchParams(location.hash.slice(1)).getAll('run');
  for (const id of asked) tick(id, true);
  touched = asked.length > 0;
  listen();
}

function query() {
  return new URLSearchParams([...chosen.keys()].map((id) => ['run', id])).toString();
}

function listen() {
  source?.close();
  source = new EventSource('events?' + query());
  source.onopen = () => link('');
  source.onerror = () => link('mixpl dashboard does not answer: the page shows what came last, and tries again', 'lost');
  source.onmessage = ({ data }) => show(JSON.parse(data));
}

function link(text, state = '') {
  byId('link').textContent = text;
  byId('link').className = state;
}

/** A run has the first colour that no other one has. */
function tick(id, on) {
  if (!on) return chosen.delete(id);
  const taken = new Set(chosen.values());
  for (let colour = 0; !chosen.has(id); colour++) if (!taken.has(colour)) chosen.set(id, colour);
}

function choose(ids, on) {
  for (const id of ids) tick(id, on);
  touched = true;
  history.replaceState(null, '', '#' + query());
  listen();
}

function show(message) {
  ({ runs } = message);
  const news = message.views;
  if (!touched && !runs.some(({ id }) => chosen.has(id)) && runs.length) {
    // Nothing ticked yet: what trains, else the last one.
    const training = runs.filter(({ state }) => state === 'training');
    for (const { id } of training.length ? training : runs.slice(-1)) tick(id, true);
    return listen();
  }
  list();
  for (const [id, view] of Object.entries(news)) views.set(id, view);
  const shown = runs.filter(({ id }) => chosen.has(id) && views.has(id));
  const key = JSON.stringify(shown.map(({ id, label }) => [label, chosen.get(id)]));
  if (!Object.keys(news).length && key === drawn) return;
  drawn = key;
  const { above = '', below = '' } = shown.length === 1 ? views.get(shown[0].id) : {};
  fill('above', above);
  fill('below', below);
  draw(compareCharts(shown.map(({ id, label }) => ({ name: short(label), colour: chosen.get(id), charts: views.get(id).charts }))));
}

const filled = {};
function fill(id, text) {
  if (filled[id] !== text) byId(id).innerHTML = text; // what somebody marks or scrolls stays otherwise
  filled[id] = text;
}

/** Rows stay what they are, so that the one that has the focus keeps it. */
function list() {
  const several = runs.filter(({ id }) => chosen.has(id)).length > 1;
  const trs = runs.map((run) => row(run, several));
  const ids = JSON.stringify(runs.map(({ id }) => id));
  if (ids !== listed) byId('runs').tBodies[0].replaceChildren(...trs);
  listed = ids;
  const ticked = runs.filter(({ id }) => chosen.has(id)).length;
  byId('all').checked = ticked > 0 && ticked === runs.length;
  byId('all').indeterminate = ticked > 0 && ticked < runs.length;
  byId('hint').textContent = !runs.length ? 'No run here yet. One that starts is shown at once.'
    : !ticked ? 'Tick runs to see their curves.' : chartHint;
}

function row(run, several) {
  const { id, state, label, iteration, iterations } = run;
  if (!rows.has(id)) {
    const tr = document.createElement('tr');
    const th = document.createElement('th');
    const name = document.createElement('label');
    const box = document.createElement('input');
    box.type = 'checkbox';
    box.onchange = () => choose([id], box.checked);
    name.append(box, ' ', '');
    th.append(name);
    tr.append(th);
    for (let i = 0; i < 7; i++) tr.insertCell();
    const bar = document.createElement('progress');
    rows.set(id, { tr, box, text: name.lastChild, bar });
  }
  const { tr, box, text, bar } = rows.get(id);
  tr.className = state;
  text.data = label;
  box.checked = chosen.has(id);
  box.style.accentColor = several && box.checked ? colours[chosen.get(id) % colours.length] : '';
  bar.max = iterations ?? iteration;
  bar.value = iteration;
  const trains = state === 'training';
  const cells = [run.problem ?? (trains ? bar : state),
    iteration.toLocaleString() + (iterations ? ' of ' + iterations.toLocaleString() : ''),
    fixed(run.ap, 3), fixed(run.bestAp, 3), trains ? fixed(run.imagesPerSecond, 1) : '', duration(run.secondsLeft), run.warnings || ''];
  cells.forEach((cell, i) => tr.cells[i + 1].replaceChildren(cell));
  return tr;
}

const short = (name) => name.length > 40 ? name.slice(0, 20) + '…' + name.slice(-19) : name;
const fixed = (value, digits) => typeof value === 'number' ? value.toFixed(digits) : '';
function duration(seconds) {
  if (seconds === null) return '';
  const minutes = Math.round(seconds / 60);
  return minutes < 1 ? Math.round(seconds) + ' s' : minutes < 100 ? minutes + ' min' : (minutes / 60).toFixed(1) + ' h';
}

/** A chart whose lines are the same gets new numbers; others are drawn anew. */
function draw(charts) {
  const place = byId('charts');
  const { min, max } = [...plots.values()].find(({ plot }) => plot.zoomed)?.plot.scales.x ?? {};
  const zoom = min === undefined ? null : { min, max }; // of all charts
  const wanted = new Set(charts.map(({ title }) => title));
  for (const [title, { plot, figure }] of plots)
    if (!wanted.has(title)) { plot.destroy(); figure.remove(); plots.delete(title); }
  for (const chart of charts) {
    const lines = JSON.stringify([chart.chosenFrom, ...chart.series.map(({ values, ...line }) => line)]);
    const known = plots.get(chart.title);
    if (known?.lines === lines) {
      known.plot.setData([chart.x, ...chart.series.map(({ values }) => values)]);
      continue;
    }
    const figure = document.createElement('figure');
    const caption = document.createElement('figcaption');
    const note = document.createElement('small');
    note.textContent = chart.chosenFrom ? 'the most frequent of ' + chart.chosenFrom : '';
    caption.append(chart.title + ' ', note);
    figure.append(caption);
    known?.plot.destroy();
    known?.figure.remove();
    place.append(figure); // drawing needs its width
    const plot = drawChart(figure, chart);
    if (zoom) plot.setScale('x', zoom);
    plots.set(chart.title, { figure, lines, plot });
  }
  const figures = charts.map(({ title }) => plots.get(title).figure);
  if (figures.some((figure, i) => figure !== place.children[i])) place.append(...figures);
}

byId('all').onchange = () => choose(runs.map(({ id }) => id), byId('all').checked);
onhashchange = readAddress;
readAddress();
`;
