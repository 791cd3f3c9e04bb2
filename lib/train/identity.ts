import { didYouMean, MixplError } from '../errors.js';

/** What a checkpoint must share with the run that resumes it. */
export interface RunIdentity {
  /** Options as a user names them. */
  config: Record<string, unknown>;
  /** Fingerprints of the data sets. */
  data: Record<string, string | null>;
}

/** One option with both of its values, as JSON. */
export interface Difference {
  key: string;
  was: string;
  now: string;
}

/**
 * Options that change nothing that is computed, or that the fingerprints of the data already cover.
 * Everything else has to stay as it was.
 */
const freeOptions = [
  'name',
  'device',
  'threads',
  'data',
  'model.weights',
  'model.weightsLayout',
  'model.backbone.recompute',
  'validation',
  'checkpoint',
  'loader',
  'logging',
];

/** @throws MixplError ERR_CONFIG for a key that is neither an option of one of the configs nor a section of it */
export function checkAllowed(
  allowed: readonly string[],
  ...configs: Record<string, unknown>[]
): void {
  const known = configs.flatMap((config) => [...flat(config).keys()]);
  for (const key of allowed) {
    if (known.some((name) => name === key || name.startsWith(`${key}.`))) continue;
    throw new MixplError(
      'ERR_CONFIG',
      `allowChanges must name options of the config, got '${key}'${didYouMean(key, known)}`,
    );
  }
}

/**
 * What an option says that names nothing. A checkpoint written before there was the option has no word of
 * it, and means the same.
 */
const nothing = new Set([undefined, 'null', '[]']);

/** Options that are younger than some checkpoints, with what those ran with. */
const younger = [['batch.accumulate', '1']] as const;

/** The options that differ and matter. @param allowed keys (or sections) that may differ all the same */
export function differencesOf(
  was: Record<string, unknown>,
  now: Record<string, unknown>,
  allowed: readonly string[] = [],
): Difference[] {
  const before = new Map([...younger, ...flat(was)]);
  const after = new Map([...younger, ...flat(now)]);
  const free = [...freeOptions, ...allowed];
  const covered = (key: string) => free.some((f) => key === f || key.startsWith(`${f}.`));
  const keys = [...new Set([...before.keys(), ...after.keys()])];
  return keys
    .filter((key) => {
      const [a, b] = [before.get(key), after.get(key)];
      const added = a === undefined || b === undefined;
      return a !== b && !(added && nothing.has(a) && nothing.has(b)) && !covered(key);
    })
    .map((key) => ({ key, was: before.get(key) ?? 'absent', now: after.get(key) ?? 'absent' }));
}

/**
 * @param allowed options that may differ from the checkpoint's
 * @throws MixplError ERR_CHECKPOINT listing every difference with both values
 */
export function checkIdentity(
  checkpoint: { path: string; identity: RunIdentity },
  now: RunIdentity,
  allowed: readonly string[] = [],
): void {
  const problems: string[] = [];
  for (const key of new Set([...Object.keys(checkpoint.identity.data), ...Object.keys(now.data)])) {
    const [before, after] = [checkpoint.identity.data[key] ?? null, now.data[key] ?? null];
    if (before !== after && key !== 'test')
      problems.push(`${key} data: checkpoint ${short(before)}, now ${short(after)}`);
  }
  const options = differencesOf(checkpoint.identity.config, now.config, allowed);
  for (const { key, was, now } of options) problems.push(`${key}: checkpoint ${was}, now ${now}`);
  if (problems.length === 0) return;
  const hint = options.length
    ? `; try another output folder, or allow these changes (--allow-change): ${options.map((o) => o.key).join(', ')}`
    : '';
  throw new MixplError(
    'ERR_CHECKPOINT',
    `${checkpoint.path}: must be a checkpoint of this run, got one with differences:\n  ${problems.join('\n  ')}${hint}`,
  );
}

function short(fingerprint: string | null): string {
  return fingerprint === null ? 'none' : fingerprint.slice(0, 12);
}

/** Leaves by dotted key, as JSON; lists are leaves. */
function flat(value: object, prefix = '', out = new Map<string, string>()): Map<string, string> {
  for (const [key, inner] of Object.entries(value)) {
    if (typeof inner === 'object' && inner !== null && !Array.isArray(inner))
      flat(inner, `${prefix}${key}.`, out);
    else if (inner !== undefined) out.set(prefix + key, JSON.stringify(inner));
  }
  return out;
}
