import { z } from 'zod';
import { count, nonNegative, positiveCount } from '../fields.js';
import {
  common,
  denseTest,
  focal,
  neck,
  onlyMmdetection,
  squareAnchors,
  strideMismatch,
} from './parts.js';

export const tood = z
  .strictObject({
    type: z.literal('tood'),
    ...common,
    numerics: onlyMmdetection(),
    neck: neck({ extra: 'on-output' }),
    head: z
      .strictObject({
        channels: z.int().min(8).default(256).describe('channels of the tower'),
        stackedConvs: z.int().min(1).max(16).default(6).describe('convolutions of the tower'),
        norm: z.literal('gn').default('gn').describe('normalisation of these convolutions'),
      })
      .prefault({}),
    anchors: squareAnchors(),
    train: z
      .strictObject({
        iterationsBeforeAlignment: count()
          .nullable()
          .default(null)
          .describe(
            'first iterations, with ATSS assignment and focal loss; task-aligned ones follow; null: never, as in the semi-supervised runs of the released code',
          ),
        topK: positiveCount()
          .max(65536)
          .default(9)
          .describe('ATSS assignment: candidates per level and box'),
        alignTop: positiveCount()
          .default(13)
          .describe('task-aligned assignment: candidates per box'),
        alignAlpha: nonNegative().default(1).describe('exponent of the score in the alignment'),
        alignBeta: nonNegative().default(6).describe('exponent of the IoU in the alignment'),
        ...focal,
        qualityBeta: z.number().min(1).default(2).describe('exponent of the quality focal loss'),
      })
      .prefault({}),
    test: denseTest({ nmsIou: 0.6 }),
  })
  .refine(
    (model) => model.anchors.strides.length === model.neck.numOutputs,
    strideMismatch('anchors'),
  );
