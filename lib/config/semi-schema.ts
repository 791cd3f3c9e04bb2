/** The method: DetMeanTeacher and MixPL. Names as in SemiOptions. */
import { z } from 'zod';
import {
  count,
  halfOpenRange,
  imageCount,
  maxSide,
  nonNegative,
  positiveCount,
  range,
  share,
} from './fields.js';

/** Height and width of the box that a mosaic's tile must fit. */
const shape = z.tuple([positiveCount().max(maxSide), positiveCount().max(maxSide)]);

const erase = z
  .strictObject({
    patches: halfOpenRange(z.int().min(0))
      .default([1, 20])
      .describe('range [low, high) from which the number of patches is drawn'),
    ratio: range(share())
      .default([0, 0.1])
      .describe('range [low, high] of the side of a patch, as a share of the side of the image'),
    threshold: nonNegative()
      .default(0.7)
      .describe('a box is removed if at least this share of it is erased'),
  })
  .nullable()
  .prefault({});

const ema = z
  .strictObject({
    momentum: share()
      .default(2e-4)
      .describe('smallest share of the student in an update of the teacher'),
    gamma: nonNegative()
      .default(4)
      .describe('the share of the student after iteration i is max(momentum, gamma / (gamma + i))'),
    interval: positiveCount().default(3).describe('iterations between updates of the teacher'),
    buffers: z
      .enum(['skip', 'copy', 'average'])
      .default('skip')
      .describe(
        "what the teacher does with the student's BatchNorm statistics; skip is wrong with live BatchNorm",
      ),
  })
  .prefault({});

const resampling = z
  .strictObject({
    threshold: share().describe(
      'images of a class are repeated if the class is in less than this share of the images',
    ),
    rounding: z
      .enum(['ceil', 'stochastic'])
      .default('ceil')
      .describe('how the number of repeats is rounded: up, or at random in proportion'),
    countCrowd: z
      .boolean()
      .default(true)
      .describe('true: crowds count as instances of their class'),
  })
  .nullable()
  .default(null);

export const semiSchema = z
  .strictObject({
    method: z
      .enum(['supervised', 'mean-teacher', 'mixpl'])
      .default('mixpl')
      .describe('supervised: train on labelled images only'),
    scoreThr: share()
      .nullable()
      .default(null)
      .describe("score threshold of pseudo labels; null: the paper's for this detector"),
    minBoxSize: nonNegative()
      .default(0.01)
      .describe('pseudo labels with a smaller side, in pixels of the strong view, are left out'),
    emptyImageRule: z
      .enum(['branch-gate', 'per-image'])
      .default('branch-gate')
      .describe(
        'what an image without pseudo labels does; branch-gate: its whole branch learns nothing (released code); per-image: only the image is left out (paper)',
      ),
    leastNum: count()
      .default(1)
      .describe('images with fewer pseudo labels count as empty; 0 switches emptyImageRule off'),
    supWeight: nonNegative().default(1).describe('weight of the loss on labelled images'),
    unsupWeight: nonNegative().default(2).describe('weight of the losses on pseudo labels'),
    mosaicWeight: nonNegative()
      .default(0.5)
      .describe('weight of the loss on Pseudo Mosaic images, as a factor of unsupWeight'),
    mixup: z.boolean().default(true).describe('train on Pseudo Mixup images'),
    mosaic: z.boolean().default(true).describe('train on Pseudo Mosaic images'),
    indexRule: z
      .enum(['reference', 'paper'])
      .default('reference')
      .describe('which cached images are mixed: as in the released code, or as the paper says'),
    cacheSize: imageCount().default(8).describe('number of unlabelled images kept for mixing'),
    mosaicShape: z
      .array(shape)
      .min(1)
      .max(2)
      .refine(([low, high]) => !high || (low![0] <= high[0] && low![1] <= high[1]), {
        error: 'must be one [height, width], or the lowest and the highest one',
      })
      .default([
        [400, 400],
        [800, 800],
      ])
      .describe(
        '[height, width] of a tile of a mosaic in pixels: one size, or the limits [low, high) between which it is drawn',
      ),
    erase: erase.describe('erasing of patches of the images to be mixed; null: none'),
    burnIn: count().default(0).describe('first iterations, on labelled images alone'),
    ema,
    resampling: resampling.describe(
      'Labelled Resampling, which shows images of rare classes more often; null: off',
    ),
  })
  .prefault({});
