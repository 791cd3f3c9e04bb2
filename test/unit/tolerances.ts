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
} as const satisfies Record<string, Tolerance>;
