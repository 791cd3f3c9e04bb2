/** What a detector can be asked to compute in; see DetectorRuntime.dtype. */
export const dtypeChoices = ['auto', 'fp32', 'tf32', 'bf16'] as const;
export type DtypeChoice = (typeof dtypeChoices)[number];
