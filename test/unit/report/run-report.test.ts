import { appendFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { writeRunReport } from '../../../lib/report/index.js';
import type { Chart } from '../../../lib/report/page.js';
import { Thinned } from '../../../lib/report/thinned.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-report-'));
});
afterEach(() => rm(folder, { recursive: true }));

const step = (iteration: number, rest: object = {}) => ({
  type: 'step',
  iteration,
  total: 2 / iteration,
  losses: { sup_loss_cls: 1 / iteration },
  lr: 0.001,
  gradNorm: 3,
  imagesPerSecond: 8,
  pseudo: null,
  ...rest,
});
const metrics = (AP: number, perClass: Record<string, number | null>) => ({
  AP,
  AP50: AP + 0.2,
  AP_S: null,
  perClass,
});

async function report(records: object[], extra: Record<string, string> = {}): Promise<string> {
  const lines = records.map((record) => `${JSON.stringify(record)}\n`).join('');
  await writeFile(join(folder, 'metrics.jsonl'), lines);
  for (const [name, text] of Object.entries(extra)) await writeFile(join(folder, name), text);
  const path = await writeRunReport(folder);
  expect(path).toBe(join(folder, 'report.html'));
  return readFile(path!, 'utf8');
}

function chartsOf(page: string): Map<string, Chart> {
  const json = /const charts = (.*);\n/.exec(page)![1]!;
  return new Map((JSON.parse(json) as Chart[]).map((chart) => [chart.title, chart]));
}

test('tables hold the last and the best validation, by branch and by class', async () => {
  const page = await report([
    step(50),
    {
      type: 'validation',
      iteration: 50,
      headline: 'teacher',
      teacher: metrics(0.5, { red: 0.625, white: null }),
      student: metrics(0.25, { red: 0.5, white: 0.125 }),
      best: true,
    },
    {
      type: 'validation',
      iteration: 100,
      headline: 'teacher',
      teacher: metrics(0.4375, { red: 0.4375, white: 0.3125 }),
      student: metrics(0.375, { red: 0.375, white: 0.375 }),
      best: false,
    },
  ]);
  expect(page).toContain('<tr><th>AP</th><td>0.438</td><td>0.375</td><td>0.500</td></tr>');
  expect(page).toContain('<th>best: teacher at iteration 50</th>');
  expect(page).toContain('<tr><th>white</th><td>0.313</td><td>0.375</td><td>–</td></tr>');
  expect(page).toContain('<tr><th>AP_S</th><td>–</td><td>–</td><td>–</td></tr>');
});

test('charts hold every number, gaps where there is none, and only what was measured', async () => {
  const pseudo = {
    perImage: 3,
    emptyShare: 0.25,
    meanScore: null,
    perClass: { red: 2, white: 1 },
    small: 1,
    medium: 2,
    large: 0,
  };
  const page = await report([
    step(50, { total: 'NaN' }),
    step(100, { pseudo }),
    { type: 'validation', iteration: 100, headline: 'student', student: metrics(0.25, {}) },
  ]);
  const charts = chartsOf(page);
  expect(charts.get('Total loss')).toMatchObject({
    x: [50, 100],
    series: [{ label: 'total', values: [null, 0.02] }],
  });
  expect(charts.get('Pseudo labels per image, by class')!.series).toEqual([
    { label: 'red', values: [null, 2] },
    { label: 'white', values: [null, 1] },
  ]);
  expect(charts.get('Pseudo labels')!.series.map((s) => s.label)).toEqual([
    'share of images without any',
  ]);
  expect(charts.get('Average precision on the test images')!.series).toEqual([
    { label: 'student AP', like: 'AP', values: [0.25], dashed: true },
    { label: 'student AP50', like: 'AP50', values: [0.45], dashed: true },
  ]);
  const supervised = chartsOf(await report([step(50)]));
  expect([...supervised.keys()].filter((title) => /pseudo|precision/i.test(title))).toEqual([]);
});

test('where the truth is known, it stands beside the pseudo labels, dashed in their colour', async () => {
  const pseudo = {
    ...{ perImage: 3, emptyShare: 0.25, meanScore: 0.8, small: 1, medium: 2, large: 0 },
    perClass: { red: 2, white: 1 },
    truth: {
      ...{ perImage: 4, precision: 0.75, recall: null, small: 1, medium: 2.5, large: 0.5 },
      perClass: { red: 3, white: 1 },
    },
  };
  const charts = chartsOf(await report([step(50), step(100, { pseudo })]));
  expect(charts.get('Pseudo labels per image, by class')!.series).toEqual([
    { label: 'red', values: [null, 2] },
    { label: 'white', values: [null, 1] },
    { label: 'red, annotated', values: [null, 3], dashed: true, like: 'red' },
    { label: 'white, annotated', values: [null, 1], dashed: true, like: 'white' },
  ]);
  expect(
    charts
      .get('Pseudo labels per image, by size')!
      .series.map(({ label, values }) => [label, values[1]]),
  ).toEqual([
    ...[
      ['all', 3],
      ['small', 1],
      ['medium', 2],
      ['large', 0],
    ],
    ...[
      ['all, annotated', 4],
      ['small, annotated', 1],
      ['medium, annotated', 2.5],
    ],
    ['large, annotated', 0.5],
  ]);
  expect(charts.get('Pseudo labels that are right')).toMatchObject({
    range: [0, 1],
    series: [{ label: 'precision (right among the labels)', values: [null, 0.75] }],
  });
});

test('names, messages and configs are text, whatever is in them', async () => {
  const evil = '</script><script>alert(1)</script>&"';
  const page = await report(
    [
      step(1, { losses: { [evil]: 1 } }),
      { type: 'warning', iteration: 1, message: evil },
      { type: 'validation', iteration: 1, student: metrics(0.5, { [evil]: 0.5 }) },
    ],
    { 'config.yaml': `name: ${evil}\n` },
  );
  expect(page).not.toContain('<script>alert');
  expect(page.match(/<\/script>/g)).toHaveLength(2);
  expect(page).toContain(
    '<title>&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;</title>',
  );
  expect(chartsOf(page).get('Losses')!.series[0]!.label).toBe(evil);
});

test('the page needs nothing but itself', async () => {
  const page = await report([step(1)]);
  expect(page).not.toMatch(/(src|href)\s*=\s*["']|@import|url\(/);
  expect(page).toContain("default-src 'none'");
  expect(page).toContain('uPlot');
});

test('the name is what the config says, the length where the run has not reached it', async () => {
  const page = await report([step(7)], {
    'config.yaml': 'name: "a: b"\nschedule: { iterations: 9 }\n',
  });
  expect(page).toContain('<title>a: b</title>');
  expect(page).toContain('After 7 of 9 iterations.');
});

test('a line that is cut off is passed over; without metrics there is no page', async () => {
  expect(await writeRunReport(folder)).toBeNull();
  await writeFile(join(folder, 'metrics.jsonl'), `${JSON.stringify(step(7))}\n{"type":"st`);
  await writeRunReport(folder);
  expect(await readFile(join(folder, 'report.html'), 'utf8')).toContain('After 7 iterations');
});

test('what is no record is passed over', async () => {
  const odd = 'null\n5\n[]\n{"type":"step"}\n{"type":"step","iteration":3,\n{"iteration":4}\n';
  await writeFile(join(folder, 'metrics.jsonl'), odd);
  await appendFile(join(folder, 'metrics.jsonl'), `${JSON.stringify(step(2))}\n`);
  const page = await readFile((await writeRunReport(folder))!, 'utf8');
  expect(chartsOf(page).get('Total loss')).toMatchObject({ x: [2] });
});

test('a run of very many lines has a page with as many points as a screen shows', async () => {
  const count = 150_000;
  const lines = Array.from(
    { length: count },
    (_, i) => `{"type":"step","iteration":${i + 1},"lr":1}\n`,
  );
  await writeFile(join(folder, 'metrics.jsonl'), lines.join(''));
  const page = await readFile((await writeRunReport(folder))!, 'utf8');
  expect(page).toContain(`After ${count} iterations.`);
  const { x } = chartsOf(page).get('Learning rate')!;
  expect(x.length).toBeGreaterThan(500);
  expect(x.length).toBeLessThanOrEqual(1001);
  expect([x[0], x.at(-1)]).toEqual([1, count]);
  expect(new Set(x.slice(1, -1).map((at, i) => at - x[i]!)).size).toBe(1);
});

test('thinned: every n-th and the last, and those of a longer run are some of a shorter one', () => {
  const thinned = new Thinned<number>(4);
  expect(thinned.values).toEqual([]);
  const kept = [0, 1, 2, 3, 4, 5, 6, 7, 8].map((value) => ({
    stays: thinned.add(value),
    values: thinned.values,
  }));
  expect(kept[3]!.values).toEqual([0, 1, 2, 3]);
  expect(kept.slice(4)).toEqual([
    { stays: true, values: [0, 2, 4] },
    { stays: false, values: [0, 2, 4, 5] },
    { stays: true, values: [0, 2, 4, 6] },
    { stays: false, values: [0, 2, 4, 6, 7] },
    { stays: true, values: [0, 4, 8] },
  ]);
  expect(thinned.last).toBe(8);
});

describe('of many classes', () => {
  const names = Array.from({ length: 30 }, (_, i) => `class${i}`);
  /** 0 to 29, one each, in no order. */
  const rate = (i: number) => (i * 13) % 30;
  const perClass = Object.fromEntries(names.map((name, i) => [name, rate(i)]));
  const truth = { perImage: 1, precision: 1, recall: 1, perClass, small: 0, medium: 0, large: 0 };
  const pseudo = {
    perImage: 1,
    emptyShare: 0,
    meanScore: 1,
    perClass,
    small: 0,
    medium: 0,
    large: 0,
  };
  const ap = Object.fromEntries(names.map((name, i) => [name, i === 3 ? null : rate(i) / 100]));
  const records = (truths: object) => [
    step(1, { pseudo: { ...pseudo, ...truths } }),
    { type: 'validation', iteration: 1, headline: 'student', student: metrics(0.5, ap) },
  ];

  test('a chart has the most frequent ones, and says so; a table has all', async () => {
    const page = await report(records({ truth }));
    const title = 'Pseudo labels per image, by class';
    const { series, chosenFrom } = chartsOf(page).get(title)!;
    const frequent = names.filter((_, i) => rate(i) >= 22);
    expect(series.map(({ label }) => label)).toEqual([
      ...frequent,
      ...frequent.map((name) => `${name}, annotated`),
    ]);
    expect(chosenFrom).toBe(30);
    expect(page).toContain(`<figcaption>${title} <small>the most frequent of 30</small>`);
    const rows = [...page.matchAll(/<tr><th>(class\d+)<\/th>((?:<td>[^<]*<\/td>)+)<\/tr>/g)];
    expect(rows).toHaveLength(60);
    const most = names[names.findIndex((_, i) => rate(i) === 29)]!;
    expect(rows[0]!.slice(1)).toEqual([most, '<td>0.290</td>']);
    expect(rows[29]!.slice(1)).toEqual(['class3', '<td>–</td>']);
    expect(rows[30]!.slice(1)).toEqual([most, '<td>29.000</td><td>29.000</td>']);
    expect(rows[59]!.slice(1)).toEqual(['class0', '<td>0.000</td><td>0.000</td>']);
  });

  test('charts stand before long tables, and behind short ones', async () => {
    const page = await report(records({}));
    const places = ['Test images, iteration 1', '<div id="charts">', 'AP of each class'];
    const found = places.map((text) => page.indexOf(text));
    expect(found.every((at) => at > 0)).toBe(true);
    expect(found).toEqual([...found].sort((a, b) => a - b));
    expect(page).not.toContain('<th>annotated</th>');
  });
});

test('of many warnings the newest are told, and how many there were', async () => {
  const page = await report(
    Array.from({ length: 1000 }, (_, i) => ({ type: 'warning', iteration: i, message: 'slow' })),
  );
  const lines = [...page.matchAll(/<li>(.*?)<\/li>/g)].map(([, text]) => text);
  expect(lines).toHaveLength(201);
  expect(lines.slice(0, 2)).toEqual([
    '800 earlier ones are in metrics.jsonl',
    'iteration 800: slow',
  ]);
});
