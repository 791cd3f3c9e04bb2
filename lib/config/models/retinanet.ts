import { z } from 'zod';
import { nonNegative, positive, share } from '../fields.js';
import {
  common,
  denseTest,
  focal,
  iousAscend,
  neck,
  strideMismatch,
  strides,
  towers,
} from './parts.js';

export const retinanet = z
  .strictObject({
    type: z.literal('retinanet').optional().default('retinanet').describe('detector'),
    ...common,
    neck: neck({ extra: 'on-input' }),
    head: towers({ norm: 'none' }),
    anchors: z
      .strictObject({
        strides: strides(),
        ratios: z
          .array(positive())
          .min(1)
          .default([0.5, 1, 2])
          .describe('height / width of anchors'),
        octaveBaseScale: positive().default(4).describe('side of the smallest anchor in strides'),
        scalesPerOctave: z
          .int()
          .min(1)
          .max(16)
          .default(3)
          .describe('number of anchor sizes per octave'),
      })
      .prefault({}),
    train: z
      .strictObject({
        posIou: share().default(0.5).describe('least IoU of positives'),
        negIou: share().default(0.4).describe('IoU below which an anchor is negative'),
        minPosIou: share()
          .default(0)
          .describe('least IoU of the best anchor of a box to be positive below posIou'),
        ...focal,
        boxLoss: z
          .enum(['l1', 'giou'])
          .default('l1')
          .describe(
            'loss of boxes: L1 of encoded boxes (see smoothL1Beta), or GIoU of decoded ones',
          ),
        smoothL1Beta: nonNegative()
          .default(0)
          .describe('error below which the L1 loss is quadratic; 0: plain L1'),
      })
      .prefault({}),
    test: denseTest({ nmsIou: 0.5 }),
  })
  .refine((model) => model.train.negIou <= model.train.posIou, iousAscend('train'))
  .refine(
    (model) => model.anchors.strides.length === model.neck.numOutputs,
    strideMismatch('anchors'),
  );
