/**
 * torchvision's detection models as presets: networks, numerics and defaults of their constructors, so
 * that an imported state dict gives their results. Options have torchvision's names in camelCase.
 * Source: torchvision 0.14 `models.detection`; reference-facts 6.
 */
import { MixplError, nearestName } from '../errors.js';
import type { DetectorPreprocess } from './create.js';
import type { DetectorOptions, ResNetOptions } from './options.js';

/** What every one of the constructors takes. */
export interface TorchvisionOptions {
  preset: TorchvisionPreset;
  /** As torchvision counts: with the background where its model has a row for it. @defaultValue 91 */
  numClasses?: number;
  /** The short side of the network's input. @defaultValue 800 */
  minSize?: number;
  /** The most that the long side may have. @defaultValue 1333 */
  maxSize?: number;
  /** Per channel, RGB in [0, 1]. @defaultValue ImageNet's */
  imageMean?: readonly [number, number, number];
  imageStd?: readonly [number, number, number];
  /** 0 … 5, counted from the last stage. @defaultValue 3 */
  trainableBackboneLayers?: number;
  /** Changes of the ResNet-50; `normEps: 0` for the COCO_V1 files of RetinaNet and Faster R-CNN. */
  backbone?: ResNetOptions;
  /** Dense detectors. */
  scoreThresh?: number;
  nmsThresh?: number;
  detectionsPerImg?: number;
  /** Dense detectors: pairs of box and class per level before NMS. */
  topkCandidates?: number;
  /** RetinaNet. */
  fgIouThresh?: number;
  /** RetinaNet. */
  bgIouThresh?: number;
  /** FCOS, in strides. */
  centerSamplingRadius?: number;
  /** Faster R-CNN: proposals per level before NMS, and per image after it. */
  rpnPreNmsTopNTrain?: number;
  rpnPreNmsTopNTest?: number;
  rpnPostNmsTopNTrain?: number;
  rpnPostNmsTopNTest?: number;
  rpnNmsThresh?: number;
  rpnFgIouThresh?: number;
  rpnBgIouThresh?: number;
  rpnBatchSizePerImage?: number;
  rpnPositiveFraction?: number;
  /** Faster R-CNN: the second stage. */
  boxScoreThresh?: number;
  boxNmsThresh?: number;
  boxDetectionsPerImg?: number;
  boxFgIouThresh?: number;
  boxBgIouThresh?: number;
  boxBatchSizePerImage?: number;
  boxPositiveFraction?: number;
}

/** What a preset stands for. */
export interface ResolvedPreset {
  model: DetectorOptions;
  preprocess: DetectorPreprocess;
  /** The label that the API gives to our class 0. */
  firstLabel: number;
}

type Entry = {
  /** Options beyond those that all have. */
  keys: readonly (keyof TorchvisionOptions)[];
  firstLabel: number;
  model(
    options: TorchvisionOptions,
    parts: { numClasses: number; backbone: ResNetOptions },
  ): DetectorOptions;
};

const commonKeys: readonly (keyof TorchvisionOptions)[] = [
  ...(['preset', 'numClasses', 'minSize', 'maxSize', 'imageMean', 'imageStd'] as const),
  ...(['trainableBackboneLayers', 'backbone'] as const),
];
const denseKeys = ['scoreThresh', 'nmsThresh', 'detectionsPerImg', 'topkCandidates'] as const;

const denseTest = (
  { scoreThresh, topkCandidates, nmsThresh, detectionsPerImg }: TorchvisionOptions,
  defaults: { scoreThr: number; nmsIou: number; maxPerImage: number },
) => ({
  scoreThr: scoreThresh ?? defaults.scoreThr,
  nmsPre: topkCandidates ?? 1000,
  nmsIou: nmsThresh ?? defaults.nmsIou,
  maxPerImage: detectionsPerImg ?? defaults.maxPerImage,
});

const pyramid = { extra: 'on-output', reluBeforeExtra: true } as const;

const entries = {
  'torchvision/retinanet_resnet50_fpn': {
    keys: [...denseKeys, 'fgIouThresh', 'bgIouThresh'],
    firstLabel: 0,
    model: (options, parts) => ({
      type: 'retinanet',
      numerics: 'torchvision',
      ...parts,
      neck: pyramid,
      train: { posIou: options.fgIouThresh ?? 0.5, negIou: options.bgIouThresh ?? 0.4 },
      test: denseTest(options, { scoreThr: 0.05, nmsIou: 0.5, maxPerImage: 300 }),
    }),
  },
  'torchvision/fcos_resnet50_fpn': {
    keys: [...denseKeys, 'centerSamplingRadius'],
    firstLabel: 0,
    model: (options, parts) => ({
      type: 'fcos',
      numerics: 'torchvision',
      ...parts,
      neck: pyramid,
      train: { centerRadius: options.centerSamplingRadius ?? 1.5 },
      test: denseTest(options, { scoreThr: 0.2, nmsIou: 0.6, maxPerImage: 100 }),
    }),
  },
  'torchvision/fasterrcnn_resnet50_fpn': {
    keys: [
      ...(['rpnPreNmsTopNTrain', 'rpnPreNmsTopNTest'] as const),
      ...(['rpnPostNmsTopNTrain', 'rpnPostNmsTopNTest', 'rpnNmsThresh'] as const),
      ...(['rpnFgIouThresh', 'rpnBgIouThresh'] as const),
      ...(['rpnBatchSizePerImage', 'rpnPositiveFraction'] as const),
      ...(['boxScoreThresh', 'boxNmsThresh', 'boxDetectionsPerImg'] as const),
      ...(['boxFgIouThresh', 'boxBgIouThresh'] as const),
      ...(['boxBatchSizePerImage', 'boxPositiveFraction'] as const),
    ],
    firstLabel: 1,
    model: (o, parts) => ({
      type: 'faster-rcnn',
      numerics: 'torchvision',
      ...parts,
      rpn: {
        posIou: o.rpnFgIouThresh ?? 0.7,
        negIou: o.rpnBgIouThresh ?? 0.3,
        sampleSize: o.rpnBatchSizePerImage ?? 256,
        posFraction: o.rpnPositiveFraction ?? 0.5,
        trainNmsPre: o.rpnPreNmsTopNTrain ?? 2000,
        trainMaxPerImage: o.rpnPostNmsTopNTrain ?? 2000,
        testNmsPre: o.rpnPreNmsTopNTest ?? 1000,
        testMaxPerImage: o.rpnPostNmsTopNTest ?? 1000,
        nmsIou: o.rpnNmsThresh ?? 0.7,
      },
      roi: {
        posIou: o.boxFgIouThresh ?? 0.5,
        negIou: o.boxBgIouThresh ?? 0.5,
        sampleSize: o.boxBatchSizePerImage ?? 512,
        posFraction: o.boxPositiveFraction ?? 0.25,
      },
      test: {
        scoreThr: o.boxScoreThresh ?? 0.05,
        nmsIou: o.boxNmsThresh ?? 0.5,
        maxPerImage: o.boxDetectionsPerImg ?? 100,
      },
    }),
  },
} satisfies Record<string, Entry>;

export type TorchvisionPreset = keyof typeof entries;
export const torchvisionPresets = Object.keys(entries) as TorchvisionPreset[];

/** @throws MixplError ERR_CONFIG: an unknown preset or option, a value out of range */
export function resolvePreset(options: TorchvisionOptions): ResolvedPreset {
  const { preset } = options;
  if (!Object.hasOwn(entries, preset)) {
    const near = nearestName(String(preset), torchvisionPresets);
    throw new MixplError(
      'ERR_CONFIG',
      `createDetector: preset must be one of ${torchvisionPresets.join(', ')}, got '${preset}'${near ? `; nearest is ${near}` : ''}`,
    );
  }
  const entry: Entry = entries[preset];
  const known = [...commonKeys, ...entry.keys];
  for (const key of Object.keys(options))
    if (!known.includes(key as keyof TorchvisionOptions)) {
      const near = nearestName(key, known);
      throw new MixplError(
        'ERR_CONFIG',
        `createDetector: ${preset} has no option '${key}'${near ? `; nearest is ${near}` : ''}`,
      );
    }
  const { numClasses = 91, trainableBackboneLayers: trainable = 3, minSize = 800 } = options;
  const { imageMean = [0.485, 0.456, 0.406], imageStd = [0.229, 0.224, 0.225] } = options;
  if (!Number.isInteger(trainable) || trainable < 0 || trainable > 5)
    throw new MixplError(
      'ERR_CONFIG',
      `createDetector: trainableBackboneLayers must be an integer in [0, 5], got ${trainable}`,
    );
  const in255 = ([r, g, b]: readonly [number, number, number]) =>
    [255 * r, 255 * g, 255 * b] as const;
  return {
    model: entry.model(options, {
      numClasses: numClasses - entry.firstLabel,
      backbone: { style: 'pytorch', frozenStages: 4 - trainable, ...options.backbone },
    }),
    preprocess: {
      mean: in255(imageMean),
      std: in255(imageStd),
      channelOrder: 'rgb',
      padDivisor: 32,
      resize: { short: minSize, long: options.maxSize ?? 1333, rule: 'torchvision' },
    },
    firstLabel: entry.firstLabel,
  };
}
