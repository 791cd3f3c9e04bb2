/** How long and how fast it is trained, and what is kept of it. */
import { z } from 'zod';
import { count, imageCount, nonNegative, positive, positiveCount, share } from './fields.js';

/** What single parameters get beside the one rate and decay; native/optim/parameter_groups.h reads it. */
const groups = z
  .array(
    z.strictObject({
      match: z
        .string()
        .min(1)
        .describe('text that the paths of its parameters contain, e.g. sampling_offsets'),
      lrFactor: positive()
        .optional()
        .describe('factor of the learning rate; absent: as without the group'),
      weightDecayFactor: nonNegative()
        .optional()
        .describe('factor of weightDecay; absent: as without the group'),
      optional: z
        .boolean()
        .optional()
        .describe('true: no error if no parameter path contains match'),
    }),
  )
  .refine((all) => new Set(all.map(({ match }) => match)).size === all.length, {
    error: 'must have each match only once',
  })
  .describe(
    'factors for parameters by path; if several groups match, the one with the longest match counts',
  );

/** Of every kind of optimizer. */
const ofParameters = {
  weightDecay: nonNegative().default(1e-4).describe('weight decay of the other parameters'),
  normDecay: nonNegative()
    .nullable()
    .default(null)
    .describe('weight decay of normalisation layers; null: as weightDecay'),
  biasDecay: nonNegative()
    .nullable()
    .default(null)
    .describe('weight decay of biases; null: as weightDecay'),
  backboneLrFactor: nonNegative()
    .default(1)
    .describe('factor of the learning rate for the backbone'),
  groups: groups.default([]),
};

const sgd = z.strictObject({
  type: z.literal('sgd').describe('kind of optimizer'),
  lr: positive().default(0.01).describe('learning rate after the warm-up'),
  momentum: share().default(0.9).describe('momentum of SGD'),
  ...ofParameters,
  clipNorm: nonNegative()
    .default(20)
    .describe('largest L2 norm of all gradients together; 0: no clipping'),
});

const adamw = z.strictObject({
  type: z.literal('adamw'),
  lr: positive().default(1e-4).describe('learning rate after the warm-up'),
  betas: z
    .tuple([share(), share()])
    .default([0.9, 0.999])
    .describe('decay rates of the two moments of AdamW'),
  eps: positive().default(1e-8).describe('what AdamW adds to the denominator'),
  ...ofParameters,
  clipNorm: nonNegative()
    .default(0.1)
    .describe('largest L2 norm of all gradients together; 0: no clipping'),
});

export const optimizerSchema = z.discriminatedUnion('type', [sgd, adamw]).prefault({ type: 'sgd' });

const decay = z
  .discriminatedUnion('type', [
    z.strictObject({ type: z.literal('constant').describe('how the rate falls') }),
    z.strictObject({
      type: z.literal('step'),
      milestones: z
        .array(positiveCount())
        .min(1)
        .refine((at) => at.every((m, i) => i === 0 || m > at[i - 1]!), { error: 'must ascend' })
        .describe('iterations at which the learning rate changes'),
      factor: share()
        .default(0.1)
        .describe('the learning rate is multiplied by it at each milestone'),
    }),
  ])
  .default({ type: 'constant' });

export const scheduleSchema = z
  .strictObject({
    iterations: positiveCount().default(180_000).describe('length of the training'),
    warmup: z
      .strictObject({
        iterations: count().default(500).describe('length of the linear warm-up; 0: none'),
        factor: share()
          .default(0.001)
          .describe('factor of the learning rate at the first iteration'),
      })
      .prefault({}),
    decay,
  })
  .prefault({});

/** Losses of 256 passes wait for the update (native/models/training_session.h); a part has three. */
const mostParts = 64;

export const batchSchema = z
  .strictObject({
    labelled: imageCount().default(1).describe('labelled images per part of an iteration'),
    unlabelled: imageCount().default(4).describe('unlabelled images per part of an iteration'),
    accumulate: positiveCount()
      .max(mostParts)
      .default(1)
      .describe(
        'parts of an iteration, computed one after the other; each has its own batch, cache and loss ' +
          'normalisers, as if it were a process; one update with the average of their gradients follows',
      ),
    aspectGrouping: z
      .boolean()
      .default(true)
      .describe('batches have landscape images only or portrait images only'),
  })
  .prefault({});

export const validationSchema = z
  .strictObject({
    interval: count()
      .default(5000)
      .describe('iterations between validations; 0: only one at the end'),
    batch: imageCount().default(1).describe('images per pass of the detector'),
    protocol: z
      .enum(['coco', 'mmdetection'])
      .default('coco')
      .describe(
        'limits on detections per image and class: 1, 10, 100 (coco) or 100, 300, 1000 (mmdetection)',
      ),
    voc: z
      .enum(['11point', 'area'])
      .nullable()
      .default(null)
      .describe("also compute Pascal VOC's metrics: 11point as in VOC2007, area as later"),
  })
  .prefault({});

export const checkpointSchema = z
  .strictObject({
    interval: count()
      .default(5000)
      .describe('iterations between checkpoints; 0: only one at the end'),
    keep: positiveCount().default(1).describe('number of newest checkpoints to keep'),
  })
  .prefault({});

export const loaderSchema = z
  .strictObject({
    prefetch: positiveCount().max(64).default(2).describe('number of batches to prepare ahead'),
    cacheMiB: count().default(512).describe('memory for decoded images in MiB; 0: none is kept'),
  })
  .prefault({});

export const loggingSchema = z
  .strictObject({
    interval: positiveCount().default(50).describe('iterations between lines of metrics.jsonl'),
    level: z
      .enum(['debug', 'info', 'warn', 'error'])
      .default('info')
      .describe('least important messages that the command line shows'),
    tensorboard: z
      .boolean()
      .default(false)
      .describe('also write the numbers of metrics.jsonl as event files of TensorBoard'),
  })
  .prefault({});
