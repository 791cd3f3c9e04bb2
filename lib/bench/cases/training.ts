/** Optimizers and EMA over RetinaNet R50's parameters, teacher inference, student steps, whole iterations. */
import {
  composeBatch,
  compositionOf,
  eraseView,
  type ImageBatch,
  type Instances,
  prepareCached,
  pseudoMixup,
  pseudoMosaic,
  resizedView,
} from '../../augment/index.js';
import { createDetector, type OptimizerOptions } from '../../detector/create.js';
import type { Detector } from '../../detector/detector.js';
import { Random } from '../../random.js';
import type { BenchCase, BenchContext, Work } from '../case.js';
import { boxesIn, noise } from '../data.js';
import { inferenceWork, trainingWork } from '../network.js';

const sgd: OptimizerOptions = { type: 'sgd', momentum: 0.9, weightDecay: 1e-4, clipNorm: 20 };
const watched = 'backbone.layer3.0.conv2.weight';

const retinaNet = ({ device, dtype }: BenchContext, optimizer = sgd) =>
  createDetector({
    type: 'retinanet',
    numClasses: 80,
    backbone: { depth: 50, style: 'pytorch', norm: 'frozen-bn', frozenStages: 1 },
    test: { scoreThr: 0 },
    ...{ device, dtype: dtype === 'f32' ? 'fp32' : 'bf16', optimizer },
  });

/** Of the parameters that are trained, and of all. */
const trained = 37.69e6;
const all = 37.97e6;

/** A gradient for every parameter, from a picture that costs little. */
async function makeGradients(detector: Detector): Promise<void> {
  const data = noise(3 * 64 * 64, 1);
  await detector.loss(
    [{ data, height: 64, width: 64 }],
    [{ boxes: Float32Array.of(8, 8, 40, 40), labels: Int32Array.of(1) }],
    { normalized: true, resized: true },
  );
  await detector.backward();
}

function optimizerCase(name: string, optimizer: OptimizerOptions, moments: number): BenchCase {
  const lr = 1e-3;
  return {
    name,
    shape: 'the 37.7 M trained parameters of RetinaNet R50, clipped',
    dtypes: ['f32'],
    // The norm reads the gradients; the step reads gradient, weight and moments, writes weight and moments.
    bytes: () => trained * 4 * (3 + 2 * moments + 1),
    peer: { op: name, parameters: trained },
    async prepare(context) {
      const detector = await retinaNet(context, optimizer);
      let before: Float32Array | undefined;
      let gradient: Float32Array | undefined;
      let norm = 0;
      return {
        alone: true, // a step uses its gradients up, and the host waits for their norm
        async before() {
          await makeGradients(detector);
          before ??= await detector.readTensor(watched);
          gradient ??= (await detector.gradient(watched))!;
        },
        async run() {
          norm = (await detector.step({ lr })).gradNorm;
        },
        async check() {
          const after = await detector.readTensor(watched);
          const scale = Math.min(1, 20 / (norm + 1e-6));
          // The first step: momentum is the gradient itself, Adam's is its sign.
          const want = (i: number) => {
            const [w, g] = [before![i]!, gradient![i]! * scale];
            if (optimizer.type === 'sgd') return w - lr * (g + 1e-4 * w);
            return w * (1 - lr * 1e-4) - (lr * g) / (Math.abs(g) + 1e-8);
          };
          for (let i = 0; i < after.length; i += 997)
            if (!(Math.abs(after[i]! - want(i)) <= 1e-6 + 1e-4 * lr))
              throw new Error(`${name}: ${watched}[${i}] is ${after[i]}, want ${want(i)}`);
        },
        dispose: () => detector.dispose(),
      };
    },
  };
}

const ema: BenchCase = {
  name: 'ema',
  shape: 'the 38.0 M parameters of RetinaNet R50',
  dtypes: ['f32'],
  bytes: () => all * 12,
  peer: { op: 'ema', parameters: all },
  async prepare(context) {
    const student = await retinaNet(context);
    const teacher = await student.createTeacher();
    const momentum = 0.25;
    const old = await teacher.readTensor(watched);
    await makeGradients(student);
    await student.step({ lr: 0.1 });
    const taught = await student.readTensor(watched);
    return {
      async run() {
        await teacher.ema(student, momentum);
      },
      async check() {
        const got = await teacher.readTensor(watched);
        for (let i = 0; i < got.length; i += 997) {
          const want = (1 - momentum) * old[i]! + momentum * taught[i]!;
          if (!(Math.abs(got[i]! - want) <= 1e-6 * Math.max(1e-2, Math.abs(want))))
            throw new Error(`ema: ${watched}[${i}] is ${got[i]}, want ${want}`);
        }
      },
      dispose() {
        teacher.dispose();
        student.dispose();
      },
    };
  },
};

const preprocess = {
  mean: [123.675, 116.28, 103.53],
  std: [58.395, 57.12, 57.375],
  channelOrder: 'rgb',
  padDivisor: 32,
} as const;

/** Sizes of the pictures. */
export interface StepSize {
  height: number;
  width: number;
}

export function stepCases({ height, width }: StepSize): readonly BenchCase[] {
  const pass = (images: number, size: StepSize = { height, width }) =>
    ({ model: 'retinanet', classes: 80, images, ...size }) as const;
  const random = new Random(1);
  const view = () => {
    const data = new Uint8Array(3 * width * height);
    for (let i = 0; i < data.length; i++) data[i] = random.integer(0, 256);
    return resizedView({ data, width, height }, { width, height });
  };
  const instances = (seed: number): Instances => ({
    boxes: boxesIn(7, width, height, seed),
    labels: Int32Array.from({ length: 7 }, (_, i) => (seed + 11 * i) % 80),
    scores: new Float32Array(7).fill(1),
  });
  const sample = (seed: number) => ({ view: view(), instances: instances(seed) });
  const base = (name: string, shape: string, work: (dtype: 'f32' | 'bf16') => Work[]) => ({
    name,
    shape: `RetinaNet R50, ${height}×${width}, ${shape}`,
    dtypes: ['f32', 'bf16'] as const,
    work,
    bytes: (dtype: 'f32' | 'bf16') => work(dtype).reduce((sum, part) => sum + part.bytes, 0),
  });
  const update: Work = { bytes: trained * 24, flops: 0 };
  const average: Work = { bytes: all * 12, flops: 0 };
  const compose = (
    compositions: Parameters<typeof composeBatch>[0],
    { device, dtype }: BenchContext,
  ): Promise<ImageBatch> =>
    composeBatch(compositions, { ...preprocess, device, dtype, padTo: 'image' });

  const inference = (name: string, images: number): BenchCase => ({
    ...base(name, `${images} images`, (dtype) => inferenceWork(pass(images), dtype)),
    async prepare(context) {
      const detector = await retinaNet(context);
      const views = Array.from({ length: images }, () => compositionOf(view()));
      let found: Awaited<ReturnType<Detector['predict']>> = [];
      return {
        alone: true, // predict() waits for the boxes
        async run() {
          const batch = await compose(views, context);
          found = await detector.predict(batch);
          batch.dispose();
        },
        async check() {
          const inside = found.every(({ boxes }) =>
            boxes.every((v, i) => v >= 0 && v <= (i % 2 === 0 ? width : height)),
          );
          if (found.length !== images || !found.every((f) => f.scores.length > 0) || !inside)
            throw new Error(`${name}: no detections inside the pictures`);
        },
        dispose: () => detector.dispose(),
      };
    },
  });

  type Branch = {
    compositions: Parameters<typeof composeBatch>[0];
    instances: Instances[];
    weight: number;
  };
  const learn = async (
    detector: Detector,
    { compositions, instances, weight }: Branch,
    context: BenchContext,
  ) => {
    const batch = await compose(compositions, context);
    const losses = await detector.loss(batch, instances);
    await detector.backward({ weight });
    batch.dispose();
    return Object.values(losses);
  };

  const training: BenchCase = {
    ...base('train', '2 images', (dtype) => [...trainingWork(pass(2), dtype), update]),
    async prepare(context) {
      const detector = await retinaNet(context);
      const samples = [sample(1), sample(2)];
      const branch: Branch = {
        compositions: samples.map((s) => compositionOf(s.view)),
        instances: samples.map((s) => s.instances),
        weight: 1,
      };
      const totals: number[] = [];
      return {
        alone: true, // step() waits for losses and norm
        async run() {
          const losses = await learn(detector, branch, context);
          totals.push(losses.reduce((sum, v) => sum + v, 0));
          await detector.step({ lr: 1e-3 });
        },
        async check() {
          if (!totals.every(Number.isFinite)) throw new Error(`train: losses ${totals}`);
        },
        dispose: () => detector.dispose(),
      };
    },
  };

  /** Teacher on the weak views; student on the labelled, the mixed and one mosaic of four. */
  const iteration = (labels: number, unlabelled: number): BenchCase => {
    const tile = Math.floor((Math.min(height, width) * 0.75) / 16) * 16;
    const mosaicSize = { height: 2 * tile, width: 2 * tile };
    const work = (dtype: 'f32' | 'bf16') => [
      ...inferenceWork(pass(unlabelled), dtype),
      ...trainingWork(pass(labels), dtype),
      ...trainingWork(pass(unlabelled), dtype),
      ...trainingWork(pass(1, mosaicSize), dtype),
      update,
      average,
    ];
    return {
      ...base(
        `mixpl/${labels}+${unlabelled}`,
        `${labels} labelled + ${unlabelled} unlabelled`,
        work,
      ),
      async prepare(context) {
        const erase = { patches: [1, 20], ratio: [0, 0.1], threshold: 0.7 } as const;
        const student = await retinaNet(context);
        const teacher = await student.createTeacher();
        const count = (n: number, seed: number) =>
          Array.from({ length: n }, (_, i) => sample(seed + i));
        const [labelled, weak, strong, cache] = [
          count(labels, 1),
          count(unlabelled, 20),
          count(unlabelled, 40),
          count(8, 60),
        ];
        let finite = true;
        return {
          alone: true, // the host waits for the teacher's boxes, and in step()
          async run() {
            const batch = await compose(
              weak.map((s) => compositionOf(s.view)),
              context,
            );
            const found = await teacher.predict(batch);
            batch.dispose();
            const mixed = strong.map((s, i) =>
              pseudoMixup(
                eraseView(s, erase, random),
                eraseView(prepareCached(cache[i % 8]!, { width, height }), erase, random),
                random,
              ),
            );
            const mosaic = pseudoMosaic(
              cache
                .slice(4)
                .map((c) =>
                  eraseView(prepareCached(c, { width: tile, height: tile }), erase, random),
                ),
            );
            const branches: Branch[] = [
              {
                compositions: labelled.map((s) => compositionOf(s.view)),
                instances: labelled.map((s) => s.instances),
                weight: 1,
              },
              {
                compositions: mixed.map((m) => m.composition),
                instances: mixed.map((m) => m.instances),
                weight: 2,
              },
              { compositions: [mosaic.composition], instances: [mosaic.instances], weight: 1 },
            ];
            for (const branch of branches) {
              const losses = await learn(student, branch, context);
              finite &&= losses.every(Number.isFinite);
            }
            await student.step({ lr: 1e-4 });
            await teacher.ema(student, 0.0002);
            finite &&= found.length === unlabelled;
          },
          async check() {
            if (!finite) throw new Error('a loss is not finite');
          },
          dispose() {
            teacher.dispose();
            student.dispose();
          },
        };
      },
    };
  };

  return [
    inference('infer', 1),
    inference('teacher', 4),
    training,
    iteration(1, 4),
    iteration(4, 4),
  ];
}

export const trainingCases: readonly BenchCase[] = [
  optimizerCase('sgd', sgd, 1),
  optimizerCase('adamw', { type: 'adamw', weightDecay: 1e-4, clipNorm: 20 }, 2),
  ema,
];
