/** Parts that detectors share: backbones, necks, heads, transformers. See DetectorOptions for the whole. */

/** ResNet (He et al. 2016): C2 to C5. */
export interface ResNetOptions {
  type?: 'resnet';
  /** @defaultValue 50 */
  depth?: 18 | 34 | 50 | 101;
  /** Where a bottleneck has its stride: on the 3x3 ('pytorch') or the first 1x1. @defaultValue 'pytorch' */
  style?: 'pytorch' | 'caffe';
  /** -1: none; 0: the stem; n: the stem and stages 1 … n. @defaultValue 1 */
  frozenStages?: number;
  /** 'bn-eval' learns scale and shift; 'gn' is for training from scratch. @defaultValue 'frozen-bn' */
  norm?: 'frozen-bn' | 'bn-eval' | 'bn' | 'gn';
  /** Added to the variance by any norm. @defaultValue 1e-5 */
  normEps?: number;
  /** Channels of the stem, a multiple of 4. @defaultValue 64, the published network */
  baseWidth?: number;
  /**
   * In training, keeps the outputs of stages alone and computes the rest again in the backward pass: the
   * same losses and gradients to the last bit, in less memory. @defaultValue false
   */
  recompute?: boolean;
}

/** Swin Transformer (Liu et al. 2021). */
export interface SwinOptions {
  type: 'swin';
  /** Embedding, depths and heads: T, S, B and L of the paper. @defaultValue 'tiny' */
  size?: 'tiny' | 'small' | 'base' | 'large';
  /** Channels of C2, doubled at every level. @defaultValue what `size` says, as those below */
  embed?: number | null;
  /** Blocks of each stage. */
  depths?: [number, number, number, number] | null;
  /** Of attention, in each stage. */
  heads?: [number, number, number, number] | null;
  /** Cells of a window's side. @defaultValue 7 */
  window?: number;
  /** Share of images that the last block leaves as they are in training; 0 in the first. @defaultValue 0.2 */
  dropPath?: number;
  /** -1: none; 0: the patch embedding; n: it and stages 1 … n. @defaultValue -1 */
  frozenStages?: number;
  /** As ResNetOptions; keeps the outputs of blocks. @defaultValue false */
  recompute?: boolean;
}

/** Feature pyramid (Lin et al. 2017): levels of one width from those of the backbone. Defaults are the detector's. */
export interface FpnOptions {
  type?: 'fpn';
  /** Of every level. @defaultValue 256 */
  channels?: number;
  /** 3: from C3 on. */
  firstLevel?: number;
  /** Levels, those beyond C5 included. */
  numOutputs?: number;
  /** Where P6 comes from: nowhere, C5 or P5. */
  extra?: 'none' | 'on-input' | 'on-output';
  /** A ReLU between P6 and P7. */
  reluBeforeExtra?: boolean;
  /** Of its convolutions; torchvision's P6 and P7 have none. @defaultValue 'none' */
  norm?: 'none' | 'bn' | 'gn';
}

/** The convolutions of a dense head, one tower for classes and one for boxes. */
export interface TowerOptions {
  /** @defaultValue 256 */
  channels?: number;
  /** 3x3 convolutions of a tower. @defaultValue 4 */
  stackedConvs?: number;
  /** @defaultValue the detector's: 'none' of RetinaNet, 'gn' of others */
  norm?: 'none' | 'gn';
}

/** Detections of a dense head. */
export interface DenseTestOptions {
  /** Pairs of box and class have a score above, in [0, 1]. @defaultValue 0.05 */
  scoreThr?: number;
  /** Such pairs per level before NMS. @defaultValue 1000 */
  nmsPre?: number;
  /** A box goes when its IoU with a better one of its class is above. @defaultValue the detector's, 0.5 or 0.6 */
  nmsIou?: number;
  /** @defaultValue 100 */
  maxPerImage?: number;
}

/** One square anchor a cell. */
export interface SquareAnchorOptions {
  /** Pixels, one a level. @defaultValue [8, 16, 32, 64, 128] */
  strides?: number[];
  /** Side of an anchor in strides. @defaultValue 8 */
  octaveBaseScale?: number;
}

/** The region proposal network of a two-stage detector (Ren et al. 2015). */
export interface RpnOptions {
  /** @defaultValue 256 */
  channels?: number;
  /** 3x3 convolutions before the outputs. @defaultValue 1 */
  convs?: number;
  /** Pixels, one a level. @defaultValue [4, 8, 16, 32, 64] */
  strides?: number[];
  /** h / w. @defaultValue [0.5, 1, 2] */
  ratios?: number[];
  /** Sides of anchors in strides. @defaultValue [8] */
  scales?: number[];
  /** An anchor is positive from this IoU with an object on. @defaultValue 0.7 */
  posIou?: number;
  /** And negative below this. @defaultValue 0.3 */
  negIou?: number;
  /** The best anchors of an object are positive from this on. @defaultValue 0.3 */
  minPosIou?: number;
  /** Anchors per image that count. @defaultValue 256 */
  sampleSize?: number;
  /** At most this share of them are positives. @defaultValue 0.5 */
  posFraction?: number;
  /** Pixels that an anchor may lie outside the image in training; -1: any number. @defaultValue -1, of Cascade R-CNN 0 */
  allowedBorder?: number;
  /** 0 is plain L1. @defaultValue 0, of Cascade R-CNN 1/9 */
  smoothL1Beta?: number;
  /** In training: proposals per level before NMS. @defaultValue 2000 */
  trainNmsPre?: number;
  /** And per image after it. @defaultValue 1000, of Cascade R-CNN 2000 */
  trainMaxPerImage?: number;
  /** In evaluation. @defaultValue 1000 */
  testNmsPre?: number;
  /** In evaluation. @defaultValue 1000 */
  testMaxPerImage?: number;
  /** Least score of a proposal. @defaultValue 0 */
  scoreThr?: number;
  /** @defaultValue 0.7 */
  nmsIou?: number;
  /** Pixels that both sides of a proposal exceed. @defaultValue 0 */
  minSize?: number;
}

/** Detections of a second stage. */
export interface RoiTestOptions {
  /** Pairs of box and class have a score above, in [0, 1]. @defaultValue 0.05 */
  scoreThr?: number;
  /** @defaultValue 0.5 */
  nmsIou?: number;
  /** @defaultValue 100 */
  maxPerImage?: number;
}

/** The neck of a transformer: levels of one width. DAB-DETR has C5 alone. */
export interface ChannelMapperOptions {
  type?: 'channel-mapper';
  /** Of every token, a multiple of 4. @defaultValue 256 */
  channels?: number;
  /** 3: from C3 on. @defaultValue 3 */
  firstLevel?: number;
  /** Levels, those beyond C5 by strides of 2. @defaultValue 4 */
  numOutputs?: number;
  /** @defaultValue 'gn', of DAB-DETR 'none' */
  norm?: 'none' | 'gn';
}

/** Encoder and decoder. */
export interface TransformerOptions {
  /** Of attention; must divide the channels of the neck. @defaultValue 8 */
  heads?: number;
  /** @defaultValue 6 */
  encoderLayers?: number;
  /** @defaultValue 6 */
  decoderLayers?: number;
  /** Between the two layers of a feed-forward block. @defaultValue 2048, of Deformable DETR 1024 */
  ffnChannels?: number;
  /** In [0, 1). @defaultValue 0, of Deformable DETR 0.1 */
  dropout?: number;
}

/** Encoder and decoder that look at a few places of each level (Zhu et al. 2021). */
export interface DeformableTransformerOptions extends TransformerOptions {
  /** Samples of a head in each level. @defaultValue 4 */
  points?: number;
}

/** What queries learn; each is assigned to an object or to none (Carion et al. 2020). */
export interface QueryTrainOptions {
  /** Weight of positives in the focal loss, 0 … 1. @defaultValue 0.25 */
  focalAlpha?: number;
  /** Its exponent, >= 0. @defaultValue 2 */
  focalGamma?: number;
  /** What assigning a query to an object costs. @defaultValue 2, 5 and 2 */
  matchCosts?: { classification?: number; boxes?: number; iou?: number };
  /** Of the losses. @defaultValue 1, 5 and 2; of Deformable DETR and Sparse R-CNN 2, 5 and 2 */
  lossWeights?: { classification?: number; boxes?: number; iou?: number };
}
