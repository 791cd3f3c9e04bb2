/**
 * torchvision's detection models as presets: networks, numerics and defaults of their constructors, so
 * that an imported state dict gives their results. Options have torchvision's names in camelCase.
 * The only place of these defaults: presets of createDetector, `numerics: 'torchvision'` and configs
 * (lib/config/torchvision.ts) all take them from here.
 * Source: torchvision 0.14 `models.detection`.
 */
import { checkKeys } from '../arguments.js';
import { didYouMean, MixplError } from '../errors.js';
import type { DetectorPreprocess } from './create.js';
import type { DetectorOptions, DetectorType, ResNetOptions } from './options.js';

/** Options that all of torchvision's constructors take. */
export interface TorchvisionOptions {
  preset: TorchvisionPreset;
  /** As torchvision counts: with the background where its model has a row for it. @defaultValue 91 */
  numClasses?: number;
  /** The short side of the network's input. @defaultValue 800 */
  minSize?: number;
  /** The most that the long side may have. @defaultValue 1333 */
  maxSize?: number;
  /** Mean and standard deviation per channel, RGB in [0, 1]. @defaultValue ImageNet's */
  imageMean?: readonly [number, number, number];
  imageStd?: readonly [number, number, number];
  /**
   * 0 … 5, counted from the last stage. Live BatchNorm (of the v2 models) of layers that are not trained
   * still goes on with its statistics, as in torchvision. @defaultValue 3
   */
  trainableBackboneLayers?: number;
  /** Changes of the ResNet-50; `normEps: 0` for the COCO_V1 files of RetinaNet and Faster R-CNN. */
  backbone?: ResNetOptions;
  /** Dense detectors: score threshold of detections. */
  scoreThresh?: number;
  nmsThresh?: number;
  detectionsPerImg?: number;
  /** Dense detectors: pairs of box and class per level before NMS. */
  topkCandidates?: number;
  /** RetinaNet: least IoU of positives. */
  fgIouThresh?: number;
  /** RetinaNet: IoU below which an anchor is negative. */
  bgIouThresh?: number;
  /** FCOS: radius around a box's centre within which points are positive, in strides. */
  centerSamplingRadius?: number;
  /** Faster R-CNN: proposals per level before NMS, and per image after it. */
  rpnPreNmsTopNTrain?: number;
  rpnPreNmsTopNTest?: number;
  rpnPostNmsTopNTrain?: number;
  rpnPostNmsTopNTest?: number;
  rpnNmsThresh?: number;
  rpnScoreThresh?: number;
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
  /** Factors of the encoded box [dx, dy, dw, dh]. @defaultValue [10, 10, 5, 5] */
  bboxRegWeights?: readonly [number, number, number, number];
}

/** What a preset stands for. */
export interface ResolvedPreset {
  model: DetectorOptions;
  preprocess: DetectorPreprocess;
  /** The label that the API gives to our class 0. */
  firstLabel: number;
}

type Section = Readonly<Record<string, unknown>>;
/** Options of a detector, section by section. */
type Model = Readonly<{ type: DetectorType; numerics: 'torchvision' } & Record<string, unknown>>;

interface Entry {
  model: Model;
  firstLabel: number;
  /** Options beyond those that all have, and which of ours each is. */
  options: Readonly<Record<string, readonly [section: string, option: string]>>;
}

const commonKeys: readonly string[] = [
  ...(['preset', 'numClasses', 'minSize', 'maxSize', 'imageMean', 'imageStd'] as const),
  ...(['trainableBackboneLayers', 'backbone'] as const),
] satisfies (keyof TorchvisionOptions)[];

const denseOptions = {
  scoreThresh: ['test', 'scoreThr'],
  nmsThresh: ['test', 'nmsIou'],
  detectionsPerImg: ['test', 'maxPerImage'],
  topkCandidates: ['test', 'nmsPre'],
} as const;

const trained = { style: 'pytorch', frozenStages: 1 } as const;
const frozenBatchNorm = { ...trained, norm: 'frozen-bn' } as const;
const liveBatchNorm = { ...trained, norm: 'bn' } as const;

const retinanet = {
  firstLabel: 0,
  options: {
    ...denseOptions,
    fgIouThresh: ['train', 'posIou'],
    bgIouThresh: ['train', 'negIou'],
  },
  model: {
    type: 'retinanet',
    numerics: 'torchvision',
    backbone: frozenBatchNorm,
    neck: { extra: 'on-output', reluBeforeExtra: true },
    head: { norm: 'none' },
    train: { posIou: 0.5, negIou: 0.4, boxLoss: 'l1' },
    test: { scoreThr: 0.05, nmsPre: 1000, nmsIou: 0.5, maxPerImage: 300 },
  },
} as const satisfies Entry;

const fcos = {
  firstLabel: 0,
  options: { ...denseOptions, centerSamplingRadius: ['train', 'centerRadius'] },
  model: {
    type: 'fcos',
    numerics: 'torchvision',
    backbone: frozenBatchNorm,
    neck: { extra: 'on-output', reluBeforeExtra: true },
    head: { norm: 'gn' },
    train: { centerRadius: 1.5 },
    test: { scoreThr: 0.2, nmsPre: 1000, nmsIou: 0.6, maxPerImage: 100 },
  },
} as const satisfies Entry;

const fasterRcnn = {
  firstLabel: 1,
  options: {
    rpnPreNmsTopNTrain: ['rpn', 'trainNmsPre'],
    rpnPreNmsTopNTest: ['rpn', 'testNmsPre'],
    rpnPostNmsTopNTrain: ['rpn', 'trainMaxPerImage'],
    rpnPostNmsTopNTest: ['rpn', 'testMaxPerImage'],
    rpnNmsThresh: ['rpn', 'nmsIou'],
    rpnScoreThresh: ['rpn', 'scoreThr'],
    rpnFgIouThresh: ['rpn', 'posIou'],
    rpnBgIouThresh: ['rpn', 'negIou'],
    rpnBatchSizePerImage: ['rpn', 'sampleSize'],
    rpnPositiveFraction: ['rpn', 'posFraction'],
    boxScoreThresh: ['test', 'scoreThr'],
    boxNmsThresh: ['test', 'nmsIou'],
    boxDetectionsPerImg: ['test', 'maxPerImage'],
    boxFgIouThresh: ['roi', 'posIou'],
    boxBgIouThresh: ['roi', 'negIou'],
    boxBatchSizePerImage: ['roi', 'sampleSize'],
    boxPositiveFraction: ['roi', 'posFraction'],
    bboxRegWeights: ['roi', 'deltaWeights'],
  },
  model: {
    type: 'faster-rcnn',
    numerics: 'torchvision',
    backbone: frozenBatchNorm,
    neck: { norm: 'none' },
    rpn: {
      ...{ convs: 1, scales: [8], ratios: [0.5, 1, 2] },
      ...{ posIou: 0.7, negIou: 0.3, sampleSize: 256, posFraction: 0.5, allowedBorder: -1 },
      ...{ smoothL1Beta: 1 / 9, trainNmsPre: 2000, trainMaxPerImage: 2000 },
      ...{ testNmsPre: 1000, testMaxPerImage: 1000, scoreThr: 0, nmsIou: 0.7, minSize: 1e-3 },
    },
    roi: {
      ...{ convs: 0, norm: 'none', fcs: 2, deltaWeights: [10, 10, 5, 5] },
      ...{ posIou: 0.5, negIou: 0.5, sampleSize: 512, posFraction: 0.25, smoothL1Beta: 1 / 9 },
    },
    test: { scoreThr: 0.05, nmsIou: 0.5, maxPerImage: 100 },
  },
} as const satisfies Entry;

const entries = {
  'torchvision/retinanet_resnet50_fpn': retinanet,
  'torchvision/retinanet_resnet50_fpn_v2': {
    ...retinanet,
    model: {
      ...retinanet.model,
      backbone: liveBatchNorm,
      neck: { extra: 'on-input', reluBeforeExtra: true },
      head: { norm: 'gn' },
      train: { ...retinanet.model.train, boxLoss: 'giou' },
    },
  },
  'torchvision/fcos_resnet50_fpn': fcos,
  'torchvision/fasterrcnn_resnet50_fpn': fasterRcnn,
  'torchvision/fasterrcnn_resnet50_fpn_v2': {
    ...fasterRcnn,
    model: {
      ...fasterRcnn.model,
      backbone: liveBatchNorm,
      neck: { norm: 'bn' },
      rpn: { ...fasterRcnn.model.rpn, convs: 2 },
      roi: { ...fasterRcnn.model.roi, convs: 4, norm: 'bn', fcs: 1 },
    },
  },
} satisfies Record<string, Entry>;

/** One of torchvisionPresets. */
export type TorchvisionPreset = keyof typeof entries;
/** Names of torchvision's constructors that have presets. */
export const torchvisionPresets = Object.keys(entries) as TorchvisionPreset[];

/** The first model of a type is its plain one. */
const byType = new Map<string, Entry>(
  Object.values(entries as Record<string, Entry>)
    .toReversed()
    .map((entry) => [entry.model.type, entry]),
);

const preprocess: DetectorPreprocess = {
  mean: in255([0.485, 0.456, 0.406]),
  std: in255([0.229, 0.224, 0.225]),
  channelOrder: 'rgb',
  padDivisor: 32,
  resize: { short: 800, long: 1333, rule: 'torchvision' },
};

/**
 * What torchvision's constructor of a preset, or of the plain model of a type, chooses; null where
 * torchvision has no such model.
 */
export function torchvisionDefaults(
  of: { preset: TorchvisionPreset } | { type: string },
): { model: Model; preprocess: DetectorPreprocess } | null {
  const entry = 'preset' in of ? entries[of.preset] : byType.get(of.type);
  return entry ? { model: entry.model, preprocess } : null;
}

/** Options over defaults, option by option in every section; what is undefined is not there. */
export function overDefaults(defaults: Section, options: Section): Record<string, unknown> {
  const out: Record<string, unknown> = { ...defaults };
  for (const [key, value] of Object.entries(options)) {
    if (value === undefined) continue;
    const below = out[key];
    out[key] = isSection(below) && isSection(value) ? overDefaults(below, value) : value;
  }
  return out;
}

function isSection(value: unknown): value is Section {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** @throws MixplError ERR_CONFIG: an unknown preset or option, a value out of range */
export function resolvePreset(options: TorchvisionOptions): ResolvedPreset {
  const { preset } = options;
  if (!Object.hasOwn(entries, preset)) {
    throw new MixplError(
      'ERR_CONFIG',
      `createDetector: preset must be one of ${torchvisionPresets.join(', ')}, got '${preset}'${didYouMean(String(preset), torchvisionPresets)}`,
    );
  }
  const entry: Entry = entries[preset];
  const known = [...commonKeys, ...Object.keys(entry.options)];
  checkKeys(`createDetector: ${preset}`, options, known);
  const { numClasses = 91, trainableBackboneLayers: trainable = 3 } = options;
  if (!Number.isInteger(trainable) || trainable < 0 || trainable > 5)
    throw new MixplError(
      'ERR_CONFIG',
      `createDetector: trainableBackboneLayers must be an integer in [0, 5], got ${trainable}`,
    );
  const own: Record<string, Record<string, unknown>> = {
    backbone: { frozenStages: 4 - trainable, ...options.backbone },
  };
  for (const [key, [section, option]] of Object.entries(entry.options)) {
    own[section] ??= {};
    own[section][option] = options[key as keyof TorchvisionOptions];
  }
  const { minSize: short, maxSize: long, imageMean, imageStd } = options;
  const model = overDefaults({ ...entry.model, numClasses: numClasses - entry.firstLabel }, own);
  return {
    model: model as unknown as DetectorOptions,
    preprocess: overDefaults(preprocess as unknown as Section, {
      mean: imageMean && in255(imageMean),
      std: imageStd && in255(imageStd),
      resize: { short, long },
    }) as unknown as DetectorPreprocess,
    firstLabel: entry.firstLabel,
  };
}

function in255([r, g, b]: readonly [number, number, number]): [number, number, number] {
  return [255 * r, 255 * g, 255 * b];
}
