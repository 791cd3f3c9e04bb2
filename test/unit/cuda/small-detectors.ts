import type { DetectorOptions } from '../../../lib/index.js';

const parts = {
  numClasses: 3,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 8 },
} satisfies Partial<DetectorOptions>;
const strides = [8, 16, 32];
const dense = {
  ...parts,
  neck: { channels: 16, numOutputs: 3 },
  head: { channels: 16, stackedConvs: 1 },
} satisfies Partial<DetectorOptions>;
const anchors = { strides, octaveBaseScale: 4 };
// Everything is sampled: what a loss is does not depend on the draw.
const twoStage = {
  ...parts,
  neck: { channels: 16, firstLevel: 2, extra: 'none', numOutputs: 4 },
  rpn: {
    ...{ channels: 16, sampleSize: 100_000, posFraction: 1, scales: [4], strides: [4, 8, 16, 32] },
    ...{ trainNmsPre: 40, trainMaxPerImage: 20, testNmsPre: 40, testMaxPerImage: 20 },
  },
  roi: { fcChannels: 16, sampleSize: 5000, posFraction: 1 },
} satisfies Partial<DetectorOptions>;

const detr = {
  ...parts,
  neck: { channels: 16, numOutputs: 3 },
  transformer: {
    ...{ heads: 2, points: 2, encoderLayers: 1, decoderLayers: 2 },
    ...{ ffnChannels: 24, dropout: 0.1 },
  },
  queries: 12,
} satisfies Partial<DetectorOptions>;

const swin = {
  backbone: {
    ...{ type: 'swin', embed: 8, depths: [2, 2, 1, 2], heads: [1, 2, 2, 4], window: 4 },
    dropPath: 0.2,
  },
} satisfies Partial<DetectorOptions>;

/** Every type, as small as it gets with all its parts, for pictures of some 64 pixels; three classes. */
export const smallDetectors: Record<string, DetectorOptions> = {
  retinanet: { type: 'retinanet', ...dense, anchors },
  fcos: { type: 'fcos', ...dense, points: { strides }, train: { regressBounds: [24, 48] } },
  atss: { type: 'atss', ...dense, anchors },
  gfl: { type: 'gfl', ...dense, head: { ...dense.head, regMax: 8 }, anchors },
  paa: { type: 'paa', ...dense, anchors },
  'tood before alignment': { type: 'tood', ...dense, anchors },
  tood: { type: 'tood', ...dense, anchors, train: { iterationsBeforeAlignment: 0 } },
  centernet: {
    ...{ type: 'centernet', ...dense, points: { strides } },
    train: { regressFrom: [0, 20, 40], regressTo: [25, 50] },
  },
  'faster-rcnn': { type: 'faster-rcnn', ...twoStage },
  'cascade-rcnn': { type: 'cascade-rcnn', ...twoStage },
  'sparse-rcnn': {
    ...{ type: 'sparse-rcnn', ...parts, neck: { channels: 16 }, proposals: 12 },
    head: { stages: 2, heads: 2, dynamicChannels: 8, ffnChannels: 24 },
  },
  'dab-detr': {
    ...{ type: 'dab-detr', ...detr, neck: { channels: 16 } },
    transformer: (({ points: _, ...rest }) => rest)(detr.transformer),
  },
  'deformable-detr': { type: 'deformable-detr', ...detr },
  'plain deformable-detr': { type: 'deformable-detr', ...detr, refine: false, twoStage: false },
  dino: { type: 'dino', ...detr, denoising: { queries: 6 } },
  'retinanet over swin': { type: 'retinanet', ...dense, ...swin, anchors },
};

/** `options` with these for `test`; detectors of queries have no least score. */
export function withTest(
  options: DetectorOptions,
  { scoreThr, maxPerImage }: { scoreThr: number; maxPerImage: number },
): DetectorOptions {
  const ofQueries = 'queries' in options || 'proposals' in options;
  const test = ofQueries ? { maxPerImage } : { scoreThr, maxPerImage };
  return { ...options, test } as DetectorOptions;
}
