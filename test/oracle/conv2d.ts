import { type NdArray, ndarray, numel } from './array.js';

type Sizes4 = [number, number, number, number];

export interface Conv2dLoopOptions {
  stride?: number;
  padding?: number;
  dilation?: number;
  groups?: number;
  relu?: boolean;
}

/** relu?(conv(x, weight) + bias + residual); x NHWC, weight OHWI, zero padding. */
export function conv2dLoop(
  { x, weight, bias, residual }: Record<string, NdArray>,
  { stride = 1, padding = 0, dilation = 1, groups = 1, relu = false }: Conv2dLoopOptions,
): NdArray {
  const [images, height, width, channels] = x!.shape as Sizes4;
  const [filters, rows, columns, depth] = weight!.shape as Sizes4;
  const size = (n: number, k: number) =>
    Math.max(0, Math.floor((n + 2 * padding - dilation * (k - 1) - 1) / stride) + 1);
  const shape: Sizes4 = [images, size(height, rows), size(width, columns), filters];
  const out = new Float64Array(numel(shape));
  const perGroup = filters / groups;
  let at = 0;
  for (let n = 0; n < images; n++)
    for (let p = 0; p < shape[1]; p++)
      for (let q = 0; q < shape[2]; q++)
        for (let k = 0; k < filters; k++, at++) {
          let sum = bias ? bias.data[k]! : 0;
          const first = Math.floor(k / perGroup) * depth;
          for (let r = 0; r < rows; r++) {
            const y = p * stride + r * dilation - padding;
            if (y < 0 || y >= height) continue;
            for (let s = 0; s < columns; s++) {
              const z = q * stride + s * dilation - padding;
              if (z < 0 || z >= width) continue;
              const from = ((n * height + y) * width + z) * channels + first;
              const filter = ((k * rows + r) * columns + s) * depth;
              for (let c = 0; c < depth; c++) sum += x!.data[from + c]! * weight!.data[filter + c]!;
            }
          }
          if (residual) sum += residual.data[at]!;
          out[at] = relu ? Math.max(sum, 0) : sum;
        }
  return ndarray(shape, out);
}

/** Frozen BatchNorm folded into the convolution before it: weight * scale, beta - mean * scale. */
export function foldBatchNormLoop(
  { weight, gamma, beta, mean, variance }: Record<string, NdArray>,
  { eps = 1e-5 }: { eps?: number },
): [NdArray, NdArray] {
  const scale = gamma!.data.map((g, k) => g / Math.sqrt(variance!.data[k]! + eps));
  const per = weight!.data.length / Math.max(1, scale.length);
  return [
    ndarray(
      weight!.shape,
      weight!.data.map((w, i) => w * scale[Math.floor(i / per)]!),
    ),
    ndarray(
      beta!.shape,
      beta!.data.map((b, k) => b - mean!.data[k]! * scale[k]!),
    ),
  ];
}

/** Largest value of each window, -Infinity outside; ties and gradients follow the first one. */
export function maxPool2dLoop(
  { x }: Record<string, NdArray>,
  { kernel = 3, stride = 2, padding = 1 }: { kernel?: number; stride?: number; padding?: number },
  chosen: NdArray = x!,
): NdArray {
  const [images, height, width, channels] = x!.shape as Sizes4;
  const size = (n: number) => Math.max(0, Math.floor((n + 2 * padding - kernel) / stride) + 1);
  const shape: Sizes4 = [images, size(height), size(width), channels];
  const out = new Float64Array(numel(shape));
  let at = 0;
  for (let n = 0; n < images; n++)
    for (let p = 0; p < shape[1]; p++)
      for (let q = 0; q < shape[2]; q++)
        for (let c = 0; c < channels; c++, at++) {
          let best = -1;
          for (let r = 0; r < kernel; r++)
            for (let s = 0; s < kernel; s++) {
              const y = p * stride + r - padding;
              const z = q * stride + s - padding;
              if (y < 0 || y >= height || z < 0 || z >= width) continue;
              const i = ((n * height + y) * width + z) * channels + c;
              const v = chosen.data[i]!;
              if (best < 0 || v > chosen.data[best]! || Number.isNaN(v)) best = i;
            }
          out[at] = x!.data[best]!;
        }
  return ndarray(shape, out);
}

/** relu?(x weight^T + bias) over the last axis. */
export function linearLoop(
  { x, weight, bias }: Record<string, NdArray>,
  { relu = false }: { relu?: boolean },
): NdArray {
  const [outputs, inputs] = weight!.shape as [number, number];
  const rows = numel(x!.shape.slice(0, -1));
  const out = new Float64Array(rows * outputs);
  for (let row = 0; row < rows; row++)
    for (let k = 0; k < outputs; k++) {
      let sum = bias ? bias.data[k]! : 0;
      for (let c = 0; c < inputs; c++)
        sum += x!.data[row * inputs + c]! * weight!.data[k * inputs + c]!;
      out[row * outputs + k] = relu ? Math.max(sum, 0) : sum;
    }
  return ndarray([...x!.shape.slice(0, -1), outputs], out);
}
