/** What is trained: the network and how its numbers come from pixels. Names as in DetectorOptions. */
import { z } from 'zod';
import { layoutNames } from '../weights/layouts.js';
import { count, nonNegative, path, positive, positiveCount, share } from './fields.js';

const backbone = z.strictObject({
  type: z.literal('resnet').default('resnet'),
  depth: z.literal([18, 34, 50, 101]).default(50),
  style: z
    .enum(['pytorch', 'caffe'])
    .default('caffe')
    .describe('where a bottleneck has its stride: on the 3x3 (pytorch) or the first 1x1 (caffe)'),
  frozenStages: z
    .int()
    .min(-1)
    .max(4)
    .default(1)
    .describe('-1: none; 0: the stem; n: the stem and stages 1 … n'),
  norm: z
    .enum(['frozen-bn', 'bn-eval', 'bn', 'gn'])
    .default('frozen-bn')
    .describe('gn is the one for training from scratch with small batches'),
  baseWidth: z
    .int()
    .min(4)
    .multipleOf(4)
    .default(64)
    .describe('channels of the stem; less than 64 is a thinner network'),
});

const neck = z.strictObject({
  type: z.literal('fpn').default('fpn'),
  channels: positiveCount().default(256),
  firstLevel: z.int().min(2).max(5).default(3),
  numOutputs: z.int().min(1).max(8).default(5),
  extra: z
    .enum(['none', 'on-input', 'on-output'])
    .default('on-input')
    .describe('where P6 comes from: nowhere, C5 or P5'),
  reluBeforeExtra: z.boolean().default(false),
});

const head = z.strictObject({
  channels: positiveCount().default(256),
  stackedConvs: z.int().min(0).max(16).default(4),
  norm: z.enum(['none', 'gn']).default('none'),
});

const anchors = z.strictObject({
  strides: z.array(positive()).min(1).default([8, 16, 32, 64, 128]),
  ratios: z.array(positive()).min(1).default([0.5, 1, 2]).describe('height / width'),
  octaveBaseScale: positive().default(4),
  scalesPerOctave: z.int().min(1).max(16).default(3),
});

const train = z.strictObject({
  posIou: share().default(0.5),
  negIou: share().default(0.4),
  minPosIou: share().default(0),
  focalAlpha: share().default(0.25),
  focalGamma: nonNegative().default(2),
  smoothL1Beta: nonNegative().default(0).describe('0 is plain L1'),
});

const test = z.strictObject({
  scoreThr: share().default(0.05),
  nmsPre: positiveCount().default(1000).describe('box and class pairs per level'),
  nmsIou: share().default(0.5),
  maxPerImage: positiveCount().default(100),
});

/** One entry per detector. */
export const modelSchema = z
  .strictObject({
    type: z.literal('retinanet').default('retinanet'),
    numClasses: positiveCount()
      .nullable()
      .default(null)
      .describe('null: as many as the labelled data has'),
    weights: path()
      .nullable()
      .default(null)
      .describe('safetensors or .pth file to start from; null: fresh weights'),
    weightsLayout: z
      .enum(layoutNames)
      .nullable()
      .default(null)
      .describe('whose names model.weights has; null: found out by them'),
    backbone: backbone.prefault({}),
    neck: neck.prefault({}),
    head: head.prefault({}),
    anchors: anchors.prefault({}),
    train: train.prefault({}),
    test: test.prefault({}),
  })
  .refine((model) => model.train.negIou <= model.train.posIou, {
    path: ['train', 'negIou'],
    error: 'must be at most train.posIou',
  })
  .refine((model) => model.anchors.strides.length === model.neck.numOutputs, {
    path: ['anchors', 'strides'],
    error: 'must hold one stride per output of the neck (model.neck.numOutputs)',
  });

const perChannel = (bound: z.ZodNumber) => z.tuple([bound, bound, bound]);

/** Defaults: the caffe-style statistics of the paper's RetinaNet (reference-facts 3.6). */
export const preprocessSchema = z.strictObject({
  mean: perChannel(z.number()).default([103.53, 116.28, 123.675]),
  std: perChannel(positive()).default([1, 1, 1]),
  channelOrder: z.enum(['rgb', 'bgr']).default('bgr').describe('of mean, std and the network'),
  padDivisor: count().min(1).default(32).describe('batches are padded to a multiple of this'),
});
