import { z } from 'zod';
import { augmentSchema } from '../config/augment-schema.js';
import { describeIssues } from '../config/problems.js';
import { semiSchema } from '../config/semi-schema.js';
import {
  batchSchema,
  checkpointSchema,
  loaderSchema,
  loggingSchema,
  scheduleSchema,
  validationSchema,
} from '../config/training-schema.js';
import { MixplError } from '../errors.js';
import { defaultScoreThr, resolveSemiOptions, type SemiOptions } from '../semi/index.js';

/** The part of a run's config that the training loop reads; the rest builds detector and data. */
const settingsSchema = z.strictObject({
  seed: z.int().min(0).default(0),
  /** Learning rate after the warm-up. */
  lr: z.number().positive().default(0.01),
  augment: augmentSchema,
  semi: semiSchema,
  schedule: scheduleSchema,
  batch: batchSchema,
  validation: validationSchema,
  checkpoint: checkpointSchema,
  loader: loaderSchema,
  logging: loggingSchema,
});

/** How to train, complete; sections as in a run's config. */
export type TrainSettings = z.output<typeof settingsSchema>;
/** How to train, as a user writes it: what is left out is the paper's. */
export type TrainSettingsInput = z.input<typeof settingsSchema>;

/** @throws MixplError ERR_CONFIG, one line per problem */
export function resolveTrainSettings(input: TrainSettingsInput = {}): TrainSettings {
  const result = settingsSchema.safeParse(input);
  if (result.success) return result.data;
  const { issues } = result.error;
  const lines = describeIssues(
    issues,
    settingsSchema,
    input,
    () => 'trainSemiSupervised: settings',
  );
  throw new MixplError('ERR_CONFIG', lines.join('\n'));
}

/** The loop's options. Without 'mixpl' nothing is mixed: DetMeanTeacher. */
export function semiOptionsOf(settings: TrainSettings, detectorType = ''): SemiOptions {
  const { method, burnIn: _, resampling: __, scoreThr, ...semi } = settings.semi;
  const mixing = method === 'mixpl';
  return resolveSemiOptions({
    ...semi,
    scoreThr: scoreThr ?? defaultScoreThr(detectorType),
    mixup: mixing && semi.mixup,
    mosaic: mixing && semi.mosaic,
  });
}
