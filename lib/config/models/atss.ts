import { z } from 'zod';
import { positiveCount } from '../fields.js';
import {
  common,
  denseTest,
  focal,
  neck,
  onlyMmdetection,
  squareAnchors,
  strideMismatch,
  towers,
} from './parts.js';

export const atss = z
  .strictObject({
    type: z.literal('atss'),
    ...common,
    numerics: onlyMmdetection(),
    neck: neck({ extra: 'on-output' }),
    head: towers({ norm: 'gn' }),
    anchors: squareAnchors(),
    train: z
      .strictObject({
        topK: positiveCount().max(65536).default(9).describe('candidates per level and box'),
        ...focal,
      })
      .prefault({}),
    test: denseTest({ nmsIou: 0.6 }),
  })
  .refine(
    (model) => model.anchors.strides.length === model.neck.numOutputs,
    strideMismatch('anchors'),
  );
