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
      `true: keep only the outputs of the ${kept} and recompute the rest in the backward pass; less memory, ` +
        'the same bits, a third more work in the backbone',
    );

const resnet = z.strictObject({
  type: z.literal('resnet').optional().default('resnet').describe('kind of backbone'),
  depth: z.literal([18, 34, 50, 101]).default(50).describe('number of layers of the ResNet'),
  style: z
    .enum(['pytorch', 'caffe'])
    .default('caffe')
    .describe(
      'convolution of a bottleneck that has the stride: the 3x3 (pytorch) or the first 1x1 (caffe)',
    ),
  frozenStages: z
    .int()
    .min(-1)
    .max(4)
    .default(1)
    .describe(
      'parts whose weights stay as they are; -1: none, 0: the stem, n: the stem and stages 1 … n',
    ),
  norm: z
    .enum(['frozen-bn', 'bn-eval', 'bn', 'gn'])
    .default('frozen-bn')
    .describe(
      'normalisation; bn-eval: fixed statistics, trained gamma and beta; gn: for training from scratch with small batches',
    ),
  normEps: z.number().min(0).max(1).default(1e-5).describe('epsilon of the normalisation'),
  baseWidth: z
    .int()
    .min(4)
    .max(4096)
    .multipleOf(4)
    .default(64)
    .describe('channels of the stem; fewer than 64 make a thinner network'),
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
    size: z
      .enum(['tiny', 'small', 'base', 'large'])
      .default('tiny')
      .describe('Swin-T, -S, -B or -L'),
    embed: z
      .int()
      .min(1)
      .max(4096)
      .nullable()
      .default(null)
      .describe('channels of C2, doubled at every level; null: as size says'),
    depths: stages(256).describe('number of blocks of each stage; null: as size says'),
    heads: stages(1024).describe('number of attention heads of each stage; null: as size says'),
    window: z
      .int()
      .min(2)
      .max(32)
      .default(7)
      .describe(
        'side of an attention window in cells; where model.weights has another, its tables are resized',
      ),
    dropPath: share()
      .lt(1)
      .default(0.2)
      .describe('share of images that skip the last block; it grows from 0 in the first block'),
    frozenStages: z
      .int()
      .min(-1)
      .max(4)
      .default(-1)
      .describe(
        'parts whose weights stay as they are; -1: none, 0: the patch embedding, n: also stages 1 … n',
      ),
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
      type: z.literal('fpn').default('fpn').describe('a feature pyramid network'),
      channels: channels().default(256).describe('channels of every output'),
      firstLevel: z
        .int()
        .min(2)
        .max(5)
        .default(firstLevel)
        .describe('finest level of the backbone in use: 3 is C3, of stride 8'),
      numOutputs: z.int().min(1).max(8).default(numOutputs).describe('number of levels'),
      extra: z
        .enum(['none', 'on-input', 'on-output'])
        .default(extra)
        .describe(
          'what P6 is computed from: nothing (there is none), C5 (on-input) or P5 (on-output)',
        ),
      reluBeforeExtra: z
        .boolean()
        .default(reluBeforeExtra)
        .describe('true: a ReLU between P6 and P7'),
      norm: z
        .enum(['none', 'bn', 'gn'])
        .default('none')
        .describe("normalisation of the neck's convolutions; torchvision's P6 and P7 have none"),
    })
    .prefault({});
}

export const towerFields = ({ norm }: { norm: 'none' | 'gn' }) => ({
  channels: channels().default(256).describe('channels of the towers of the head'),
  stackedConvs: z.int().min(0).max(16).default(4).describe('convolutions of each tower'),
  norm: z.enum(['none', 'gn']).default(norm).describe('normalisation of these convolutions'),
});
export const towers = (defaults: { norm: 'none' | 'gn' }) =>
  z.strictObject(towerFields(defaults)).prefault({});

export const strides = () =>
  z.array(stride()).min(1).default([8, 16, 32, 64, 128]).describe('stride of each level in pixels');

/** One square anchor a cell. */
export const squareAnchors = () =>
  z
    .strictObject({
      strides: strides(),
      octaveBaseScale: positive().default(8).describe('side of an anchor in strides'),
    })
    .prefault({});

export const focal = {
  focalAlpha: share().default(0.25).describe('weight of positives in the focal loss'),
  focalGamma: nonNegative().default(2).describe('exponent of the focal loss'),
};

export function denseTest({ nmsIou }: { nmsIou: number }) {
  return z
    .strictObject({
      scoreThr: share().default(0.05).describe('least score of a detection'),
      nmsPre: positiveCount()
        .default(1000)
        .describe('most box and class pairs per level before NMS'),
      nmsIou: share().default(nmsIou).describe('IoU above which NMS removes a box'),
      maxPerImage: positiveCount().default(100).describe('most detections per image'),
    })
    .prefault({});
}

/** What every detector has beside its own parts. */
export const common = {
  numClasses: positiveCount()
    .nullable()
    .default(null)
    .describe('number of classes; null: as many as the labelled data has'),
  numerics: z
    .enum(['mmdetection', 'torchvision'])
    .default('mmdetection')
    .describe(
      'whose numerics to follow where the two differ; torchvision also sets its defaults, preprocess and augment.test',
    ),
  preset: z
    .enum(torchvisionPresets)
    .nullable()
    .default(null)
    .describe('torchvision model that gives the defaults of model, preprocess and augment.test'),
  weights: path()
    .nullable()
    .default(null)
    .describe('safetensors or .pth file with weights to start from; null: random weights'),
  weightsLayout: z
    .enum(layoutNames)
    .nullable()
    .default(null)
    .describe('whose parameter names model.weights has; null: recognised from them'),
  backbone,
};

/** `numerics` of a detector that torchvision does not have. */
export const onlyMmdetection = () =>
  z.literal('mmdetection').default('mmdetection').describe('torchvision has no such detector');

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
