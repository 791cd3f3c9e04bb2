/**
 * The one schema of a run. Defaults are the values of the paper's RetinaNet on COCO; only
 * `data` has to be given. Types are inferred from it.
 */
import { z } from 'zod';
import { dtypeChoices } from '../detector/dtype.js';
import { torchvisionDefaults } from '../detector/torchvision.js';
import { batchNeeded, cacheNeeded, defaultScoreThr } from '../semi/options.js';
import { maxThreads } from '../threads.js';
import { across } from './across.js';
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
    .describe('name of the run, and of its folder in runs/'),
  seed: z.int().min(0).default(0).describe('seed of all random numbers of the run'),
  device: z
    .string()
    .regex(/^(auto|cpu|cuda(:\d+)?)$/, { error: 'must be auto, cpu, cuda or cuda:N' })
    .default('auto')
    .describe('auto: what MIXPL_DEVICE says, else the first usable GPU, else the CPU'),
  dtype: z
    .enum(dtypeChoices)
    .default('auto')
    .describe(
      'data type of activations; tf32: fp32 with products on the tensor cores of a GPU; auto: bf16 on GPUs and on processors that have it, else fp32',
    ),
  threads: z
    .int()
    .min(1)
    .max(maxThreads)
    .nullable()
    .default(null)
    .describe('number of CPU threads; null: one per core, within the CPU quota of the container'),
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

type Checked = z.output<typeof runSchema>;

/** What model.preset says of another option; undefined without a preset. */
function saidByPreset({ model }: Checked, key: 'type' | 'numerics'): string | undefined {
  return model.preset ? torchvisionDefaults({ preset: model.preset })!.model[key] : undefined;
}
function followsPreset(config: Checked, key: 'type' | 'numerics'): boolean {
  return (saidByPreset(config, key) ?? config.model[key]) === config.model[key];
}
const presetSays = (key: 'type' | 'numerics') =>
  across(
    ['model', key],
    [['model', 'preset']],
    (config: Checked) =>
      `must be ${saidByPreset(config, key)} with model.preset ${config.model.preset}`,
  );

/** Checks that concern several sections, and defaults that depend on another option. */
export const configSchema = runSchema
  .refine((config) => followsPreset(config, 'type'), presetSays('type'))
  .refine(
    (config) => !followsPreset(config, 'type') || followsPreset(config, 'numerics'),
    presetSays('numerics'),
  )
  .refine(
    ({ semi, data }) => semi.method === 'supervised' || data.unlabelled || data.split,
    across(
      ['data', 'unlabelled'],
      [
        ['semi', 'method'],
        ['data', 'split'],
      ],
      ({ semi }: Checked) =>
        `must be given for semi.method ${semi.method} (or data.split, which hides some of the labels)`,
    ),
  )
  .refine(
    ({ semi, batch }) => semi.method !== 'mixpl' || batch.unlabelled >= batchNeeded(semi),
    across(
      ['batch', 'unlabelled'],
      [
        ['semi', 'indexRule'],
        ['semi', 'mosaic'],
        ['semi', 'method'],
      ],
      ({ semi }: Checked) =>
        `must be >= ${batchNeeded(semi)} with semi.indexRule ${semi.indexRule} and semi.mosaic ${semi.mosaic}`,
    ),
  )
  .refine(
    ({ semi, batch }) =>
      semi.method !== 'mixpl' || semi.cacheSize >= cacheNeeded(semi, batch.unlabelled),
    across(
      ['semi', 'cacheSize'],
      [
        ['batch', 'unlabelled'],
        ['semi', 'indexRule'],
        ['semi', 'mixup'],
        ['semi', 'mosaic'],
        ['semi', 'method'],
      ],
      ({ semi, batch }: Checked) =>
        `must be >= ${cacheNeeded(semi, batch.unlabelled)} with batch.unlabelled ${batch.unlabelled} and semi.indexRule ${semi.indexRule}`,
    ),
  )
  .transform((config) => ({
    ...config,
    semi: { ...config.semi, scoreThr: config.semi.scoreThr ?? defaultScoreThr(config.model.type) },
  }));

/** A run's options, complete. */
export type ResolvedConfig = z.output<typeof configSchema>;
/** A run's options as a user writes them. */
export type RunConfig = z.input<typeof configSchema>;

/**
 * The schema of a config's file in JSON Schema form, for editors. Nothing is required: the file that it
 * extends may have the rest, and say of which kind a section is.
 */
export function jsonSchema(): object {
  const schema = z.toJSONSchema(runSchema, {
    io: 'input',
    target: 'draft-7',
    override({ jsonSchema: part }) {
      delete part.required;
      // What several kinds have fits several of them.
      if (part.oneOf) part.anyOf = part.oneOf;
      delete part.oneOf;
    },
  });
  const parent = {
    type: 'string',
    description: 'preset or config file whose options this file overrides',
  };
  return { ...schema, properties: { extends: parent, ...schema.properties } };
}
