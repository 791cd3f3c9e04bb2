/** How the layers of a config become one value. */

export type Mapping = Record<string, unknown>;

export function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Options that say which kind of thing a mapping describes. */
const kindKeys = ['type', 'format'];

/** What a mapping without a kind is. */
const defaultKinds: Readonly<Record<string, string>> = { backbone: 'resnet' };

/** What every kind of a thing has keeps its meaning when the kind changes: the network below a head. */
const commonKeys = ['backbone', 'numClasses'];

/** Options that exclude each other: a size by ratio or an exact one. */
const exclusiveKeys = [
  ['long', 'short'],
  ['width', 'height'],
];

/**
 * The mapping describes another kind of thing than the one below it, whose options do not apply.
 * @param name of the option that both are
 */
function changesKind(below: Mapping, above: Mapping, name: string | undefined): boolean {
  const kindOf = (mapping: Mapping, key: string) =>
    mapping[key] ?? (key === 'type' && name !== undefined ? defaultKinds[name] : undefined);
  const differs = kindKeys.some(
    (key) =>
      kindOf(below, key) !== undefined &&
      above[key] !== undefined &&
      kindOf(below, key) !== above[key],
  );
  const side = (mapping: Mapping) =>
    exclusiveKeys.findIndex((keys) => keys.some((key) => Object.hasOwn(mapping, key)));
  return differs || (side(below) >= 0 && side(above) >= 0 && side(below) !== side(above));
}

/**
 * `above` over `below`: mappings option by option, everything else as a whole. A mapping whose `type`
 * or `format` differs replaces the one below (but for a detector's backbone), and so does an exact size
 * one by ratio.
 * @param name of the option whose values they are
 */
export function merge(below: unknown, above: unknown, name?: string): unknown {
  if (!isMapping(below) || !isMapping(above)) return above;
  // fromEntries defines properties, so that a key named __proto__ is a key like any other.
  const base = changesKind(below, above, name)
    ? Object.fromEntries(Object.entries(below).filter(([key]) => commonKeys.includes(key)))
    : below;
  const keys = new Set([...Object.keys(base), ...Object.keys(above)]);
  return Object.fromEntries(
    [...keys].map((key) => [
      key,
      !Object.hasOwn(above, key)
        ? base[key]
        : Object.hasOwn(base, key)
          ? merge(base[key], above[key], key)
          : above[key],
    ]),
  );
}

/** `value` at `path` over `below`; a number in the path is a position in a list. */
export function mergeAt(
  below: unknown,
  path: readonly string[],
  value: unknown,
  name?: string,
): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return merge(below, value, name);
  if (Array.isArray(below) && /^\d+$/.test(key) && Number(key) < below.length)
    return below.map((entry, i) => (i === Number(key) ? mergeAt(entry, rest, value) : entry));
  const inner = isMapping(below) && Object.hasOwn(below, key) ? below[key] : undefined;
  return merge(below, Object.fromEntries([[key, mergeAt(inner, rest, value, key)]]), name);
}
