/** What detectors are made of. Names as in lib/detector/options.ts. */
import { z } from 'zod';
import { torchvisionPresets } from '../../detector/torchvision.js';
import { layoutNames } from '../../weights/layouts.js';
import { across } from '../across.js';
import { channels, nonNegative, path, positive, positiveCount, share, stride } from '../fields.js';

const recompute = (kept: string) =>
  z
    .boolean()
    .default(false)
    .describe(
      `for large inputs: keeps the outputs of ${kept} alone and computes the rest again in the ` +
        'backward pass; the same bits in less memory, a third more work in the backbone',
    );

const resnet = z.strictObject({
  type: z.literal('resnet').optional().default('resnet'),
  depth: z.literal([18, 34, 50, 101]).default(50),
  style: z
    .enum(['pytorch', 'caffe'])
    .default('caffe')
    .describe('where a bottleneck has its stride: on the 3x3 (pytorch) or the first 1x1 (caffe)'),
  frozenStages: z
    .int()
    .min(-1)
    .max(4)
    .default(1)
    .describe('-1: none; 0: the stem; n: the stem and stages 1 … n'),
  norm: z
    .enum(['frozen-bn', 'bn-eval', 'bn', 'gn'])
    .default('frozen-bn')
    .describe('gn is the one for training from scratch with small batches'),
  normEps: z.number().min(0).max(1).default(1e-5),
  baseWidth: z
    .int()
    .min(4)
    .max(4096)
    .multipleOf(4)
    .default(64)
    .describe('channels of the stem; less than 64 is a thinner network'),
  recompute: recompute('stages'),
});

const stages = (most: number) => {
  const one = z.int().min(1).max(most);
  return z.tuple([one, one, one, one]).nullable().default(null);
};

/** Channels of C2 and heads of each stage, as the native side has them. */
const swinSizes = {
  tiny: { embed: 96, heads: [3, 6, 12, 24] },
  small: { embed: 96, heads: [3, 6, 12, 24] },
  base: { embed: 128, heads: [4, 8, 16, 32] },
  large: { embed: 192, heads: [6, 12, 24, 48] },
} as const;

interface SwinSize {
  size: keyof typeof swinSizes;
  embed: number | null;
  heads: readonly number[] | null;
}
const headsOf = ({ size, heads }: SwinSize) => heads ?? swinSizes[size].heads;
const channelsOf = ({ size, embed }: SwinSize) =>
  [1, 2, 4, 8].map((factor) => factor * (embed ?? swinSizes[size].embed));

const swin = z
  .strictObject({
    type: z.literal('swin'),
    size: z.enum(['tiny', 'small', 'base', 'large']).default('tiny'),
    embed: z
      .int()
      .min(1)
      .max(4096)
      .nullable()
      .default(null)
      .describe('channels of C2, doubled at every level; null: what size says'),
    depths: stages(256).describe('blocks of each stage; null: what size says'),
    heads: stages(1024).describe('of each stage; null: what size says'),
    window: z
      .int()
      .min(2)
      .max(32)
      .default(7)
      .describe(
        'cells of a side: what model.weights was trained with, or their tables are resized',
      ),
    dropPath: share()
      .lt(1)
      .default(0.2)
      .describe('share of images that the last block leaves as they are; 0 in the first'),
    frozenStages: z
      .int()
      .min(-1)
      .max(4)
      .default(-1)
      .describe('-1: none; 0: the patch embedding; n: it and stages 1 … n'),
    recompute: recompute('blocks'),
  })
  .refine(
    (swin) => headsOf(swin).every((count, stage) => channelsOf(swin)[stage]! % count === 0),
    across(['heads'], [['embed'], ['size']], (swin: SwinSize) => {
      const heads = swin.heads ? '' : `, got ${JSON.stringify(headsOf(swin))} of size ${swin.size}`;
      return `must divide the channels of their stages, ${JSON.stringify(channelsOf(swin))}${heads}`;
    }),
  );

/** Without a type it is the first. */
export const backbone = z.discriminatedUnion('type', [resnet, swin]).prefault({});

/** Defaults differ from detector to detector. */
export function neck(defaults: {
  firstLevel?: number;
  numOutputs?: number;
  extra: 'none' | 'on-input' | 'on-output';
  reluBeforeExtra?: boolean;
}) {
  const { firstLevel = 3, numOutputs = 5, extra, reluBeforeExtra = false } = defaults;
  return z
    .strictObject({
      type: z.literal('fpn').default('fpn'),
      channels: channels().default(256),
      firstLevel: z.int().min(2).max(5).default(firstLevel),
      numOutputs: z.int().min(1).max(8).default(numOutputs),
      extra: z
        .enum(['none', 'on-input', 'on-output'])
        .default(extra)
        .describe('where P6 comes from: nowhere, C5 or P5'),
      reluBeforeExtra: z.boolean().default(reluBeforeExtra),
      norm: z
        .enum(['none', 'bn', 'gn'])
        .default('none')
        .describe('of its convolutions; P6 and P7 of torchvision have none'),
    })
    .prefault({});
}

export const towerFields = ({ norm }: { norm: 'none' | 'gn' }) => ({
  channels: channels().default(256),
  stackedConvs: z.int().min(0).max(16).default(4),
  norm: z.enum(['none', 'gn']).default(norm),
});
export const towers = (defaults: { norm: 'none' | 'gn' }) =>
  z.strictObject(towerFields(defaults)).prefault({});

export const strides = () => z.array(stride()).min(1).default([8, 16, 32, 64, 128]);

/** One square anchor a cell. */
export const squareAnchors = () =>
  z
    .strictObject({
      strides: strides(),
      octaveBaseScale: positive().default(8).describe('side of an anchor in strides'),
    })
    .prefault({});

export const focal = {
  focalAlpha: share().default(0.25),
  focalGamma: nonNegative().default(2),
};

export function denseTest({ nmsIou }: { nmsIou: number }) {
  return z
    .strictObject({
      scoreThr: share().default(0.05),
      nmsPre: positiveCount().default(1000).describe('box and class pairs per level'),
      nmsIou: share().default(nmsIou),
      maxPerImage: positiveCount().default(100),
    })
    .prefault({});
}

/** What every detector has beside its own parts. */
export const common = {
  numClasses: positiveCount()
    .nullable()
    .default(null)
    .describe('null: as many as the labelled data has'),
  numerics: z
    .enum(['mmdetection', 'torchvision'])
    .default('mmdetection')
    .describe(
      'whose choices count where the references differ; torchvision: its defaults, preprocess and augment.test too',
    ),
  preset: z
    .enum(torchvisionPresets)
    .nullable()
    .default(null)
    .describe('the torchvision model that the options of model start from, and those of its input'),
  weights: path()
    .nullable()
    .default(null)
    .describe('safetensors or .pth file to start from; null: fresh weights'),
  weightsLayout: z
    .enum(layoutNames)
    .nullable()
    .default(null)
    .describe('whose names model.weights has; null: found out by them'),
  backbone,
};

/** `numerics` of a detector that torchvision does not have. */
export const onlyMmdetection = () => z.literal('mmdetection').default('mmdetection');

/** For a refinement: what the list at `path` must hold depends on the number of levels. */
export const mustHold = (path: readonly string[], what: string) =>
  across(
    path,
    [['neck', 'numOutputs']],
    ({ neck }: { neck: { numOutputs: number } }) =>
      `must hold ${what} (model.neck.numOutputs is ${neck.numOutputs})`,
  );

/** For a refinement: a section must hold one stride per output of the neck. */
export const strideMismatch = (section: string) =>
  mustHold([section, 'strides'], 'one stride per output of the neck');

/** For a refinement: what is not negative up to one overlap must not be positive below it. */
export const iousAscend = (section: string) =>
  across(
    [section, 'negIou'],
    [[section, 'posIou']],
    (model: Record<string, { posIou: number }>) =>
      `must be <= model.${section}.posIou (${model[section]!.posIou})`,
  );
