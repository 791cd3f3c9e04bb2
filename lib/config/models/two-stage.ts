import { z } from 'zod';
import { channels, nonNegative, positive, positiveCount, share, stride } from '../fields.js';
import { common, iousAscend, neck, onlyMmdetection, strideMismatch } from './parts.js';

const test = z
  .strictObject({
    scoreThr: share().default(0.05),
    nmsIou: share().default(0.5),
    maxPerImage: positiveCount().default(100),
  })
  .prefault({});

/** As the native sampler bounds it. */
const sampleCount = () => positiveCount().max(1 << 24);

function rpn(defaults: { allowedBorder: number; smoothL1Beta: number; trainMaxPerImage: number }) {
  return z
    .strictObject({
      channels: channels().default(256),
      convs: z.int().min(1).max(16).default(1),
      strides: z.array(stride()).min(1).default([4, 8, 16, 32, 64]),
      ratios: z.array(positive()).min(1).default([0.5, 1, 2]).describe('height / width'),
      scales: z.array(positive()).min(1).default([8]).describe('side of an anchor in strides'),
      posIou: share().default(0.7),
      negIou: share().default(0.3),
      minPosIou: share().default(0.3),
      sampleSize: sampleCount().default(256).describe('anchors per image that count'),
      posFraction: share().default(0.5),
      allowedBorder: z
        .number()
        .default(defaults.allowedBorder)
        .describe('pixels that an anchor may lie outside the picture in training; -1: any number'),
      smoothL1Beta: nonNegative().default(defaults.smoothL1Beta).describe('0 is plain L1'),
      trainNmsPre: positiveCount().default(2000).describe('proposals per level before NMS'),
      trainMaxPerImage: positiveCount().default(defaults.trainMaxPerImage),
      testNmsPre: positiveCount().default(1000),
      testMaxPerImage: positiveCount().default(1000),
      scoreThr: share().default(0).describe('least score of a proposal'),
      nmsIou: share().default(0.7),
      minSize: nonNegative().default(0).describe('in pixels'),
    })
    .prefault({});
}

const sampling = {
  fcChannels: channels().default(1024),
  sampleSize: sampleCount().default(512).describe('regions per image that count'),
  posFraction: share().default(0.25),
};
const pyramid = neck({ firstLevel: 2, extra: 'none' });

export const fasterRcnn = z
  .strictObject({
    type: z.literal('faster-rcnn'),
    ...common,
    neck: pyramid,
    rpn: rpn({ allowedBorder: -1, smoothL1Beta: 0, trainMaxPerImage: 1000 }),
    roi: z
      .strictObject({
        convs: z.int().min(0).max(16).default(0).describe('3x3, before the fully connected layers'),
        convChannels: channels().default(256),
        norm: z.enum(['none', 'bn', 'gn']).default('none').describe('of these convolutions'),
        fcs: z.int().min(1).max(16).default(2).describe('fully connected layers'),
        ...sampling,
        deltaWeights: z
          .tuple([positive(), positive(), positive(), positive()])
          .default([10, 10, 5, 5])
          .describe('what box deltas are multiplied by'),
        posIou: share().default(0.5),
        negIou: share().default(0.5),
        smoothL1Beta: nonNegative().default(0).describe('0 is plain L1'),
      })
      .prefault({}),
    test,
  })
  .refine((model) => model.rpn.strides.length === model.neck.numOutputs, strideMismatch('rpn'))
  .refine((model) => model.rpn.negIou <= model.rpn.posIou, iousAscend('rpn'))
  .refine((model) => model.roi.negIou <= model.roi.posIou, iousAscend('roi'));

const perStage = (bound: z.ZodNumber) => z.tuple([bound, bound, bound]);

export const cascadeRcnn = z
  .strictObject({
    type: z.literal('cascade-rcnn'),
    ...common,
    numerics: onlyMmdetection(),
    neck: pyramid,
    rpn: rpn({ allowedBorder: 0, smoothL1Beta: 1 / 9, trainMaxPerImage: 2000 }),
    roi: z
      .strictObject({
        ...sampling,
        ious: perStage(share()).default([0.5, 0.6, 0.7]).describe('of positives, per stage'),
        lossWeights: perStage(nonNegative()).default([1, 0.5, 0.25]),
        smoothL1Beta: nonNegative().default(1),
      })
      .prefault({}),
    test,
  })
  .refine((model) => model.rpn.strides.length === model.neck.numOutputs, strideMismatch('rpn'))
  .refine((model) => model.rpn.negIou <= model.rpn.posIou, iousAscend('rpn'));
