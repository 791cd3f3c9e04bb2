/** Runs in a browser, while they train: one page, and its numbers as server-sent events. */

import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { checkKeys, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { plotAssets } from '../report/page.js';
import { dashboardHtml } from './page.js';
import { type RunSummary, RunsWatcher, type RunView } from './runs.js';

/** What a dashboard shows, and where. */
export interface DashboardOptions {
  /** Folder of a run, or one with runs in it, up to three levels below. It may still be empty. */
  folder: string;
  /** Address to listen on. @defaultValue '127.0.0.1': this machine only */
  host?: string;
  /** Port to listen on; 0: any free one. @defaultValue 0 */
  port?: number;
  /** Milliseconds between looks at the files. @defaultValue 1000 */
  intervalMs?: number;
}

const optionKeys = keysOf<DashboardOptions>({ folder: 0, host: 0, port: 0, intervalMs: 0 });

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
  /** What it has: the list of runs, and views by the ids of their runs. */
  list: string;
  views: ReadonlyMap<string, RunView>;
}

/**
 * Serves a page that lists the runs of a folder and draws the curves of those that are ticked, side by
 * side, as they grow. It reads metrics.jsonl and config.yaml and gives out nothing else.
 * @throws MixplError ERR_IO when the port is not available
 */
export async function startDashboard(options: DashboardOptions): Promise<Dashboard> {
  checkKeys('startDashboard', options, optionKeys);
  const { folder, host = '127.0.0.1', port = 0, intervalMs = 1000 } = options;
  const watcher = new RunsWatcher(folder);
  const page = dashboardHtml(watcher.root, await plotAssets());
  const listeners = new Set<Listener>();
  // One look at the files at a time; nobody's page, no look.
  let looking = Promise.resolve();
  const look = () => {
    looking = looking
      .then(async () => {
        await watcher.update();
        for (const listener of listeners) send(listener, watcher);
      })
      // Pages that are open stay: the next look may fare better.
      .catch((error) => process.emitWarning(error));
  };

  const server = createServer((request, response) => {
    const base = 'http://dashboard';
    const { url: asked = '/' } = request;
    const refusal = refusalOf(request, host) ?? (URL.canParse(asked, base) ? null : 400);
    if (refusal) return answer(response, refusal, 'text/plain', `${refusal}\n`);
    const url = new URL(asked, base);
    if (url.pathname === '/') return answer(response, 200, 'text/html; charset=utf-8', page);
    if (url.pathname !== '/events') return answer(response, 404, 'text/plain', '404\n');
    response.writeHead(200, { ...headers, 'Content-Type': 'text/event-stream' });
    const chosen = new Set(url.searchParams.getAll('run'));
    const listener: Listener = { chosen, response, list: '', views: new Map() };
    listeners.add(listener);
    response.on('error', () => {}); // a page that goes; 'close' follows
    response.on('close', () => listeners.delete(listener));
    look();
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
  // A connection that cannot be taken, as where too many files are open, ends nothing.
  server.on('error', (error) => process.emitWarning(error));

  const timer = setInterval(() => {
    if (listeners.size > 0) look();
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

/** Sends what a page does not have yet: the list of runs, views of those that are chosen. */
function send(listener: Listener, { runs }: RunsWatcher): void {
  const { chosen, response } = listener;
  if (response.writableNeedDrain) return; // a slow page gets the next state instead
  const views = new Map(runs.filter(({ id }) => chosen.has(id)).map((run) => [run.id, run.view]));
  const list = JSON.stringify(labelled(runs.map(({ summary }) => summary)));
  const news = [...views].filter(([id, view]) => listener.views.get(id) !== view);
  if (list === listener.list && news.length === 0) return;
  response.write(`data: {"runs":${list},"views":${JSON.stringify(Object.fromEntries(news))}}\n\n`);
  Object.assign(listener, { list, views });
}

/** Runs of one name are told apart by their folders. */
function labelled(runs: readonly RunSummary[]): (RunSummary & { label: string })[] {
  const names = runs.map(({ name }) => name);
  return runs.map((run) => ({
    ...run,
    label:
      names.filter((name) => name === run.name).length > 1 ? `${run.name} (${run.id})` : run.name,
  }));
}
