// Options as a list: mixpl config --options and docs/configuration.md.
import { expect, test } from 'vitest';
import { listPresets, loadConfig } from '../../../lib/config/index.js';
import { listOptions } from '../../../lib/config/option-list.js';
import { referencePage } from './reference-page.js';

test('docs/configuration.md is the page of the schema', async () => {
  await expect(referencePage(listOptions())).toMatchFileSnapshot('../../../docs/configuration.md');
});

test('an option is told once, or with what tells its kinds apart', () => {
  const seen = new Set<string>();
  for (const { path, only, description } of listOptions()) {
    expect(description, `meaning of ${path}`).not.toBe('');
    const key = `${path} ${only.join()}`;
    expect(seen, key).not.toContain(key);
    seen.add(key);
  }
  const rate = { path: 'optimizer.lr', values: 'number > 0' };
  expect(listOptions('optimizer.lr')).toMatchObject([
    { ...rate, default: '0.01', only: ['optimizer.type: sgd'] },
    { ...rate, default: '0.0001', only: ['optimizer.type: adamw'] },
  ]);
  expect(listOptions('semi.ema').map(({ path }) => path)).toEqual([
    ...['semi.ema.momentum', 'semi.ema.gamma', 'semi.ema.interval', 'semi.ema.buffers'],
  ]);
  expect(listOptions('semi.em')).toEqual([]);
});

test('every option of every preset is in the list', async () => {
  const known = new Set(listOptions().map(({ path }) => path));
  const has = (path: string): boolean =>
    known.has(path) || (path.includes('.') && isList(path) && has(parentOf(path)));
  // What a list holds has no path of its own.
  const isList = (path: string) => /\.\d+(\.|$)/.test(path);
  const parentOf = (path: string) => path.slice(0, path.lastIndexOf('.'));
  let counted = 0;
  for (const { name, file } of await listPresets()) {
    if (!file) continue;
    const config = await loadConfig(name, { withoutData: true });
    for (const path of leaves(config, '')) {
      expect(has(path), `${path} of ${name}`).toBe(true);
      counted++;
    }
  }
  expect(counted).toBeGreaterThan(1000);
});

function leaves(value: unknown, path: string): string[] {
  if (typeof value !== 'object' || value === null) return [path];
  if (Object.keys(value).length === 0) return [];
  return Object.entries(value).flatMap(([key, of]) => leaves(of, path ? `${path}.${key}` : key));
}
