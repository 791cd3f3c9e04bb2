/**
 * What createDetector builds, one type per detector. The native side owns the defaults and refuses
 * unknown keys; the config's schema (lib/config/models) has the same names.
 */
import type {
  ChannelMapperOptions,
  DeformableTransformerOptions,
  DenseTestOptions,
  FpnOptions,
  QueryTrainOptions,
  ResNetOptions,
  RoiTestOptions,
  RpnOptions,
  SquareAnchorOptions,
  SwinOptions,
  TowerOptions,
  TransformerOptions,
} from './part-options.js';

export type * from './part-options.js';

interface CommonOptions {
  /** Number of object classes, without background. */
  numClasses: number;
  /** Whose choices count where the references differ, names of losses included. @defaultValue 'mmdetection' */
  numerics?: 'mmdetection' | 'torchvision';
  backbone?: ResNetOptions | SwinOptions;
  neck?: FpnOptions;
}

/** RetinaNet (Lin et al. 2017). */
export interface RetinaNetOptions extends CommonOptions {
  type: 'retinanet';
  head?: TowerOptions;
  anchors?: {
    /** Stride of each level in pixels. @defaultValue [8, 16, 32, 64, 128] */
    strides?: number[];
    /** Height / width of anchors. @defaultValue [0.5, 1, 2] */
    ratios?: number[];
    /** Side of the smallest anchor in strides. @defaultValue 4 */
    octaveBaseScale?: number;
    /** Number of anchor sizes per octave. @defaultValue 3 */
    scalesPerOctave?: number;
  };
  train?: {
    /** An anchor with at least this IoU with an object is positive. @defaultValue 0.5 */
    posIou?: number;
    /** An anchor below this IoU is negative. @defaultValue 0.4 */
    negIou?: number;
    /** The best anchors of an object are positive from this IoU on. @defaultValue 0 */
    minPosIou?: number;
    /** Weight of positives in the focal loss, 0 … 1. @defaultValue 0.25 */
    focalAlpha?: number;
    /** Exponent of the focal loss, >= 0. @defaultValue 2 */
    focalGamma?: number;
    /** L1 of encoded boxes (smoothed below smoothL1Beta), or GIoU of decoded ones. @defaultValue 'l1' */
    boxLoss?: 'l1' | 'giou';
    /** Error below which the L1 loss is quadratic; 0: plain L1. @defaultValue 0 */
    smoothL1Beta?: number;
  };
  test?: DenseTestOptions;
}

/** FCOS (Tian et al. 2019). */
export interface FcosOptions extends CommonOptions {
  type: 'fcos';
  head?: TowerOptions;
  points?: { strides?: number[] };
  train?: {
    /** Radius around a box's centre within which points are positive, in strides; 0: the whole box. */
    centerRadius?: number;
    /** Limits between the levels: the largest distance that a level regresses, in pixels. */
    regressBounds?: number[];
    focalAlpha?: number;
    focalGamma?: number;
  };
  test?: DenseTestOptions;
}

/** Of a detector that torchvision does not have. */
interface MmdetectionOptions extends CommonOptions {
  numerics?: 'mmdetection';
}

/** CenterNet as updated in CenterNet2 (Zhou et al. 2021), one stage over a feature pyramid. */
export interface CenterNetOptions extends MmdetectionOptions {
  type: 'centernet';
  head?: TowerOptions;
  points?: { strides?: number[] };
  train?: {
    /** Smallest half diagonal of the boxes of each level, in pixels. */
    regressFrom?: number[];
    /** Largest half diagonal of the boxes of each level but the last, in pixels. */
    regressTo?: number[];
    /** IoU that a box keeps when it moves by the radius of its heat. @defaultValue 0.8 */
    heatMinOverlap?: number;
    /** Smallest radius of the heat around a centre, in pixels. @defaultValue 4 */
    heatMinRadius?: number;
    /** Cells around a box's centre with a smaller GIoU loss are positives of its class. @defaultValue 0.2 */
    morePositivesLoss?: number;
    /** There are fewer than this many such positives per box. @defaultValue 9 */
    morePositives?: number;
    /** Weights of the two parts of the classification loss. @defaultValue 0.25 and 0.75 */
    positiveWeight?: number;
    negativeWeight?: number;
  };
  test?: DenseTestOptions;
}

/** TOOD (Feng et al. 2021), anchor-free. */
export interface ToodOptions extends MmdetectionOptions {
  type: 'tood';
  head?: { channels?: number; stackedConvs?: number; norm?: 'gn' };
  anchors?: SquareAnchorOptions;
  train?: {
    /**
     * Optimizer steps with ATSS assignment and focal loss before those with task-aligned assignment and
     * quality focal loss; null: all of them. The reference counts epochs (4), and its semi-supervised runs
     * never leave the first. Counted in the optimizer's state, so a resumed run goes on where it was.
     * @defaultValue null
     */
    iterationsBeforeAlignment?: number | null;
    /** ATSS candidates per level and box. @defaultValue 9 */
    topK?: number;
    /** Task-aligned candidates per box. @defaultValue 13 */
    alignTop?: number;
    /** Exponents of score and IoU in the alignment. @defaultValue 1 and 6 */
    alignAlpha?: number;
    alignBeta?: number;
    focalAlpha?: number;
    focalGamma?: number;
    /** Exponent of the quality focal loss, >= 1. @defaultValue 2 */
    qualityBeta?: number;
  };
  test?: DenseTestOptions;
}

/** ATSS (Zhang et al. 2020): one square anchor per cell, the positives of a box by its candidates' IoU. */
export interface AtssOptions extends MmdetectionOptions {
  type: 'atss';
  head?: TowerOptions;
  anchors?: SquareAnchorOptions;
  train?: {
    /** Candidates per level and box. @defaultValue 9 */
    topK?: number;
    focalAlpha?: number;
    focalGamma?: number;
  };
  test?: DenseTestOptions;
}

/** GFL (Li et al. 2020): scores that are the overlap of the box, sides that are distributions. */
export interface GflOptions extends MmdetectionOptions {
  type: 'gfl';
  head?: TowerOptions & {
    /** Largest distance from a point to a side in strides; one bin per whole distance. @defaultValue 16 */
    regMax?: number;
  };
  anchors?: SquareAnchorOptions;
  train?: {
    /** ATSS candidates per level and box. @defaultValue 9 */
    topK?: number;
    /** Exponent of the quality focal loss, >= 1. @defaultValue 2 */
    qualityBeta?: number;
  };
  test?: DenseTestOptions;
}

/** Faster R-CNN (Ren et al. 2015) on a feature pyramid. */
export interface FasterRcnnOptions extends CommonOptions {
  type: 'faster-rcnn';
  rpn?: RpnOptions;
  roi?: {
    /** Number of 3x3 convolutions before the fully connected layers. @defaultValue 0 */
    convs?: number;
    convChannels?: number;
    /** Normalisation of these convolutions. @defaultValue 'none' */
    norm?: 'none' | 'bn' | 'gn';
    /** Number of fully connected layers. @defaultValue 2 */
    fcs?: number;
    fcChannels?: number;
    /** Factors of the encoded box [dx, dy, dw, dh]. @defaultValue [10, 10, 5, 5] */
    deltaWeights?: [number, number, number, number];
    posIou?: number;
    negIou?: number;
    /** Regions per image that the loss counts. */
    sampleSize?: number;
    posFraction?: number;
    smoothL1Beta?: number;
  };
  test?: RoiTestOptions;
}

/** Cascade R-CNN (Cai and Vasconcelos 2018), three stages. */
export interface CascadeRcnnOptions extends CommonOptions {
  type: 'cascade-rcnn';
  numerics?: 'mmdetection';
  rpn?: RpnOptions;
  roi?: {
    fcChannels?: number;
    /** Least IoU of positives, per stage. */
    ious?: [number, number, number];
    lossWeights?: [number, number, number];
    sampleSize?: number;
    posFraction?: number;
    smoothL1Beta?: number;
  };
  test?: RoiTestOptions;
}

/** Probabilistic anchor assignment (Kim and Lee 2020) on ATSS's head. */
export interface PaaOptions extends MmdetectionOptions {
  type: 'paa';
  head?: TowerOptions;
  anchors?: SquareAnchorOptions;
  train?: {
    /** IoUs of the first assignment. @defaultValue 0.1, 0.1 and 0 */
    posIou?: number;
    negIou?: number;
    minPosIou?: number;
    /** Anchors per level and box from which the mixture model chooses. @defaultValue 9 */
    topK?: number;
    focalAlpha?: number;
    focalGamma?: number;
  };
  test?: DenseTestOptions & {
    /** A kept box becomes the mean of the boxes around it, weighted by score and IoU. @defaultValue true */
    scoreVoting?: boolean;
  };
}

/** Sparse R-CNN (Sun et al. 2021): learned boxes, refined stage by stage from what is seen in them. */
export interface SparseRcnnOptions extends MmdetectionOptions {
  type: 'sparse-rcnn';
  /** Number of learned proposals: the most objects that an image can have. @defaultValue 100 */
  proposals?: number;
  head?: {
    /** Number of stages; each refines the boxes of the one before. @defaultValue 6 */
    stages?: number;
    /** Heads of the attention among proposals. @defaultValue 8 */
    heads?: number;
    /** Channels between the two filters that a proposal makes for its region. @defaultValue 64 */
    dynamicChannels?: number;
    ffnChannels?: number;
    /** Number of layers before the classification. @defaultValue 1 */
    classLayers?: number;
    /** Number of layers before the box regression. @defaultValue 3 */
    boxLayers?: number;
  };
  train?: QueryTrainOptions;
  test?: { maxPerImage?: number };
}

interface DetrOptions extends Omit<MmdetectionOptions, 'neck'> {
  neck?: ChannelMapperOptions;
  transformer?: DeformableTransformerOptions;
  /** Objects that an image can have. */
  queries?: number;
  train?: QueryTrainOptions;
  test?: { maxPerImage?: number };
}

/** Deformable DETR (Zhu et al. 2021). */
export interface DeformableDetrOptions extends DetrOptions {
  type: 'deformable-detr';
  /** Each decoder layer refines the boxes of the one before. @defaultValue true */
  refine?: boolean;
  /** Queries start at the encoder's best boxes; needs `refine`. @defaultValue true */
  twoStage?: boolean;
}

/** DAB-DETR (Liu et al. 2022): queries are learned boxes, which look at C5 only. */
export interface DabDetrOptions extends Omit<DetrOptions, 'transformer'> {
  type: 'dab-detr';
  transformer?: TransformerOptions;
}

/** DINO (Zhang et al. 2023). */
export interface DinoOptions extends DetrOptions {
  type: 'dino';
  denoising?: {
    /** Number of denoising queries in all groups; 0: none. @defaultValue 100 */
    queries?: number;
    /** Twice the share of labels that are replaced at random. @defaultValue 0.5 */
    labelNoise?: number;
    /** Largest shift of a side of a noisy box, as a factor of half the width or height. @defaultValue 1 */
    boxNoise?: number;
  };
}

/**
 * A detector; `type` says which. Defaults are those of the reference's configs but for the backbone's, which
 * are PyTorch's; with `numerics: 'torchvision'` those of torchvision's constructors.
 */
export type DetectorOptions =
  | RetinaNetOptions
  | FcosOptions
  | CenterNetOptions
  | ToodOptions
  | AtssOptions
  | GflOptions
  | FasterRcnnOptions
  | CascadeRcnnOptions
  | PaaOptions
  | SparseRcnnOptions
  | DabDetrOptions
  | DeformableDetrOptions
  | DinoOptions;

/** Name of a detector. */
export type DetectorType = DetectorOptions['type'];

/** Whether it has BatchNorm that normalises by the batch in training, and keeps running statistics. */
export function hasLiveBatchNorm({ backbone, neck, ...rest }: DetectorOptions): boolean {
  const roi = 'roi' in rest ? rest.roi : undefined;
  const boxHead = roi && 'norm' in roi ? roi.norm : undefined;
  const trunk = backbone && 'norm' in backbone ? backbone.norm : undefined;
  return [trunk, neck?.norm, boxHead].includes('bn');
}

/** An option that says how many objects there may be at most. */
export interface ObjectLimit {
  option: string;
  count: number;
}

/**
 * The objects of an image that a detector can learn (one a query; only those with queries have a limit)
 * and find. Null for what the options leave to the native side.
 */
export function objectLimits(options: DetectorOptions): {
  learned: ObjectLimit | null;
  found: ObjectLimit | null;
} {
  const limit = (option: string, count: number | undefined) =>
    count === undefined ? null : { option, count };
  return {
    learned:
      options.type === 'sparse-rcnn'
        ? limit('proposals', options.proposals)
        : 'queries' in options
          ? limit('queries', options.queries)
          : null,
    found: limit('test.maxPerImage', options.test?.maxPerImage),
  };
}
