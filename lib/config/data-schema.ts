/** Where the pictures and their boxes are. */
import { z } from 'zod';
import { path, positiveCount } from './fields.js';

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
  subtractOne: z.boolean().default(true).describe('VOC counts pixels from 1'),
});

const folder = z.strictObject({
  format: z.literal('folder'),
  images: path().describe('every picture in it, without annotations'),
  recursive: z.boolean().default(true).describe('also the folders within'),
});

const annotated = z.discriminatedUnion('format', [coco, voc]);
const pictures = z.discriminatedUnion('format', [coco, voc, folder]);

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
        .enum(['exact', 'coco-reference'])
        .default('exact')
        .describe('coco-reference: the published splits of COCO, draw for draw'),
    })
    .nullable()
    .default(null)
    .describe('null: all of them'),
});
