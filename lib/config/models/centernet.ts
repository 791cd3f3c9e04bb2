import { z } from 'zod';
import { nonNegative, positive, positiveCount, share } from '../fields.js';
import {
  common,
  denseTest,
  mustHold,
  neck,
  onlyMmdetection,
  strideMismatch,
  strides,
  towers,
} from './parts.js';

export const centernet = z
  .strictObject({
    type: z.literal('centernet'),
    ...common,
    numerics: onlyMmdetection(),
    neck: neck({ extra: 'on-output', reluBeforeExtra: true }),
    head: towers({ norm: 'gn' }),
    points: z.strictObject({ strides: strides() }).prefault({}),
    train: z
      .strictObject({
        regressFrom: z
          .array(nonNegative())
          .default([0, 64, 128, 256, 512])
          .describe('smallest half diagonal of the boxes of each level, in pixels'),
        regressTo: z
          .array(positive())
          .default([80, 160, 320, 640])
          .describe('largest half diagonal of the boxes of each level but the last, in pixels'),
        heatMinOverlap: share()
          .default(0.8)
          .describe('IoU that a box keeps when it moves by the radius of its heat'),
        heatMinRadius: positive()
          .default(4)
          .describe('smallest radius of the heat around a centre, in pixels'),
        morePositivesLoss: z
          .number()
          .min(0)
          .max(2)
          .default(0.2)
          .describe(
            'cells around the centre of a box with a smaller GIoU loss are positives of its class',
          ),
        morePositives: positiveCount()
          .default(9)
          .describe('there are fewer than this many such positives per box'),
        positiveWeight: nonNegative()
          .default(0.25)
          .describe('weight of positives in the focal loss'),
        negativeWeight: nonNegative()
          .default(0.75)
          .describe('weight of negatives in the focal loss'),
      })
      .prefault({}),
    test: denseTest({ nmsIou: 0.6 }),
  })
  .refine(
    (model) => model.points.strides.length === model.neck.numOutputs,
    strideMismatch('points'),
  )
  .refine(
    (model) => model.train.regressFrom.length === model.neck.numOutputs,
    mustHold(['train', 'regressFrom'], 'one number per output of the neck'),
  )
  .refine(
    (model) => model.train.regressTo.length === model.neck.numOutputs - 1,
    mustHold(['train', 'regressTo'], 'one number per output of the neck but the last'),
  );
