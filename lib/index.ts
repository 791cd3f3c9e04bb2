/**
 * Detectors, data, training, evaluation: what `import … from 'mixpl'` gives.
 * @module mixpl
 */
import './dispose-symbols.js';

export * from './analysis/index.js';
export * from './augment/index.js';
export {
  formatConfig,
  jsonSchema,
  type LoadOptions,
  listPresets,
  loadConfig,
  type Preset,
  parseConfig,
  type ResolvedConfig,
  type RunConfig,
} from './config/index.js';
export { type Dashboard, type DashboardOptions, startDashboard } from './dashboard/index.js';
export * from './data/index.js';
export type {
  InputImage,
  InputOptions,
  NormalizedImage,
  PredictOptions,
} from './detector/batch.js';
export * from './detector/create.js';
export * from './detector/detector.js';
export { type OpenedDetector, openDetector } from './detector/open.js';
export * from './detector/options.js';
export {
  type GradCam,
  type GradCamOptions,
  type GradientDensity,
  type GradientDensityInput,
  gradCam,
  gradientDensity,
  type HeatMap,
  type SampleType,
} from './detector/probe.js';
export {
  type TorchvisionOptions,
  type TorchvisionPreset,
  torchvisionPresets,
} from './detector/torchvision.js';
export * from './detector/types.js';
export type { ExportLayout, LoadedWeights, LoadWeightsOptions } from './detector/weights.js';
export { MixplError, type MixplErrorCode } from './errors.js';
export * from './eval/index.js';
export * from './geometry.js';
export * as kernels from './kernels/index.js';
export {
  type BuildInfo,
  type DeviceInfo,
  type DType,
  type MemoryStats,
  type NativeAddon,
  type NativeTensor,
  native,
  type TypedArray,
} from './native.js';
export {
  compareOnnx,
  exportOnnx,
  type OnnxComparison,
  type OnnxOptions,
  type OnnxPicture,
  runOnnx,
} from './onnx/index.js';
export * from './processes/index.js';
export { Random } from './random.js';
export { writeRunReport } from './report/index.js';
export {
  readSafetensors,
  type SafetensorsFile,
  type StoredTensor,
  type TensorEntry,
  writeSafetensors,
} from './safetensors.js';
export * from './semi/index.js';
export * from './train/index.js';
export { type LayoutName, layoutNames } from './weights/layouts.js';
export { type Misshapen, type Pair, type WeightsMatch, WeightsMisfit } from './weights/match.js';
export { openWeights, type WeightsFile } from './weights/open.js';
