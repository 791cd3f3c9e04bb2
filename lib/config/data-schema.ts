/** Where the images and their boxes are. Names as in lib/data. */
import { z } from 'zod';
import { type ProblemKind, problemRules } from '../data/problems.js';
import { count, path, positiveCount } from './fields.js';

const coco = z.strictObject({
  format: z
    .literal('coco')
    .describe('COCO JSON, Pascal VOC XML or (unlabelled only) a folder of images'),
  annotations: path().describe('COCO annotation file'),
  images: path()
    .nullable()
    .default(null)
    .describe(
      "folder that the file names in it start from; null: the annotation file's own folder",
    ),
});

const voc = z.strictObject({
  format: z.literal('voc'),
  folder: path().default('.').describe('folder with Annotations, ImageSets and JPEGImages'),
  imageSet: path()
    .nullable()
    .default(null)
    .describe(
      'name of a list in ImageSets/Main, or path of a list (with a / or .txt); null: every annotated image',
    ),
});

const folder = z.strictObject({
  format: z.literal('folder'),
  images: path().describe(
    'folder whose images, those in folders below it included, are used without annotations',
  ),
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
  root: path().default('.').describe('folder that the other paths of this section start from'),
  labelled: annotated.describe('images with annotations to learn from'),
  unlabelled: pictures
    .nullable()
    .default(null)
    .describe(
      'images to learn from without annotations; null: those whose labels data.split hides',
    ),
  test: annotated
    .nullable()
    .default(null)
    .describe('annotated images for validation; null: no validation'),
  split: z
    .strictObject({
      percent: z
        .number()
        .positive()
        .max(100)
        .describe('percentage of data.labelled that keeps its labels'),
      fold: positiveCount()
        .default(1)
        .describe('number of the random draw; each gives another split'),
      scheme: z
        .enum(['exact', 'reference'])
        .default('exact')
        .describe(
          'how images are drawn; exact: without replacement, reference: as in the published COCO splits',
        ),
    })
    .nullable()
    .default(null)
    .describe('keep the labels of a random part of data.labelled only; null: of all its images'),
  classes: z
    .array(z.string().min(1))
    .min(1)
    .nullable()
    .default(null)
    .describe('names of the classes to learn; null: all classes of data.labelled'),
  filter: z
    .strictObject({
      minSize: count()
        .default(32)
        .describe('labelled images whose shorter side has fewer pixels are left out'),
      dropEmpty: z
        .boolean()
        .default(true)
        .describe('leave out labelled images without annotations; false: they are background'),
    })
    .prefault({}),
  policy: policy.describe('what to do with each kind of problem in the data'),
  damagedImages: z
    .enum(['refuse', 'accept'])
    .default('refuse')
    .describe('what to do with image files that end early; accept: what is missing becomes grey'),
});
