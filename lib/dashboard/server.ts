/** Runs in a browser, while they train: one page, and its numbers as server-sent events. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { MixplError } from '../errors.js';
import { html, plotAssets, tableHtml } from '../report/page.js';
import { chartsOf, tablesOf } from '../report/run-metrics.js';
import { compareCharts } from './compare.js';
import { dashboardHtml } from './page.js';
import { type RunSummary, RunsWatcher, type WatchedRun } from './runs.js';

/** What a dashboard shows, and where. */
export interface DashboardOptions {
  /** A run, or a folder with runs in it, up to three levels below. It may be empty as yet. */
  folder: string;
  /** @defaultValue '127.0.0.1': this machine alone */
  host?: string;
  /** 0: any that is free. @defaultValue 0 */
  port?: number;
  /** How often files are looked at. @defaultValue 1000 */
  intervalMs?: number;
}

/** A running dashboard. */
export interface Dashboard {
  /** Where the page is. */
  url: string;
  /** Ends the server and its connections. */
  close(): Promise<void>;
}

const headers = {
  'Cache-Control': 'no-store',
  'X-Content-Type-Options': 'nosniff',
  'Content-Security-Policy':
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; frame-ancestors 'none'",
};

/** A page that is open. */
interface Listener {
  chosen: ReadonlySet<string>;
  response: ServerResponse;
}

/**
 * Serves a page that lists the runs of a folder and draws the curves of those that are ticked, beside each
 * other, as they grow. It reads metrics.jsonl and config.yaml and gives out nothing else.
 * @throws MixplError ERR_IO when the port cannot be had
 */
export async function startDashboard(options: DashboardOptions): Promise<Dashboard> {
  const { folder, host = '127.0.0.1', port = 0, intervalMs = 1000 } = options;
  const watcher = new RunsWatcher(folder);
  const [assets] = await Promise.all([plotAssets(), watcher.update()]);
  const page = dashboardHtml(watcher.root, assets);
  const listeners = new Set<Listener>();
  const send = ({ chosen, response }: Listener) =>
    response.write(`data: ${JSON.stringify(contentOf(watcher, chosen))}\n\n`);
  // One look at the files at a time; nobody's page, no look.
  let looking = Promise.resolve();
  const look = (then: (changed: boolean) => void) => {
    looking = looking.then(async () => then((await watcher.update()).length > 0));
  };

  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://dashboard');
    const refusal = refusalOf(request, host);
    if (refusal) return answer(response, refusal, 'text/plain', `${refusal}\n`);
    if (url.pathname === '/') return answer(response, 200, 'text/html; charset=utf-8', page);
    if (url.pathname !== '/events') return answer(response, 404, 'text/plain', '404\n');
    response.writeHead(200, { ...headers, 'Content-Type': 'text/event-stream' });
    const listener = { chosen: new Set(url.searchParams.getAll('run')), response };
    listeners.add(listener);
    response.on('close', () => listeners.delete(listener));
    look(() => send(listener));
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) =>
      reject(
        new MixplError(
          'ERR_IO',
          `dashboard: port ${port} of ${host} must be free, got ${cause.code ?? cause.message}; try port 0, which is any free one`,
          { cause },
        ),
      ),
    );
    server.listen(port, host, resolve);
  });

  const timer = setInterval(() => {
    if (listeners.size > 0)
      look((changed) => {
        if (changed) for (const listener of listeners) send(listener);
      });
  }, intervalMs);
  const { port: bound } = server.address() as AddressInfo;
  return {
    url: `http://${host.includes(':') ? `[${host}]` : host}:${bound}/`,
    async close() {
      clearInterval(timer);
      await looking;
      for (const { response } of listeners) response.end();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      });
    },
  };
}

/**
 * A page of another site can make its visitors' browsers ask here, under its own name: only those of this
 * machine are answered, unless all the world was asked for.
 */
function refusalOf({ method, headers: asked }: IncomingMessage, host: string): number | null {
  if (method !== 'GET') return 405;
  const name = (asked.host ?? '').replace(/:\d+$/, '').replace(/^\[|\]$/g, '');
  const local = ['localhost', '127.0.0.1', '::1'].includes(host);
  return !local || ['localhost', '127.0.0.1', '::1'].includes(name) ? null : 403;
}

function answer(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, { ...headers, 'Content-Type': type }).end(body);
}

/** What a page shows: all runs, the charts of those that are chosen, the tables of a single one. */
function contentOf({ runs }: RunsWatcher, chosen: ReadonlySet<string>) {
  const names = runs.map(({ summary }) => summary.name);
  const labelOf = ({ id, name }: RunSummary) =>
    names.filter((other) => other === name).length > 1 ? `${name} (${id})` : name;
  const shown = runs.filter(({ id }) => chosen.has(id));
  return {
    runs: runs.map(({ summary }) => ({ ...summary, label: labelOf(summary) })),
    charts: compareCharts(
      shown.map(({ summary, records }) => ({ name: labelOf(summary), charts: chartsOf(records) })),
    ),
    ...(shown.length === 1 ? { one: oneHtml(shown[0]!) } : {}),
  };
}

function oneHtml({ records }: WatchedRun): string {
  const warnings = records.filter(({ type }) => type === 'warning');
  const lines = warnings.map((w) => `<li>iteration ${w.iteration}: ${html(w.message ?? '')}</li>`);
  const list = lines.length ? `<h2>Warnings</h2><ul>${lines.join('')}</ul>` : '';
  return `<div class="tables">${tablesOf(records).map(tableHtml).join('')}</div>${list}`;
}
