/**
 * How far a result may be from its float64 truth, in one table. A value passes when
 * |got - want| <= relative * |want| + absolute * max |want|.
 */
export interface Tolerance {
  relative: number;
  absolute: number;
}

export const tolerances = {
  /** f32 arithmetic of a few operations: some units of 2^-24, and sums in f32 chunks of <= 256. */
  f32: { relative: 2e-6, absolute: 2e-6 },
  /** bf16 results: one rounding to 8 significant bits (2^-8), the arithmetic before it is f32. */
  bf16: { relative: 2 ** -7.99, absolute: 2e-6 },
  /** f32 results against torch's f32 results: both round, and torch sums long rows in f32. */
  torch: { relative: 2e-5, absolute: 5e-6 },
  /** A sum over all inputs (a loss): f32 terms, double partial sums. */
  sum: { relative: 2e-6, absolute: 0 },
  /** Losses of a head: sums over boxes that f32 decodes, whose corners carry 2^-24 of their distance. */
  headLoss: { relative: 1e-5, absolute: 0 },
  /** Directional derivative of the f32 op against central differences in float64. */
  gradient: { relative: 1e-4, absolute: 0 },
  /** The same when the gradient is stored in bf16: independent roundings of 2^-8. */
  gradientBf16: { relative: 2 ** -7, absolute: 0 },
  /** The same of factors that were rounded to bf16, too, for the tensor cores. */
  gradientRounded: { relative: 2 ** -6, absolute: 0 },
} as const satisfies Record<string, Tolerance>;

/**
 * How far a detector in bf16 may be from itself in f32. Activations and weights carry 8 significant bits,
 * 2^-9 relative each: through some thirty layers about 1% of an output, on which losses and boxes depend
 * linearly. In gradients that is little beside the ReLUs that switch: of inputs with a normal
 * distribution some 0.8 * 1% lie so close to zero, and each that switches is one wholly wrong term, which
 * is 6 to 9% of a layer's gradient and, over ten to twenty layers behind one another, up to 0.4 of its norm.
 */
export const bf16Detector = {
  /** Relative, of each loss. */
  loss: 0.03,
  /** Distance of the whole gradient, as a share of its norm; and how far the norm itself moves. */
  gradient: 0.5,
  gradientNorm: 0.1,
  /** Of the score of a confident detection. */
  score: 0.03,
  /** Least overlap of it with itself. */
  iou: 0.95,
  /** Least share of such ones: of two boxes of one object suppression may keep the other. */
  detections: 0.8,
} as const;
