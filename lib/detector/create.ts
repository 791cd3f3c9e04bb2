import { checkKeys } from '../arguments.js';
import { MixplError } from '../errors.js';
import type { PreprocessOptions, TestResizeOptions } from '../image/index.js';
import { native, optionsJson, resolveDevice } from '../native.js';
import { Detector } from './detector.js';
import { type DtypeChoice, dtypeChoices } from './dtype.js';
import type { DetectorOptions } from './options.js';
import {
  overDefaults,
  resolvePreset,
  type TorchvisionOptions,
  torchvisionDefaults,
} from './torchvision.js';

/** The optimizer of a detector's parameters. */
export interface OptimizerOptions {
  /** @defaultValue 'sgd' */
  type?: 'sgd' | 'adamw';
  /** Momentum of SGD, in [0, 1]. @defaultValue 0.9 */
  momentum?: number;
  /** Weight decay: an L2 term of the gradient in SGD, decoupled in AdamW. @defaultValue 1e-4 */
  weightDecay?: number;
  /** Decay rates of AdamW's moments, both in [0, 1). @defaultValue [0.9, 0.999] */
  betas?: [number, number];
  /** What AdamW adds to the denominator. @defaultValue 1e-8 */
  eps?: number;
  /** Largest L2 norm of all gradients together; 0 or absent: no clipping. */
  clipNorm?: number;
  /** Weight decay of normalisation parameters; defaults to weightDecay. */
  normDecay?: number;
  /** Weight decay of biases (but those of normalisation); defaults to weightDecay. */
  biasDecay?: number;
  /** Learning-rate factor of the backbone. */
  backboneLrFactor?: number;
  /** Factors of single parameters; one that fits none of the detector's and is not optional is ERR_CONFIG. */
  groups?: readonly ParameterGroup[];
}

/**
 * A learning-rate factor and a weight decay for the parameters whose path contains `match`, as in
 * mmdetection's `paramwise_cfg.custom_keys`: where several groups match, the one with the longest
 * `match` counts alone, among equally long ones the first in alphabetical order.
 */
export interface ParameterGroup {
  /** Part of paths as `detector.parameters()` has them: 'backbone', 'sampling_offsets', … */
  match: string;
  /** > 0: what step()'s rate is multiplied with; left out: as without the group (backboneLrFactor, else 1). */
  lrFactor?: number | undefined;
  /** >= 0, of weightDecay; left out: as without the group (normDecay, biasDecay or weightDecay). */
  weightDecayFactor?: number | undefined;
  /** Only variants of the detector have such parameters: none is no error. @defaultValue false */
  optional?: boolean | undefined;
}

/** Where and how a detector runs; may stand beside its options or in an object of its own. */
export interface DetectorRuntime {
  /** 'cpu', 'cuda', 'cuda:1', … @defaultValue 'auto': MIXPL_DEVICE, else the first usable GPU, else the CPU */
  device?: string;
  /**
   * Compute type; master weights are f32. 'tf32' is fp32 whose products run on a GPU's tensor cores, with
   * factors of 11 bits (TF32); on the CPU it is fp32.
   * @defaultValue 'auto': bf16 on GPUs, and where the CPU has avx512_bf16
   */
  dtype?: DtypeChoice;
  /** Seed of the initial weights. @defaultValue 0 */
  seed?: number;
  optimizer?: OptimizerOptions;
  /** Defaults to ImageNet's statistics in RGB and the paper's 1333 × 800, or to the preset's. */
  preprocess?: Partial<DetectorPreprocess>;
  /**
   * What predict() and loss() call class 0 where they take images or arrays. (Prepared batches always
   * count from 0.) @defaultValue 0, or the preset's: 1 where torchvision's label 0 is the background
   */
  firstLabel?: number;
}

/** How images become the network's input. */
export interface DetectorPreprocess extends PreprocessOptions {
  /** How images are resized for evaluation. */
  resize: TestResizeOptions;
}

/** ImageNet as PyTorch has it: RGB, mean and standard deviation of 8-bit values, at most 1333 x 800 pixels. */
export const defaultPreprocess: DetectorPreprocess = {
  mean: [123.675, 116.28, 103.53],
  std: [58.395, 57.12, 57.375],
  channelOrder: 'rgb',
  padDivisor: 32,
  resize: { long: 1333, short: 800 },
};

const runtimeKeys = ['device', 'dtype', 'seed', 'optimizer', 'preprocess', 'firstLabel'];

/**
 * Builds a detector with random initial weights.
 * @param options a detector by its parts, or a preset of torchvision's; with `numerics: 'torchvision'`
 *   what is left out, preprocessing too, is as in torchvision's plain model of the type
 * @throws MixplError ERR_CONFIG naming the option, ERR_DEVICE when the device is not usable
 */
export async function createDetector(
  options: (DetectorOptions | TorchvisionOptions) & DetectorRuntime,
  runtime: DetectorRuntime = {},
): Promise<Detector> {
  if (typeof options !== 'object' || options === null)
    throw new MixplError(
      'ERR_CONFIG',
      `createDetector: options must be an object with type and numClasses, or a preset, got ${String(options)}`,
    );
  checkKeys('createDetector: runtime', runtime, runtimeKeys);
  const { device, dtype, seed, optimizer, preprocess, firstLabel, ...model } = options;
  const beside = { device, dtype, seed, optimizer, preprocess, firstLabel };
  const { resolved, ...rest } = 'preset' in model ? fromPreset(model) : fromOptions(model);
  return build(resolved, {
    device: 'auto',
    dtype: 'auto',
    seed: 0,
    optimizer: {},
    ...rest,
    ...given(beside),
    ...given(runtime),
    preprocess: { ...rest.preprocess, ...preprocess, ...runtime.preprocess },
  });
}

const fromPreset = (options: TorchvisionOptions) => {
  const { model, ...rest } = resolvePreset(options);
  return { resolved: model, ...rest };
};
function fromOptions(options: DetectorOptions) {
  const defaults =
    options.numerics === 'torchvision' ? torchvisionDefaults({ type: options.type }) : null;
  return {
    resolved: defaults
      ? (overDefaults(defaults.model, { ...options }) as unknown as DetectorOptions)
      : options,
    preprocess: defaults?.preprocess ?? defaultPreprocess,
    firstLabel: 0,
  };
}

function given<T extends object>(options: T): Partial<T> {
  return Object.fromEntries(
    Object.entries(options).filter(([, value]) => value !== undefined),
  ) as Partial<T>;
}

async function build(
  options: DetectorOptions,
  runtime: Required<Omit<DetectorRuntime, 'preprocess'>> & { preprocess: DetectorPreprocess },
): Promise<Detector> {
  if (!Number.isInteger(options.numClasses) || options.numClasses < 1)
    throw new MixplError(
      'ERR_CONFIG',
      `createDetector: numClasses must be an integer >= 1, got ${options.numClasses}`,
    );
  const { dtype, seed, optimizer, preprocess, firstLabel } = runtime;
  checkPreprocess(preprocess);
  if (!dtypeChoices.includes(dtype))
    throw new MixplError(
      'ERR_DTYPE',
      `createDetector: dtype must be one of ${dtypeChoices.join(', ')}, got '${dtype}'`,
    );
  if (!Number.isInteger(firstLabel))
    throw new MixplError(
      'ERR_CONFIG',
      `createDetector: firstLabel must be an integer, got ${firstLabel}`,
    );
  const device = resolveDevice(runtime.device);
  const compute = dtype === 'auto' ? automaticDtype(device) : dtype === 'fp32' ? 'f32' : dtype;
  const handle = await native.createDetector(
    optionsJson('createDetector', options),
    device,
    compute,
    seed,
  );
  const detector = new Detector(handle, options, {
    device,
    dtype: compute,
    asked: dtype,
    seed,
    preprocess,
    firstLabel,
  });
  await handle.configureOptimizer(optionsJson('createDetector: optimizer', optimizer));
  return detector;
}

const preprocessKeys = ['mean', 'std', 'channelOrder', 'padDivisor', 'resize'];

function automaticDtype(device: string): 'bf16' | 'f32' {
  if (device.startsWith('cuda')) return 'bf16';
  return native.buildInfo().cpuFeatures.includes('avx512_bf16') ? 'bf16' : 'f32';
}

/** @throws MixplError ERR_CONFIG */
function checkPreprocess(preprocess: DetectorPreprocess): void {
  checkKeys('createDetector: preprocess', preprocess, preprocessKeys);
  const { mean, std, channelOrder, padDivisor, resize } = preprocess;
  const refuse = (name: string, expected: string, value: unknown): never => {
    throw new MixplError(
      'ERR_CONFIG',
      `createDetector: preprocess.${name} must be ${expected}, got ${JSON.stringify(value) ?? String(value)}`,
    );
  };
  const three = (name: string, values: unknown, fits: (v: number) => boolean, expected: string) => {
    if (!Array.isArray(values) || values.length !== 3 || !values.every(Number.isFinite))
      refuse(name, 'three numbers', values);
    if (!(values as number[]).every(fits)) refuse(name, expected, values);
  };
  three('mean', mean, () => true, 'three numbers');
  three('std', std, (v) => v > 0, 'three numbers > 0');
  if (channelOrder !== 'rgb' && channelOrder !== 'bgr')
    refuse('channelOrder', "'rgb' or 'bgr'", channelOrder);
  if (!Number.isInteger(padDivisor) || padDivisor < 1)
    refuse('padDivisor', 'a whole number >= 1', padDivisor);
  const { long, short, rule } = resize ?? {};
  for (const [name, value] of Object.entries({ long, short }))
    if (!(Number.isFinite(value) && (value as number) >= 1 && (value as number) <= 65536))
      refuse(`resize.${name}`, 'a number in [1, 65536]', value);
  if (rule !== undefined && rule !== 'mmdetection' && rule !== 'torchvision')
    refuse('resize.rule', "'mmdetection' or 'torchvision'", rule);
}
