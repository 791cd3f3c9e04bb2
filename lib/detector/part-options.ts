/** Parts that detectors share: backbones, necks, heads, transformers. See DetectorOptions for the whole. */

/** ResNet (He et al. 2016): C2 to C5. */
export interface ResNetOptions {
  type?: 'resnet';
  /** @defaultValue 50 */
  depth?: 18 | 34 | 50 | 101;
  /** Where a bottleneck has its stride: on the 3x3 ('pytorch') or the first 1x1. @defaultValue 'pytorch' */
  style?: 'pytorch' | 'caffe';
  /** Parts that are not trained; -1: none, 0: the stem, n: the stem and stages 1 … n. @defaultValue 1 */
  frozenStages?: number;
  /** 'bn-eval' learns scale and shift; 'gn' is for training from scratch. @defaultValue 'frozen-bn' */
  norm?: 'frozen-bn' | 'bn-eval' | 'bn' | 'gn';
  /** Added to the variance by any norm. @defaultValue 1e-5 */
  normEps?: number;
  /** Channels of the stem, a multiple of 4. @defaultValue 64, the published network */
  baseWidth?: number;
  /**
   * In training, keeps only the outputs of the stages and recomputes the rest in the backward pass: the
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
  /** Number of blocks of each stage. */
  depths?: [number, number, number, number] | null;
  /** Number of attention heads of each stage. */
  heads?: [number, number, number, number] | null;
  /** Side of an attention window in cells. @defaultValue 7 */
  window?: number;
  /** Share of images that skip the last block in training; it grows from 0 in the first. @defaultValue 0.2 */
  dropPath?: number;
  /** Parts that are not trained; -1: none, 0: the patch embedding, n: also stages 1 … n. @defaultValue -1 */
  frozenStages?: number;
  /** As in ResNetOptions; keeps the outputs of the blocks. @defaultValue false */
  recompute?: boolean;
}

/** Feature pyramid (Lin et al. 2017): levels of one width from those of the backbone. Defaults are the detector's. */
export interface FpnOptions {
  type?: 'fpn';
  /** Channels of every level. @defaultValue 256 */
  channels?: number;
  /** Finest level of the backbone in use; 3: from C3 on. */
  firstLevel?: number;
  /** Number of levels, those beyond C5 included. */
  numOutputs?: number;
  /** What P6 is computed from: nothing (there is none), C5 ('on-input') or P5 ('on-output'). */
  extra?: 'none' | 'on-input' | 'on-output';
  /** Whether there is a ReLU between P6 and P7. */
  reluBeforeExtra?: boolean;
  /** Normalisation of its convolutions; torchvision's P6 and P7 have none. @defaultValue 'none' */
  norm?: 'none' | 'bn' | 'gn';
}

/** The convolutions of a dense head, one tower for classes and one for boxes. */
export interface TowerOptions {
  /** @defaultValue 256 */
  channels?: number;
  /** Number of 3x3 convolutions per tower. @defaultValue 4 */
  stackedConvs?: number;
  /** Normalisation of these convolutions. @defaultValue 'none' for RetinaNet, 'gn' for the others */
  norm?: 'none' | 'gn';
}

/** How a dense head selects detections. */
export interface DenseTestOptions {
  /** Score threshold of box and class pairs, in [0, 1]. @defaultValue 0.05 */
  scoreThr?: number;
  /** Largest number of such pairs per level before NMS. @defaultValue 1000 */
  nmsPre?: number;
  /** IoU above which NMS removes a box of the same class. @defaultValue the detector's, 0.5 or 0.6 */
  nmsIou?: number;
  /** @defaultValue 100 */
  maxPerImage?: number;
}

/** Anchors of a dense head: one square per cell. */
export interface SquareAnchorOptions {
  /** Stride of each level in pixels. @defaultValue [8, 16, 32, 64, 128] */
  strides?: number[];
  /** Side of an anchor in strides. @defaultValue 8 */
  octaveBaseScale?: number;
}

/** The region proposal network of a two-stage detector (Ren et al. 2015). */
export interface RpnOptions {
  /** @defaultValue 256 */
  channels?: number;
  /** Number of 3x3 convolutions before the outputs. @defaultValue 1 */
  convs?: number;
  /** Stride of each level in pixels. @defaultValue [4, 8, 16, 32, 64] */
  strides?: number[];
  /** Height / width of anchors. @defaultValue [0.5, 1, 2] */
  ratios?: number[];
  /** Sides of anchors in strides. @defaultValue [8] */
  scales?: number[];
  /** An anchor with at least this IoU with an object is positive. @defaultValue 0.7 */
  posIou?: number;
  /** An anchor below this IoU is negative. @defaultValue 0.3 */
  negIou?: number;
  /** The best anchors of an object are positive from this IoU on. @defaultValue 0.3 */
  minPosIou?: number;
  /** Anchors per image that the loss counts. @defaultValue 256 */
  sampleSize?: number;
  /** Largest share of positives among them. @defaultValue 0.5 */
  posFraction?: number;
  /** Pixels by which an anchor may reach outside the image in training; -1: any. @defaultValue -1; Cascade R-CNN: 0 */
  allowedBorder?: number;
  /** Error below which the L1 loss is quadratic; 0: plain L1. @defaultValue 0; Cascade R-CNN: 1/9 */
  smoothL1Beta?: number;
  /** Proposals per level before NMS, in training. @defaultValue 2000 */
  trainNmsPre?: number;
  /** Proposals per image after NMS, in training. @defaultValue 1000; Cascade R-CNN: 2000 */
  trainMaxPerImage?: number;
  /** Proposals per level before NMS, in evaluation. @defaultValue 1000 */
  testNmsPre?: number;
  /** Proposals per image after NMS, in evaluation. @defaultValue 1000 */
  testMaxPerImage?: number;
  /** Least score of a proposal. @defaultValue 0 */
  scoreThr?: number;
  /** @defaultValue 0.7 */
  nmsIou?: number;
  /** Both sides of a proposal must be longer than this, in pixels. @defaultValue 0 */
  minSize?: number;
}

/** How a second stage selects detections. */
export interface RoiTestOptions {
  /** Score threshold of box and class pairs, in [0, 1]. @defaultValue 0.05 */
  scoreThr?: number;
  /** @defaultValue 0.5 */
  nmsIou?: number;
  /** @defaultValue 100 */
  maxPerImage?: number;
}

/** The neck of a transformer: levels of one width; in DAB-DETR C5 only. */
export interface ChannelMapperOptions {
  type?: 'channel-mapper';
  /** Channels of every token, a multiple of 4. @defaultValue 256 */
  channels?: number;
  /** Finest level of the backbone in use; 3: from C3 on. @defaultValue 3 */
  firstLevel?: number;
  /** Number of levels; those beyond C5 come from convolutions of stride 2. @defaultValue 4 */
  numOutputs?: number;
  /** Normalisation of the neck. @defaultValue 'gn'; DAB-DETR: 'none' */
  norm?: 'none' | 'gn';
}

/** Encoder and decoder. */
export interface TransformerOptions {
  /** Number of attention heads; must divide the channels of the neck. @defaultValue 8 */
  heads?: number;
  /** @defaultValue 6 */
  encoderLayers?: number;
  /** @defaultValue 6 */
  decoderLayers?: number;
  /** Channels between the two layers of a feed-forward block. @defaultValue 2048; Deformable DETR: 1024 */
  ffnChannels?: number;
  /** Dropout rate in training, in [0, 1). @defaultValue 0; Deformable DETR: 0.1 */
  dropout?: number;
}

/** Encoder and decoder that look at a few places of each level (Zhu et al. 2021). */
export interface DeformableTransformerOptions extends TransformerOptions {
  /** Sampling points per head and level. @defaultValue 4 */
  points?: number;
}

/** Losses of queries, each of which is assigned to an object or to none (Carion et al. 2020). */
export interface QueryTrainOptions {
  /** Weight of positives in the focal loss, 0 … 1. @defaultValue 0.25 */
  focalAlpha?: number;
  /** Exponent of the focal loss, >= 0. @defaultValue 2 */
  focalGamma?: number;
  /** Weights of the costs by which queries are matched to objects. @defaultValue 2, 5 and 2 */
  matchCosts?: { classification?: number; boxes?: number; iou?: number };
  /** Weights of the losses. @defaultValue 1, 5 and 2; Deformable DETR and Sparse R-CNN: 2, 5 and 2 */
  lossWeights?: { classification?: number; boxes?: number; iou?: number };
}
