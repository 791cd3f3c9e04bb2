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
    /** Pixels, one a level. @defaultValue [8, 16, 32, 64, 128] */
    strides?: number[];
    /** h / w. @defaultValue [0.5, 1, 2] */
    ratios?: number[];
    /** Side of the smallest anchor in strides. @defaultValue 4 */
    octaveBaseScale?: number;
    /** Sizes of anchors between that and its double. @defaultValue 3 */
    scalesPerOctave?: number;
  };
  train?: {
    /** An anchor is positive from this IoU with an object on. @defaultValue 0.5 */
    posIou?: number;
    /** And negative below this. @defaultValue 0.4 */
    negIou?: number;
    /** The best anchors of an object are positive from this on. @defaultValue 0 */
    minPosIou?: number;
    /** Weight of positives in the focal loss, 0 … 1. @defaultValue 0.25 */
    focalAlpha?: number;
    /** Its exponent, >= 0. @defaultValue 2 */
    focalGamma?: number;
    /** L1 of encoded boxes (smoothed below smoothL1Beta), or GIoU of decoded ones. @defaultValue 'l1' */
    boxLoss?: 'l1' | 'giou';
    /** 0 is plain L1. @defaultValue 0 */
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
    /** In strides, around a box's centre; 0: every point in the box. */
    centerRadius?: number;
    /** Largest distance of a level in pixels, between each two levels. */
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
    /** Least half diagonal of the boxes of a level, in pixels. */
    regressFrom?: number[];
    /** Largest half diagonal of every level but the last, in pixels. */
    regressTo?: number[];
    /** IoU that is left when a box moves by its heat's radius. @defaultValue 0.8 */
    heatMinOverlap?: number;
    /** Pixels. @defaultValue 4 */
    heatMinRadius?: number;
    /** GIoU loss below which a cell at the centre of a box is a positive of its class. @defaultValue 0.2 */
    morePositivesLoss?: number;
    /** And fewer than this many of a box. @defaultValue 9 */
    morePositives?: number;
    /** Of the classification loss's two parts. @defaultValue 0.25 and 0.75 */
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
    /** ATSS candidates of a box per level. @defaultValue 9 */
    topK?: number;
    /** Task-aligned candidates of a box. @defaultValue 13 */
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

/** ATSS (Zhang et al. 2020): one square anchor a cell, the positives of a box by its candidates' IoU. */
export interface AtssOptions extends MmdetectionOptions {
  type: 'atss';
  head?: TowerOptions;
  anchors?: SquareAnchorOptions;
  train?: {
    /** Candidates a level and box. @defaultValue 9 */
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
    /** Largest distance of a side in strides; a side has one bin for each whole distance. @defaultValue 16 */
    regMax?: number;
  };
  anchors?: SquareAnchorOptions;
  train?: {
    /** ATSS candidates a level and box. @defaultValue 9 */
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
    /** 3x3 convolutions before the fully connected layers. @defaultValue 0 */
    convs?: number;
    convChannels?: number;
    /** Of these convolutions. @defaultValue 'none' */
    norm?: 'none' | 'bn' | 'gn';
    /** Fully connected layers. @defaultValue 2 */
    fcs?: number;
    fcChannels?: number;
    /** What box deltas are multiplied by. @defaultValue [10, 10, 5, 5] */
    deltaWeights?: [number, number, number, number];
    posIou?: number;
    negIou?: number;
    /** Regions per image that count. */
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
    /** Overlap of positives, per stage. */
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
    /** Of the first assignment, by IoU. @defaultValue 0.1, 0.1 and 0 */
    posIou?: number;
    negIou?: number;
    minPosIou?: number;
    /** Anchors per level and box among which the mixture chooses. @defaultValue 9 */
    topK?: number;
    focalAlpha?: number;
    focalGamma?: number;
  };
  test?: DenseTestOptions & {
    /** A kept box becomes the mean of those around it, weighted by score and IoU. @defaultValue true */
    scoreVoting?: boolean;
  };
}

/** Sparse R-CNN (Sun et al. 2021): learned boxes, moved stage by stage by what is seen in them. */
export interface SparseRcnnOptions extends MmdetectionOptions {
  type: 'sparse-rcnn';
  /** Learned boxes: objects that an image can have. @defaultValue 100 */
  proposals?: number;
  head?: {
    /** Each moves the boxes of the one before. @defaultValue 6 */
    stages?: number;
    /** Of the attention among proposals. @defaultValue 8 */
    heads?: number;
    /** Between the two filters that a proposal makes for its region. @defaultValue 64 */
    dynamicChannels?: number;
    ffnChannels?: number;
    /** Before the classification. @defaultValue 1 */
    classLayers?: number;
    /** Before the box. @defaultValue 3 */
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
  /** Each layer moves the boxes of the one before. @defaultValue true */
  refine?: boolean;
  /** Queries start at the encoder's best boxes; needs `refine`. @defaultValue true */
  twoStage?: boolean;
}

/** DAB-DETR (Liu et al. 2022): queries are learned boxes, which look at C5 alone. */
export interface DabDetrOptions extends Omit<DetrOptions, 'transformer'> {
  type: 'dab-detr';
  transformer?: TransformerOptions;
}

/** DINO (Zhang et al. 2023). */
export interface DinoOptions extends DetrOptions {
  type: 'dino';
  denoising?: {
    /** Objects that the noisy groups hold; 0: none. @defaultValue 100 */
    queries?: number;
    /** Half of it is the share of labels that are drawn anew. @defaultValue 0.5 */
    labelNoise?: number;
    /** Of half a side. @defaultValue 1 */
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

/** Whether some of its BatchNorm goes by the batch in training, and keeps statistics of what it saw. */
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
