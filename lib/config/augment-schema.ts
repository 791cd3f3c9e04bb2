/** How images are varied. Names as in ViewOptions of lib/augment. */
import { z } from 'zod';
import { type ColorChoice, colorMagnitudes, colorSpace, geometricSpace } from '../augment/views.js';
import { maxSide, nonNegative, positiveCount, range, share } from './fields.js';

const resize = z
  .union([
    z
      .strictObject({
        long: positiveCount().max(maxSide).default(1333).describe('largest long side in pixels'),
        short: range(positiveCount().max(maxSide))
          .default([400, 1200])
          .describe('range [low, high] in pixels from which the short side is drawn'),
      })
      .describe('resizes at random and keeps the aspect ratio'),
    z
      .strictObject({
        width: positiveCount().max(maxSide).describe('exact width in pixels'),
        height: positiveCount().max(maxSide).describe('exact height in pixels'),
      })
      .describe('resizes to exactly this size'),
  ])
  .prefault({})
  .describe('size of the view: a random one of the same aspect ratio, or an exact one');

const magnitudes = z
  .strictObject(
    Object.fromEntries(
      colorSpace.map((op) => [
        op,
        range(z.number())
          .default([...colorMagnitudes[op]] as [number, number])
          .describe('range [low, high] of its strength'),
      ]),
    ) as Record<ColorChoice, z.ZodDefault<ReturnType<typeof range>>>,
  )
  .prefault({});

const erase = z
  .strictObject({
    patches: range(z.int().min(0))
      .default([1, 6])
      .describe('range [low, high) from which the number of patches is drawn'),
    ratio: range(share())
      .default([0, 0.2])
      .describe('range [low, high] of the side of a patch, as a share of the side of the image'),
    value: z.number().min(0).max(255).default(128).describe('grey value of the patches, 0 … 255'),
  })
  .nullable()
  .default(null);

function view(
  color: readonly (typeof colorSpace)[number][],
  geometric: readonly (typeof geometricSpace)[number][],
) {
  return z
    .strictObject({
      resize,
      flip: share().default(0.5).describe('probability of a horizontal flip'),
      color: z
        .array(z.enum(colorSpace))
        .default([...color])
        .describe('colour operations, of which one is applied; empty: none'),
      colorMagnitudes: magnitudes.describe(
        'range [low, high] of the strength of each colour operation',
      ),
      geometric: z
        .array(z.enum(geometricSpace))
        .default([...geometric])
        .describe('geometric operations, of which one is applied; empty: none'),
      rotate: z.number().min(0).max(180).default(30).describe('largest rotation in degrees'),
      shear: z.number().min(0).max(80).default(30).describe('largest shear angle in degrees'),
      translate: nonNegative()
        .max(1)
        .default(0.1)
        .describe('largest translation as a share of the side, drawn in steps of 0.1'),
      erase: erase.describe(
        'random erasing in this view, as in Soft Teacher; null: none (the erasing of MixPL is semi.erase)',
      ),
    })
    .prefault({});
}

export const augmentSchema = z
  .strictObject({
    labelled: view(colorSpace, []),
    weak: view([], []),
    strong: view(colorSpace, geometricSpace),
    test: z
      .strictObject({
        long: positiveCount().max(maxSide).default(1333).describe('largest long side in pixels'),
        short: positiveCount().max(maxSide).default(800).describe('largest short side in pixels'),
        rule: z
          .enum(['mmdetection', 'torchvision'])
          .optional()
          .describe('whose rule of sizes and interpolation to follow; absent: mmdetection'),
      })
      .prefault({}),
  })
  .prefault({});
