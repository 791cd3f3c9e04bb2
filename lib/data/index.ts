export * from '../json/stream.js';
export type { CategoryOptions } from './categories.js';
export * from './check.js';
export * from './coco.js';
export * from './coco-writer.js';
export { boxesPerImage, makeDataset, selectImages } from './dataset.js';
export * from './decode.js';
export * from './filter.js';
export * from './fingerprint.js';
export * from './image-cache.js';
export * from './image-folder.js';
export * from './load.js';
export * from './loader.js';
export * from './prefetch.js';
export {
  type DatasetProblem,
  type DatasetPurpose,
  type DatasetReport,
  describe as describeProblem,
  lenientPolicy,
  type ProblemAction,
  type ProblemKind,
  type ProblemOptions,
  type ProblemPolicy,
  type ProblemSummary,
  problemRules,
  withPolicyHint,
} from './problems.js';
export * from './resampling.js';
export * from './sampler.js';
export * from './split.js';
export * from './types.js';
export * from './voc.js';
