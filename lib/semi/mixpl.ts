import {
  compositionOf,
  eraseView,
  type LabelledComposition,
  type LabelledView,
  prepareCached,
  pseudoMixup,
  pseudoMosaic,
} from '../augment/index.js';
import { MixplError } from '../errors.js';
import type { Random } from '../random.js';
import { batchNeeded, cacheNeeded, type SemiOptions } from './options.js';

type Corner = readonly [height: number, width: number];

/** One forward and backward pass of the student over pseudo-labelled images. */
export interface Branch {
  /** Prefix of its losses. */
  readonly name: 'unsup_' | 'mixup_unsup_' | 'mosaic_unsup_';
  /** Multiplies its losses, on top of the weight for unlabelled data. */
  readonly weight: number;
  /** Its batch. */
  readonly samples: readonly LabelledComposition[];
}

/**
 * Turns one batch of pseudo-labelled strong views into what the student learns from. All decisions
 * come from `random`; what outlives a step is in `cache`.
 */
export interface MixingPolicy<Entry extends LabelledView = LabelledView> {
  /**
   * The passes of a step.
   * @param strong instances with every score: the threshold comes after mixing
   * @param padDivisor what batches of these views are padded to
   */
  branches(strong: readonly Entry[], padDivisor: number, random: Random): Branch[];
  /** What a checkpoint must keep, oldest first. */
  readonly cache: readonly Entry[];
  /** Takes what a checkpoint kept. */
  restore(cache: readonly Entry[]): void;
}

/**
 * MixPL (arXiv 2312.07006): each strong view is mixed with a cached one, and four cached ones make a
 * mosaic. The cache keeps views as maps of their originals,
 * un-erased and un-mixed; until it is full the erased views are learned from as they are. With mixup
 * and mosaic switched off this is plain DetMeanTeacher.
 */
export class MixPL<Entry extends LabelledView = LabelledView> implements MixingPolicy<Entry> {
  readonly #options: SemiOptions;
  #cache: Entry[] = [];

  /** With an empty cache. @param options resolveSemiOptions() checks them */
  constructor(options: SemiOptions) {
    this.#options = options;
  }

  /** At most `cacheSize` views, oldest first. */
  get cache(): readonly Entry[] {
    return this.#cache;
  }
  /** Takes what a checkpoint kept; of too many the newest. */
  restore(cache: readonly Entry[]): void {
    this.#cache = cache.slice(-this.#options.cacheSize);
  }

  branches(strong: readonly Entry[], padDivisor: number, random: Random): Branch[] {
    const { mixup, mosaic, mosaicWeight, cacheSize } = this.#options;
    const count = strong.length;
    checkMixing(this.#options, count);
    const erased = strong.map((view) => this.#erase(view, random));
    const full = this.#cache.length === cacheSize;
    const [mixed, tiles] = full ? this.#draw(strong, random) : [[], []];

    // Partners are scaled to the padded canvas of the batch, as in the reference.
    const canvas = {
      width: roundUp(Math.max(...strong.map((v) => v.view.width)), padDivisor),
      height: roundUp(Math.max(...strong.map((v) => v.view.height)), padDivisor),
    };
    const samples = erased.map((view, i) => {
      const partner = mixup ? mixed[i] : undefined;
      if (!partner) return { composition: compositionOf(view.view), instances: view.instances };
      return pseudoMixup(view, this.#erase(prepareCached(partner, canvas), random), random);
    });
    const branches: Branch[] = [{ name: mixup ? 'mixup_unsup_' : 'unsup_', weight: 1, samples }];

    if (mosaic && full) {
      const box = this.#tileBox(random);
      const prepared = tiles.map((tile) => this.#erase(prepareCached(tile, box), random));
      branches.push({
        name: 'mosaic_unsup_',
        weight: mosaicWeight,
        samples: [pseudoMosaic(prepared)],
      });
    }
    if (mixup || mosaic) this.#cache = [...this.#cache, ...strong].slice(-cacheSize);
    return branches;
  }

  /** Mixup partners, one per strong view, and the four tiles of the mosaic. */
  #draw(strong: readonly Entry[], random: Random): [LabelledView[], LabelledView[]] {
    const cache = this.#cache;
    const count = strong.length;
    if (this.#options.indexRule === 'reference') {
      const partners = random.permutation(count).map((i) => cache[i]!);
      const tiles = this.#options.mosaic ? random.permutation(4).map((i) => cache[i + count]!) : [];
      return [partners, tiles];
    }
    const partners = random
      .permutation(cache.length)
      .slice(0, count)
      .map((i) => cache[i]!);
    const pool = [...strong, ...partners];
    const tiles = random.permutation(pool.length).slice(0, 4);
    return [partners, tiles.map((i) => pool[i]!)];
  }

  #erase(view: LabelledView, random: Random): LabelledView {
    return this.#options.erase ? eraseView(view, this.#options.erase, random) : view;
  }

  #tileBox(random: Random): { width: number; height: number } {
    const [low, high = low] = this.#options.mosaicShape as [Corner, Corner?];
    const draw = (from: number, to: number) => (to > from ? random.integer(from, to) : from);
    return { height: draw(low[0], high[0]), width: draw(low[1], high[1]) };
  }
}

/**
 * Whether the cache can serve batches of `count` unlabelled images.
 * @throws MixplError ERR_CONFIG with the size it would need
 */
export function checkMixing(options: SemiOptions, count: number): void {
  const { mosaic, indexRule, cacheSize } = options;
  const least = batchNeeded(options);
  if (count < least)
    throw new MixplError(
      'ERR_CONFIG',
      `mixpl: a mosaic needs at least ${least} unlabelled images per batch, got ${count}`,
    );
  const needed = cacheNeeded(options, count);
  if (cacheSize >= needed) return;
  const why =
    indexRule === 'paper'
      ? `${count} different partners are drawn from it`
      : `the reference rule mixes entries 0 … ${count - 1}${mosaic ? ' and builds the mosaic from the four after them' : ''}`;
  throw new MixplError(
    'ERR_CONFIG',
    `mixpl: cacheSize must be at least ${needed} with ${count} unlabelled images per batch (${why}), got ${cacheSize}` +
      (indexRule === 'reference' && count <= cacheSize ? `; try indexRule 'paper'` : ''),
  );
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
