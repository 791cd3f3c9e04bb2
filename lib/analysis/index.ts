export { annotatedImages, type SampleOptions } from './annotated-images.js';
export { type CamOptions, type CamView, camViews, type PictureCams } from './cam.js';
export {
  analyzeGradients,
  type GradientAnalysis,
  type GradientOptions,
  type GradientsAtThreshold,
  type TypedGradients,
} from './gradients.js';
export {
  type AtThreshold,
  analyzePseudoLabels,
  type LabelCounts,
  type PseudoLabelAnalysis,
  type PseudoLabelOptions,
  thresholdsAround,
} from './pseudo-labels.js';
export { type ViewName, viewNames } from './student-views.js';
export type { StudentViewChoices } from './view-walk.js';
