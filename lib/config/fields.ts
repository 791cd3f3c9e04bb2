/** The few kinds of values that options are made of. */
import { z } from 'zod';

export const count = () => z.int().min(0);
export const positiveCount = () => z.int().min(1);
export const positive = () => z.number().positive();
export const nonNegative = () => z.number().min(0);
export const share = () => z.number().min(0).max(1);

/** A file or folder name. */
export const path = () => z.string().min(1);

/** [low, high] with low <= high. */
export function range(bound: z.ZodNumber) {
  return z
    .tuple([bound, bound])
    .refine(([low, high]) => low <= high, { error: 'must be [low, high] with low <= high' });
}
