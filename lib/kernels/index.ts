/**
 * Low-level kernels on typed arrays and ndarrays. Arguments are copied; nothing blocks the event loop but
 * that copy.
 * @module mixpl/kernels
 */
export type { ArrayInput, KernelOptions, NdArray, NdArrayLike } from './arrays.js';
export {
  type AnchorOptions,
  anchors,
  type BoxCoderOptions,
  batchedNms,
  boxIou,
  decodeBoxes,
  encodeBoxes,
  type IouKind,
  type NmsOptions,
  nms,
} from './boxes.js';
export { type ComposeKernelOptions, compose } from './images.js';
export { ema, type FocalLossOptions, sigmoidFocalLoss } from './training.js';
