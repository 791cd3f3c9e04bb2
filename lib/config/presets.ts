import { readdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { torchvisionPresets } from '../detector/torchvision.js';
import { MixplError, nearestName } from '../errors.js';

/** A config that comes with the package. */
export interface Preset {
  name: string;
  /** The first line of its file. */
  description: string;
  file: string;
}

/** The configs that come with the package, by name. */
export async function listPresets(): Promise<Preset[]> {
  const directory = join(dirname(fileURLToPath(import.meta.url)), 'presets');
  const names = (await readdir(directory)).filter((file) => file.endsWith('.yaml'));
  const presets = names.map(async (base) => {
    const file = join(directory, base);
    const [first = ''] = (await readFile(file, 'utf8')).split('\n', 1);
    return {
      name: base.slice(0, -'.yaml'.length),
      description: first.replace(/^#\s*/, ''),
      file,
    };
  });
  const byName = new Intl.Collator('en', { numeric: true });
  return (await Promise.all(presets)).sort((a, b) => byName.compare(a.name, b.name));
}

/** The file of a preset. @throws MixplError ERR_CONFIG naming the nearest */
export async function presetFile(name: string): Promise<string> {
  const presets = await listPresets();
  const preset = presets.find((entry) => entry.name === name);
  if (preset) return preset.file;
  const names = [...torchvisionPresets, ...presets.map((entry) => entry.name)];
  const near = nearestName(name, names);
  throw new MixplError(
    'ERR_CONFIG',
    `there is no preset '${name}' and no file of that name; ${near ? `nearest is ${near}` : `presets are ${names.join(', ')}`}`,
  );
}
