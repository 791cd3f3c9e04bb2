/** The page that a run leaves behind: numbers, curves, warnings and the config, in one file. */
import { readFile } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { writePage } from './page.js';
import { chartsOf, type MetricsRecord, tablesOf } from './run-metrics.js';

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
  const warnings = records.filter((r) => r.type === 'warning');
  const path = join(folder, 'report.html');
  await writePage(path, {
    title: /^name: *(.+)$/m.exec(config)?.[1] ?? basename(resolve(folder)),
    intro: `After ${Math.max(...records.map((r) => r.iteration))} iterations.`,
    tables: tablesOf(records),
    charts: chartsOf(records),
    list: {
      title: 'Warnings',
      lines: warnings.map((w) => `iteration ${w.iteration}: ${w.message ?? ''}`),
    },
    ...(config ? { details: { title: 'Config', text: config } } : {}),
  });
  return path;
}

async function textOf(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}

/** None of a line that is not whole. */
export function parseLine(line: string): MetricsRecord[] {
  try {
    return [JSON.parse(line) as MetricsRecord];
  } catch {
    return [];
  }
}
