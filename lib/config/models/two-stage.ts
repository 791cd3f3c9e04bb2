import { z } from 'zod';
import { channels, nonNegative, positive, positiveCount, share, stride } from '../fields.js';
import { common, iousAscend, neck, onlyMmdetection, strideMismatch } from './parts.js';

const test = z
  .strictObject({
    scoreThr: share().default(0.05).describe('least score of a detection'),
    nmsIou: share().default(0.5).describe('IoU above which NMS removes a box'),
    maxPerImage: positiveCount().default(100).describe('most detections per image'),
  })
  .prefault({});

/** As the native sampler bounds it. */
const sampleCount = () => positiveCount().max(1 << 24);

function rpn(defaults: { allowedBorder: number; smoothL1Beta: number; trainMaxPerImage: number }) {
  return z
    .strictObject({
      channels: channels().default(256).describe('channels of the RPN'),
      convs: z.int().min(1).max(16).default(1).describe('3x3 convolutions before the outputs'),
      strides: z
        .array(stride())
        .min(1)
        .default([4, 8, 16, 32, 64])
        .describe('stride of each level in pixels'),
      ratios: z.array(positive()).min(1).default([0.5, 1, 2]).describe('height / width of anchors'),
      scales: z.array(positive()).min(1).default([8]).describe('side of an anchor in strides'),
      posIou: share().default(0.7).describe('least IoU of positives'),
      negIou: share().default(0.3).describe('IoU below which an anchor is negative'),
      minPosIou: share()
        .default(0.3)
        .describe('least IoU of the best anchor of a box to be positive below posIou'),
      sampleSize: sampleCount().default(256).describe('anchors per image that the loss counts'),
      posFraction: share().default(0.5).describe('largest share of positives among them'),
      allowedBorder: z
        .number()
        .default(defaults.allowedBorder)
        .describe(
          'pixels by which an anchor may reach outside the image in training; -1: any number',
        ),
      smoothL1Beta: nonNegative()
        .default(defaults.smoothL1Beta)
        .describe('error below which the L1 loss is quadratic; 0: plain L1'),
      trainNmsPre: positiveCount()
        .default(2000)
        .describe('proposals per level before NMS, in training'),
      trainMaxPerImage: positiveCount()
        .default(defaults.trainMaxPerImage)
        .describe('most proposals per image, in training'),
      testNmsPre: positiveCount()
        .default(1000)
        .describe('proposals per level before NMS, in prediction'),
      testMaxPerImage: positiveCount()
        .default(1000)
        .describe('most proposals per image, in prediction'),
      scoreThr: share().default(0).describe('least score of a proposal'),
      nmsIou: share().default(0.7).describe('IoU above which NMS removes a proposal'),
      minSize: nonNegative().default(0).describe('least side of a proposal in pixels'),
    })
    .prefault({});
}

const sampling = {
  fcChannels: channels().default(1024).describe('channels of the fully connected layers'),
  sampleSize: sampleCount().default(512).describe('regions per image that the loss counts'),
  posFraction: share().default(0.25).describe('largest share of positives among them'),
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
        convs: z
          .int()
          .min(0)
          .max(16)
          .default(0)
          .describe('number of 3x3 convolutions before the fully connected layers'),
        convChannels: channels().default(256).describe('channels of these convolutions'),
        norm: z
          .enum(['none', 'bn', 'gn'])
          .default('none')
          .describe('normalisation of these convolutions'),
        fcs: z.int().min(1).max(16).default(2).describe('number of fully connected layers'),
        ...sampling,
        deltaWeights: z
          .tuple([positive(), positive(), positive(), positive()])
          .default([10, 10, 5, 5])
          .describe('factors of the encoded box [dx, dy, dw, dh]'),
        posIou: share().default(0.5).describe('least IoU of positives'),
        negIou: share().default(0.5).describe('IoU below which a region is background'),
        smoothL1Beta: nonNegative()
          .default(0)
          .describe('error below which the L1 loss is quadratic; 0: plain L1'),
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
        ious: perStage(share())
          .default([0.5, 0.6, 0.7])
          .describe('least IoU of positives, per stage'),
        lossWeights: perStage(nonNegative())
          .default([1, 0.5, 0.25])
          .describe('weight of the losses of each stage'),
        smoothL1Beta: nonNegative()
          .default(1)
          .describe('error below which the L1 loss is quadratic; 0: plain L1'),
      })
      .prefault({}),
    test,
  })
  .refine((model) => model.rpn.strides.length === model.neck.numOutputs, strideMismatch('rpn'))
  .refine((model) => model.rpn.negIou <= model.rpn.posIou, iousAscend('rpn'));
