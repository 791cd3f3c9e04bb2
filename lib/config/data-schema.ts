/** Where the pictures and their boxes are. */
import { z } from 'zod';
import { path, positiveCount } from './fields.js';

const coco = z.strictObject({
  format: z.literal('coco'),
  annotations: path().describe('the JSON file'),
  images: path().default('.').describe('folder that its file names start from'),
});

const voc = z.strictObject({
  format: z.literal('voc'),
  folder: path().default('.').describe('holds Annotations, ImageSets and JPEGImages'),
  imageSet: z.string().min(1).describe('file in ImageSets/Main, without .txt'),
});

const folder = z.strictObject({
  format: z.literal('folder'),
  images: path().describe('every picture in it and below, without annotations'),
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
      scheme: z.enum(['exact', 'reference']).default('exact'),
    })
    .nullable()
    .default(null)
    .describe('null: all of them'),
});
