/** Whole steps of detectors, as training and prediction do them; the peer has those of torchvision's in PyTorch. */
import {
  composeBatch,
  compositionOf,
  type DecodedImage,
  type Instances,
  type LabelledView,
  resizedView,
} from '../augment/index.js';
import { createDetector } from '../detector/create.js';
import type { Detector } from '../detector/detector.js';
import { neverChanges } from '../image/index.js';
import { Random } from '../random.js';
import { MeanTeacher, resolveSemiOptions, type StepPart, type StepReport } from '../semi/index.js';
import type { BenchContext } from './case.js';
import { boxesIn, fillWith } from './data.js';
import { type BenchModel, modelFacts, objectClasses } from './models.js';

/** Of the images. */
export interface StepSize {
  height: number;
  width: number;
}

export interface RunningStep {
  readonly detector: Detector;
  run(): Promise<void>;
  /** Of the last run. @throws Error saying what is wrong with its result */
  check(): Promise<void>;
  dispose(): void;
}

/** Objects of a labelled image, and detections of a teacher. */
export const boxesAnImage = 7;

async function benchDetector(
  model: BenchModel,
  { device, dtype }: BenchContext,
  detections: number,
): Promise<Detector> {
  const { options, optimizer } = modelFacts[model];
  const detector = await createDetector(options(detections), {
    ...{ device, dtype: dtype === 'f32' ? 'fp32' : 'bf16', optimizer },
  });
  // Its distances pass a ReLU: with random weights alone whole pyramids of boxes have no width or height,
  // and those are no pseudo labels. Four strides to each side are more than such weights take away.
  if (model === 'fcos')
    await detector.writeTensor('bbox_head.conv_reg.bias', new Float32Array(4).fill(4));
  return detector;
}

function pictures(count: number, { height, width }: StepSize, random: Random): DecodedImage[] {
  return Array.from({ length: count }, () => {
    const block = Uint8Array.from({ length: 65_537 }, () => random.integer(0, 256));
    return { data: fillWith(new Uint8Array(3 * width * height), block), width, height };
  });
}

/** As a decoder gives it: nobody has seen it before, and nobody writes into it. */
function decoded(image: DecodedImage): DecodedImage {
  const named = { ...image, data: image.data.subarray() };
  neverChanges(named);
  return named;
}

const instances = (seed: number, { height, width }: StepSize): Instances => ({
  boxes: boxesIn(boxesAnImage, width, height, seed),
  labels: Int32Array.from({ length: boxesAnImage }, (_, i) => (seed + 11 * i) % objectClasses),
  scores: new Float32Array(boxesAnImage).fill(1),
});

function labelledViews(images: readonly DecodedImage[], size: StepSize): LabelledView[] {
  return images.map((image, i) => ({
    view: resizedView(decoded(image), size),
    instances: instances(i + 1, size),
  }));
}

/** One supervised iteration: compositions, losses, gradients, clipped step. */
export async function trainingStep(
  model: BenchModel,
  { images, ...size }: StepSize & { images: number },
  context: BenchContext,
): Promise<RunningStep> {
  const detector = await benchDetector(model, context, 100);
  const loop = loopOf(detector, detector, size);
  const random = new Random(1);
  const shown = pictures(images, size, random);
  const parts = partsAhead(loop, () => ({
    ...{ labelled: labelledViews(shown, size), unlabelled: [], random },
  }));
  let report: StepReport | undefined;
  return {
    detector,
    async run() {
      report = await loop.step({ iteration: null, lr: 1e-4, parts: parts.take() });
    },
    async check() {
      if (!(report!.total > 0 && report!.gradNorm > 0))
        throw new Error(`the loss is ${report!.total}, the gradient's norm ${report!.gradNorm}`);
    },
    dispose() {
      parts.dispose();
      detector.dispose();
    },
  };
}

/** The part of one step after the other, each made during the step before, as a training does it. */
function partsAhead(loop: MeanTeacher, draw: () => StepPart) {
  let next: StepPart | null = null;
  return {
    async *take() {
      const part = next ?? draw();
      next = null;
      yield part;
      const drawn = draw();
      next = { ...drawn, prepared: loop.prepare(drawn) };
    },
    dispose: () => void next?.prepared?.dispose(),
  };
}

/** Images to boxes. */
export async function inference(
  model: BenchModel,
  { images, ...size }: StepSize & { images: number },
  context: BenchContext,
): Promise<RunningStep> {
  const detector = await benchDetector(model, context, 100);
  const shown = pictures(images, size, new Random(1));
  let found: Awaited<ReturnType<Detector['predict']>> = [];
  return {
    detector,
    async run() {
      const { preprocess, computeDtype: dtype, device } = detector;
      const batch = await composeBatch(
        shown.map((image) => compositionOf(resizedView(decoded(image), size))),
        { ...preprocess, dtype, device, padTo: 'image' },
      );
      try {
        found = await detector.predict(batch);
      } finally {
        batch.dispose();
      }
    },
    async check() {
      const inside = found.every(({ boxes }) =>
        boxes.every((v, i) => v >= 0 && v <= (i % 2 === 0 ? size.width : size.height)),
      );
      if (found.length !== images || !found.every((f) => f.scores.length > 0) || !inside)
        throw new Error('no detections inside the images');
    },
    dispose: () => detector.dispose(),
  };
}

/** Side of the box that a tile of the mosaic must fit. */
const tileOf = ({ height, width }: StepSize) =>
  Math.floor((Math.min(height, width) * 0.75) / 16) * 16;

/** Of the mosaic that mixplIteration() learns from. */
export function mosaicSize({ height, width }: StepSize): StepSize {
  const scale = tileOf({ height, width }) / Math.max(height, width);
  const twice = (side: number) => 2 * 16 * Math.ceil(Math.round(side * scale) / 16);
  return { height: twice(height), width: twice(width) };
}

/** One iteration of MixPL by the trainer's own loop: teacher, labelled, mixed and mosaic branches, step, EMA. */
export async function mixplIteration(
  model: BenchModel,
  { labelled, unlabelled, ...size }: StepSize & { labelled: number; unlabelled: number },
  context: BenchContext,
): Promise<RunningStep> {
  // As many pseudo labels as a labelled picture has boxes: none has a score of 0.
  const student = await benchDetector(model, context, boxesAnImage);
  const teacher = await student.createTeacher();
  const loop = loopOf(student, teacher, size);
  const random = new Random(1);
  const [known, unknown, cached] = [
    pictures(labelled, size, random),
    pictures(unlabelled, size, random),
    pictures(8, size, random),
  ];
  loop.policies[0]!.restore(
    labelledViews(cached, size).map((view, i) => ({ ...view, image: unlabelled + i })),
  );
  const parts = partsAhead(loop, () => ({
    random,
    labelled: labelledViews(known, size),
    unlabelled: unknown.map((picture, image) => {
      const view = resizedView(decoded(picture), size);
      return { image, weak: view, strong: view };
    }),
  }));
  let iteration = 0;
  let report: StepReport | undefined;
  return {
    detector: student,
    async run() {
      report = await loop.step({ iteration: iteration++, lr: 1e-4, parts: parts.take() });
    },
    async check() {
      const { losses, silenced, pseudo } = report!;
      const branches = ['sup_', 'mixup_unsup_', 'mosaic_unsup_'];
      const missing = branches.filter(
        (branch) =>
          branch in silenced || !Object.keys(losses).some((name) => name.startsWith(branch)),
      );
      if (missing.length) throw new Error(`nothing was learned by ${missing.join(', ')}`);
      if (pseudo!.images !== unlabelled || pseudo!.boxes === 0)
        throw new Error(`the teacher found ${pseudo!.boxes} boxes in ${pseudo!.images} images`);
    },
    dispose() {
      parts.dispose();
      teacher.dispose();
      student.dispose();
    },
  };
}

/** The paper's options, but for what would make one iteration other work than the next. */
function loopOf(student: Detector, teacher: Detector, size: StepSize): MeanTeacher {
  const tile = tileOf(size);
  const options = resolveSemiOptions({
    ...{ scoreThr: 0, leastNum: 0, mosaicShape: [[tile, tile]], ema: { interval: 1 } },
  });
  const { preprocess, computeDtype: dtype, device } = student;
  return new MeanTeacher({ student, teacher, options, preprocess, dtype, device });
}
