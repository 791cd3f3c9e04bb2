/**
 * Layers of the R50-FPN detectors that the bench measures: what each must at least compute and move. A
 * layer reads its input and its weight once and writes its output once; frozen norm, bias and ReLU ride
 * along; a residual is one read more. Backward the input's gradient takes dY, Y (for the ReLU) and the
 * weight, the weight's takes X and dY.
 */
import { sizeOf, type Work } from './case.js';

export type BenchModel = 'retinanet' | 'fcos' | 'faster-rcnn';

/** Of one batch through a network. */
export interface PassShape {
  model: BenchModel;
  classes: number;
  images: number;
  height: number;
  width: number;
  /** What a dense detector's P6 and P7 come from. @defaultValue C5 for RetinaNet, P5 for FCOS */
  extra?: 'on-input' | 'on-output';
}

type Map_ = readonly [channels: number, height: number, width: number];

interface Layer {
  flops: number;
  /** Numbers read, written, of the weight, and of a residual. */
  x: number;
  y: number;
  weight: number;
  residual: number;
  /** Gradients that are wanted. */
  dx: boolean;
  dweight: boolean;
}

/** Forward. */
export function inferenceWork(shape: PassShape, dtype: 'f32' | 'bf16'): Work[] {
  const act = sizeOf(dtype);
  return layersOf(shape, 1000).map(({ flops, x, y, residual, weight }) => ({
    flops: flops * shape.images,
    bytes: ((x + y + residual) * shape.images + weight) * act,
  }));
}

/** Forward and backward. */
export function trainingWork(shape: PassShape, dtype: 'f32' | 'bf16'): Work[] {
  const act = sizeOf(dtype);
  const n = shape.images;
  return layersOf(shape, 512).flatMap(({ flops, x, y, residual, weight, dx, dweight }) => [
    { flops: flops * n, bytes: ((x + y + residual) * n + weight) * act },
    ...(dx ? [{ flops: flops * n, bytes: ((2 * y + x) * n + weight) * act }] : []),
    ...(dweight ? [{ flops: flops * n, bytes: (x + y) * n * act + weight * 4 }] : []),
  ]);
}

/** Numbers of the weights that are trained (a head's once for all levels), and of all. */
export function parametersOf(shape: PassShape): { trained: number; all: number } {
  const walk = walkOf(shape, 1);
  return { trained: walk.trained, all: walk.all };
}

const layersOf = (shape: PassShape, rois: number) => walkOf(shape, rois).layers;

const half = (size: number) => Math.ceil(size / 2);

class Walk {
  readonly layers: Layer[] = [];
  trained = 0;
  all = 0;
  /** Layers that come next are not trained. */
  frozen = false;

  conv(
    [channels, h, w]: Map_,
    filters: number,
    kernel: number,
    {
      stride = 1,
      residual = false,
      dx = true,
      shared = false,
    }: { stride?: 1 | 2; residual?: boolean; dx?: boolean; shared?: boolean } = {},
  ): Map_ {
    const [p, q] = stride === 2 ? [half(h), half(w)] : [h, w];
    const weight = channels * filters * kernel ** 2;
    this.#add({
      flops: 2 * weight * p * q,
      x: channels * (kernel === 1 ? p * q : h * w), // a strided 1×1 touches the pixels it keeps
      y: filters * p * q,
      weight,
      residual: residual ? filters * p * q : 0,
      ...{ dx, dweight: true, shared },
    });
    return [filters, p, q];
  }

  linear(rows: number, inputs: number, outputs: number): void {
    const weight = inputs * outputs;
    const [x, y] = [rows * inputs, rows * outputs];
    const gradients = { dx: true, dweight: true };
    this.#add({ flops: 2 * rows * weight, x, y, weight, residual: 0, ...gradients });
  }

  /** Only traffic. */
  move(x: number, y: number): void {
    this.#add({ flops: 0, x, y, weight: 0, residual: 0, dx: true, dweight: false });
  }

  #add({ shared, ...layer }: Layer & { shared?: boolean }): void {
    const { frozen } = this;
    this.layers.push({ ...layer, dx: layer.dx && !frozen, dweight: layer.dweight && !frozen });
    if (shared) return;
    this.all += layer.weight;
    if (!frozen) this.trained += layer.weight;
  }
}

function walkOf(
  { model, classes, height, width, extra = model === 'fcos' ? 'on-output' : 'on-input' }: PassShape,
  rois: number,
): Walk {
  const walk = new Walk();
  const stages = resnet50(walk, height, width);
  if (model === 'faster-rcnn') {
    const levels = pyramid(walk, stages);
    const [c, h, w] = levels.at(-1)!;
    levels.push([c, half(h), half(w)]);
    twoStageHead(walk, levels, { classes, rois });
    return walk;
  }
  const levels = pyramid(walk, stages.slice(1));
  let top = (extra === 'on-input' ? stages : levels).at(-1)!;
  for (let i = 0; i < 2; i++) {
    top = walk.conv(top, 256, 3, { stride: 2 });
    levels.push(top);
  }
  denseHead(walk, levels, { model, classes });
  return walk;
}

/** Stem and first stage frozen. @returns C2 to C5 */
function resnet50(walk: Walk, height: number, width: number): Map_[] {
  walk.frozen = true;
  let x = walk.conv([3, height, width], 64, 7, { stride: 2 });
  const pooled: Map_ = [64, half(x[1]), half(x[2])];
  walk.move(x[0] * x[1] * x[2], pooled[0] * pooled[1] * pooled[2]);
  x = pooled;
  return [3, 4, 6, 3].map((blocks, stage) => {
    walk.frozen = stage === 0;
    const middle = 64 * 2 ** stage;
    for (let block = 0; block < blocks; block++) {
      const stride = stage > 0 && block === 0 ? 2 : 1;
      const dx = !(stage === 1 && block === 0); // nothing below is trained
      const inner = walk.conv(x, middle, 1, { dx });
      const out = walk.conv(walk.conv(inner, middle, 3, { stride }), 4 * middle, 1, {
        residual: true,
      });
      if (block === 0) walk.conv(x, 4 * middle, 1, { stride, dx });
      x = out;
    }
    return x;
  });
}

function pyramid(walk: Walk, stages: readonly Map_[]): Map_[] {
  const laterals = stages.map((stage, i) =>
    walk.conv(stage, 256, 1, { residual: i < stages.length - 1 }),
  );
  return laterals.map((lateral) => walk.conv(lateral, 256, 3));
}

function denseHead(
  walk: Walk,
  levels: readonly Map_[],
  { model, classes }: { model: BenchModel; classes: number },
): void {
  const anchors = model === 'retinanet' ? 9 : 1;
  levels.forEach((level, i) => {
    const shared = i > 0;
    const [, h, w] = level;
    for (let branch = 0; branch < 2; branch++)
      for (let k = 0; k < 4; k++) {
        walk.conv(level, 256, 3, { shared });
        if (model === 'fcos') walk.move(256 * h * w, 256 * h * w); // GroupNorm
      }
    walk.conv(level, classes * anchors, 3, { shared });
    walk.conv(level, model === 'fcos' ? 5 : 4 * anchors, 3, { shared }); // with centre-ness
    walk.move(h * w * anchors * (classes + (model === 'fcos' ? 5 : 4)), 0); // losses
  });
}

function twoStageHead(
  walk: Walk,
  levels: readonly Map_[],
  { classes, rois }: { classes: number; rois: number },
): void {
  levels.forEach((level, i) => {
    const shared = i > 0;
    walk.conv(level, 256, 3, { shared });
    walk.conv(level, 15, 1, { shared });
  });
  walk.move(rois * 49 * 256 * 4, rois * 49 * 256); // RoIAlign: four points a sample
  walk.linear(rois, 256 * 49, 1024);
  walk.linear(rois, 1024, 1024);
  walk.linear(rois, 1024, classes + 1);
  walk.linear(rois, 1024, classes * 4);
  const anchors = levels.reduce((sum, [, h, w]) => sum + 3 * h * w, 0);
  walk.move(5 * anchors + rois * (5 * classes + 1), 0); // losses
}
