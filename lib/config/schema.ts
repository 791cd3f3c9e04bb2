/**
 * The one schema of a run. Defaults are the values of the paper's RetinaNet on COCO (reference-facts
 * 1.1 and 3.1); only `data` has to be given. Types are inferred from it.
 */
import { z } from 'zod';
import { dtypeChoices } from '../detector/dtype.js';
import { torchvisionDefaults } from '../detector/torchvision.js';
import { defaultScoreThr } from '../semi/options.js';
import { augmentSchema } from './augment-schema.js';
import { dataSchema } from './data-schema.js';
import { modelSchema, preprocessSchema } from './model-schema.js';
import { semiSchema } from './semi-schema.js';
import {
  batchSchema,
  checkpointSchema,
  loaderSchema,
  loggingSchema,
  optimizerSchema,
  scheduleSchema,
  validationSchema,
} from './training-schema.js';

const runSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[\w.@-]+$/, { error: 'must consist of letters, digits and . _ - @' })
    .default('run')
    .describe('of the run and its folder'),
  seed: z.int().min(0).default(0),
  device: z
    .string()
    .regex(/^(auto|cpu|cuda(:\d+)?)$/, { error: 'must be auto, cpu, cuda or cuda:N' })
    .default('auto'),
  dtype: z
    .enum(dtypeChoices)
    .default('auto')
    .describe(
      'of activations; tf32: fp32, products on tensor cores of a GPU; auto: bf16 on GPUs, and where the processor has it',
    ),
  threads: z.int().min(1).max(1024).nullable().default(null).describe('null: one per core'),
  model: modelSchema.prefault({}),
  data: dataSchema,
  preprocess: preprocessSchema.prefault({}),
  augment: augmentSchema,
  semi: semiSchema,
  optimizer: optimizerSchema,
  schedule: scheduleSchema,
  batch: batchSchema,
  validation: validationSchema,
  checkpoint: checkpointSchema,
  loader: loaderSchema,
  logging: loggingSchema,
});

/** Checks that concern several sections, and defaults that depend on another option. */
export const configSchema = runSchema
  .superRefine((config, context) => {
    const { semi, data, batch, model } = config;
    if (model.preset) {
      const { type, numerics } = torchvisionDefaults({ preset: model.preset })!.model;
      for (const [key, wanted] of Object.entries({ type, numerics }) as [
        'type' | 'numerics',
        string,
      ][])
        if (model[key] !== wanted)
          context.addIssue({
            code: 'custom',
            path: ['model', key],
            message: `must be ${wanted} with model.preset ${model.preset}`,
          });
    }
    if (semi.method !== 'supervised' && !data.unlabelled && !data.split)
      context.addIssue({
        code: 'custom',
        path: ['data', 'unlabelled'],
        message: `must be given for semi.method ${semi.method} (or data.split, to leave out labels)`,
      });
    if (semi.method !== 'mixpl') return;
    // The reference's windows: partners are the oldest entries, tiles are the next four.
    const needed = semi.indexRule === 'reference' && semi.mosaic ? batch.unlabelled + 4 : 4;
    if (semi.cacheSize < needed)
      context.addIssue({
        code: 'custom',
        path: ['semi', 'cacheSize'],
        message: `must be at least ${needed} with batch.unlabelled ${batch.unlabelled} and semi.indexRule ${semi.indexRule}`,
      });
  })
  .transform((config) => ({
    ...config,
    semi: { ...config.semi, scoreThr: config.semi.scoreThr ?? defaultScoreThr(config.model.type) },
  }));

/** A run's options, complete. */
export type ResolvedConfig = z.output<typeof configSchema>;
/** A run's options as a user writes them. */
export type RunConfig = z.input<typeof configSchema>;

/** The schema in JSON Schema form, for editors. */
export function jsonSchema(): object {
  return z.toJSONSchema(runSchema, { io: 'input', target: 'draft-7' });
}
