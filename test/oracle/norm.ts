import { type NdArray, ndarray } from './array.js';

export interface NormOptions {
  groups?: number;
  eps?: number;
  relu?: boolean;
}

// Normalises the elements that share a key, with their own mean and biased variance.
function normalise(
  inputs: Record<string, NdArray>,
  options: NormOptions,
  keyOf: (index: number) => number,
  statistics?: (key: number) => { mean: number; variance: number },
): NdArray {
  const { eps = 1e-5, relu = false } = options;
  const x = inputs.x!;
  const channels = x.shape.at(-1)!;
  const members = new Map<number, number[]>();
  x.data.forEach((_, i) => {
    const key = keyOf(i);
    if (!members.has(key)) members.set(key, []);
    members.get(key)!.push(i);
  });
  const out = new Float64Array(x.data.length);
  for (const [key, indices] of members) {
    const mean = indices.reduce((sum, i) => sum + x.data[i]!, 0) / indices.length;
    const variance = indices.reduce((sum, i) => sum + (x.data[i]! - mean) ** 2, 0) / indices.length;
    const used = statistics?.(key) ?? { mean, variance };
    for (const i of indices) {
      const c = i % channels;
      const h = (x.data[i]! - used.mean) / Math.sqrt(used.variance + eps);
      const y =
        h * inputs.gamma!.data[c]! + inputs.beta!.data[c]! + (inputs.residual?.data[i] ?? 0);
      out[i] = relu ? Math.max(y, 0) : y;
    }
  }
  return ndarray(x.shape, out);
}

/** Group normalisation of [N, ..., C], after Wu and He 2018. */
export function groupNormLoop(inputs: Record<string, NdArray>, options: NormOptions = {}): NdArray {
  const x = inputs.x!;
  const channels = x.shape.at(-1)!;
  const groups = options.groups ?? 32;
  const perImage = x.data.length / Math.max(x.shape[0]!, 1);
  return normalise(inputs, options, (i) => {
    const group = Math.floor((i % channels) / (channels / groups));
    return Math.floor(i / perImage) * groups + group;
  });
}

/** Batch normalisation of [N, ..., C]; `training` says whose statistics count. */
export function batchNormLoop(
  inputs: Record<string, NdArray>,
  options: NormOptions = {},
  training = false,
): NdArray {
  const channels = inputs.x!.shape.at(-1)!;
  return normalise(
    inputs,
    options,
    (i) => i % channels,
    training
      ? undefined
      : (c) => ({
          mean: inputs.runningMean!.data[c]!,
          variance: inputs.runningVar!.data[c]!,
        }),
  );
}
