import { z } from 'zod';
import { positiveCount } from '../fields.js';
import {
  common,
  denseTest,
  neck,
  onlyMmdetection,
  squareAnchors,
  strideMismatch,
  towerFields,
} from './parts.js';

export const gfl = z
  .strictObject({
    type: z.literal('gfl'),
    ...common,
    numerics: onlyMmdetection(),
    neck: neck({ extra: 'on-output' }),
    head: z
      .strictObject({
        ...towerFields({ norm: 'gn' }),
        regMax: z
          .int()
          .min(1)
          .max(1024)
          .default(16)
          .describe(
            'largest distance from a point to a side of its box, in strides; there is one bin per whole distance',
          ),
      })
      .prefault({}),
    anchors: squareAnchors(),
    train: z
      .strictObject({
        topK: positiveCount().max(65536).default(9).describe('candidates per level and box'),
        qualityBeta: z.number().min(1).default(2).describe('exponent of the quality focal loss'),
      })
      .prefault({}),
    test: denseTest({ nmsIou: 0.6 }),
  })
  .refine(
    (model) => model.anchors.strides.length === model.neck.numOutputs,
    strideMismatch('anchors'),
  );
