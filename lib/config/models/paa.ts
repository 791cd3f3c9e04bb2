import { z } from 'zod';
import { positiveCount, share } from '../fields.js';
import {
  common,
  denseTest,
  focal,
  iousAscend,
  neck,
  onlyMmdetection,
  squareAnchors,
  strideMismatch,
  towers,
} from './parts.js';

export const paa = z
  .strictObject({
    type: z.literal('paa'),
    ...common,
    numerics: onlyMmdetection(),
    neck: neck({ extra: 'on-output' }),
    head: towers({ norm: 'gn' }),
    anchors: squareAnchors(),
    train: z
      .strictObject({
        posIou: share().default(0.1).describe('least IoU of positives in the first assignment'),
        negIou: share()
          .default(0.1)
          .describe('IoU of the first assignment below which an anchor is negative'),
        minPosIou: share()
          .default(0)
          .describe('least IoU of the best anchor of a box to be positive below posIou'),
        topK: positiveCount()
          .max(65536)
          .default(9)
          .describe('anchors per level and box from which the mixture model chooses'),
        ...focal,
      })
      .prefault({}),
    test: denseTest({ nmsIou: 0.6 })
      .unwrap()
      .extend({
        scoreVoting: z
          .boolean()
          .default(true)
          .describe(
            'true: a kept box becomes the mean of the boxes around it, weighted by score and IoU',
          ),
      })
      .prefault({}),
  })
  .refine((model) => model.train.negIou <= model.train.posIou, iousAscend('train'))
  .refine(
    (model) => model.anchors.strides.length === model.neck.numOutputs,
    strideMismatch('anchors'),
  );
