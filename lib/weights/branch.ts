import { MixplError } from '../errors.js';

export interface Branch<T> {
  /** The chosen entries, their names without the prefix. */
  entries: Map<string, T>;
  /** What was cut off, '' for nothing. */
  prefix: string;
}

/**
 * The entries whose names begin with a prefix. Without one: `module.` and `model.` before every name
 * (wrapped models) are cut off, and of a file with `teacher.` and `student.` the teacher is taken.
 * @throws MixplError ERR_CHECKPOINT when no name has the prefix
 */
export function chooseBranch<T>(
  path: string,
  entries: ReadonlyMap<string, T>,
  prefix?: string,
): Branch<T> {
  const names = [...entries.keys()];
  if (prefix) {
    const wanted = prefix.endsWith('.') ? prefix : `${prefix}.`;
    const chosen = cutPrefix(entries, wanted);
    if (chosen.size === 0)
      throw new MixplError(
        'ERR_CHECKPOINT',
        `${path}: must have names that begin with ${wanted}, got ${firstParts(names)}`,
      );
    return { entries: chosen, prefix: wanted };
  }
  const own = defaultPrefix(names);
  if (!own) return { entries: new Map(entries), prefix: '' };
  const inner = chooseBranch(path, cutPrefix(entries, own));
  return { entries: inner.entries, prefix: own + inner.prefix };
}

function defaultPrefix(names: readonly string[]): string {
  for (const wrapper of ['module.', 'model.'])
    if (names.length > 0 && names.every((name) => name.startsWith(wrapper))) return wrapper;
  return ['teacher.', 'student.'].find((branch) => names.some((n) => n.startsWith(branch))) ?? '';
}

function cutPrefix<T>(entries: ReadonlyMap<string, T>, prefix: string): Map<string, T> {
  const cut = new Map<string, T>();
  for (const [name, entry] of entries)
    if (name.startsWith(prefix)) cut.set(name.slice(prefix.length), entry);
  return cut;
}

function firstParts(names: readonly string[]): string {
  const parts = [...new Set(names.map((name) => name.split('.', 1)[0]!))];
  return parts.length > 8 ? `${parts.slice(0, 8).join(', ')}, …` : parts.join(', ') || 'no names';
}
