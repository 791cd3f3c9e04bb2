/** What the passes of a step cost, and which of them were not made. */
import { MixplError } from '../errors.js';

/** One forward and backward pass of a step, or one that was not worth it. */
export interface Pass {
  prefix: string;
  /** Of its losses in the sum that is minimised. */
  weight: number;
  silent?: boolean;
  /** Absent: the student has them still. */
  values?: Record<string, number>;
}

/** What a step minimised. */
export interface LossReport {
  /**
   * Named losses, weighted as they entered the sum, means over the parts: `sup_*`, `mixup_unsup_*`
   * (`unsup_*` without mixup) and `mosaic_unsup_*`. A silenced branch counts as 0. What a detector reports
   * without "loss" in its name is passed on as it is, the mean over the passes that were made.
   */
  losses: Record<string, number>;
  /** Sum of the losses: what was minimised. */
  total: number;
  /** Branches that the empty-image rule silenced, and in what share of the parts: 1 where there is one part. */
  silenced: Record<string, number>;
}

/**
 * Adds up the passes of a step. Their weights hold the share of the part that they belong to, so sums
 * over the parts are means.
 */
export class LossSum {
  /** A silenced branch has the losses of those that were not. */
  #names: string[] = [];

  /** @throws MixplError ERR_DIVERGED naming a loss that is not finite */
  of(passes: readonly Pass[]): LossReport {
    const losses: Record<string, number> = {};
    const silent = new Tally();
    const made = new Tally();
    for (const pass of passes) {
      const { prefix, weight } = pass;
      if (pass.silent) {
        silent.add(prefix);
        for (const name of this.#names) losses[prefix + name] ??= 0;
        continue;
      }
      const { values = {} } = pass;
      checkFinite(prefix, values);
      made.add(prefix);
      this.#names = Object.keys(values).filter(isLoss);
      for (const [name, value] of Object.entries(values)) {
        const before = losses[prefix + name] ?? 0;
        losses[prefix + name] =
          before + (isLoss(name) ? weight * value : (value - before) / made.of(prefix));
      }
    }
    let total = 0;
    for (const [name, value] of Object.entries(losses)) if (isLoss(name)) total += value;
    const silenced: Record<string, number> = {};
    for (const prefix of silent.names)
      silenced[prefix] = silent.of(prefix) / (silent.of(prefix) + made.of(prefix));
    return { losses, total, silenced };
  }
}

/** How often each name came. */
class Tally {
  readonly #counts = new Map<string, number>();

  get names(): Iterable<string> {
    return this.#counts.keys();
  }
  of(name: string): number {
    return this.#counts.get(name) ?? 0;
  }
  add(name: string): void {
    this.#counts.set(name, this.of(name) + 1);
  }
}

/** @throws MixplError ERR_DIVERGED naming a loss that is not finite */
export function checkFinite(prefix: string, values: Record<string, number>): void {
  for (const [name, value] of Object.entries(values))
    if (isLoss(name) && !Number.isFinite(value))
      throw new MixplError(
        'ERR_DIVERGED',
        `training: ${prefix}${name} must be finite, got ${value}`,
      );
}

/** Only what says so is a loss; a detector may report other numbers beside, as in mmengine. */
function isLoss(name: string): boolean {
  return /loss|(^|_)(classification|bbox_regression|bbox_ctrness)$/.test(name);
}
