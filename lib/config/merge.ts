/** How the layers of a config become one value. */

export type Mapping = Record<string, unknown>;

export function isMapping(value: unknown): value is Mapping {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Options that say which kind of thing a mapping describes. */
const kindKeys = ['type', 'format'];

/** The mapping describes another kind of thing than the one below it, whose options do not apply. */
function changesKind(below: Mapping, above: Mapping): boolean {
  return kindKeys.some(
    (key) => below[key] !== undefined && above[key] !== undefined && below[key] !== above[key],
  );
}

/**
 * `above` over `below`: mappings option by option, everything else as a whole. A mapping whose `type`
 * or `format` differs replaces the one below.
 */
export function merge(below: unknown, above: unknown): unknown {
  if (!isMapping(below) || !isMapping(above) || changesKind(below, above)) return above;
  const keys = new Set([...Object.keys(below), ...Object.keys(above)]);
  // fromEntries defines properties, so that a key named __proto__ is a key like any other.
  return Object.fromEntries(
    [...keys].map((key) => [
      key,
      !Object.hasOwn(above, key)
        ? below[key]
        : Object.hasOwn(below, key)
          ? merge(below[key], above[key])
          : above[key],
    ]),
  );
}

/** `value` at `path` over `below`; a number in the path is a position in a list. */
export function mergeAt(below: unknown, path: readonly string[], value: unknown): unknown {
  const [key, ...rest] = path;
  if (key === undefined) return merge(below, value);
  if (Array.isArray(below) && /^\d+$/.test(key) && Number(key) < below.length)
    return below.map((entry, i) => (i === Number(key) ? mergeAt(entry, rest, value) : entry));
  const inner = isMapping(below) && Object.hasOwn(below, key) ? below[key] : undefined;
  return merge(below, Object.fromEntries([[key, mergeAt(inner, rest, value)]]));
}
