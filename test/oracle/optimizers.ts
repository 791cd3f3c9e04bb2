// Optimizers and clipping in float64, one number after the other, from their papers' update rules.

export interface OptimizerCase {
  type: 'sgd' | 'adamw';
  lr: number;
  weightDecay?: number;
  momentum?: number;
  dampening?: number;
  nesterov?: boolean;
  betas?: readonly [number, number];
  eps?: number;
}

/** One weight under a row of gradients; returns it after each step. */
export function trajectory(
  start: number,
  gradients: readonly number[],
  options: OptimizerCase,
): number[] {
  const { type, lr, weightDecay = 0, momentum = 0.9, dampening = 0, nesterov = false } = options;
  const { betas = [0.9, 0.999], eps = 1e-8 } = options;
  let w = start;
  let velocity: number | undefined;
  let first = 0;
  let second = 0;
  return gradients.map((gradient, index) => {
    if (type === 'sgd') {
      const d = gradient + weightDecay * w;
      velocity = velocity === undefined ? d : momentum * velocity + (1 - dampening) * d;
      w -= lr * (momentum === 0 ? d : nesterov ? d + momentum * velocity : velocity);
    } else {
      const t = index + 1;
      w -= lr * weightDecay * w;
      first = betas[0] * first + (1 - betas[0]) * gradient;
      second = betas[1] * second + (1 - betas[1]) * gradient ** 2;
      const m = first / (1 - betas[0] ** t);
      const v = second / (1 - betas[1] ** t);
      w -= (lr * m) / (Math.sqrt(v) + eps);
    }
    return w;
  });
}

/** Share of the student in an update after iteration i (0-based): max(floor, gamma / (gamma + i)). */
export function emaShare(i: number, { floor = 2e-4, gamma = 4 } = {}): number {
  return Math.max(floor, gamma / (gamma + i));
}
