import { createHash } from 'node:crypto';
import { checkKeys, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { Random } from '../random.js';
import { type RepeatFactors, repeatedIndices } from './resampling.js';

/** Images that a part of each batch is drawn from. */
export interface SamplerSource {
  /** Only the sizes are looked at. */
  readonly images: readonly { readonly width: number; readonly height: number }[];
  /** Share of the batch, relative to the other sources. */
  readonly ratio: number;
  /** Labelled Resampling: makes the passes over this source longer. */
  readonly repeat?: RepeatFactors | undefined;
}

/** How a BatchSampler draws. */
export interface BatchSamplerOptions {
  /** Images of all sources together, per rank. */
  batchSize: number;
  /** Whole number; the same seed draws the same batches. */
  seed: number;
  /** Keep batches all portrait (width < height) or all landscape, which pads less. @defaultValue true */
  groupByAspect?: boolean;
  /** Which of the processes this is. @defaultValue 0 */
  rank?: number;
  /** Number of processes. @defaultValue 1 */
  worldSize?: number;
}

const optionKeys = keysOf<BatchSamplerOptions>({
  ...{ batchSize: 0, seed: 0, groupByAspect: 0, rank: 0 },
  ...{ worldSize: 0 },
});

/** Which images a step uses. */
export interface SampledBatch {
  /** 0, 1, 2, … */
  readonly step: number;
  /** Per source: positions in its images. */
  readonly indices: readonly (readonly number[])[];
  /** What to restore so that the next batch is the one after this: a prefetched sampler is ahead of training. */
  readonly after: SamplerState;
}

/** JSON data for a checkpoint. */
export interface SamplerState {
  readonly step: number;
  /** Per source and group: pass and position in it. */
  readonly cursors: readonly (readonly [pass: number, position: number])[];
  /** Hash of sources and options: the state fits no other data set. */
  readonly signature: string;
}

const landscape = 1;

/**
 * The two-source sampler (reference: GroupMultiSourceSampler), for any number of sources. A source
 * gives int(batchSize * ratio / sum of ratios) images, the first one also the remainder, out of
 * endless random permutations: one stream per source and aspect group, from which each rank takes
 * every worldSize-th element. The group of a batch is drawn by its share of all images.
 *
 * Everything follows from (seed, step, pass): the state is a few numbers, and repeat factors with
 * stochastic rounding are drawn anew in every pass. Deviations: all ranks draw the same group; a
 * source without images of the drawn group gives images of its other one (the reference hangs).
 */
export class BatchSampler implements Iterable<SampledBatch> {
  /** Images per batch by source. */
  readonly counts: readonly number[];
  readonly #sources: readonly SamplerSource[];
  readonly #random: Random;
  readonly #streams: Stream[];
  readonly #groupShare: number;
  readonly #grouped: boolean;
  readonly #signature: string;
  #step = 0;

  /** @throws MixplError ERR_CONFIG for sources or options that make no batch */
  constructor(sources: readonly SamplerSource[], options: BatchSamplerOptions) {
    checkKeys('BatchSampler', options, optionKeys);
    const { batchSize, seed, groupByAspect = true, rank = 0, worldSize = 1 } = options;
    this.counts = countsOf(sources, batchSize);
    if (!Number.isInteger(worldSize) || !Number.isInteger(rank) || rank < 0 || rank >= worldSize)
      throw configError(`rank must be in 0 … worldSize-1`, `${rank} of ${worldSize}`);
    this.#sources = sources;
    this.#grouped = groupByAspect;
    this.#random = new Random(seed).fork('sampler');
    this.#streams = sources.flatMap((source, sourceIndex) =>
      (groupByAspect ? [0, landscape] : [undefined]).map(
        (group) =>
          new Stream(source, {
            group,
            random: this.#random.fork(sourceIndex, group ?? -1),
            start: rank,
            stride: worldSize,
          }),
      ),
    );
    const used = this.#streams.filter((_, i) => this.counts[this.#sourceOf(i)]! > 0);
    const total = used.reduce((sum, { share }) => sum + share, 0);
    const wide = used.reduce((sum, { share, group }) => sum + (group === 0 ? 0 : share), 0);
    this.#groupShare = wide / total;
    this.#signature = createHash('sha256')
      .update(JSON.stringify([seed, batchSize, groupByAspect, rank, worldSize]))
      .update(
        JSON.stringify(
          sources.map(({ images, ratio, repeat }) => [
            ratio,
            images.map(({ width, height }) => (width < height ? 0 : landscape)),
            repeat ? [repeat.rounding, [...repeat.images]] : null,
          ]),
        ),
      )
      .digest('hex');
  }

  #sourceOf(stream: number): number {
    return this.#grouped ? stream >> 1 : stream;
  }

  /** The next batch; never ends. */
  next(): SampledBatch {
    const step = this.#step++;
    const drawn = this.#random.fork('group', step).next() < this.#groupShare ? landscape : 0;
    const indices = this.counts.map((count, source) => {
      if (count === 0) return [];
      let stream = this.#streams[this.#grouped ? 2 * source + drawn : source]!;
      if (stream.share === 0) stream = this.#streams[2 * source + 1 - drawn]!;
      return Array.from({ length: count }, () => stream.next());
    });
    return { step, indices, after: this.state() };
  }

  /** next() without end. */
  *[Symbol.iterator](): Generator<SampledBatch, void, undefined> {
    for (;;) yield this.next();
  }

  /**
   * Another image of a source, in place of one that cannot be used. Takes nothing from the streams.
   * @param place of the image in the run; `attempt` counts 0, 1, … for one place
   */
  substitute(source: number, place: { step: number; slot: number; attempt: number }): number {
    const { step, slot, attempt } = place;
    const count = this.#sources[source]!.images.length;
    return this.#random.fork('substitute', source, step, slot, attempt).integer(0, count);
  }

  /** For a checkpoint: a sampler that takes it draws the batches that would come next here. */
  state(): SamplerState {
    return {
      step: this.#step,
      cursors: this.#streams.map((stream) => stream.cursor),
      signature: this.#signature,
    };
  }

  /** Continues as the sampler that gave the state would. @throws MixplError ERR_CHECKPOINT when it had other sources or options */
  restore(state: SamplerState): void {
    if (state.signature !== this.#signature || state.cursors.length !== this.#streams.length)
      throw new MixplError(
        'ERR_CHECKPOINT',
        'BatchSampler.restore: state must come from a sampler with the same images, ratios and options, got that of another one',
      );
    this.#step = state.step;
    state.cursors.forEach((cursor, i) => {
      this.#streams[i]!.cursor = cursor;
    });
  }
}

/** An endless sequence of random permutations of the images of one group of one source. */
class Stream {
  readonly group: number | undefined;
  /** Expected length of a pass; 0 when there is nothing to draw. */
  readonly share: number;
  readonly #source: SamplerSource;
  readonly #random: Random;
  readonly #stride: number;
  #pass = 0;
  #position: number;
  #order: { pass: number; indices: readonly number[] } | undefined;

  constructor(
    source: SamplerSource,
    options: { group: number | undefined; random: Random; start: number; stride: number },
  ) {
    this.#source = source;
    this.group = options.group;
    this.#random = options.random;
    this.#position = options.start;
    this.#stride = options.stride;
    const { repeat } = source;
    this.share = source.images.reduce((sum, _, index) => {
      if (!this.#holds(index)) return sum;
      const factor = repeat ? repeat.images[index]! : 1;
      return sum + (repeat?.rounding === 'ceil' ? Math.ceil(factor) : factor);
    }, 0);
  }

  get cursor(): readonly [number, number] {
    return [this.#pass, this.#position];
  }
  set cursor([pass, position]: readonly [number, number]) {
    this.#pass = pass;
    this.#position = position;
  }

  next(): number {
    let order = this.#orderOf(this.#pass);
    while (this.#position >= order.length) {
      this.#position -= order.length;
      order = this.#orderOf(++this.#pass);
    }
    const index = order[this.#position]!;
    this.#position += this.#stride;
    return index;
  }

  #holds(index: number): boolean {
    const { width, height } = this.#source.images[index]!;
    return this.group === undefined || this.group === (width < height ? 0 : landscape);
  }

  #orderOf(pass: number): readonly number[] {
    if (this.#order?.pass !== pass) {
      const { images, repeat } = this.#source;
      const all = repeat
        ? repeatedIndices(repeat, this.#random.fork('repeat', pass))
        : images.map((_, index) => index);
      const held = all.filter((index) => this.#holds(index));
      const permutation = this.#random.fork('order', pass).permutation(held.length);
      this.#order = { pass, indices: permutation.map((i) => held[i]!) };
    }
    return this.#order.indices;
  }
}

/** int(B * ratio / sum), the remainder to the first source. */
function countsOf(sources: readonly SamplerSource[], batchSize: number): number[] {
  if (sources.length === 0) throw configError('sources must have at least one entry', 'none');
  if (!Number.isInteger(batchSize) || batchSize < 1)
    throw configError('batchSize must be a positive integer', String(batchSize));
  const sum = sources.reduce((total, { ratio }) => total + ratio, 0);
  if (!sources.every(({ ratio }) => ratio >= 0) || !(sum > 0) || !Number.isFinite(sum))
    throw configError(
      'ratios must be >= 0, and at least one > 0',
      `[${sources.map(({ ratio }) => ratio).join(', ')}]`,
    );
  const counts = sources.map(({ ratio }) => Math.trunc((batchSize * ratio) / sum));
  counts[0]! += batchSize - counts.reduce((total, count) => total + count, 0);
  sources.forEach(({ ratio, images, repeat }, i) => {
    if (ratio > 0 && counts[i] === 0)
      throw configError(
        `batchSize must give every source at least one image (ratios ${sources.map((s) => s.ratio).join(':')})`,
        `${batchSize}, which gives source ${i} none`,
      );
    if (counts[i]! > 0 && images.length === 0)
      throw configError(`source ${i} must have images (it has a share of the batch)`, 'none');
    if (repeat && repeat.images.length !== images.length)
      throw configError(
        `source ${i} must have a repeat factor per image (${images.length})`,
        String(repeat.images.length),
      );
  });
  return counts;
}

function configError(expected: string, got: string): MixplError {
  return new MixplError('ERR_CONFIG', `BatchSampler: ${expected}, got ${got}`);
}
