import { appendFile, mkdir, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { compareCharts } from '../../../lib/dashboard/compare.js';
import { type Dashboard, startDashboard } from '../../../lib/dashboard/index.js';
import { RunsWatcher } from '../../../lib/dashboard/runs.js';
import { FolderLock } from '../../../lib/folder-lock.js';
import type { Chart } from '../../../lib/report/page.js';
import { temporaryFolder } from '../temporary-folder.js';

const step = (iteration: number, rest: object = {}) => ({
  ...{ type: 'step', iteration, total: 1 / iteration, seconds: 0.5, imagesPerSecond: 8 },
  ...rest,
});
const validation = (iteration: number, AP: number, best = true) => ({
  ...{ type: 'validation', iteration, headline: 'teacher', best },
  teacher: { AP, perClass: { cell: AP } },
  student: { AP: AP / 2, perClass: { cell: AP / 2 } },
});
const lines = (...records: object[]) => records.map((r) => `${JSON.stringify(r)}\n`).join('');

async function makeRun(root: string, id: string, ...records: object[]): Promise<string> {
  const folder = join(root, id);
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'metrics.jsonl'), lines(...records));
  return folder;
}

describe('runs', () => {
  test('are found down to three levels, with their names, lengths, metrics and warnings', async () => {
    const root = await temporaryFolder();
    const folder = await makeRun(root, 'a/b/c', step(50), validation(50, 0.4), step(100));
    await appendFile(join(folder, 'metrics.jsonl'), lines(validation(100, 0.3, false)));
    await writeFile(join(folder, 'config.yaml'), 'name: cells\nschedule: { iterations: 300 }\n');
    await makeRun(root, 'a/10', { type: 'warning', iteration: 0, message: 'slow' });
    await makeRun(root, 'a/9');
    await makeRun(root, 'a/b/c/d/e', step(1)); // within a run, and too deep
    await makeRun(root, '.hidden', step(1));
    const watcher = new RunsWatcher(root);
    await watcher.update();
    expect(watcher.runs.map(({ summary }) => summary)).toEqual([
      expect.objectContaining({ id: 'a/9', name: '9', iteration: 0, iterations: null, ap: null }),
      expect.objectContaining({ id: 'a/10', name: '10', warnings: 1 }),
      {
        ...{ id: 'a/b/c', name: 'cells', state: 'stopped', iteration: 100, iterations: 300 },
        ...{ ap: 0.3, bestAp: 0.4, imagesPerSecond: 8, secondsLeft: null, warnings: 0 },
        problem: null,
      },
    ]);
  });

  test('a folder that is a run shows itself', async () => {
    const root = await makeRun(await temporaryFolder(), 'one', step(1));
    const watcher = new RunsWatcher(root);
    await watcher.update();
    expect(watcher.runs.map(({ id }) => id)).toEqual(['.']);
  });

  test('only what is new is read, a half written line when it is whole', async () => {
    const root = await temporaryFolder();
    const folder = await makeRun(root, 'r', step(1));
    const path = join(folder, 'metrics.jsonl');
    const watcher = new RunsWatcher(root);
    expect(await watcher.update()).toEqual(['r']);
    expect(await watcher.update()).toEqual([]);
    const line = lines(step(2, { total: 'Zellkörper' }));
    const bytes = Buffer.from(line);
    const cut = bytes.indexOf(0xc3) + 1; // within a character
    await appendFile(path, bytes.subarray(0, cut));
    expect(await watcher.update()).toEqual([]);
    await appendFile(path, bytes.subarray(cut));
    expect(await watcher.update()).toEqual(['r']);
    const [{ records }] = watcher.runs as [(typeof watcher.runs)[number]];
    expect(records.steps.map(({ iteration }) => iteration)).toEqual([1, 2]);
    expect(records.steps[1]!.total).toBe('Zellkörper');
  });

  test('a run that goes on from an earlier checkpoint is read anew, one that is gone goes', async () => {
    const root = await temporaryFolder();
    const folder = await makeRun(root, 'r', step(1), step(2), step(3));
    const watcher = new RunsWatcher(root);
    await watcher.update();
    await writeFile(join(folder, 'metrics.jsonl'), lines(step(1)));
    expect(await watcher.update()).toEqual(['r']);
    const iterations = () => watcher.runs[0]!.records.steps.map(({ iteration }) => iteration);
    expect(iterations()).toEqual([1]);
    // Cut, and grown again beyond what was read.
    await truncate(join(folder, 'metrics.jsonl'));
    await appendFile(
      join(folder, 'metrics.jsonl'),
      lines(step(5, { seconds: 1 }), step(6), step(7)),
    );
    expect(await watcher.update()).toEqual(['r']);
    expect(iterations()).toEqual([5, 6, 7]);
    await rm(folder, { recursive: true });
    expect(await watcher.update()).toEqual(['r']);
    expect(watcher.runs).toEqual([]);
  });

  test('one that somebody writes into trains, and says how long it will', async () => {
    const root = await temporaryFolder();
    const folder = await makeRun(root, 'r', step(100));
    await writeFile(join(folder, 'config.yaml'), 'schedule: { iterations: 300 }\n');
    const watcher = new RunsWatcher(root);
    const lock = await FolderLock.take(folder);
    await watcher.update();
    expect(watcher.runs[0]!.summary).toMatchObject({ state: 'training', secondsLeft: 100 });
    await lock.release();
    expect(await watcher.update()).toEqual(['r']);
    expect(watcher.runs[0]!.summary).toMatchObject({ state: 'stopped', secondsLeft: null });
    await appendFile(join(folder, 'metrics.jsonl'), lines(step(300)));
    expect(await watcher.update()).toEqual(['r']);
    expect(watcher.runs[0]!.summary).toMatchObject({ state: 'ended', secondsLeft: null });
  });

  test('one that begins has its name and length before its first record', async () => {
    const root = await temporaryFolder();
    const folder = await makeRun(root, 'r');
    const watcher = new RunsWatcher(root);
    const lock = await FolderLock.take(folder);
    expect(await watcher.update()).toEqual(['r']);
    await writeFile(join(folder, 'config.yaml'), 'name: cells\nschedule: { iterations: 300 }\n');
    expect(await watcher.update()).toEqual(['r']);
    expect(watcher.runs[0]!.summary).toMatchObject({ name: 'cells', iterations: 300 });
    expect(await watcher.update()).toEqual([]);
    await lock.release();
  });

  test('very many lines', async () => {
    const root = await temporaryFolder();
    const folder = await makeRun(root, 'r');
    const many = Array.from(
      { length: 150_000 },
      (_, i) => `{"type":"step","iteration":${i + 1}}\n`,
    );
    await writeFile(join(folder, 'metrics.jsonl'), many.join(''));
    const watcher = new RunsWatcher(root);
    await watcher.update();
    expect(watcher.runs[0]!.summary).toMatchObject({ iteration: 150_000, problem: null });
    expect(watcher.runs[0]!.records.steps.length).toBeLessThanOrEqual(1001);
  });

  test('one that cannot be read says why, and hides no other', async () => {
    const root = await temporaryFolder();
    const folder = await makeRun(root, 'a', step(3));
    await makeRun(root, 'b', step(1));
    const path = join(folder, 'metrics.jsonl');
    const watcher = new RunsWatcher(root);
    await watcher.update();
    await truncate(path, 70 << 20);
    expect(await watcher.update()).toEqual(['a']);
    expect(watcher.runs.map(({ summary }) => summary)).toMatchObject([
      {
        ...{ id: 'a', iteration: 3 },
        problem: expect.stringMatching(
          /metrics\.jsonl: lines must have at most 64 MiB, got a longer one at byte/,
        ),
      },
      { id: 'b', iteration: 1, problem: null },
    ]);
    expect(await watcher.update()).toEqual([]); // nor is it tried again
    expect(watcher.runs[0]!.summary.problem).not.toBeNull();
    await writeFile(path, lines(step(4)));
    expect(await watcher.update()).toEqual(['a']);
    expect(watcher.runs[0]!.summary).toMatchObject({ iteration: 4, problem: null });
  });

  test('one that could not be read for a while is shown again, unchanged as it is', async () => {
    const root = await temporaryFolder();
    const path = join(await makeRun(root, 'a', step(3)), 'metrics.jsonl');
    const watcher = new RunsWatcher(root);
    await watcher.update();
    await rename(path, `${path}.kept`);
    await symlink('metrics.jsonl', path); // to itself: ELOOP
    const run = watcher.runs[0]!;
    await run.update();
    expect(run.summary.problem).toContain('ELOOP');
    await rename(`${path}.kept`, path);
    expect(await run.update()).toBe(true);
    expect(run.summary).toMatchObject({ iteration: 3, problem: null });
    expect(run.view.charts.length).toBeGreaterThan(0);
  });

  test('nor does one with lines of another kind', async () => {
    const root = await temporaryFolder();
    const odd = { type: 'warning', iteration: 2, message: { toString: 1, valueOf: 1 } };
    const folder = await makeRun(
      root,
      'a',
      odd,
      ...Array.from({ length: 1001 }, (_, i) => step(i + 3)),
    );
    const watcher = new RunsWatcher(root);
    await watcher.update();
    const run = watcher.runs[0]!;
    const nothing = { charts: [], above: '', below: '' };
    const unshown = { problem: expect.stringContaining('to primitive value') };
    expect(run.view).toEqual(nothing);
    expect(run.summary).toMatchObject({ iteration: 1003, ...unshown });
    // A step that is thinned away.
    await appendFile(join(folder, 'metrics.jsonl'), lines(step(1004)));
    expect(await watcher.update()).toEqual(['a']);
    expect(run.view).toEqual(nothing);
    expect(run.summary).toMatchObject({ iteration: 1004, ...unshown });
  });

  test('what is shown of one is made again when there is more of it alone', async () => {
    const root = await temporaryFolder();
    const folder = await makeRun(root, 'r');
    const path = join(folder, 'metrics.jsonl');
    await writeFile(path, lines(...Array.from({ length: 2000 }, (_, i) => step(i + 1))));
    const watcher = new RunsWatcher(root);
    await watcher.update();
    const { view } = watcher.runs[0]!;
    // Of four steps one is shown, the next is: the 2001st.
    const news = [true, false, false, false, true];
    for (const [i, isNew] of news.entries()) {
      const before = watcher.runs[0]!.view;
      await appendFile(path, lines(step(2001 + i)));
      expect(await watcher.update()).toEqual(['r']);
      expect(watcher.runs[0]!.view !== before).toBe(isNew);
    }
    expect(watcher.runs[0]!.view).not.toBe(view);
    const before = watcher.runs[0]!.view;
    await appendFile(path, lines(validation(2005, 0.5)));
    await watcher.update();
    expect(watcher.runs[0]!.view).not.toBe(before);
    expect(watcher.runs[0]!.view.below).toContain('Test images, iteration 2005');
  });

  test('a config that cannot be read hides no run', async () => {
    const root = await temporaryFolder();
    const folder = await makeRun(root, 'r', step(7));
    await writeFile(join(folder, 'config.yaml'), 'name: [');
    const watcher = new RunsWatcher(root);
    await watcher.update();
    expect(watcher.runs[0]!.summary).toMatchObject({ name: 'r', iteration: 7, iterations: null });
  });
});

describe('charts of several runs', () => {
  const chart = (title: string, x: number[], label = 'all'): Chart => ({
    title,
    x,
    series: [{ label, values: x.map((v) => 10 * v) }],
    range: [0, 1],
  });

  test('lines of a kind come together over all their iterations, in the colours of their runs', () => {
    const truth = { label: 'all, annotated', values: [1, 1], dashed: true, like: 'all' };
    const first = chart('Loss', [1, 3]);
    first.series.push(truth);
    const charts = compareCharts([
      { name: 'a', colour: 4, charts: [first] },
      { name: 'b', colour: 2, charts: [chart('Loss', [2, 3]), chart('Labels', [2])] },
    ]);
    expect(charts).toEqual([
      {
        ...{ title: 'Loss', x: [1, 2, 3], range: [0, 1] },
        series: [
          { label: 'a', values: [10, null, 30], colour: 4 },
          { ...truth, label: 'a: all, annotated', values: [1, null, 1], colour: 4 },
          { label: 'b', values: [null, 20, 30], colour: 2 },
        ],
      },
      {
        ...{ title: 'Labels', x: [2], range: [0, 1] },
        series: [{ label: 'b', values: [20], colour: 2 }],
      },
    ]);
  });

  test('each kind of line has a chart of its own, over the iterations of those that have it', () => {
    const both = chart('Loss', [1, 2], 'cls');
    both.series.push({ label: 'bbox', values: [5, 6] });
    const charts = compareCharts([
      { name: 'a', colour: 0, charts: [both] },
      { name: 'b', colour: 1, charts: [chart('Loss', [3], 'cls')] },
    ]);
    expect(charts.map(({ title, x, series }) => [title, x, series.map((s) => s.label)])).toEqual([
      ['Loss: cls', [1, 2, 3], ['a', 'b']],
      ['Loss: bbox', [1, 2], ['a']],
    ]);
  });

  test('of lines chosen from many those come together that every run has', () => {
    const classes = (...labels: string[]): Chart => ({
      ...{ title: 'Labels', x: [1], chosenFrom: 80 },
      series: labels.flatMap((label) => [
        { label, values: [1] },
        { label: `${label}, annotated`, values: [1], like: label },
      ]),
    });
    const blind: Chart = { ...chart('Labels', [1], 'dog'), chosenFrom: 80 };
    const runs = [classes('cat', 'dog'), classes('dog', 'emu'), blind];
    const charts = compareCharts(
      runs.map((one, i) => ({ name: 'abc'[i]!, colour: i, charts: [one] })),
    );
    expect(charts).toMatchObject([{ title: 'Labels: dog' }]);
    expect(charts[0]).not.toHaveProperty('chosenFrom');
    expect(charts[0]!.series.map(({ label }) => label)).toEqual([
      ...['a', 'a: dog, annotated', 'b', 'b: dog, annotated', 'c'],
    ]);
    const apart = ['cat', 'dog'].map((name) => ({ name, colour: 0, charts: [classes(name)] }));
    expect(compareCharts(apart)).toEqual([]);
  });

  test('a single run keeps its labels; no run has no chart', () => {
    const charts = [chart('Loss', [1])];
    expect(compareCharts([{ name: 'a', colour: 0, charts }])).toEqual(charts);
    expect(compareCharts([])).toEqual([]);
  });

  test('the page has the function as text: it needs nothing beside itself', () => {
    const charts = [chart('Loss', [1, 3])];
    const runs = ['a', 'b'].map((name, colour) => ({ name, colour, charts }));
    const alone = new Function(`return ${compareCharts}`)();
    expect(alone(runs)).toEqual(compareCharts(runs));
  });
});

describe('server', () => {
  let dashboard: Dashboard | undefined;
  afterEach(() => dashboard?.close());

  test('gives the page and nothing else', async () => {
    const root = await temporaryFolder();
    await writeFile(join(root, 'secret.txt'), 'secret');
    dashboard = await startDashboard({ folder: root });
    const page = await fetch(dashboard.url);
    expect(page.headers.get('content-security-policy')).toContain("default-src 'none'");
    const text = await page.text();
    expect(text).toContain('<table id="runs">');
    for (const [, script] of text.matchAll(/<script>(.*?)<\/script>/gs))
      expect(() => new Function(script!)).not.toThrow(); // no browser reads it here
    for (const path of ['secret.txt', '../secret.txt', '%2e%2e/secret.txt', 'metrics.jsonl'])
      expect((await fetch(dashboard.url + path)).status).toBe(404);
    expect((await fetch(dashboard.url, { method: 'POST' })).status).toBe(405);
  });

  test('answers no page of another site', async () => {
    dashboard = await startDashboard({ folder: await temporaryFolder() });
    const { port } = new URL(dashboard.url);
    const statusFor = (host: string, path = '/') =>
      new Promise((resolve, reject) =>
        request({ port, host: '127.0.0.1', path, headers: { host } }, (response) =>
          resolve(response.resume().statusCode),
        )
          .on('error', reject)
          .end(),
      );
    expect(await statusFor(`rebound.example:${port}`)).toBe(403);
    expect(await statusFor(`localhost:${port}`)).toBe(200);
    // No URL: nothing to look at for strangers either.
    for (const path of ['//', 'http://[']) {
      expect(await statusFor('rebound.example', path)).toBe(403);
      expect(await statusFor(`localhost:${port}`, path)).toBe(400);
    }
  });

  test('sends what is chosen, and again when it grows', async () => {
    const root = await temporaryFolder();
    const folder = await makeRun(root, 'r', step(1), validation(1, 0.5), {
      ...{ type: 'warning', iteration: 1, message: '<b>slow</b>' },
    });
    await makeRun(root, 's', step(1));
    dashboard = await startDashboard({ folder: root, intervalMs: 20 });
    const events = await fetch(`${dashboard.url}events?run=r`);
    expect(events.headers.get('content-type')).toBe('text/event-stream');
    const messages = messagesOf(events);
    const first = await messages.next();
    expect(first.value.runs).toMatchObject([{ id: 'r', label: 'r' }, { id: 's' }]);
    expect(Object.keys(first.value.views)).toEqual(['r']);
    const { charts, above } = first.value.views.r;
    expect(charts[0]).toMatchObject({ x: [1], series: [{ label: 'AP' }] });
    expect(above).toContain('iteration 1: &lt;b&gt;slow&lt;/b&gt;');
    await appendFile(join(folder, 'metrics.jsonl'), lines(step(2)));
    const second = await messages.next();
    expect(second.value.runs[0]).toMatchObject({ iteration: 2 });
    expect(second.value.views.r.charts[1]).toMatchObject({ title: 'Total loss', x: [1, 2] });
    await messages.return(undefined);
  });

  test('of runs that have not changed nothing is sent again, of others a line of the list', async () => {
    const root = await temporaryFolder();
    const folders = await Promise.all(['a', 'b', 'c'].map((id) => makeRun(root, id, step(1))));
    dashboard = await startDashboard({ folder: root, intervalMs: 20 });
    const messages = messagesOf(await fetch(`${dashboard.url}events?run=a&run=b`));
    const grow = async (which: number) => {
      await appendFile(join(folders[which]!, 'metrics.jsonl'), lines(step(2)));
      const { runs, views } = (await messages.next()).value;
      expect(runs[which]).toMatchObject({ iteration: 2 });
      return Object.keys(views);
    };
    expect(Object.keys((await messages.next()).value.views)).toEqual(['a', 'b']);
    expect(await grow(1)).toEqual(['b']);
    expect(await grow(2)).toEqual([]);
    expect(await grow(0)).toEqual(['a']);
    await messages.return(undefined);
  });

  test('goes on after a look at the files that fails', async () => {
    const root = await temporaryFolder();
    await makeRun(root, 'r', step(1));
    const told = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined);
    const fails = vi
      .spyOn(RunsWatcher.prototype, 'update')
      .mockRejectedValueOnce(new Error('lost'));
    try {
      dashboard = await startDashboard({ folder: root, intervalMs: 20 });
      const messages = messagesOf(await fetch(`${dashboard.url}events?run=r`));
      expect((await messages.next()).value.runs).toMatchObject([{ id: 'r' }]);
      expect(told).toHaveBeenCalledWith(new Error('lost'));
      await messages.return(undefined);
    } finally {
      fails.mockRestore();
      told.mockRestore();
    }
  });

  test('runs of one name are told apart by their folders', async () => {
    const root = await temporaryFolder();
    for (const id of ['a', 'b'])
      await writeFile(join(await makeRun(root, id, step(1)), 'config.yaml'), 'name: same\n');
    dashboard = await startDashboard({ folder: root });
    const messages = messagesOf(await fetch(`${dashboard.url}events?run=a&run=b`));
    const { value } = await messages.next();
    expect(value.runs).toMatchObject([{ label: 'same (a)' }, { label: 'same (b)' }]);
    await messages.return(undefined);
  });

  test('a port that is taken is named', async () => {
    const folder = await temporaryFolder();
    dashboard = await startDashboard({ folder });
    const port = Number(new URL(dashboard.url).port);
    await expect(startDashboard({ folder, port })).rejects.toMatchObject({
      code: 'ERR_IO',
      message: `dashboard: port ${port} of 127.0.0.1 must be free, got EADDRINUSE; try port 0, which is any free one`,
    });
  });

  test('closing ends open pages', async () => {
    const folder = await temporaryFolder();
    await makeRun(folder, 'r', step(1));
    dashboard = await startDashboard({ folder });
    const messages = messagesOf(await fetch(`${dashboard.url}events`));
    await messages.next();
    await Promise.race([dashboard.close(), sleep(5000).then(() => expect.fail('still open'))]);
    dashboard = undefined;
    expect((await messages.next()).done).toBe(true);
  });
});

/** What server-sent events carry. */
// biome-ignore lint/suspicious/noExplicitAny: JSON, which the tests look into
async function* messagesOf(response: Response): AsyncGenerator<any, void, undefined> {
  let text = '';
  const decoder = new TextDecoder();
  for await (const bytes of response.body!) {
    text += decoder.decode(bytes as Uint8Array, { stream: true });
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      yield JSON.parse(text.slice('data: '.length, end));
      text = text.slice(end + 2);
    }
  }
}
