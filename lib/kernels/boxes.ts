import { MixplError } from '../errors.js';
import {
  type ArrayInput,
  checkNumber,
  checkNumbers,
  checkOptions,
  type KernelOptions,
  type NdArray,
  readArray,
  runKernel,
  take,
} from './arrays.js';

const boxRows = { dtype: 'f32', shape: [null, 4], axes: 'B, 4' } as const;

/** Options of nms and batchedNms. */
export interface NmsOptions extends KernelOptions {
  /** A box is removed if its IoU with a better one is above this, in [0, 1]. @defaultValue 0.5 */
  iouThr?: number;
  /** Largest number of boxes to keep. @defaultValue no limit */
  maxBoxes?: number;
}

/**
 * Greedy non-maximum suppression.
 * @param boxes f32 [B, 4] xyxy
 * @param scores f32 [B]; equal scores keep their order, NaN comes last
 * @returns indices of the kept boxes, best first
 * @throws MixplError ERR_SHAPE, ERR_DTYPE, ERR_RANGE
 */
export async function nms(
  boxes: ArrayInput<Float32Array>,
  scores: ArrayInput<Float32Array>,
  options: NmsOptions = {},
): Promise<Int32Array> {
  checkOptions('nms', options, ['iouThr', 'maxBoxes']);
  return suppress('nms', boxes, scores, undefined, options);
}

/**
 * Non-maximum suppression within each class: boxes of different classes do not remove each other.
 * @param boxes f32 [B, 4] xyxy
 * @param scores f32 [B]; equal scores keep their order, NaN comes last
 * @param options.labels i32 [B], any integers
 * @returns indices of the kept boxes of all classes, best first
 * @throws MixplError ERR_SHAPE, ERR_DTYPE, ERR_RANGE
 */
export async function batchedNms(
  boxes: ArrayInput<Float32Array>,
  scores: ArrayInput<Float32Array>,
  options: NmsOptions & { labels: ArrayInput<Int32Array> },
): Promise<Int32Array> {
  checkOptions('batchedNms', options, ['labels', 'iouThr', 'maxBoxes']);
  return suppress('batchedNms', boxes, scores, options.labels ?? null, options);
}

async function suppress(
  op: string,
  boxes: ArrayInput<Float32Array>,
  scores: ArrayInput<Float32Array>,
  labels: ArrayInput<Int32Array> | null | undefined,
  { iouThr = 0.5, maxBoxes, signal, device }: NmsOptions,
): Promise<Int32Array> {
  const inputs = [];
  const first = readArray(op, 'boxes', boxes, boxRows);
  const shape = [first.shape[0]!];
  inputs.push(first, readArray(op, 'scores', scores, { dtype: 'f32', shape }));
  if (labels !== undefined)
    inputs.push(readArray(op, 'labels', labels as ArrayInput<Int32Array>, { dtype: 'i32', shape }));
  const native = {
    iouThr: checkNumber(op, 'iouThr', iouThr, { low: 0, high: 1 }),
    most:
      maxBoxes === undefined
        ? -1
        : checkNumber(op, 'maxBoxes', maxBoxes, { low: 0, integer: true }),
  };
  const { outputs } = await runKernel('nms', inputs, native, { signal, device });
  return (await take<Int32Array>(outputs[0]!)).data;
}

const iouKinds = ['iou', 'giou', 'diou', 'ciou'] as const;
/** Plain overlap, or the generalised, distance or complete one. */
export type IouKind = (typeof iouKinds)[number];

/**
 * Overlap of every pair of boxes.
 * @param a f32 [A, 4] xyxy
 * @param b f32 [B, 4] xyxy
 * @param options.kind @defaultValue 'iou'
 * @returns f32 [A, B]
 * @throws MixplError ERR_SHAPE, ERR_DTYPE, ERR_RANGE
 * @source Rezatofighi et al. 2019 (giou), Zheng et al. 2020 (diou, ciou)
 */
export async function boxIou(
  a: ArrayInput<Float32Array>,
  b: ArrayInput<Float32Array>,
  options: KernelOptions & { kind?: IouKind } = {},
): Promise<NdArray<Float32Array>> {
  checkOptions('boxIou', options, ['kind']);
  const { kind = 'iou', signal, device } = options;
  if (!iouKinds.includes(kind))
    throw new MixplError(
      'ERR_RANGE',
      `boxIou: kind must be one of ${iouKinds.map((k) => `'${k}'`).join(', ')}, got '${kind}'`,
    );
  const inputs = [readArray('boxIou', 'a', a, boxRows), readArray('boxIou', 'b', b, boxRows)];
  const { outputs } = await runKernel('boxIou', inputs, { kind }, { signal, device });
  return take(outputs[0]!);
}

/** Means and standard deviations that offsets are normalised with. */
export interface BoxCoderOptions extends KernelOptions {
  /** Means of (dx, dy, dw, dh). @defaultValue [0, 0, 0, 0] */
  means?: readonly [number, number, number, number];
  /** Their standard deviations, above 0. @defaultValue [1, 1, 1, 1] */
  stds?: readonly [number, number, number, number];
}

/**
 * Offsets of boxes against anchors: ((x - xa) / wa, (y - ya) / ha, ln(w / wa), ln(h / ha)) of
 * centres and sizes, then (d - mean) / std.
 * @param anchors f32 [B, 4] xyxy
 * @param targets f32 [B, 4] xyxy
 * @returns f32 [B, 4]
 * @throws MixplError ERR_SHAPE, ERR_DTYPE, ERR_RANGE
 * @source Girshick et al. 2014, R-CNN, appendix C
 */
export async function encodeBoxes(
  anchors: ArrayInput<Float32Array>,
  targets: ArrayInput<Float32Array>,
  options: BoxCoderOptions = {},
): Promise<NdArray<Float32Array>> {
  checkOptions('encodeBoxes', options, ['means', 'stds']);
  return code('encodeBoxes', anchors, { name: 'boxes', values: targets }, options, {});
}

/**
 * Inverse of encodeBoxes.
 * @param anchors f32 [B, 4] xyxy
 * @param deltas f32 [B, 4]
 * @returns f32 [B, 4] xyxy, not clipped to an image
 * @throws MixplError ERR_SHAPE, ERR_DTYPE, ERR_RANGE
 */
export async function decodeBoxes(
  anchors: ArrayInput<Float32Array>,
  deltas: ArrayInput<Float32Array>,
  options: BoxCoderOptions & {
    /** Largest |dw| and |dh|. @defaultValue ln(1000 / 16) */
    limit?: number;
    /** 'both' also bounds them from below (mmdetection), 'upper' does not (torchvision). @defaultValue 'both' */
    clamp?: 'both' | 'upper';
  } = {},
): Promise<NdArray<Float32Array>> {
  checkOptions('decodeBoxes', options, ['means', 'stds', 'limit', 'clamp']);
  const { limit = Math.log(1000 / 16), clamp = 'both' } = options;
  checkNumber('decodeBoxes', 'limit', limit, { low: 0 });
  if (clamp !== 'both' && clamp !== 'upper')
    throw new MixplError(
      'ERR_RANGE',
      `decodeBoxes: clamp must be 'both' or 'upper', got '${clamp}'`,
    );
  const bounds = { limit, bothSides: clamp === 'both' };
  return code('decodeBoxes', anchors, { name: 'deltas', values: deltas }, options, bounds);
}

async function code(
  op: string,
  anchors: ArrayInput<Float32Array>,
  { name, values }: { name: string; values: ArrayInput<Float32Array> },
  { means = [0, 0, 0, 0], stds = [1, 1, 1, 1], signal, device }: BoxCoderOptions,
  bounds: { limit?: number; bothSides?: boolean },
): Promise<NdArray<Float32Array>> {
  const first = readArray(op, 'anchors', anchors, boxRows);
  const inputs = [first, readArray(op, name, values, { dtype: 'f32', shape: first.shape })];
  checkNumbers(op, 'means', means, 4);
  checkNumbers(op, 'stds', stds, 4);
  const { outputs } = await runKernel(op, inputs, { means, stds, ...bounds }, { signal, device });
  return take(outputs[0]!);
}

/** Options of anchors(). */
export interface AnchorOptions extends KernelOptions {
  /** Distance between cells in pixels. */
  stride: number;
  /** Height / width. @defaultValue [0.5, 1, 2] */
  ratios?: readonly number[];
  /** Sides in strides. @defaultValue [4, 4 · 2^(1/3), 4 · 2^(2/3)] */
  scales?: readonly number[];
  /** Sides in pixels, instead of scales (torchvision). */
  sizes?: readonly number[];
  /** Where in its cell an anchor is centred, in strides. @defaultValue 0, the top-left corner */
  centerOffset?: number;
  /** Rounds the base boxes' corners to integers (torchvision). @defaultValue false */
  round?: boolean;
}

/**
 * Anchors of one pyramid level: cells row by row, within a cell ratios outer, sides inner.
 * @param size cells of the feature map
 * @returns f32 [height · width · ratios · sides, 4] xyxy in pixels
 * @throws MixplError ERR_RANGE, ERR_CONFIG
 * @source mmdetection AnchorGenerator; torchvision AnchorGenerator
 */
export async function anchors(
  size: { height: number; width: number },
  options: AnchorOptions,
): Promise<NdArray<Float32Array>> {
  const op = 'anchors';
  checkOptions(op, options, ['stride', 'ratios', 'scales', 'sizes', 'centerOffset', 'round']);
  const { signal, device, stride, ...rest } = options;
  if (typeof size !== 'object' || size === null)
    throw new MixplError('ERR_SHAPE', `${op}: size must be { height, width }, got ${String(size)}`);
  for (const side of ['height', 'width'] as const)
    checkNumber(op, side, size[side], { low: 0, high: 65536, integer: true });
  checkNumber(op, 'stride', stride, { low: 0 });
  for (const name of ['ratios', 'scales', 'sizes'] as const)
    if (rest[name] !== undefined) checkNumbers(op, name, rest[name]);
  if (rest.centerOffset !== undefined) checkNumber(op, 'centerOffset', rest.centerOffset);
  const { height, width } = size;
  const native = { stride, height, width, ...rest };
  const { outputs } = await runKernel('levelAnchors', [], native, { signal, device });
  return take(outputs[0]!);
}
