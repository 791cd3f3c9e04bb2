import { z } from 'zod';
import { channels, positiveCount } from '../fields.js';
import { headsDivide, queryTest, queryTrain } from './detr.js';
import { common, neck, onlyMmdetection } from './parts.js';

export const sparseRcnn = z
  .strictObject({
    type: z.literal('sparse-rcnn'),
    ...common,
    numerics: onlyMmdetection(),
    neck: neck({ firstLevel: 2, numOutputs: 4, extra: 'none' }),
    proposals: positiveCount()
      .max(1 << 20)
      .default(100)
      .describe('number of learned proposals: the most objects that an image can have'),
    head: z
      .strictObject({
        stages: positiveCount()
          .max(64)
          .default(6)
          .describe('number of stages; each refines the boxes of the one before'),
        heads: z
          .int()
          .min(1)
          .max(64)
          .default(8)
          .describe('number of heads of the attention among proposals'),
        dynamicChannels: z
          .int()
          .min(1)
          .max(4096)
          .default(64)
          .describe('channels between the two filters that a proposal makes for its region'),
        ffnChannels: channels().default(2048).describe('hidden channels of each stage'),
        classLayers: z
          .int()
          .min(0)
          .max(16)
          .default(1)
          .describe('number of layers before the classification'),
        boxLayers: z
          .int()
          .min(0)
          .max(16)
          .default(3)
          .describe('number of layers before the box regression'),
      })
      .prefault({}),
    train: queryTrain({ classification: 2 }),
    test: queryTest({ maxPerImage: 100 }),
  })
  .refine((model) => model.neck.channels % model.head.heads === 0, headsDivide('head'));
