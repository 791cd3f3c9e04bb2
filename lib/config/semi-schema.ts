/** The method: DetMeanTeacher and MixPL. Names as in SemiOptions. */
import { z } from 'zod';
import { count, imageCount, maxSide, nonNegative, positiveCount, range, share } from './fields.js';

/** Height and width of the box that a mosaic's tile must fit. */
const shape = z.tuple([positiveCount().max(maxSide), positiveCount().max(maxSide)]);

const erase = z
  .strictObject({
    patches: range(z.int().min(0)).default([1, 20]).describe('number, drawn from [low, high)'),
    ratio: range(share()).default([0, 0.1]).describe('side as a share of the picture'),
    threshold: nonNegative()
      .default(0.7)
      .describe('a box goes when at least this share of it is erased'),
  })
  .nullable()
  .prefault({});

const ema = z
  .strictObject({
    momentum: share().default(2e-4).describe('smallest share of the student in an update'),
    gamma: nonNegative()
      .default(4)
      .describe('the share after iteration i of the run is max(momentum, gamma / (gamma + i))'),
    interval: positiveCount().default(3).describe('iterations between updates'),
    buffers: z
      .enum(['skip', 'copy', 'average'])
      .default('skip')
      .describe('BatchNorm statistics; skip is wrong with live BatchNorm'),
  })
  .prefault({});

const resampling = z
  .strictObject({
    threshold: share().describe('share of images below which a class is repeated'),
    rounding: z.enum(['ceil', 'stochastic']).default('ceil'),
    countCrowd: z.boolean().default(true).describe('crowds count as instances of their class'),
  })
  .nullable()
  .default(null);

export const semiSchema = z
  .strictObject({
    method: z.enum(['supervised', 'mean-teacher', 'mixpl']).default('mixpl'),
    scoreThr: share()
      .nullable()
      .default(null)
      .describe("pseudo labels score above it; null: the detector's own, see defaultScoreThr"),
    minBoxSize: nonNegative().default(0.01).describe('pixels of the strong view, either side'),
    emptyImageRule: z
      .enum(['branch-gate', 'per-image'])
      .default('branch-gate')
      .describe('as released: an empty image silences its branch; as in the paper: only itself'),
    leastNum: count()
      .default(1)
      .describe('an image with fewer pseudo labels is empty; 0 switches the rule off'),
    supWeight: nonNegative().default(1),
    unsupWeight: nonNegative().default(2),
    mosaicWeight: nonNegative().default(0.5).describe('times unsupWeight'),
    mixup: z.boolean().default(true),
    mosaic: z.boolean().default(true),
    indexRule: z
      .enum(['reference', 'paper'])
      .default('reference')
      .describe("which cached images are mixed: the reference's index rule, or the paper's text"),
    cacheSize: imageCount().default(8).describe('images'),
    mosaicShape: z
      .array(shape)
      .min(1)
      .max(2)
      .refine(([low, high]) => !high || (low![0] <= high[0] && low![1] <= high[1]), {
        error: 'must be one [height, width], or the lowest and the highest',
      })
      .default([
        [400, 400],
        [800, 800],
      ])
      .describe(
        "[height, width] of a tile's box: one, or two corners to draw between, high excluded",
      ),
    erase: erase.describe('null: no erasing'),
    burnIn: count().default(0).describe('iterations on labelled images alone before teaching'),
    ema,
    resampling: resampling.describe('Labelled Resampling; null: off'),
  })
  .prefault({});
