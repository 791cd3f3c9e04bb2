import { didYouMean, MixplError } from './errors.js';

/** What a message calls a value of the wrong kind. */
export function nameOf(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  return (value as object).constructor?.name ?? typeof value;
}

/** The names of all options of a type, for checkKeys; the compiler looks that none is missing. */
export function keysOf<Options extends object>(keys: Record<keyof Options, 0>): readonly string[] {
  return Object.keys(keys);
}

/** @throws MixplError ERR_CONFIG for what is no object, or naming the known option nearest to an unknown one */
export function checkKeys(call: string, options: object, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null)
    throw new MixplError(
      'ERR_CONFIG',
      `${call}: options must be an object, got ${options === null ? 'null' : typeof options}`,
    );
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    throw new MixplError('ERR_CONFIG', `${call}: unknown option '${key}'${didYouMean(key, known)}`);
  }
}

/**
 * @param name of the argument
 * @throws MixplError ERR_DTYPE for what is no path
 */
export function checkPath(call: string, name: string, path: string): void {
  if (typeof path === 'string') return;
  const value: unknown = path;
  const hint = value instanceof URL ? '; try fileURLToPath() of node:url' : '';
  throw new MixplError(
    'ERR_DTYPE',
    `${call}: ${name} must be a string (a path), got ${nameOf(value)}${hint}`,
  );
}
