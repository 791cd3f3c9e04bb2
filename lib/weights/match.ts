import { MixplError } from '../errors.js';
import type { TensorEntry } from '../safetensors.js';
import type { Layout } from './layouts.js';

/** One of our parameters: weights OHWI. */
export interface OwnTensor {
  name: string;
  shape: readonly number[];
}

/** A parameter and its name in the file. */
export interface Pair extends OwnTensor {
  stored: string;
  /** Its values are fitted to ours, which are more or fewer. */
  resized?: boolean;
}

/** A tensor of another shape than the parameter of its name. */
export interface Misshapen extends Pair {
  /** In the order of the file's axes. */
  wanted: readonly number[];
  got: readonly number[];
}

/** Which tensor of a file belongs to which parameter. */
export interface WeightsMatch {
  pairs: Pair[];
  misshapen: Misshapen[];
  /** The detector's names. */
  missing: string[];
  /** Names of the file that have no place in the detector. */
  unexpected: string[];
  /** Names that belong to the layout and are not needed: a classifier, counters. */
  unused: string[];
}

/** Compares names and shapes; reads no numbers. */
export function matchWeights(
  own: readonly OwnTensor[],
  entries: ReadonlyMap<string, TensorEntry>,
  layout: Layout,
): WeightsMatch {
  const match: WeightsMatch = { pairs: [], misshapen: [], missing: [], unexpected: [], unused: [] };
  const used = new Set<string>();
  for (const { name, shape } of own) {
    const stored = layout.namesOf(name).find((candidate) => entries.has(candidate));
    if (stored === undefined) {
      match.missing.push(name);
      continue;
    }
    used.add(stored);
    const codec = layout.codec({ name, shape });
    const wanted = codec.shape;
    const got = entries.get(stored)!.shape;
    if (String(wanted) === String(got)) match.pairs.push({ name, shape, stored });
    else if (codec.fits?.(got)) match.pairs.push({ name, shape, stored, resized: true });
    else match.misshapen.push({ name, shape, stored, wanted, got });
  }
  for (const name of entries.keys()) {
    if (used.has(name)) continue;
    (layout.isUnused(name) ? match.unused : match.unexpected).push(name);
  }
  return match;
}

/**
 * Whether a tensor has the wrong shape only because of another number of classes.
 * @param classLayers names of the layers whose first axis grows with it
 */
export function differsInClasses({ name, wanted, got }: Misshapen, classLayers: RegExp): boolean {
  return (
    classLayers.test(name) &&
    wanted.length === got.length &&
    wanted.every((size, axis) => axis === 0 || size === got[axis])
  );
}

/** What keeps weights from being loaded, with every name. */
export class WeightsMisfit extends MixplError {
  /** The detector's names. */
  readonly missing: readonly string[];
  /** Names of the file. */
  readonly unexpected: readonly string[];
  readonly misshapen: readonly Misshapen[];

  /** @internal */
  constructor(
    what: string,
    problems: Pick<WeightsMatch, 'missing' | 'unexpected' | 'misshapen'>,
    hint = '',
  ) {
    const { missing, unexpected, misshapen } = problems;
    const lines = [
      listed('of another shape', misshapen.map(describe), '; '),
      listed('missing', missing, ', '),
      listed('unexpected', unexpected, ', '),
    ];
    super('ERR_CHECKPOINT', `${what}: ${lines.filter(Boolean).join('; ')}${hint}`);
    this.missing = missing;
    this.unexpected = unexpected;
    this.misshapen = misshapen;
  }
}

/** Names in a message; all of them are in the error's own lists. */
const mostListed = 40;

function listed(what: string, names: readonly string[], between: string): string {
  if (names.length === 0) return '';
  const shown = names.slice(0, mostListed).join(between);
  const more = names.length > mostListed ? `${between}and ${names.length - mostListed} more` : '';
  return `${names.length} ${what}: ${shown}${more}`;
}

function describe({ name, stored, wanted, got }: Misshapen): string {
  const origin = name === stored ? '' : ` (${name})`;
  return `${stored}${origin}: must be [${wanted}], got [${got}]`;
}
