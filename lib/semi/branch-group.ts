/** Branches of an iteration that share a graph. */
import type { LabelledComposition } from '../augment/index.js';
import type { ImageBatch, LabelledBatch } from '../detector/types.js';
import { MixplError } from '../errors.js';
import type { Pass } from './losses.js';

/**
 * Branches that go forward and back at once: a GPU's backbone then has all their images in each launch, and
 * memory holds the graphs of all of them. The update is the same but for rounding.
 * - none: each branch by itself
 * - unlabelled: mixed images and mosaics
 * - all: labelled images, too, which then wait for the teacher's boxes
 */
export type Together = (typeof togethers)[number];
const togethers = ['none', 'unlabelled', 'all'] as const;

/**
 * What MIXPL_BRANCHES_TOGETHER says; 'none' unless it is set.
 * @throws MixplError ERR_CONFIG
 */
export function togetherByDefault(): Together {
  const asked = process.env.MIXPL_BRANCHES_TOGETHER || 'none';
  const known = togethers.find((together) => together === asked);
  if (known) return known;
  throw new MixplError(
    'ERR_CONFIG',
    `MIXPL_BRANCHES_TOGETHER must be one of ${togethers.join(', ')}, got '${asked}'`,
  );
}

/** Branches on their way to a pass, with batches that may still be in the making. */
export class BranchGroup {
  #batches: { batch: Promise<ImageBatch>; targets: LabelledBatch['targets'] }[] = [];
  #passes: Pass[] = [];

  add(
    samples: readonly Pick<LabelledComposition, 'instances'>[],
    batch: Promise<ImageBatch>,
    pass: Pass,
  ): void {
    batch.catch(() => {}); // told to who takes it
    const targets = samples.map(({ instances: { boxes, labels } }) => ({ boxes, labels }));
    this.#batches.push({ batch, targets });
    this.#passes.push(pass);
  }
  addSilent(prefix: string): void {
    this.#passes.push({ prefix, weight: 0, silent: true });
  }

  /** What was added, in order; whoever takes the batches disposes them. */
  async take(): Promise<{ batches: LabelledBatch[]; passes: Pass[] }> {
    const batches: LabelledBatch[] = [];
    for (const { batch, targets } of this.#batches) batches.push({ batch: await batch, targets });
    const passes = this.#passes;
    [this.#batches, this.#passes] = [[], []];
    return { batches, passes };
  }
  /** Of what nobody took. */
  async dispose(): Promise<void> {
    for (const { batch } of this.#batches) (await batch.catch(() => null))?.dispose();
  }
}
