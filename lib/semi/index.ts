export * from './cache-recipe.js';
export type { LossReport } from './losses.js';
export * from './mean-teacher.js';
export * from './mixpl.js';
export * from './options.js';
export type { CachedView, PseudoLabelReport, UnlabelledPair } from './pseudo-labels.js';
