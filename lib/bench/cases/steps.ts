/** Inference, training steps and whole MixPL iterations of R50-FPN detectors. */
import type { BenchCase, BenchContext, PreparedCase, Work } from '../case.js';
import { type BenchModel, inferenceWork, parametersOf, trainingWork } from '../network.js';
import {
  inference,
  mixplIteration,
  mosaicSize,
  type RunningStep,
  type StepSize,
  trainingStep,
} from '../steps.js';

const models: readonly BenchModel[] = ['retinanet', 'fcos', 'faster-rcnn'];
const titles = { retinanet: 'RetinaNet', fcos: 'FCOS', 'faster-rcnn': 'Faster R-CNN' };

export function stepCases(size: StepSize): readonly BenchCase[] {
  return [
    ...models.map((model) => predicting('infer', model, { ...size, images: 1 })),
    ...models.map((model) => predicting('teacher', model, { ...size, images: 4 })),
    ...models.map((model) => training(model, { ...size, images: 2 })),
    ...models.flatMap((model) => [
      mixpl(model, { ...size, labelled: 1, unlabelled: 4 }),
      mixpl(model, { ...size, labelled: 4, unlabelled: 4 }),
    ]),
  ];
}

interface StepFacts {
  name: string;
  model: BenchModel;
  size: StepSize;
  shape: string;
  work(dtype: 'f32' | 'bf16'): Work[];
  /** In the peer's words. */
  peer: Record<string, number | string>;
  prepare(context: BenchContext): Promise<RunningStep>;
}

function stepCase({ name, model, size, shape, work, peer, prepare }: StepFacts): BenchCase {
  const { height, width } = size;
  return {
    name,
    shape: `${titles[model]} R50, ${height}×${width}, ${shape}`,
    dtypes: ['f32', 'bf16'],
    work,
    bytes: (dtype) => work(dtype).reduce((sum, part) => sum + part.bytes, 0),
    peer: { op: 'step', model, h: height, w: width, ...peer },
    async prepare(context): Promise<PreparedCase> {
      const step = await prepare(context);
      return {
        alone: true, // the host waits for boxes, or for losses and the gradient's norm
        run: () => step.run(),
        check: () => step.check(),
        dispose: () => step.dispose(),
      };
    },
  };
}

const pass = (model: BenchModel, images: number, size: StepSize) =>
  ({ model, classes: 91, images, ...size, extra: 'on-output' }) as const;

/** SGD reads gradient (for its norm, too), weight and momentum, writes the last two. */
const update = (model: BenchModel, size: StepSize): Work => ({
  bytes: parametersOf(pass(model, 1, size)).trained * 24,
  flops: 0,
});

function predicting(
  kind: 'infer' | 'teacher',
  model: BenchModel,
  { images, ...size }: StepSize & { images: number },
): BenchCase {
  return stepCase({
    ...{ name: `${kind}/${model}`, model, size, shape: `${images} image${images > 1 ? 's' : ''}` },
    work: (dtype) => inferenceWork(pass(model, images, size), dtype),
    peer: { kind: 'infer', images },
    prepare: (context) => inference(model, { images, ...size }, context),
  });
}

function training(
  model: BenchModel,
  { images, ...size }: StepSize & { images: number },
): BenchCase {
  return stepCase({
    ...{ name: `train/${model}`, model, size, shape: `${images} images` },
    work: (dtype) => [...trainingWork(pass(model, images, size), dtype), update(model, size)],
    peer: { kind: 'train', images },
    prepare: (context) => trainingStep(model, { images, ...size }, context),
  });
}

function mixpl(
  model: BenchModel,
  { labelled, unlabelled, ...size }: StepSize & { labelled: number; unlabelled: number },
): BenchCase {
  return stepCase({
    ...{ name: `mixpl/${model}/${labelled}+${unlabelled}`, model, size },
    shape: `${labelled} labelled + ${unlabelled} unlabelled`,
    work: (dtype) => [
      ...inferenceWork(pass(model, unlabelled, size), dtype),
      ...trainingWork(pass(model, labelled, size), dtype),
      ...trainingWork(pass(model, unlabelled, size), dtype),
      ...trainingWork(pass(model, 1, mosaicSize(size)), dtype),
      update(model, size),
      // The EMA reads both and writes one.
      { bytes: parametersOf(pass(model, 1, size)).all * 12, flops: 0 },
    ],
    peer: { kind: 'mixpl', labelled, unlabelled },
    prepare: (context) => mixplIteration(model, { labelled, unlabelled, ...size }, context),
  });
}
