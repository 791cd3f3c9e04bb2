/** How long and how fast it is trained, and what is kept of it. */
import { z } from 'zod';
import { count, imageCount, nonNegative, positive, positiveCount, share } from './fields.js';

/** What single parameters get beside the one rate and decay; native/optim/parameter_groups.h reads it. */
const groups = z
  .array(
    z.strictObject({
      match: z.string().min(1).describe("part of a parameter's path, e.g. sampling_offsets"),
      lrFactor: positive().optional().describe('of the rate; absent: as without the group'),
      weightDecayFactor: nonNegative()
        .optional()
        .describe('of weightDecay; absent: as without the group'),
      optional: z
        .boolean()
        .optional()
        .describe('a match in no path is no mistake: only variants of the detector have it'),
    }),
  )
  .refine((all) => new Set(all.map(({ match }) => match)).size === all.length, {
    error: 'must name each match once',
  })
  .describe('parameters by path; of several that match, the group with the longest one counts');

/** Of every kind of optimizer. */
const ofParameters = {
  weightDecay: nonNegative().default(1e-4),
  normDecay: nonNegative().nullable().default(null).describe('null: as weightDecay'),
  biasDecay: nonNegative().nullable().default(null).describe('null: as weightDecay'),
  backboneLrFactor: nonNegative().default(1),
  groups: groups.default([]),
};

const sgd = z.strictObject({
  type: z.literal('sgd'),
  lr: positive().default(0.01),
  momentum: share().default(0.9),
  ...ofParameters,
  clipNorm: nonNegative().default(20).describe('largest L2 norm of all gradients; 0: no clipping'),
});

const adamw = z.strictObject({
  type: z.literal('adamw'),
  lr: positive().default(1e-4),
  betas: z.tuple([share(), share()]).default([0.9, 0.999]),
  eps: positive().default(1e-8),
  ...ofParameters,
  clipNorm: nonNegative().default(0.1).describe('largest L2 norm of all gradients; 0: no clipping'),
});

export const optimizerSchema = z.discriminatedUnion('type', [sgd, adamw]).prefault({ type: 'sgd' });

const decay = z
  .discriminatedUnion('type', [
    z.strictObject({ type: z.literal('constant') }),
    z.strictObject({
      type: z.literal('step'),
      milestones: z
        .array(positiveCount())
        .min(1)
        .refine((at) => at.every((m, i) => i === 0 || m > at[i - 1]!), { error: 'must ascend' }),
      factor: share().default(0.1).describe('the rate is multiplied by it at each milestone'),
    }),
  ])
  .default({ type: 'constant' });

export const scheduleSchema = z
  .strictObject({
    iterations: positiveCount().default(180_000),
    warmup: z
      .strictObject({
        iterations: count().default(500).describe('0: none'),
        factor: share().default(0.001).describe('of the rate at the first iteration'),
      })
      .prefault({}),
    decay,
  })
  .prefault({});

/** Losses of 256 passes wait for the update (native/models/training_session.h); a part has three. */
const mostParts = 64;

export const batchSchema = z
  .strictObject({
    labelled: imageCount().default(1).describe('images of a part'),
    unlabelled: imageCount().default(4).describe('images of a part'),
    accumulate: positiveCount()
      .max(mostParts)
      .default(1)
      .describe(
        'parts of an iteration, one after the other: each is what one of as many processes would have, its cache ' +
          'and loss normalisers too; their gradients are averaged for one update',
      ),
    aspectGrouping: z.boolean().default(true).describe('batches of landscape or portrait only'),
  })
  .prefault({});

export const validationSchema = z
  .strictObject({
    interval: count().default(5000).describe('iterations; 0: only at the end'),
    batch: imageCount().default(1).describe('images at a time'),
    protocol: z
      .enum(['coco', 'mmdetection'])
      .default('coco')
      .describe('limits of detections per image and class: 1, 10, 100 or 100, 300, 1000'),
    voc: z
      .enum(['11point', 'area'])
      .nullable()
      .default(null)
      .describe("Pascal VOC's metrics, too: VOC2007's rule or the later one"),
  })
  .prefault({});

export const checkpointSchema = z
  .strictObject({
    interval: count().default(5000).describe('iterations; 0: only at the end'),
    keep: positiveCount().default(1).describe('newest ones that stay'),
  })
  .prefault({});

export const loaderSchema = z
  .strictObject({
    prefetch: positiveCount().max(64).default(2).describe('batches prepared ahead'),
    cacheMiB: count().default(512).describe('decoded images kept in memory; 0: none'),
  })
  .prefault({});

export const loggingSchema = z
  .strictObject({
    interval: positiveCount().default(50).describe('iterations between lines of metrics.jsonl'),
    level: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
    tensorboard: z
      .boolean()
      .default(false)
      .describe('also write the numbers of metrics.jsonl as event files of TensorBoard'),
  })
  .prefault({});
