import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parse } from 'yaml';

/** What a page says of a run beside its metrics. */
export interface RunConfig {
  text: string;
  name: string | null;
  iterations: number | null;
}

/** Of a run's folder; nothing is known where there is no config.yaml, or somebody's own. */
export async function readRunConfig(folder: string): Promise<RunConfig> {
  const text = await readFile(join(folder, 'config.yaml'), 'utf8').catch(() => '');
  let config: { name?: unknown; schedule?: { iterations?: unknown } } | null = null;
  try {
    config = parse(text);
  } catch {} // the run is shown all the same
  const name = config?.name;
  const iterations = config?.schedule?.iterations;
  return {
    text,
    name: typeof name === 'string' ? name : null,
    iterations: typeof iterations === 'number' ? iterations : null,
  };
}
