import { MixplError, nearestName } from './errors.js';

/** @throws MixplError ERR_CONFIG for what is no object, or naming the known option nearest to an unknown one */
export function checkKeys(call: string, options: object, known: readonly string[]): void {
  if (typeof options !== 'object' || options === null)
    throw new MixplError(
      'ERR_CONFIG',
      `${call}: options must be an object, got ${options === null ? 'null' : typeof options}`,
    );
  for (const key of Object.keys(options)) {
    if (known.includes(key)) continue;
    const near = nearestName(key, known);
    throw new MixplError(
      'ERR_CONFIG',
      `${call}: unknown option '${key}'${near ? `; did you mean '${near}'?` : ''}`,
    );
  }
}
