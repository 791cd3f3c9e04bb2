import { checkKeys } from '../arguments.js';
import type { EraseOptions } from '../augment/mixing.js';
import type { BufferPolicy } from '../detector/types.js';
import { MixplError } from '../errors.js';

/** What makes a student learn from images without annotations. Defaults are the paper's. */
export interface SemiOptions {
  /** A pseudo box needs a higher score than this; see defaultScoreThr. */
  scoreThr: number;
  /** Pseudo boxes must be wider and higher than this, in pixels of the strong view. */
  minBoxSize: number;
  supWeight: number;
  unsupWeight: number;
  /** Multiplies the mosaic's losses on top of unsupWeight. */
  mosaicWeight: number;
  emptyImageRule: EmptyImageRule;
  /** An image counts as empty with fewer pseudo boxes than this; 0 switches the rule off. */
  leastNum: number;
  mixup: boolean;
  mosaic: boolean;
  /** Which cached images are mixed: the reference's index rule, or the paper's text. */
  indexRule: 'reference' | 'paper';
  /** Images that the cache keeps; mixing starts when it is full. */
  cacheSize: number;
  /** Box that a mosaic's tile must fit: one size, or the two corners of a range, the high one excluded. */
  mosaicShape: readonly (readonly [height: number, width: number])[];
  /** Patches erased from every image before it is used; null: none. */
  erase: EraseOptions | null;
  ema: EmaOptions;
}

/**
 * - 'branch-gate' (released code): one empty image silences its whole branch for the step.
 * - 'per-image' (paper): empty images are left out, the others count.
 */
export type EmptyImageRule = 'branch-gate' | 'per-image';

/** Student share of an update after the run's iteration i (from 0): max(momentum, gamma / (gamma + i)). */
export interface EmaOptions {
  momentum: number;
  gamma: number;
  /** Updates after every interval-th iteration. */
  interval: number;
  buffers: BufferPolicy;
}

/** What resolveSemiOptions takes: any part of the options. */
export type SemiChanges = Partial<Omit<SemiOptions, 'ema' | 'erase'>> & {
  ema?: Partial<EmaOptions>;
  erase?: Partial<EraseOptions> | null;
};

/** A mosaic is two by two. */
const tilesOfMosaic = 4;

const eraseDefaults: EraseOptions = { patches: [1, 20], ratio: [0, 0.1], threshold: 0.7 };

/** The paper's options, as in MixPL's configs. */
export const semiDefaults: SemiOptions = {
  scoreThr: 0.4,
  minBoxSize: 0.01,
  supWeight: 1,
  unsupWeight: 2,
  mosaicWeight: 0.5,
  emptyImageRule: 'branch-gate',
  leastNum: 1,
  mixup: true,
  mosaic: true,
  indexRule: 'reference',
  cacheSize: 8,
  mosaicShape: [
    [400, 400],
    [800, 800],
  ],
  erase: eraseDefaults,
  ema: { momentum: 2e-4, gamma: 4, interval: 3, buffers: 'skip' },
};

/**
 * The paper's score threshold: 0.7 where softmax cross-entropy scores the classes, 0.3 for FCOS (its
 * score is a product with centre-ness), 0.4 where a sigmoid focal or quality loss does.
 * @source arXiv:2312.07006, section 4.1, and MixPL's configs
 */
export function defaultScoreThr(detector: string): number {
  if (detector === 'fcos') return 0.3;
  return ['faster-rcnn', 'cascade-rcnn'].includes(detector) ? 0.7 : 0.4;
}

/**
 * The defaults with `changes`.
 * @throws MixplError ERR_CONFIG on an unknown key or a value out of range
 */
export function resolveSemiOptions(changes: SemiChanges = {}): SemiOptions {
  const ema = merged('semi.ema', semiDefaults.ema, changes.ema);
  const erase = changes.erase === null ? null : merged('semi.erase', eraseDefaults, changes.erase);
  const options: SemiOptions = { ...merged('semi', semiDefaults, changes), ema, erase };
  checkOptions(options);
  return options;
}

function merged<T extends object>(path: string, defaults: T, changes: object = {}): T {
  checkKeys(path, changes, Object.keys(defaults));
  const given = Object.entries(changes).filter(([, value]) => value !== undefined);
  return { ...defaults, ...Object.fromEntries(given) };
}

function checkOptions(options: SemiOptions): void {
  const refuse = (name: string, expected: string, value: unknown): never => {
    throw new MixplError(
      'ERR_CONFIG',
      `semi: ${name} must be ${expected}, got ${JSON.stringify(value) ?? String(value)}`,
    );
  };
  const between = (name: string, value: unknown, low: number, high = Number.MAX_VALUE) => {
    if (typeof value !== 'number' || !(value >= low && value <= high))
      refuse(name, high === Number.MAX_VALUE ? `>= ${low}` : `in [${low}, ${high}]`, value);
  };
  const integer = (name: string, value: unknown, low: number) => {
    if (!Number.isSafeInteger(value) || (value as number) < low)
      refuse(name, `an integer >= ${low}`, value);
  };
  const oneOf = (name: string, value: string, names: readonly string[]) => {
    if (!names.includes(value)) refuse(name, `one of ${names.join(', ')}`, value);
  };
  between('scoreThr', options.scoreThr, 0, 1);
  between('minBoxSize', options.minBoxSize, 0);
  between('supWeight', options.supWeight, 0);
  between('unsupWeight', options.unsupWeight, 0);
  between('mosaicWeight', options.mosaicWeight, 0);
  integer('leastNum', options.leastNum, 0);
  integer('cacheSize', options.cacheSize, 1);
  oneOf('emptyImageRule', options.emptyImageRule, ['branch-gate', 'per-image']);
  oneOf('indexRule', options.indexRule, ['reference', 'paper']);
  const [low, high = low] = options.mosaicShape;
  if (!low || !high || options.mosaicShape.length > 2)
    refuse('mosaicShape', '[[height, width]] or two of them', options.mosaicShape);
  for (const axis of [0, 1] as const) {
    integer('mosaicShape', low![axis], 1);
    integer('mosaicShape', high![axis], low![axis]);
  }
  between('ema.momentum', options.ema.momentum, 0, 1);
  between('ema.gamma', options.ema.gamma, 0);
  integer('ema.interval', options.ema.interval, 1);
  oneOf('ema.buffers', options.ema.buffers, ['skip', 'copy', 'average']);
  if (!options.erase) return;
  const { patches, ratio, threshold } = options.erase;
  integer('erase.patches', patches[0], 0);
  integer('erase.patches', patches[1], patches[0] + 1);
  between('erase.ratio', ratio[0], 0, 1);
  between('erase.ratio', ratio[1], ratio[0], 1);
  between('erase.threshold', threshold, 0);
}

/** What of the options says how many images mixing takes. */
export type Mixing = Pick<SemiOptions, 'mixup' | 'mosaic' | 'indexRule'>;

/** Unlabelled images that a batch must have: the paper's mosaic takes its tiles from it and as many partners. */
export function batchNeeded({ mosaic, indexRule }: Mixing): number {
  return mosaic && indexRule === 'paper' ? tilesOfMosaic / 2 : 1;
}

/**
 * The smallest cache that serves batches of `count` unlabelled images: one partner for each, and after
 * them the tiles that the reference's mosaic takes.
 */
export function cacheNeeded({ mixup, mosaic, indexRule }: Mixing, count: number): number {
  if (!mixup && !mosaic) return 1;
  return count + (mosaic && indexRule === 'reference' ? tilesOfMosaic : 0);
}

/** Student share of the EMA update after iteration `i` (0-based), or null when none is due. */
export function emaMomentum(options: EmaOptions, i: number): number | null {
  if ((i + 1) % options.interval !== 0) return null;
  // gamma 0 at i = 0 would be 0 / 0.
  const warm = options.gamma > 0 ? options.gamma / (options.gamma + i) : 0;
  return Math.max(options.momentum, warm);
}
