/** Every convolution of RetinaNet R50-FPN, forward and both gradients. */
import type { BenchCase } from '../case.js';
import { expectNear, sizeOf, spread } from '../case.js';
import { numelOf, RepeatedNoise } from '../data.js';
import { opCase } from '../op-case.js';

export interface Convolution {
  name: string;
  /** Of the input. */
  size: readonly [height: number, width: number];
  channels: number;
  filters: number;
  kernel: number;
  stride: number;
}

/** Of an 800 × 1344 input; blocks that repeat a shape are named once. */
export const retinaNetConvolutions: readonly Convolution[] = [
  conv('stem', [800, 1344], 3, 64, 7, 2),
  conv('layer1.conv1', [200, 336], 64, 64, 1),
  conv('layer1.conv2', [200, 336], 64, 64, 3),
  conv('layer1.conv3', [200, 336], 64, 256, 1),
  conv('layer1.reduce', [200, 336], 256, 64, 1),
  conv('layer2.conv1', [200, 336], 256, 128, 1),
  conv('layer2.conv2s2', [200, 336], 128, 128, 3, 2),
  conv('layer2.downsample', [200, 336], 256, 512, 1, 2),
  conv('layer2.reduce', [100, 168], 512, 128, 1),
  conv('layer2.conv2', [100, 168], 128, 128, 3),
  conv('layer2.conv3', [100, 168], 128, 512, 1),
  conv('layer3.conv1', [100, 168], 512, 256, 1),
  conv('layer3.conv2s2', [100, 168], 256, 256, 3, 2),
  conv('layer3.downsample', [100, 168], 512, 1024, 1, 2),
  conv('layer3.reduce', [50, 84], 1024, 256, 1),
  conv('layer3.conv2', [50, 84], 256, 256, 3),
  conv('layer3.conv3', [50, 84], 256, 1024, 1),
  conv('layer4.conv1', [50, 84], 1024, 512, 1),
  conv('layer4.conv2s2', [50, 84], 512, 512, 3, 2),
  conv('layer4.downsample', [50, 84], 1024, 2048, 1, 2),
  conv('layer4.reduce', [25, 42], 2048, 512, 1),
  conv('layer4.conv2', [25, 42], 512, 512, 3),
  conv('layer4.conv3', [25, 42], 512, 2048, 1),
  conv('fpn.lateral3', [100, 168], 512, 256, 1),
  conv('fpn.lateral5', [25, 42], 2048, 256, 1),
  conv('fpn.p6', [25, 42], 2048, 256, 3, 2),
  conv('fpn.p7', [13, 21], 256, 256, 3, 2),
  conv('head.p3', [100, 168], 256, 256, 3),
  conv('head.p4', [50, 84], 256, 256, 3),
  conv('head.p5', [25, 42], 256, 256, 3),
  conv('head.p7', [7, 11], 256, 256, 3),
  conv('head.classes', [100, 168], 256, 720, 3),
  conv('head.boxes', [100, 168], 256, 36, 3),
];

function conv(
  name: string,
  size: readonly [number, number],
  channels: number,
  filters: number,
  kernel: number,
  stride = 1,
): Convolution {
  return { name, size, channels, filters, kernel, stride };
}

const passes = [
  { pass: 'forward', op: 'conv2d' },
  { pass: 'data-gradient', op: 'conv2dDataGradient' },
  { pass: 'weight-gradient', op: 'conv2dWeightGradient' },
] as const;

export const convolutionCases: readonly BenchCase[] = retinaNetConvolutions.flatMap((c) =>
  passes.map(({ pass, op }) => convolutionCase(c, pass, op)),
);

function convolutionCase(c: Convolution, pass: string, op: string): BenchCase {
  const padding = c.kernel >> 1;
  const [h, w] = c.size;
  const out = (size: number) => Math.floor((size + 2 * padding - c.kernel) / c.stride) + 1;
  const shapes = {
    x: [1, h, w, c.channels],
    weight: [c.filters, c.kernel, c.kernel, c.channels],
    y: [1, out(h), out(w), c.filters],
  };
  const [nx, nw, ny] = [numelOf(shapes.x), numelOf(shapes.weight), numelOf(shapes.y)];
  return {
    name: `conv/${c.name}/${pass}`,
    shape: `${h}×${w}×${c.channels} → ${shapes.y[1]}×${shapes.y[2]}×${c.filters}, ${c.kernel}×${c.kernel}`,
    dtypes: ['f32', 'bf16'],
    bytes: (dtype) => (nx + ny) * sizeOf(dtype) + nw * 4,
    flops: 2 * ny * c.kernel ** 2 * c.channels,
    peer: {
      op: 'conv',
      pass,
      n: 1,
      h,
      w,
      c: c.channels,
      k: c.filters,
      r: c.kernel,
      stride: c.stride,
      padding,
    },
    async prepare(context) {
      const x = new RepeatedNoise(1, 1);
      const weight = new RepeatedNoise(1 / Math.sqrt(nw / c.filters), 2);
      const dy = new RepeatedNoise(1, 3);
      const inputs = [
        x.tensor(shapes.x, context),
        weight.tensor(shapes.weight, { ...context, dtype: 'f32' }),
      ];
      if (op !== 'conv2d') inputs.push(dy.tensor(shapes.y, context));
      const sample = convolutionSampler({ c, padding, shapes, x, weight, dy })[
        op as keyof ReturnType<typeof convolutionSampler>
      ];
      return opCase(
        {
          op,
          inputs,
          options: { stride: c.stride, padding },
          async check([result]) {
            const got = (await result!.read()) as Float32Array;
            // Rounding of the output; sums of f32 are far below it.
            const relative =
              context.dtype === 'bf16' && op !== 'conv2dWeightGradient' ? 8e-3 : 2e-4;
            expectNear(
              op,
              got,
              spread(got.length, 24).map((i) => [i, sample(i)] as const),
              relative,
            );
          },
        },
        context,
      );
    },
  };
}

/** Single numbers of the results, summed in double. */
export function convolutionSampler({
  c,
  padding,
  shapes,
  x,
  weight,
  dy,
}: {
  c: Convolution;
  padding: number;
  shapes: { y: number[] };
  x: RepeatedNoise;
  weight: RepeatedNoise;
  dy: RepeatedNoise;
}) {
  const [h, w] = c.size;
  const [, p, q] = shapes.y as [number, number, number];
  const { channels, filters, kernel, stride } = c;
  return {
    conv2d(i: number) {
      const f = i % filters;
      const column = Math.floor(i / filters) % q;
      const row = Math.floor(i / filters / q);
      let sum = 0;
      for (let r = 0; r < kernel; r++)
        for (let s = 0; s < kernel; s++) {
          const [y, z] = [row * stride + r - padding, column * stride + s - padding];
          if (y < 0 || y >= h || z < 0 || z >= w) continue;
          for (let j = 0; j < channels; j++)
            sum +=
              x.at((y * w + z) * channels + j) *
              weight.at(((f * kernel + r) * kernel + s) * channels + j);
        }
      return sum;
    },
    conv2dDataGradient(i: number) {
      const j = i % channels;
      const z = Math.floor(i / channels) % w;
      const y = Math.floor(i / channels / w);
      let sum = 0;
      for (let r = 0; r < kernel; r++)
        for (let s = 0; s < kernel; s++) {
          const [row, column] = [(y + padding - r) / stride, (z + padding - s) / stride];
          if (!Number.isInteger(row) || !Number.isInteger(column)) continue;
          if (row < 0 || row >= p || column < 0 || column >= q) continue;
          for (let f = 0; f < filters; f++)
            sum +=
              dy.at((row * q + column) * filters + f) *
              weight.at(((f * kernel + r) * kernel + s) * channels + j);
        }
      return sum;
    },
    conv2dWeightGradient(i: number) {
      const j = i % channels;
      const s = Math.floor(i / channels) % kernel;
      const r = Math.floor(i / channels / kernel) % kernel;
      const f = Math.floor(i / channels / kernel ** 2);
      let sum = 0;
      for (let row = 0; row < p; row++)
        for (let column = 0; column < q; column++) {
          const [y, z] = [row * stride + r - padding, column * stride + s - padding];
          if (y < 0 || y >= h || z < 0 || z >= w) continue;
          sum += dy.at((row * q + column) * filters + f) * x.at((y * w + z) * channels + j);
        }
      return sum;
    },
  };
}
