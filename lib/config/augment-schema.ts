/** How pictures are varied. Names as in ViewOptions of lib/augment. */
import { z } from 'zod';
import { type ColorChoice, colorMagnitudes, colorSpace, geometricSpace } from '../augment/views.js';
import { maxSide, nonNegative, positiveCount, range, share } from './fields.js';

const resize = z
  .union([
    z
      .strictObject({
        long: positiveCount().max(maxSide).default(1333).describe('largest long side'),
        short: range(positiveCount().max(maxSide))
          .default([400, 1200])
          .describe('the short side is drawn from it'),
      })
      .describe('keeps the ratio'),
    z
      .strictObject({ width: positiveCount().max(maxSide), height: positiveCount().max(maxSide) })
      .describe('exactly this size'),
  ])
  .prefault({});

const magnitudes = z
  .strictObject(
    Object.fromEntries(
      colorSpace.map((op) => [
        op,
        range(z.number()).default([...colorMagnitudes[op]] as [number, number]),
      ]),
    ) as Record<ColorChoice, z.ZodDefault<ReturnType<typeof range>>>,
  )
  .prefault({});

const erase = z
  .strictObject({
    patches: range(z.int().min(0)).default([1, 6]).describe('number, drawn from [low, high)'),
    ratio: range(share()).default([0, 0.2]).describe('side as a share of the picture'),
    value: z.number().min(0).max(255).default(128).describe('8-bit colour of the patches'),
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
        .describe('one of these is applied; empty: none'),
      colorMagnitudes: magnitudes.describe('[low, high] of the strength of each operation'),
      geometric: z
        .array(z.enum(geometricSpace))
        .default([...geometric])
        .describe('one of these is applied; empty: none'),
      rotate: z.number().min(0).max(180).default(30).describe('largest angle in degrees'),
      shear: z.number().min(0).max(80).default(30).describe('largest angle in degrees'),
      translate: nonNegative()
        .max(1)
        .default(0.1)
        .describe('largest shift as a share of the side; drawn in steps of 0.1'),
      erase: erase.describe('Soft Teacher erasing in the pipeline; MixPL erases in semi.erase'),
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
        long: positiveCount().max(maxSide).default(1333),
        short: positiveCount().max(maxSide).default(800),
        rule: z
          .enum(['mmdetection', 'torchvision'])
          .optional()
          .describe('of sizes and interpolation; without one it is mmdetection’s'),
      })
      .prefault({}),
  })
  .prefault({});
