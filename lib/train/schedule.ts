/** How the learning rate changes over the iterations. */
export interface RateSchedule {
  /** Linear rise from factor × rate to the rate over the first iterations; 0: none. */
  warmup: { iterations: number; factor: number };
  decay:
    | { type: 'constant' }
    /** The rate is multiplied by factor from each milestone on. */
    | { type: 'step'; milestones: readonly number[]; factor: number };
}

/**
 * Learning rate of iteration `i` (0-based). The first one has factor × rate, the last one of the
 * warm-up the whole rate; decay counts on top of it.
 * @source mmengine LinearLR (its ramp has iterations - 1 steps) and MultiStepLR
 */
export function learningRate(base: number, schedule: RateSchedule, i: number): number {
  const { warmup, decay } = schedule;
  let rate = base;
  if (decay.type === 'step')
    for (const milestone of decay.milestones) if (i >= milestone) rate *= decay.factor;
  const ramp = warmup.iterations - 1;
  if (i >= ramp) return rate;
  return rate * (warmup.factor + (1 - warmup.factor) * (i / ramp));
}
