/** Optimizers and EMA over RetinaNet R50's parameters. */
import { createDetector, type OptimizerOptions } from '../../detector/create.js';
import type { Detector } from '../../detector/detector.js';
import type { BenchCase, BenchContext } from '../case.js';
import { noise } from '../data.js';

const sgd: OptimizerOptions = { type: 'sgd', momentum: 0.9, weightDecay: 1e-4, clipNorm: 20 };
const watched = 'backbone.layer3.0.conv2.weight';

const retinaNet = ({ device, dtype }: BenchContext, optimizer = sgd) =>
  createDetector({
    type: 'retinanet',
    numClasses: 80,
    backbone: { depth: 50, style: 'pytorch', norm: 'frozen-bn', frozenStages: 1 },
    ...{ device, dtype: dtype === 'f32' ? 'fp32' : 'bf16', optimizer },
  });

/** Of the parameters that are trained, and of all. */
const trained = 37.69e6;
const all = 37.97e6;

/** A gradient for every parameter, from an image that costs little. */
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

export const optimizerCases: readonly BenchCase[] = [
  optimizerCase('sgd', sgd, 1),
  optimizerCase('adamw', { type: 'adamw', weightDecay: 1e-4, clipNorm: 20 }, 2),
  ema,
];
