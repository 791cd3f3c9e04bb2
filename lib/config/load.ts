import { access } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { Document, visit } from 'yaml';
import { checkKeys, checkPath, keysOf } from '../arguments.js';
import { torchvisionPresets } from '../detector/torchvision.js';
import { MixplError } from '../errors.js';
import { isMapping, type Mapping, merge, mergeAt } from './merge.js';
import type { Path } from './path.js';
import { listPresets, presetFile } from './presets.js';
import { describeIssues, type Locate } from './problems.js';
import { configSchema, type ResolvedConfig, type RunConfig } from './schema.js';
import { type Layer, parseOverride, readYamlLayer } from './source.js';
import { overTorchvision } from './torchvision.js';

/** How a config is read. */
export interface LoadOptions {
  /** `a.b=value` each; they override everything else. @defaultValue [] */
  overrides?: readonly string[];
  /** Folder that file names in `source` and `overrides` start from. @defaultValue process.cwd() */
  cwd?: string;
  /** `data` may be missing (a preset, or only the detector is asked for). @defaultValue false */
  withoutData?: boolean;
}

const optionKeys = keysOf<LoadOptions>({ overrides: 0, cwd: 0, withoutData: 0 });

/** What stands for the data of a config that may be without. */
const placeholder = 'YOUR-LABELS.json';
const noData: Mapping = {
  data: {
    labelled: { format: 'coco', annotations: placeholder },
    unlabelled: { format: 'folder', images: '.' },
  },
};

/**
 * What is missing of a config that was read `withoutData` and has none, and what to write; null when it
 * has some.
 * @param source as it was asked for
 */
export function missingData({ data }: ResolvedConfig, source: string): string | null {
  const { labelled } = data;
  if (labelled.format !== 'coco' || labelled.annotations !== placeholder) return null;
  return needsLabelled(source, /\.ya?ml$/i.test(source) ? undefined : source);
}

/** @param preset that a file would start from */
function needsLabelled(place: string, preset?: string): string {
  const labelled = '{ format: coco, annotations: labels.json, images: photos }';
  const start = preset?.includes('/') ? `model: { preset: ${preset} }` : `extends: ${preset}`;
  const lines = [
    ...(preset === undefined ? [] : [start]),
    'data:',
    `  labelled: ${labelled}`,
    '  unlabelled: { format: folder, images: more-photos }',
  ];
  const where =
    preset === undefined ? 'for example:' : 'for example in a file of your own, mine.yaml:';
  return [
    `${place}: data.labelled must be given (the annotated images), got nothing; ${where}`,
    ...lines.map((line) => `    ${line}`),
    `  or use --set 'data.labelled=${labelled}', and --set for data.unlabelled likewise`,
  ].join('\n');
}

/** Problems shown at once. */
const maxProblems = 10;

/**
 * Reads a config: a YAML file (with what it `extends`) or a preset's name (`torchvision/…` too, whose
 * configs say nothing but `model.preset`), then the overrides.
 * `data.root` and `model.weights` come out absolute: they start from the file that names them, in an
 * override from `cwd`; without a `data.root` the data starts from the config's folder.
 *
 * @throws MixplError ERR_IO, ERR_CONFIG: one line per problem, with file:line:column
 */
export async function loadConfig(
  source: string,
  options: LoadOptions = {},
): Promise<ResolvedConfig> {
  checkPath('loadConfig', 'source', source);
  checkKeys('loadConfig', options, optionKeys);
  const { overrides = [], cwd = process.cwd(), withoutData = false } = options;
  const network = torchvisionPresets.find((name) => name === source);
  const isFile = !(await isPreset(source));
  const file = isFile ? await configFile(source, cwd) : (network ?? (await presetFile(source)));
  const layers = network
    ? [{ value: { model: { preset: network } }, locate: () => undefined }]
    : await readChain(file, []);
  let value: unknown = {};
  for (const layer of layers) value = merge(value, layer.value);

  for (const text of overrides) {
    const { path, value: written, label } = parseOverride(text);
    const alone = withAbsolutePaths(mergeAt({}, path, written), cwd);
    value = mergeAt(value, path, valueAt(alone, path));
    layers.push(overrideLayer(path, written, label));
  }
  const base = isFile ? dirname(file) : cwd;
  if (isMapping(value) && isMapping(value.data) && !('root' in value.data))
    value = mergeAt(value, ['data', 'root'], base);
  const locate: Locate = (...paths) => locateIn(layers, paths) ?? (isFile ? file : source);
  if (!lacksLabelled(value)) return validate(value, locate);
  // The schema of a run needs data; what else is wrong is told, too.
  const { labelled: _, ...otherData } = (value.data ?? {}) as Mapping;
  const complete = merge(noData, { ...value, data: otherData });
  if (withoutData) return validate(complete, locate);
  const needed = needsLabelled(locate(['data', 'labelled']), isFile ? undefined : source);
  throw new MixplError('ERR_CONFIG', [needed, ...check(complete, locate).problems].join('\n'));
}

/** It has no place of the labelled images, rather than a wrong one. */
function lacksLabelled(value: unknown): value is Mapping {
  if (!isMapping(value)) return false;
  const data = value.data ?? {};
  return isMapping(data) && (data.labelled ?? null) === null;
}

/** Checks a config that is already a value, and fills in its defaults. @throws MixplError ERR_CONFIG */
export function parseConfig(config: RunConfig): ResolvedConfig {
  return validate(config, () => 'config');
}

/** The config as YAML; loadConfig of it gives the same config. */
export function formatConfig(config: ResolvedConfig): string {
  const document = new Document(config);
  visit(document, {
    Seq(_, list) {
      list.flow = true;
    },
  });
  return document.toString({ lineWidth: 100 });
}

/** @throws MixplError ERR_CONFIG */
function validate(written: unknown, locate: Locate): ResolvedConfig {
  const checked = check(written, locate);
  if (checked.config) return checked.config;
  throw new MixplError('ERR_CONFIG', checked.problems.join('\n'));
}

function check(
  written: unknown,
  locate: Locate,
): { config: ResolvedConfig | null; problems: string[] } {
  // The kind of a union has no default in the schema.
  const bare = isMapping(written) && isMapping(written.optimizer) && !written.optimizer.type;
  const value = overTorchvision(bare ? merge({ optimizer: { type: 'sgd' } }, written) : written);
  const result = configSchema.safeParse(value);
  if (result.success) return { config: result.data, problems: [] };
  const problems = describeIssues(result.error.issues, configSchema, value, locate);
  const shown = problems.slice(0, maxProblems);
  if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`);
  return { config: null, problems: shown };
}

/** An override says where for its option, what is inside, and what it creates around it. */
function overrideLayer(path: readonly string[], value: unknown, label: string): Layer {
  return {
    value,
    locate: (wanted) => {
      const shared = Math.min(path.length, wanted.length);
      const same = path.slice(0, shared).every((key, i) => key === String(wanted[i]));
      return same && shared > 0 ? label : undefined;
    },
  };
}

/**
 * The last layer that has one of the options says where, for the first of them that it has. When nobody
 * wrote any, the section of the first one is the place.
 */
function locateIn(layers: readonly Layer[], paths: readonly Path[]): string | undefined {
  const [first = []] = paths;
  const sections = first.map((_, i) => [first.slice(0, first.length - i - 1)]);
  for (const wanted of [paths, ...sections])
    for (const layer of layers.toReversed())
      for (const path of wanted) {
        const place = path.length > 0 ? layer.locate(path) : undefined;
        if (place) return place;
      }
  return undefined;
}

/** The file and what it extends, the most basic first. */
async function readChain(file: string, from: readonly string[]): Promise<Layer[]> {
  if (from.includes(file))
    throw new MixplError(
      'ERR_CONFIG',
      `extends must not lead back to its own file, got ${[...from, file].join(' → ')}`,
    );
  const layer = await readYamlLayer(file);
  const { extends: parent, ...own } = layer.value as Mapping;
  const place = layer.locate(['extends']) ?? file;
  if (parent !== undefined && typeof parent !== 'string')
    throw new MixplError(
      'ERR_CONFIG',
      `${place}: extends must be the name of a preset or a file, got ${JSON.stringify(parent)}`,
    );
  const value = withAbsolutePaths(own, dirname(file));
  const layers: Layer[] = [{ value, locate: (path) => layer.locate(path) }];
  if (parent === undefined) return layers;
  let parentFile: string;
  try {
    parentFile = looksLikeFile(parent) ? resolve(dirname(file), parent) : await presetFile(parent);
    if (looksLikeFile(parent) && !(await exists(parentFile)))
      throw new MixplError('ERR_CONFIG', `extends names a file that does not exist: ${parentFile}`);
  } catch (error) {
    if (error instanceof MixplError) throw new MixplError(error.code, `${place}: ${error.message}`);
    throw error;
  }
  return [...(await readChain(parentFile, [...from, file])), ...layers];
}

/** File names in options that do not start from data.root. */
const rootedOptions: readonly Path[] = [
  ['data', 'root'],
  ['model', 'weights'],
];

function withAbsolutePaths(value: unknown, base: string): unknown {
  let out = value;
  for (const [section, option] of rootedOptions as [string, string][]) {
    const inner = isMapping(out) ? out[section] : undefined;
    const written = isMapping(inner) ? inner[option] : undefined;
    if (typeof written === 'string') out = mergeAt(out, [section, option], resolve(base, written));
  }
  return out;
}

function valueAt(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>((inner, key) => (inner as Mapping)[key], value);
}

/** A name without extension may still be a file. @throws MixplError ERR_CONFIG, ERR_IO */
async function configFile(source: string, cwd: string): Promise<string> {
  const file = resolve(cwd, source);
  const ofTorchvision = source.startsWith('torchvision/');
  if ((looksLikeFile(source) && !ofTorchvision) || (await exists(file))) return file;
  return presetFile(source);
}

/** Whether `name` is that of a config that comes with mixpl, or of a network of torchvision's. */
export async function isPreset(name: string): Promise<boolean> {
  if (torchvisionPresets.some((preset) => preset === name)) return true;
  return !looksLikeFile(name) && (await listPresets()).some((preset) => preset.name === name);
}

function looksLikeFile(name: string): boolean {
  return /[/\\]|\.ya?ml$/i.test(name);
}

async function exists(file: string): Promise<boolean> {
  return access(file).then(
    () => true,
    () => false,
  );
}
