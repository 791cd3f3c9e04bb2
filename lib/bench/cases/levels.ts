/** A convolution of RetinaNet's head over all levels of the pyramid, which share its weight: one launch. */
import type { BenchCase, BenchContext } from '../case.js';
import { expectNear, sizeOf, spread } from '../case.js';
import { numelOf, RepeatedNoise } from '../data.js';
import { opCase } from '../op-case.js';
import { type Convolution, convolutionSampler } from './convolutions.js';

/** Of an 800 × 1344 input. */
const sizes: readonly (readonly [height: number, width: number])[] = [
  [100, 168],
  [50, 84],
  [25, 42],
  [13, 21],
  [7, 11],
];
const channels = 256;
const kernel = 3;
const levels: readonly Convolution[] = sizes.map((size, i) => ({
  name: `p${i + 3}`,
  size,
  channels,
  filters: channels,
  kernel,
  stride: 1,
}));
const weightShape = [channels, kernel, kernel, channels];
const shapeOf = ({ size: [h, w] }: Convolution) => [1, h, w, channels];
/** Numbers of all inputs, or of all outputs. */
const numbers = levels.reduce((sum, level) => sum + numelOf(shapeOf(level)), 0);

export const levelCases: readonly BenchCase[] = (['forward', 'forward+backward'] as const).map(
  (pass) => {
    const training = pass === 'forward+backward';
    return {
      name: `conv/head.levels/${pass}`,
      shape: `${sizes.map((size) => size.join('×')).join(', ')}, ${channels} → ${channels}, 3×3`,
      dtypes: ['f32', 'bf16'],
      bytes: (dtype) =>
        (training ? 2 : 1) * (2 * numbers * sizeOf(dtype) + numelOf(weightShape) * 4),
      flops: (training ? 3 : 1) * 2 * numbers * kernel ** 2 * channels,
      peer: { op: 'conv-levels', sizes: sizes.flat(), c: channels, backward: training },
      prepare: (context) => prepare(context, training),
    };
  },
);

async function prepare(context: BenchContext, training: boolean) {
  const maps = levels.map((_, i) => new RepeatedNoise(1, 1 + i));
  const douts = levels.map((_, i) => new RepeatedNoise(1, 11 + i));
  const scale = 1 / Math.sqrt(kernel ** 2 * channels);
  const weight = new RepeatedNoise(scale, 21);
  const like = (values: RepeatedNoise[]) =>
    values.map((value, i) => value.tensor(shapeOf(levels[i]!), context));
  const samplers = levels.map((level, i) =>
    convolutionSampler({
      c: level,
      padding: 1,
      shapes: { y: shapeOf(level) },
      x: maps[i]!,
      weight,
      dy: douts[i]!,
    }),
  );
  const compare = async (
    what: string,
    tensor: { read(): Promise<unknown> },
    sample: (i: number) => number,
    relative: number,
  ) => {
    const got = (await tensor.read()) as Float32Array;
    expectNear(
      what,
      got,
      spread(got.length, 12).map((i) => [i, sample(i)] as const),
      relative,
    );
  };
  // Rounding of the outputs; sums of f32 are far below it.
  const relative = context.dtype === 'bf16' ? 8e-3 : 2e-4;
  return opCase(
    {
      op: 'conv2dLevels',
      inputs: [...like(maps), weight.tensor(weightShape, { ...context, dtype: 'f32' })],
      options: { padding: 1 },
      training,
      ...(training ? { douts: like(douts) } : {}),
      async check(outputs, gradients) {
        for (const [i, sampler] of samplers.entries()) {
          const { name } = levels[i]!;
          await compare(`conv2dLevels ${name}`, outputs[i]!, sampler.conv2d, relative);
          if (!training) continue;
          const dx = sampler.conv2dDataGradient;
          await compare(`conv2dLevels d${name}`, gradients[i]!, dx, relative);
        }
        const ofAll = (i: number) =>
          samplers.reduce((sum, sampler) => sum + sampler.conv2dWeightGradient(i), 0);
        if (training) await compare('conv2dLevels dweight', gradients.at(-1)!, ofAll, 2e-4);
      },
    },
    context,
  );
}
