/** Where the pictures and their boxes are. Names as in lib/data. */
import { z } from 'zod';
import { type ProblemKind, problemRules } from '../data/problems.js';
import { count, path, positiveCount } from './fields.js';

const coco = z.strictObject({
  format: z.literal('coco'),
  annotations: path().describe('the JSON file'),
  images: path()
    .nullable()
    .default(null)
    .describe("folder that its file names start from; null: the file's own"),
});

const voc = z.strictObject({
  format: z.literal('voc'),
  folder: path().default('.').describe('holds Annotations, ImageSets and JPEGImages'),
  imageSet: path()
    .nullable()
    .default(null)
    .describe('list in ImageSets/Main, or its file; null: every annotated image'),
});

const folder = z.strictObject({
  format: z.literal('folder'),
  images: path().describe('every picture in it and below, without annotations'),
});

const annotated = z.discriminatedUnion('format', [coco, voc]);
const pictures = z.discriminatedUnion('format', [coco, voc, folder]);

/** Kind of problem → one of the actions that it allows. */
const policy = z
  .strictObject(
    Object.fromEntries(
      Object.entries(problemRules).map(([kind, { what, actions }]) => [
        kind,
        z.enum(actions).default(actions[0]).describe(what),
      ]),
    ) as unknown as { [K in ProblemKind]: ActionOf<K> },
  )
  .prefault({});
type ActionOf<K extends ProblemKind> = z.ZodDefault<
  z.ZodEnum<{ [A in (typeof problemRules)[K]['actions'][number]]: A }>
>;

export const dataSchema = z.strictObject({
  root: path().default('.').describe('other file names of this section start from it'),
  labelled: annotated,
  unlabelled: pictures
    .nullable()
    .default(null)
    .describe('null: what the split leaves of the labelled set'),
  test: annotated.nullable().default(null).describe('null: no validation'),
  split: z
    .strictObject({
      percent: z.number().positive().max(100).describe('of the labelled set that keeps its labels'),
      fold: positiveCount().default(1),
      scheme: z
        .enum(['exact', 'reference'])
        .default('exact')
        .describe('reference: the published splits of COCO, draw for draw'),
    })
    .nullable()
    .default(null)
    .describe('null: all of them'),
  classes: z
    .array(z.string().min(1))
    .min(1)
    .nullable()
    .default(null)
    .describe('only these; null: all that the labelled set has'),
  filter: z
    .strictObject({
      minSize: count().default(32).describe('shorter side of a labelled image in pixels'),
      dropEmpty: z.boolean().default(true).describe('labelled images without annotations'),
    })
    .prefault({}),
  policy: policy.describe('what to do with problems of the data, by kind'),
  damagedImages: z
    .enum(['refuse', 'accept'])
    .default('refuse')
    .describe('image files that end early; accept: what is missing is grey'),
});
