/** What a batch through one of the benches' networks must at least compute and move, layer by layer. */
import { pyramid, resnet50, type SwinShape, swin } from './backbones.js';
import { sizeOf, type Work } from './case.js';
import { denseHead, dynamicHead, twoStageHead } from './heads.js';
import { type FeatureMap, Walk } from './layers.js';
import type { BenchModel } from './models.js';
import { dabDetr, deformableDetr, dino } from './transformers.js';

/** Of one batch through a network. */
export interface PassShape {
  model: BenchModel;
  classes: number;
  images: number;
  height: number;
  width: number;
  /** What a dense detector's P6 and P7 come from. @defaultValue C5 for RetinaNet, P5 for FCOS */
  extra?: 'on-input' | 'on-output';
  /** DINO's denoising queries of an image, in training. @defaultValue 200 */
  noisy?: number;
}

/** Forward. */
export function inferenceWork(shape: PassShape, dtype: 'f32' | 'bf16'): Work[] {
  const act = sizeOf(dtype);
  return walkOf(shape, false).layers.map(({ flops, x, y, residual, weight }) => ({
    flops: flops * shape.images,
    bytes: ((x + y + residual) * shape.images + weight) * act,
  }));
}

/** Forward and backward. */
export function trainingWork(shape: PassShape, dtype: 'f32' | 'bf16'): Work[] {
  const act = sizeOf(dtype);
  const n = shape.images;
  return walkOf(shape, true).layers.flatMap(
    ({ flops, dxFlops, x, y, residual, weight, kept, again, dx, dweight }) => [
      { flops: flops * n, bytes: ((x + y + residual + kept) * n + weight) * act },
      ...(dx ? [{ flops: dxFlops * n, bytes: ((y + again + x) * n + weight) * act }] : []),
      ...(dweight ? [{ flops: flops * n, bytes: (x + y) * n * act + weight * 4 }] : []),
    ],
  );
}

/** Numbers of the weights that are trained (a head's once for all levels), and of all; no biases, no norms. */
export function parametersOf(shape: PassShape): { trained: number; all: number } {
  const { trained, all } = walkOf(shape, true);
  return { trained, all };
}

const tiny: SwinShape = {
  ...{ embed: 96, depths: [2, 2, 6, 2], heads: [3, 6, 12, 24], window: 7, firstLevel: 3 },
};
const large: SwinShape = {
  ...{ embed: 192, depths: [2, 2, 18, 2], heads: [6, 12, 24, 48], window: 12, firstLevel: 2 },
};

function walkOf(shape: PassShape, training: boolean): Walk {
  const { model, classes, height, width, noisy = 200 } = shape;
  const { extra = model === 'fcos' ? 'on-output' : 'on-input' } = shape;
  const walk = new Walk();
  const query = { classes, training, noisy };
  const resnet = () => resnet50(walk, height, width);
  switch (model) {
    case 'faster-rcnn':
      twoStageHead(walk, pyramid(walk, resnet()), { classes, rois: training ? 512 : 1000 });
      break;
    case 'sparse-rcnn':
      pyramid(walk, resnet());
      dynamicHead(walk, query);
      break;
    case 'dino':
      dino(walk, resnet().slice(1), { ...query, levels: 4 });
      break;
    case 'dino-swin-l':
      dino(walk, swin(walk, [height, width], large), { ...query, levels: 5 });
      break;
    case 'deformable-detr':
      deformableDetr(walk, resnet().slice(1), query);
      break;
    case 'dab-detr':
      dabDetr(walk, resnet().at(-1)!, query);
      break;
    default: {
      const stages = model === 'retinanet-swin-t' ? swin(walk, [height, width], tiny) : resnet();
      const levels = withExtra(walk, stages.slice(1), extra);
      denseHead(walk, levels, { fcos: model === 'fcos', classes });
    }
  }
  return walk;
}

/** A pyramid with P6 and P7. */
function withExtra(
  walk: Walk,
  stages: readonly FeatureMap[],
  extra: 'on-input' | 'on-output',
): FeatureMap[] {
  const levels = pyramid(walk, stages);
  let top = (extra === 'on-input' ? stages : levels).at(-1)!;
  for (let i = 0; i < 2; i++) {
    top = walk.conv(top, 256, 3, { stride: 2 });
    levels.push(top);
  }
  return levels;
}
