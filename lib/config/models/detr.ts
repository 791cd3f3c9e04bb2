import { z } from 'zod';
import { across } from '../across.js';
import { channels, count, nonNegative, positiveCount, share } from '../fields.js';
import { common, focal, onlyMmdetection } from './parts.js';

/** As the native detectors bound it. */
const queryCount = () => positiveCount().max(1 << 20);

const channelMapper = z
  .strictObject({
    type: z.literal('channel-mapper').default('channel-mapper').describe('a convolution per level'),
    channels: channels().multipleOf(4).default(256).describe('channels of every token'),
    firstLevel: z
      .int()
      .min(2)
      .max(5)
      .default(3)
      .describe('finest level of the backbone in use: 3 is C3, of stride 8'),
    numOutputs: z
      .int()
      .min(1)
      .max(8)
      .default(4)
      .describe('number of levels; those beyond C5 come from convolutions of stride 2'),
    norm: z.enum(['none', 'gn']).default('gn').describe("normalisation of the neck's convolutions"),
  })
  .refine(
    (neck) => neck.numOutputs >= 6 - neck.firstLevel,
    across(
      ['numOutputs'],
      [['firstLevel']],
      ({ firstLevel }: { firstLevel: number }) =>
        `must be >= ${6 - firstLevel}, the levels from C${firstLevel} (firstLevel) to C5`,
    ),
  )
  .prefault({});

/** C5 alone. */
const plainMapper = z
  .strictObject({
    type: z.literal('channel-mapper').default('channel-mapper').describe('a convolution per level'),
    channels: channels().multipleOf(4).default(256).describe('channels of every token'),
    firstLevel: z.literal(5).default(5).describe('C5 is the only level'),
    numOutputs: z.literal(1).default(1).describe('number of levels'),
    norm: z
      .enum(['none', 'gn'])
      .default('none')
      .describe("normalisation of the neck's convolutions"),
  })
  .prefault({});

const transformerFields = (defaults: { ffnChannels: number; dropout: number }) => ({
  heads: z.int().min(1).max(64).default(8).describe('attention heads of each layer'),
  encoderLayers: z.int().min(0).max(64).default(6).describe('number of encoder layers'),
  decoderLayers: z.int().min(1).max(64).default(6).describe('number of decoder layers'),
  ffnChannels: channels().default(defaults.ffnChannels).describe('hidden channels of each layer'),
  dropout: share().lt(1).default(defaults.dropout).describe('dropout rate in training'),
});
function transformer(defaults: { ffnChannels: number; dropout: number }) {
  const { heads, ...rest } = transformerFields(defaults);
  const points = z.int().min(1).max(16).default(4).describe('sampling points per head and level');
  return z.strictObject({ heads, points, ...rest }).prefault({});
}

/** What queries learn; each is assigned to an object or to none. */
export const queryTrain = ({ classification }: { classification: number }) =>
  z
    .strictObject({
      ...focal,
      matchCosts: z
        .strictObject({
          classification: nonNegative()
            .default(2)
            .describe('weight of the focal cost of the class in the matching'),
          boxes: nonNegative()
            .default(5)
            .describe('weight of the L1 distance of boxes in the matching'),
          iou: nonNegative().default(2).describe('weight of the GIoU cost in the matching'),
        })
        .prefault({})
        .describe(
          'weights of the costs by which queries are matched to objects: classes, L1 of boxes, GIoU',
        ),
      lossWeights: z
        .strictObject({
          classification: nonNegative()
            .default(classification)
            .describe('weight of the focal loss'),
          boxes: nonNegative().default(5).describe('weight of the L1 loss of boxes'),
          iou: nonNegative().default(2).describe('weight of the GIoU loss'),
        })
        .prefault({})
        .describe('weights of the losses: classes, L1 of boxes, GIoU'),
    })
    .prefault({});

export const queryTest = ({ maxPerImage }: { maxPerImage: number }) =>
  z
    .strictObject({
      maxPerImage: queryCount().default(maxPerImage).describe('most detections per image'),
    })
    .prefault({});

/** For a refinement. */
export const headsDivide = (section: 'transformer' | 'head') =>
  across(
    [section, 'heads'],
    [['neck', 'channels']],
    ({ neck }: { neck: { channels: number } }) =>
      `must divide model.neck.channels (${neck.channels})`,
  );

export const deformableDetr = z
  .strictObject({
    type: z.literal('deformable-detr'),
    ...common,
    numerics: onlyMmdetection(),
    neck: channelMapper,
    transformer: transformer({ ffnChannels: 1024, dropout: 0.1 }),
    queries: queryCount()
      .default(300)
      .describe('number of queries: the most objects that an image can have'),
    refine: z
      .boolean()
      .default(true)
      .describe('true: each decoder layer refines the boxes of the one before'),
    twoStage: z.boolean().default(true).describe("true: queries start at the encoder's best boxes"),
    train: queryTrain({ classification: 2 }),
    test: queryTest({ maxPerImage: 100 }),
  })
  .refine(
    (model) => model.neck.channels % model.transformer.heads === 0,
    headsDivide('transformer'),
  )
  .refine(
    (model) => model.refine || !model.twoStage,
    across(
      ['twoStage'],
      [['refine']],
      () => 'must be false without model.refine (boxes of proposals are refined)',
    ),
  );

export const dabDetr = z
  .strictObject({
    type: z.literal('dab-detr'),
    ...common,
    numerics: onlyMmdetection(),
    neck: plainMapper,
    transformer: z.strictObject(transformerFields({ ffnChannels: 2048, dropout: 0 })).prefault({}),
    queries: queryCount()
      .default(300)
      .describe('number of queries: the most objects that an image can have'),
    train: queryTrain({ classification: 1 }),
    test: queryTest({ maxPerImage: 300 }),
  })
  .refine(
    (model) => model.neck.channels % model.transformer.heads === 0,
    headsDivide('transformer'),
  );

export const dino = z
  .strictObject({
    type: z.literal('dino'),
    ...common,
    numerics: onlyMmdetection(),
    neck: channelMapper,
    transformer: transformer({ ffnChannels: 2048, dropout: 0 }),
    queries: queryCount()
      .default(900)
      .describe('number of queries: the most objects that an image can have'),
    denoising: z
      .strictObject({
        queries: count()
          .max(4096)
          .default(100)
          .describe('number of denoising queries in all groups; 0: none'),
        labelNoise: share()
          .default(0.5)
          .describe('twice the share of labels that are replaced at random'),
        boxNoise: nonNegative()
          .max(10)
          .default(1)
          .describe(
            'largest shift of a side of a noisy box, as a factor of half the width or height',
          ),
      })
      .prefault({}),
    train: queryTrain({ classification: 1 }),
    test: queryTest({ maxPerImage: 300 }),
  })
  .refine(
    (model) => model.neck.channels % model.transformer.heads === 0,
    headsDivide('transformer'),
  );
