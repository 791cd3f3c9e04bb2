import type { EraseOptions } from '../augment/mixing.js';
import type { BufferPolicy } from '../detector/types.js';
import { MixplError, nearestName } from '../errors.js';

/** What makes a student learn from pictures without annotations. Defaults are the paper's. */
export interface SemiOptions {
  /** A pseudo box needs a higher score than this. 0.7 for softmax detectors, 0.4 for focal loss, 0.3 for FCOS. */
  scoreThr: number;
  /** Pseudo boxes must be wider and higher than this, in pixels of the strong view. */
  minBoxSize: number;
  supWeight: number;
  unsupWeight: number;
  /** Multiplies the mosaic's losses on top of unsupWeight. */
  mosaicWeight: number;
  /** Picks what happens to pictures without pseudo boxes: see `emptyImages`. */
  emptyImages: EmptyImageRule;
  /** A picture counts as empty with fewer pseudo boxes than this. */
  leastBoxes: number;
  mixup: boolean;
  mosaic: boolean;
  /** Which cached pictures are mixed: the reference's index rule, or the paper's text. */
  indexRule: 'reference' | 'paper';
  /** Pictures that the cache keeps; mixing starts when it is full. */
  cacheSize: number;
  /** Corners of the range that a mosaic tile's box is drawn from, [height, width] each, high excluded. */
  mosaicShape: readonly [readonly [number, number], readonly [number, number]];
  /** Patches erased from every picture before it is used; null: none. */
  erase: EraseOptions | null;
  ema: EmaOptions;
}

/**
 * - 'branch-gate' (released code): one empty picture silences its whole branch for the step.
 * - 'per-image' (paper): empty pictures are left out, the others count.
 * - 'keep': empty pictures are learned from as background.
 */
export type EmptyImageRule = 'branch-gate' | 'per-image' | 'keep';

/** Student share of an update after iteration i (0-based): max(momentum, gamma / (gamma + i)). */
export interface EmaOptions {
  momentum: number;
  gamma: number;
  /** Updates after every interval-th iteration. */
  interval: number;
  buffers: BufferPolicy;
}

export const semiDefaults: SemiOptions = {
  scoreThr: 0.4,
  minBoxSize: 0.01,
  supWeight: 1,
  unsupWeight: 2,
  mosaicWeight: 0.5,
  emptyImages: 'branch-gate',
  leastBoxes: 1,
  mixup: true,
  mosaic: true,
  indexRule: 'reference',
  cacheSize: 8,
  mosaicShape: [
    [400, 400],
    [800, 800],
  ],
  erase: { patches: [1, 20], ratio: [0, 0.1], threshold: 0.7 },
  ema: { momentum: 2e-4, gamma: 4, interval: 3, buffers: 'skip' },
};

/** The defaults with `changes`. @throws MixplError ERR_CONFIG on an unknown key or a value out of range */
export function resolveSemiOptions(changes: Partial<SemiOptions> = {}): SemiOptions {
  for (const key of Object.keys(changes))
    if (!(key in semiDefaults)) {
      const near = nearestName(key, Object.keys(semiDefaults));
      throw new MixplError(
        'ERR_CONFIG',
        `semi: unknown option '${key}'${near ? `; nearest is '${near}'` : ''}`,
      );
    }
  const options = { ...semiDefaults, ...changes };
  const between = (name: string, value: number, low: number, high: number) => {
    if (!(value >= low && value <= high))
      throw new MixplError(
        'ERR_CONFIG',
        `semi: ${name} must be in [${low}, ${high}], got ${value}`,
      );
  };
  between('scoreThr', options.scoreThr, 0, 1);
  between('cacheSize', options.cacheSize, 1, 100_000);
  between('ema.momentum', options.ema.momentum, 0, 1);
  between('ema.gamma', options.ema.gamma, 0, 1e9);
  between('ema.interval', options.ema.interval, 1, 1e9);
  between('unsupWeight', options.unsupWeight, 0, 1e6);
  return options;
}

/** Student share of the EMA update after iteration `i` (0-based), or null when none is due. */
export function emaMomentum(options: EmaOptions, i: number): number | null {
  if ((i + 1) % options.interval !== 0) return null;
  return Math.max(options.momentum, options.gamma / (options.gamma + i));
}
