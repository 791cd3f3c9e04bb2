/** The page that a run leaves behind: numbers, curves, warnings and the config, in one file. */
import { open } from 'node:fs/promises';
import { basename, join, resolve } from 'node:path';
import { checkPath } from '../arguments.js';
import { MixplError } from '../errors.js';
import { ioError } from '../files.js';
import { wholeLines } from '../log/index.js';
import { writePage } from './page.js';
import { readRunConfig } from './run-config.js';
import { chartsOf, tablesOf, warningLines } from './run-metrics.js';
import { RunRecords } from './run-records.js';

/**
 * Writes `report.html` of a run's folder from its `metrics.jsonl` and `config.yaml`. The page loads
 * nothing from anywhere. Lines that are not JSON (a run that is being written) are passed over.
 * @returns the path of the page; null when the folder has no metrics
 * @throws MixplError ERR_IO; ERR_BAD_FILE for metrics that are not lines
 */
export async function writeRunReport(folder: string): Promise<string | null> {
  checkPath('writeRunReport', 'folder', folder);
  const records = await readRecords(join(folder, 'metrics.jsonl'));
  if (records.iteration === null) return null;
  const { text, name, iterations } = await readRunConfig(folder);
  const total = iterations !== null && iterations > records.iteration ? ` of ${iterations}` : '';
  const path = join(folder, 'report.html');
  await writePage(path, {
    title: name ?? basename(resolve(folder)),
    intro: `After ${records.iteration}${total} iterations.`,
    tables: tablesOf(records),
    charts: chartsOf(records),
    list: { title: 'Warnings', lines: warningLines(records) },
    ...(text ? { details: { title: 'Config', text } } : {}),
  });
  return path;
}

/** None without a file. */
async function readRecords(path: string): Promise<RunRecords> {
  const records = new RunRecords();
  try {
    await using file = await open(path);
    for await (const { text } of wholeLines(file, path)) records.add(text);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return records;
    throw cause instanceof MixplError ? cause : ioError(path, 'must be a readable file', cause);
  }
  return records;
}
