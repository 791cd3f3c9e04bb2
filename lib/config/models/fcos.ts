import { z } from 'zod';
import { nonNegative, positive } from '../fields.js';
import {
  common,
  denseTest,
  focal,
  mustHold,
  neck,
  strideMismatch,
  strides,
  towers,
} from './parts.js';

export const fcos = z
  .strictObject({
    type: z.literal('fcos'),
    ...common,
    neck: neck({ extra: 'on-output', reluBeforeExtra: true }),
    head: towers({ norm: 'gn' }),
    points: z.strictObject({ strides: strides() }).prefault({}),
    train: z
      .strictObject({
        centerRadius: nonNegative()
          .default(1.5)
          .describe(
            "radius around a box's centre within which points are positive, in strides; 0: every point in the box",
          ),
        regressBounds: z
          .array(positive())
          .default([64, 128, 256, 512])
          .describe(
            'limits between the levels: the largest distance that a level regresses, in pixels',
          ),
        ...focal,
      })
      .prefault({}),
    test: denseTest({ nmsIou: 0.6 }),
  })
  .refine(
    (model) => model.points.strides.length === model.neck.numOutputs,
    strideMismatch('points'),
  )
  .refine(
    (model) => model.train.regressBounds.length === model.neck.numOutputs - 1,
    mustHold(['train', 'regressBounds'], 'one number between each two levels'),
  );
