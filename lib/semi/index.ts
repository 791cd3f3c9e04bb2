export type { Together } from './branch-group.js';
export * from './cache-recipe.js';
export type { CachedView, UnlabelledPair } from './labelling.js';
export type { LossReport } from './losses.js';
export * from './mean-teacher.js';
export * from './mixpl.js';
export * from './options.js';
export type { BySize, PseudoLabelReport, TruthCounts, TruthReport } from './pseudo-labels.js';
