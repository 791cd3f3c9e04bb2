import { isMainThread } from 'node:worker_threads';
import { requireAddon } from './addon-file.js';
import { MixplError } from './errors.js';
import { usableCores } from './threads.js';

/** Element types of native tensors; bf16 travels as Uint16Array. */
export type DType = 'f32' | 'bf16' | 'i32' | 'u8';
/** Arrays that tensors are made from. */
export type TypedArray = Float32Array | Int32Array | Uint8Array | Uint16Array;

/** Handle of a native tensor. */
export interface NativeTensor {
  readonly shape: number[];
  readonly dtype: DType;
  readonly device: string;
  readonly disposed: boolean;
  /** [async] Numbers in row-major order; bf16 widened to Float32Array. */
  read(): Promise<Float32Array | Int32Array | Uint8Array>;
  /** [sync] Another handle of the same memory, which lives until both have let go. */
  retain(): NativeTensor;
  /** [sync] Frees the memory; idempotent. */
  dispose(): void;
}

/** What the addon was built with and runs on. */
export interface BuildInfo {
  onednnVersion: string;
  /** As setNumThreads said, or OpenMP's own choice. */
  threads: number;
  cpuFeatures: string[];
  cudaCompiled: boolean;
  /** GPU architectures with code in this binary, e.g. '90a'; empty without CUDA. */
  cudaArchitectures: string[];
}

/** Something that can compute. */
export interface DeviceInfo {
  /** What `device` options take: 'cpu', 'cuda:0', … */
  id: string;
  name: string;
  usable: boolean;
  /** Why it is not usable. */
  reason?: string;
  /** Memory of a GPU. */
  memoryBytes?: number;
  freeBytes?: number;
  /** E.g. '9.0'. */
  computeCapability?: string;
  multiprocessors?: number;
}

/** Memory of a device, in bytes. */
export interface MemoryStats {
  liveBytes: number;
  peakLiveBytes: number;
  cachedBytes: number;
  systemAllocations: number;
  /** Times the host has waited for a GPU, all of them together. */
  synchronisations: number;
}

export interface RunOpMode {
  compute?: 'f32' | 'bf16';
  training?: boolean;
  /** @defaultValue where the first input lies, else 'cpu' */
  device?: string;
  /** One gradient (or null) per output: asks for the gradients of all floating inputs. */
  douts?: (NativeTensor | null)[];
  /** The op reads `douts` and may not write into them, as it may into copies otherwise; gradients may share their memory. */
  keepsDouts?: boolean;
}

/** One operation of a prediction, see native/core/trace.h. Tensors are numbered; -1 is one that there is not. */
export interface NativeTraceStep {
  op: string;
  inputs: Int32Array;
  outputs: Int32Array;
  numbers: Record<string, number>;
}

export interface NativeTrace {
  /** Number of the network's input, f32 [1, H, W, 3]. */
  input: number;
  steps: NativeTraceStep[];
  /** By number; maps are [N, H, W, C]. */
  shapes: number[][];
  /** What no step makes, by number: weights, as they are after folding, and anchors. */
  constants: Record<number, Float32Array>;
}

/** What a probe saw, on the host; see native/models/probe.h. */
export interface NativeProbe {
  /** 3: levels begin with P3. */
  firstLevel: number;
  /** [N, H, W, C]. */
  levels: { shape: number[]; values: Float32Array }[];
  /** Rows of `classes` numbers, image after image; of labels and pairs (row, class) one is empty. */
  scores: { classes: number; values: Float32Array; labels: Int32Array; pairs: Int32Array }[];
  /** Scores are probabilities, not logits. */
  probabilities: boolean;
}

/** Handle of a native detector; see lib/detector. Asynchronous methods run in call order. */
export interface NativeDetector {
  /** Its device's own name: 'cpu', 'cuda:0', … */
  readonly device: string;
  parameters(): {
    name: string;
    shape: number[];
    kind: 'weight' | 'buffer';
    norm: boolean;
    trainable: boolean;
  }[];
  configureOptimizer(optionsJson: string): Promise<void>;
  loss(
    images: NativeTensor,
    sizes: Float32Array,
    padSizes: Float32Array,
    boxes: Float32Array,
    labels: Int32Array,
    counts: Int32Array,
  ): Promise<Record<string, number>>;
  /** As loss(), but the values stay on the device; the six arguments again for each further pass. */
  forward(...passes: unknown[]): Promise<void>;
  /** Of every forward() of the last step, which has read them, or since it, with one wait. */
  lossValues(): Promise<Record<string, number>[]>;
  /** @param weights one for each pass of the last forward() or loss() */
  backward(weights: Float32Array): Promise<void>;
  discard(): Promise<void>;
  step(lr: number): Promise<number>;
  /** @param cancellation before the job has begun it is not made, and rejects */
  predict(
    images: NativeTensor,
    sizes: Float32Array,
    cancellation?: NativeCancellation,
  ): Promise<{ boxes: Float32Array; scores: Float32Array; labels: Int32Array }[]>;
  /** As predict(), but the boxes stay on the device. */
  predictLater(images: NativeTensor, sizes: Float32Array): Promise<void>;
  /** Of every predictLater() so far, each once. */
  predictions(): Promise<Awaited<ReturnType<NativeDetector['predict']>>[]>;
  ema(student: NativeDetector, momentum: number, buffers: string): Promise<void>;
  /** student.step(lr), then ema(); a GPU is given both before it is waited for. */
  stepStudent(
    student: NativeDetector,
    lr: number,
    momentum: number,
    buffers: string,
  ): Promise<number>;
  /** The steps of predict() of one image of a size, in an input of a size; see NativeTrace. */
  trace(
    height: number,
    width: number,
    imageHeight: number,
    imageWidth: number,
  ): Promise<NativeTrace>;
  /** What a pass of loss() shows of itself; see lib/detector/probe.ts. */
  probe(...pass: Parameters<NativeDetector['loss']>): Promise<NativeProbe>;
  /** One density for each set of pseudo labels; the truth is the pass's own. */
  gradientDensity(
    ...args: [
      ...truth: Parameters<NativeDetector['loss']>,
      bins: number,
      ...pseudo: (Float32Array | Int32Array)[],
    ]
  ): Promise<{ counts: Float64Array; aboveHalf: Float64Array }[]>;
  /** One map for each image. @param level 3: P3; 0: the one with most gradient */
  gradCam(...args: [...pass: Parameters<NativeDetector['loss']>, level: number]): Promise<
    {
      level: number;
      height: number;
      width: number;
      heat: Float32Array;
      rows: number;
      score: number;
    }[]
  >;
  /** Names of what training keeps besides weights, and how many numbers each has. */
  optimizerState(): Promise<Record<string, number>>;
  read(name: string): Promise<Float32Array>;
  /** read() without a copy on this thread. The array is not to be touched or transferred until it is filled. */
  readInto(name: string, values: Float32Array): Promise<void>;
  write(name: string, values: Float32Array): Promise<void>;
  gradient(name: string): Promise<Float32Array | null>;
  zeroGradients(): Promise<void>;
  /** See TrainingSession of native/models: so are the next two. */
  startPart(part: number): Promise<void>;
  /** One byte for each of parameters(). */
  reached(): Promise<Uint8Array>;
  sumGradients(collective: NativeCollective, reached: Uint8Array): Promise<void>;
  dispose(): void;
}

/** Given along with a job. */
export interface NativeCancellation {
  /** [sync] Nobody waits for the job any more. Idempotent. */
  cancel(): void;
}

/** What sums over the processes of a training; see lib/processes. */
export interface NativeCollective {
  /** What the other processes need of this one. */
  readonly address: Uint8Array;
  /** [async] All processes call it, and wait for each other. @param addresses by rank */
  connect(addresses: readonly Uint8Array[]): Promise<void>;
  /** [sync] Ends what is under way. Idempotent. */
  abort(): void;
}

/** Boxes of a whole data set for the evaluation; see lib/eval. */
export interface NativeGroundTruths {
  boxes: Float64Array;
  images: Int32Array;
  labels: Int32Array;
  ignore: Uint8Array;
  /** COCO only. */
  areas?: Float64Array;
  /** COCO only. */
  ids?: Float64Array;
}

export interface NativeDetectedBoxes {
  boxes: Float64Array;
  scores: Float64Array;
  images: Int32Array;
  labels: Int32Array;
}

/** Metrics of lib/eval. @internal */
export interface NativeEvaluation {
  /** @internal see lib/eval */
  evaluateCoco(
    groundTruth: NativeGroundTruths,
    detections: NativeDetectedBoxes,
    options: {
      numImages: number;
      numClasses: number;
      iouThresholds: Float64Array;
      recallPoints: Float64Array;
      /** [2 A] low, high. */
      areaRanges: Float64Array;
      maxDetections: Int32Array;
    },
  ): Promise<{
    precision: Float64Array;
    scores: Float64Array;
    recall: Float64Array;
    numGroundTruths: Int32Array;
  }>;
  /** @internal see lib/eval */
  evaluateVoc(
    groundTruth: NativeGroundTruths,
    detections: NativeDetectedBoxes,
    options: {
      numImages: number;
      numClasses: number;
      iouThresholds: Float64Array;
      interpolation: '11point' | 'area';
      legacyCoordinates: boolean;
    },
  ): Promise<{
    averagePrecision: Float64Array;
    recall: Float64Array;
    numGroundTruths: Int32Array;
    numDetections: Int32Array;
  }>;
}

/** What native/binding exports; what it has for this package alone is not shown here. */
export interface NativeAddon extends NativeEvaluation {
  /** Hands over the class that native errors are made of. @internal */
  setErrorClass(errorClass: typeof MixplError): void;
  /** [sync] */
  buildInfo(): BuildInfo;
  /** [sync] Threads of the CPU's work, in [1, 1024], from the next job on. @throws MixplError ERR_RANGE */
  setNumThreads(threads: number): void;
  /** The CPU, then every GPU that the driver shows, usable or not. */
  devices(): DeviceInfo[];
  /** Why no GPU can be used; null when one can. */
  cudaReason(): string | null;
  /** [sync] The id of a device, e.g. 'cuda:0' for 'auto' or 'cuda'. @throws MixplError ERR_DEVICE */
  resolveDevice(device: string): string;
  /**
   * Only in a build with an emulated GPU: a seed for the order of blocks and threads (0: in order), the
   * byte that fills fresh memory.
   * @internal
   */
  setEmulation?(orderSeed: number, poison: number): void;
  /** Likewise: what goes wrong there from now on, in place of what did before; {} ends it. @internal */
  setEmulatedFaults?(faults: {
    /** Size of its memory. */
    memoryBytes?: number;
    /** So many launches go well, the next one does not. */
    launchesToFail?: number;
    /** So many launches go well; then the device answers no call any more. */
    launchesToLoss?: number;
  }): void;
  /** [sync] Of the CPU's or a GPU's allocator. @param device @defaultValue 'cpu' */
  memoryStats(device?: string): MemoryStats;
  /** [sync] `peakLiveBytes` begins anew at `liveBytes`. @param device @defaultValue 'cpu' */
  resetPeakMemory(device?: string): void;
  /** [sync] Copies `data`, row-major. @param device @defaultValue 'cpu' @throws MixplError ERR_SHAPE, ERR_DTYPE, ERR_DEVICE */
  createTensor(
    data: TypedArray,
    shape: readonly number[],
    dtype: DType,
    device?: string,
  ): NativeTensor;
  /** [async] The numbers of `from` into `to`, of the same shape and dtype; on one GPU by its driver. @internal */
  copyTensor(from: NativeTensor, to: NativeTensor): Promise<void>;
  /** [async] One operation of native/ops, for tests and benchmarks. @internal */
  runOp(
    name: string,
    inputs: readonly NativeTensor[],
    optionsJson: string,
    mode?: RunOpMode,
  ): Promise<{ outputs: NativeTensor[]; gradients: (NativeTensor | null)[] }>;
  /** @internal */
  opNames(): string[];
  /** [async] All work given to the device so far is done. */
  synchronize(device: string): Promise<void>;
  /** [async] @param kind 'gloo' or 'nccl' @internal */
  openCollective(
    kind: string,
    rank: number,
    processes: number,
    device: string,
    host: string,
  ): Promise<NativeCollective>;
  /** [sync] What could sum over processes here: 'gloo', 'nccl'. */
  collectives(): string[];
  /** [sync] @internal */
  cancellation(): NativeCancellation;
  /** A number that no other image of this process has. @internal */
  sourceId(): number;
  /** [async] Runs the plan of lib/augment/compose.ts into a tensor [images, height, width, 3]. @internal */
  compose(
    /** id not 0: names pixels that never change, of which a GPU may keep its copy. */
    sources: readonly { data: Uint8Array; width: number; height: number; id: number }[],
    plan: Float64Array,
    images: number,
    height: number,
    width: number,
    mean: Float32Array,
    std: Float32Array,
    bgr: boolean,
    dtype: 'f32' | 'bf16',
    device: string,
  ): Promise<NativeTensor>;
  /** [async] A detector with its first weights; dtype is 'f32', 'tf32' or 'bf16'. @internal */
  createDetector(
    config: string,
    device: string,
    dtype: string,
    seed: number,
  ): Promise<NativeDetector>;
}

/**
 * Options as the native side reads them. JSON has no word for NaN and infinity and would drop them.
 * @throws MixplError ERR_CONFIG naming the option
 */
export function optionsJson(what: string, options: object): string {
  return JSON.stringify(options, (key, value) => {
    if (typeof value === 'number' && !Number.isFinite(value))
      throw new MixplError(
        'ERR_CONFIG',
        `${what}: ${key || 'options'} must be a finite number, got ${value}`,
      );
    return value;
  });
}

let loaded: NativeAddon | undefined;

/** No more threads than cores, unless the environment says how many. */
function boundThreads(addon: NativeAddon): void {
  if (process.env.OMP_NUM_THREADS) return;
  const cores = usableCores();
  if (cores < addon.buildInfo().threads) addon.setNumThreads(cores);
}

/** Loads the addon, once. @throws MixplError ERR_ADDON saying what was tried and the remedy */
export function loadNative(): NativeAddon {
  if (!loaded) {
    const addon = requireAddon() as NativeAddon;
    addon.setErrorClass(MixplError);
    boundThreads(addon);
    loaded = addon;
  }
  return loaded;
}

/**
 * A device's own name ('cpu', 'cuda:0', …). 'auto' is what the environment variable MIXPL_DEVICE says,
 * else the first usable GPU, else the CPU.
 * @throws MixplError ERR_DEVICE saying why it cannot be used
 */
export function resolveDevice(device: string): string {
  return native.resolveDevice(device === 'auto' ? (process.env.MIXPL_DEVICE ?? 'auto') : device);
}

/** The addon: build, threads, devices, memory. Where it cannot be loaded, its functions throw ERR_ADDON. */
export const native: NativeAddon = new Proxy({} as NativeAddon, {
  get: (_, name) => Reflect.get(loadNative(), name),
});

// Settings of the addon's libraries reach them from the main thread alone (see addon-file.ts), and a worker may be the
// first to use them.
if (isMainThread) {
  try {
    loadNative();
  } catch {
    // The first use says why.
  }
}
