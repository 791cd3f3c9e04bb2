/** Every option of a config in a flat list, made of its schema: for people, where JSON Schema is for editors. */
import { jsonSchema } from './schema.js';

/** An option, or the same option of several kinds of a section. */
export interface ConfigOption {
  /** Dotted, as `--set` takes it. */
  path: string;
  /** Values that it may have, e.g. 'integer ≥ 1', "'skip', 'copy' or 'average'". */
  values: string;
  /** As YAML would have it; null where it has none. */
  default: string | null;
  description: string;
  /** Kinds of the sections around it that have it, outermost first, e.g. 'model.type: fcos, atss'; empty: all. */
  only: string[];
}

/** As much of JSON Schema as the schema of a config uses. */
interface Part {
  type?: string;
  const?: unknown;
  enum?: unknown[];
  anyOf?: Part[];
  properties?: Record<string, Part>;
  items?: Part | Part[];
  default?: unknown;
  description?: string;
  minimum?: number;
  maximum?: number;
  exclusiveMinimum?: number;
  exclusiveMaximum?: number;
  multipleOf?: number;
}

/** @param below path of a section or an option; '' for all */
export function listOptions(below = ''): ConfigOption[] {
  const all = optionsOf(jsonSchema() as Part, '');
  return all.filter(({ path }) => below === '' || path === below || path.startsWith(`${below}.`));
}

function optionsOf(part: Part, path: string): ConfigOption[] {
  const kinds = kindsOf(part);
  const sections = kinds.filter(({ properties }) => properties);
  if (sections.length === 0) return [optionOf(part, path, kinds)];
  const key = discriminatorOf(sections);
  // A section that may be something else, or has forms without a name, is an option itself.
  const own = kinds.length > sections.length || (sections.length > 1 && !key);
  return [...(own ? [optionOf(part, path, kinds)] : []), ...optionsOfKinds(part, sections, path)];
}

function optionsOfKinds(part: Part, sections: readonly Part[], path: string): ConfigOption[] {
  const key = discriminatorOf(sections);
  const each = sections.map((section) => propertiesOf(section, path));
  if (sections.length === 1) return each[0]!;
  if (!key) return merged(each, sections.map(keysOf), path);
  const names = sections.map((section) => String(section.properties![key]!.const));
  const kind = { path: `${path}.${key}`, values: alternatives(names), only: [] };
  const chosen = (part.default as Record<string, unknown> | undefined)?.[key];
  const options = merged(each, names, kind.path).filter((option) => option.path !== kind.path);
  const said = described(sections[0]!.properties![key]!);
  return [{ ...kind, ...said, ...(chosen ? { default: String(chosen) } : {}) }, ...options];
}

function propertiesOf(section: Part, path: string): ConfigOption[] {
  return Object.entries(section.properties!).flatMap(([name, part]) =>
    optionsOf(part, path === '' ? name : `${path}.${name}`),
  );
}

/** An option of several kinds stands once, with the names of those that have it so; sections stay together. */
function merged(
  kinds: readonly ConfigOption[][],
  names: readonly string[],
  key: string,
): ConfigOption[] {
  const found = new Map<string, { option: ConfigOption; names: string[] }>();
  kinds.forEach((options, i) => {
    for (const option of options) {
      const same = JSON.stringify(option);
      const known = found.get(same) ?? { option, names: [] };
      known.names.push(names[i]!);
      found.set(same, known);
    }
  });
  const options = [...found.values()].map(({ option, names: of }) =>
    of.length === names.length
      ? option
      : { ...option, only: [`${key}: ${told(of, names)}`, ...option.only] },
  );
  const sections = grouped(options, ({ path }) => path.slice(0, path.lastIndexOf('.')));
  return sections.flatMap((section) => grouped(section, ({ path }) => path).flat());
}

/** Some of all names, or all but the others where these are fewer. */
function told(some: readonly string[], all: readonly string[]): string {
  const others = all.filter((name) => !some.includes(name));
  return others.length < some.length / 2 ? `all but ${others.join(', ')}` : some.join(', ');
}

/** Groups in the order of their first entries. */
function grouped<T>(entries: readonly T[], keyOf: (entry: T) => string): T[][] {
  const groups = new Map<string, T[]>();
  for (const entry of entries) {
    const group = groups.get(keyOf(entry));
    if (group) group.push(entry);
    else groups.set(keyOf(entry), [entry]);
  }
  return [...groups.values()];
}

/** The key whose constant tells the kinds of a section apart, if there is one. */
function discriminatorOf(sections: readonly Part[]): string | undefined {
  return Object.keys(sections[0]!.properties!).find((key) => {
    const constants = sections.map((section) => section.properties![key]?.const);
    return !constants.includes(undefined) && new Set(constants).size === sections.length;
  });
}

const keysOf = ({ properties }: Part) => `{ ${Object.keys(properties!).join(', ')} }`;

const kindsOf = (part: Part): Part[] => part.anyOf?.flatMap(kindsOf) ?? [part];

function optionOf(part: Part, path: string, kinds: readonly Part[]): ConfigOption {
  return { path, values: alternatives(kinds.flatMap(valuesOf)), ...described(part), only: [] };
}

function described({ default: value, description = '' }: Part) {
  return { default: value === undefined ? null : written(value), description };
}

function valuesOf(part: Part): string[] {
  if (part.const !== undefined) return [written(part.const)];
  if (part.enum) return part.enum.map(written);
  if (part.properties) return [keysOf(part)];
  if (part.type !== 'array') return [`${part.type}${boundsOf(part)}`];
  if (Array.isArray(part.items)) {
    const entries = part.items.map((item) => alternatives(kindsOf(item).flatMap(valuesOf)));
    const same = new Set(entries).size === 1;
    return [same ? `list of ${entries.length} × ${entries[0]}` : `[${entries.join(', ')}]`];
  }
  return [`list of ${alternatives(kindsOf(part.items!).flatMap(valuesOf))}`];
}

/** Limits that a reader has use for: those of the format (2³¹ and the like) are left out. */
function boundsOf(part: Part): string {
  const from = part.exclusiveMinimum ?? part.minimum ?? -formatLimit;
  const to = part.exclusiveMaximum ?? part.maximum ?? formatLimit;
  const [low, high] = [from > -formatLimit, to < formatLimit];
  const opens = part.exclusiveMinimum === undefined ? '[' : '(';
  const closes = part.exclusiveMaximum === undefined ? ']' : ')';
  const limits = [
    ...(low && high ? [`in ${opens}${from}, ${to}${closes}`] : []),
    ...(low && !high ? [`${opens === '[' ? '≥' : '>'} ${from}`] : []),
    ...(high && !low ? [`${closes === ']' ? '≤' : '<'} ${to}`] : []),
    ...(part.multipleOf && part.multipleOf !== 1 ? [`multiple of ${part.multipleOf}`] : []),
  ];
  return limits.length > 0 ? ` ${limits.join(', ')}` : '';
}
const formatLimit = 2 ** 31 - 1;

function alternatives(names: readonly string[]): string {
  const all = [...new Set(names)];
  return all.length < 2 ? all.join('') : `${all.slice(0, -1).join(', ')} or ${all.at(-1)}`;
}

/** In flow style, as a line of a config has it. */
function written(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(written).join(', ')}]`;
  if (typeof value === 'object' && value !== null)
    return Object.keys(value).length === 0
      ? '{}'
      : `{ ${Object.entries(value)
          .map(([key, of]) => `${key}: ${written(of)}`)
          .join(', ')} }`;
  return String(value);
}
