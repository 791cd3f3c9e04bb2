/** Inference, training steps and whole MixPL iterations of detectors. */
import type { BenchCase, BenchContext, PreparedCase, Work } from '../case.js';
import { type BenchModel, benchModels, modelFacts } from '../models.js';
import { inferenceWork, type PassShape, parametersOf, trainingWork } from '../network.js';
import {
  boxesAnImage,
  inference,
  mixplIteration,
  mosaicSize,
  type RunningStep,
  type StepSize,
  trainingStep,
} from '../steps.js';

export function stepCases(size: StepSize): readonly BenchCase[] {
  return [
    ...benchModels.map((model) => predicting('infer', model, { ...size, images: 1 })),
    ...benchModels.map((model) => predicting('teacher', model, { ...size, images: 4 })),
    ...benchModels.map((model) => training(model, { ...size, images: 2 })),
    ...benchModels.flatMap((model) => [
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
  const { title, large, peer: hasPeer } = modelFacts[model];
  return {
    name,
    shape: `${title}, ${height}×${width}, ${shape}`,
    ...(large ? { large } : {}),
    dtypes: ['f32', 'bf16'],
    work,
    bytes: (dtype) => work(dtype).reduce((sum, part) => sum + part.bytes, 0),
    ...(hasPeer ? { peer: { op: 'step', model, h: height, w: width, ...peer } } : {}),
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

function pass(model: BenchModel, images: number, size: StepSize): PassShape {
  const { classes, torchvision } = modelFacts[model];
  const extra = torchvision ? 'on-output' : 'on-input';
  return { model, classes, images, ...size, extra, noisy: noisyQueries(boxesAnImage) };
}

/** Groups of denoising queries, which hold a hundred objects, each twice. */
const noisyQueries = (objects: number) => 2 * objects * Math.floor(100 / objects);

/** Gradient (for its norm, too), weight and moments are read, the last two written. */
function update(model: BenchModel, size: StepSize): Work {
  const moments = modelFacts[model].optimizer.type === 'adamw' ? 2 : 1;
  return { bytes: parametersOf(pass(model, 1, size)).trained * (16 + 8 * moments), flops: 0 };
}

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
