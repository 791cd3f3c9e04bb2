/** The detectors whose steps are measured. */
import type { OptimizerOptions } from '../detector/create.js';
import type { DetectorOptions, SwinOptions } from '../detector/options.js';
import type { TorchvisionOptions } from '../detector/torchvision.js';

export const benchModels = [
  'retinanet',
  'fcos',
  'faster-rcnn',
  'retinanet-swin-t',
  'sparse-rcnn',
  'dab-detr',
  'deformable-detr',
  'dino',
  'dino-swin-l',
] as const;
export type BenchModel = (typeof benchModels)[number];

export interface ModelFacts {
  title: string;
  /** Outputs of the classification; torchvision's dense detectors have one for a class that is none. */
  classes: number;
  optimizer: OptimizerOptions;
  /** Has torchvision's numerics. */
  torchvision?: true;
  /** Has a peer in PyTorch. */
  peer?: true;
  /** Takes minutes and more memory than most have on a CPU: measured there where it is named. */
  large?: true;
  /** Every candidate goes through post-processing. @param detections an image */
  options(detections: number): DetectorOptions | TorchvisionOptions;
}

/** Objects are 0 … 89 in all of them. */
export const objectClasses = 90;
const numClasses = objectClasses;

const sgd: OptimizerOptions = { type: 'sgd', momentum: 0.9, weightDecay: 1e-4, clipNorm: 20 };
const adamw = (clipNorm: number): OptimizerOptions => ({
  ...{ type: 'adamw', weightDecay: 1e-4, clipNorm },
});

const torchvision = (
  title: string,
  options: (detections: number) => TorchvisionOptions,
): ModelFacts => ({
  title: `${title} R50`,
  classes: objectClasses + 1,
  optimizer: sgd,
  ...{ torchvision: true, peer: true },
  options: (detections) => ({ ...options(detections), numClasses: objectClasses + 1 }),
});

/** DETR's family, after the presets of their COCO runs. */
const queries = (
  title: string,
  options: (maxPerImage: number) => DetectorOptions,
  clipNorm = 0.1,
): ModelFacts => ({ title, classes: objectClasses, optimizer: adamw(clipNorm), options });

const r50 = { depth: 50, style: 'pytorch' } as const;
// Unlike its preset it computes nothing twice: the floor counts one pass.
const swinL: SwinOptions = { type: 'swin', size: 'large', window: 12, dropPath: 0.2 };

export const modelFacts: Readonly<Record<BenchModel, ModelFacts>> = {
  retinanet: torchvision('RetinaNet', (detectionsPerImg) => ({
    preset: 'torchvision/retinanet_resnet50_fpn',
    ...{ scoreThresh: 0, detectionsPerImg },
  })),
  fcos: torchvision('FCOS', (detectionsPerImg) => ({
    preset: 'torchvision/fcos_resnet50_fpn',
    ...{ scoreThresh: 0, detectionsPerImg },
  })),
  'faster-rcnn': {
    ...torchvision('Faster R-CNN', (boxDetectionsPerImg) => ({
      preset: 'torchvision/fasterrcnn_resnet50_fpn',
      ...{ boxScoreThresh: 0, boxDetectionsPerImg, rpnPostNmsTopNTrain: 1000 },
    })),
    classes: objectClasses,
  },
  'retinanet-swin-t': {
    ...{ title: 'RetinaNet Swin-T', classes: objectClasses, optimizer: adamw(20) },
    options: (maxPerImage) => ({
      ...{ type: 'retinanet', numClasses, backbone: { type: 'swin', size: 'tiny' } },
      test: { scoreThr: 0, maxPerImage },
    }),
  },
  'sparse-rcnn': queries(
    'Sparse R-CNN R50',
    (maxPerImage) => ({
      ...{ type: 'sparse-rcnn', numClasses, test: { maxPerImage } },
      backbone: { ...r50, norm: 'bn-eval' },
    }),
    1,
  ),
  'dab-detr': queries('DAB-DETR R50', (maxPerImage) => ({
    ...{ type: 'dab-detr', numClasses, backbone: r50, test: { maxPerImage } },
  })),
  'deformable-detr': queries('Deformable DETR R50', (maxPerImage) => ({
    ...{ type: 'deformable-detr', numClasses, backbone: r50, test: { maxPerImage } },
  })),
  dino: {
    ...queries('DINO R50, 4 levels', (maxPerImage) => ({
      ...{ type: 'dino', numClasses, backbone: r50, test: { maxPerImage } },
    })),
    peer: true,
  },
  'dino-swin-l': {
    ...queries('DINO Swin-L, 5 levels', (maxPerImage) => ({
      ...{ type: 'dino', numClasses, backbone: swinL, test: { maxPerImage } },
      neck: { firstLevel: 2, numOutputs: 5 },
    })),
    large: true,
  },
};
