/** The few kinds of values that options are made of. */
import { z } from 'zod';

export const count = () => z.int32().min(0);
export const positiveCount = () => z.int32().min(1);
/** Of a layer, as the native detectors have it. */
export const channels = () => positiveCount().max(65536);
/** Of a level in pixels. */
export const stride = () => positive().max(65536);
/** Images that are in memory at once. */
export const imageCount = () => z.int().min(1).max(4096);
export const positive = () => z.number().positive();
export const nonNegative = () => z.number().min(0);
export const share = () => z.number().min(0).max(1);

/** Of an image in pixels; as viewOptions of lib/augment has it. */
export const maxSide = 1 << 15;

/** A file or folder name. */
export const path = () => z.string().min(1);

/** [low, high] with low <= high. */
export function range(bound: z.ZodNumber) {
  return z
    .tuple([bound, bound])
    .refine(([low, high]) => low <= high, { error: 'must be [low, high] with low <= high' });
}

/** [low, high) with low < high. */
export function halfOpenRange(bound: z.ZodNumber) {
  return z
    .tuple([bound, bound])
    .refine(([low, high]) => low < high, { error: 'must be [low, high) with low < high' });
}
