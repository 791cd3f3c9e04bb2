export { annotatedImages, type SampleOptions } from './annotated-images.js';
export {
  type AtThreshold,
  analyzePseudoLabels,
  type LabelCounts,
  type PseudoLabelAnalysis,
  type PseudoLabelOptions,
  thresholdsAround,
} from './pseudo-labels.js';
