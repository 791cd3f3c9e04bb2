import { join, resolve } from 'node:path';
import { checkKeys, checkPath, keysOf } from '../arguments.js';
import {
  detectorOptions,
  formatConfig,
  optimizerOptions,
  type ResolvedConfig,
} from '../config/index.js';
import { decodeImage } from '../data/index.js';
import { createDetector } from '../detector/create.js';
import type { Detector } from '../detector/detector.js';
import type { LoadedWeights } from '../detector/weights.js';
import { MixplError } from '../errors.js';
import { writeFileWhole } from '../files.js';
import { native, resolveDevice } from '../native.js';
import type { ProcessGroup } from '../processes/index.js';
import { usableCores } from '../threads.js';
import type { EndEvent, TrainEvent, ValidationEvent, ValidationProgress } from './events.js';
import { leads } from './processes.js';
import { loadRunData, type RunData } from './run-data.js';
import { RunFolder } from './run-folder.js';
import { trainSemiSupervised } from './trainer.js';
import { type BatchAndRate, picturesOf, recipeFor } from './watch.js';

/**
 * The detector of a config with random weights, or those that `model.weights` names; a class layer for
 * other classes is not taken from there.
 * @param onWeights sees what was loaded
 */
export async function createRunDetector(
  config: ResolvedConfig,
  numClasses: number,
  { onWeights }: Pick<RunOptions, 'onWeights'> = {},
): Promise<Detector> {
  const { numClasses: wanted, weights, weightsLayout } = config.model;
  if (wanted !== null && wanted !== numClasses)
    throw new MixplError(
      'ERR_CONFIG',
      `model.numClasses must be ${numClasses} (what the labelled data has), got ${wanted}`,
    );
  const detector = await createDetector(detectorOptions(config, numClasses), {
    device: config.device,
    dtype: config.dtype,
    seed: config.seed,
    optimizer: optimizerOptions(config),
    preprocess: { ...config.preprocess, resize: config.augment.test },
  });
  try {
    if (weights) {
      const layout = weightsLayout ? { layout: weightsLayout } : {};
      const loaded = await detector.loadWeights(weights, { strict: 'except-classes', ...layout });
      onWeights?.(loaded);
    }
  } catch (error) {
    detector.dispose();
    throw error;
  }
  return detector;
}

/** How runTraining runs a config. */
export interface RunOptions {
  /** Folder of the run. */
  out: string;
  /** true: continue from the newest checkpoint, if there is one; a path: from that checkpoint. */
  resume?: boolean | string;
  /** Options that may differ from the checkpoint's. */
  allowChanges?: readonly string[];
  /** What the recipe was tuned for. @defaultValue with SGD the one of `paperBatches` that is closest; mmdetection's 16 images without a teacher */
  recipe?: BatchAndRate | null;
  /** Processes that make this call together, see TrainOptions: each has a GPU of its own, or a share of the CPU's threads. */
  processes?: ProcessGroup | null;
  signal?: AbortSignal;
  /** Called with the data before the training starts. */
  onData?: (data: RunData) => void;
  /** Called with what was taken from `model.weights`. */
  onWeights?: (loaded: LoadedWeights) => void;
  /** Called with every event. */
  onEvent?: (event: TrainEvent) => void;
  /** Called with the progress of a validation. */
  onValidating?: (progress: ValidationProgress) => void;
}

const optionKeys = keysOf<RunOptions>({
  ...{ out: 0, resume: 0, allowChanges: 0, recipe: 0, processes: 0, signal: 0 },
  ...{ onData: 0, onWeights: 0, onEvent: 0, onValidating: 0 },
});

/** How a run ended. */
export interface RunResult {
  reason: EndEvent['reason'];
  iteration: number;
  /** The last validation, and the one with the best AP of this call. */
  validation: ValidationEvent | null;
  best: ValidationEvent | null;
  data: RunData;
}

/**
 * Does what a config says: data, detector, training; the resolved config is kept as config.yaml.
 * @throws MixplError as loadRunData, createDetector and trainSemiSupervised
 */
export async function runTraining(asked: ResolvedConfig, options: RunOptions): Promise<RunResult> {
  checkKeys('runTraining', options, optionKeys);
  try {
    return await run(options.processes ? placed(asked, options.processes) : asked, options);
  } catch (error) {
    options.processes?.fail(error);
    throw error;
  }
}

/** A process's device and threads. @throws MixplError ERR_CONFIG for more processes than GPUs */
function placed(config: ResolvedConfig, { local }: ProcessGroup): ResolvedConfig {
  const first = resolveDevice(config.device);
  const threads = config.threads ?? Math.max(1, Math.floor(usableCores() / local.processes));
  if (first === 'cpu' || config.device === first) return { ...config, threads };
  const gpus = native.devices().filter(({ id, usable }) => id !== 'cpu' && usable);
  if (local.processes > gpus.length)
    throw new MixplError(
      'ERR_CONFIG',
      `processes must be at most as many as this machine has GPUs (${gpus.length}), or device must name the one that all of them take, got ${local.processes}`,
    );
  return { ...config, threads, device: gpus[local.rank]!.id };
}

async function run(config: ResolvedConfig, options: RunOptions): Promise<RunResult> {
  const { out, signal, onData, onEvent, processes = null } = options;
  checkPath('runTraining', 'out', out);
  if (config.threads !== null) native.setNumThreads(config.threads);
  // Told before large data has been read; the training looks again.
  if (!options.resume && leads(processes)) await RunFolder.refuseRun(out);
  const data = await loadRunData(config, { signal });
  onData?.(data);
  const detector = await createRunDetector(config, data.labelled.categories.length, options);
  const result: RunResult = {
    reason: 'aborted',
    iteration: 0,
    validation: null,
    best: null,
    data,
  };
  try {
    const { seed, augment, semi, schedule, batch, validation, checkpoint, loader, logging } =
      config;
    const { optimizer } = config;
    const { policy, damagedImages } = config.data;
    const events = trainSemiSupervised(detector, {
      data,
      settings: {
        ...{ seed, augment, semi, schedule, batch, validation, checkpoint, loader, logging },
        lr: optimizer.lr,
      },
      out,
      config,
      recipe: options.recipe === undefined ? recipeOf(config) : options.recipe,
      metadata: { name: config.name },
      unreadable: policy['unreadable-image'] === 'skip' ? 'skip' : 'refuse',
      // 'repair' made the records right when they were read; no file may have changed since.
      sizeMismatch: policy['size-mismatch'] === 'repair' ? 'refuse' : policy['size-mismatch'],
      decode: (path) => decodeImage(path, { damaged: damagedImages }),
      ...(options.resume === undefined ? {} : { resume: options.resume }),
      ...(options.allowChanges ? { allowChanges: options.allowChanges } : {}),
      ...(signal ? { signal } : {}),
      ...(options.onValidating ? { onValidating: options.onValidating } : {}),
      processes,
    });
    let described = false;
    for await (const event of events) {
      // Not before the first event: until then the folder may turn out to be another run's.
      if (!described && leads(processes))
        await writeFileWhole(join(resolve(out), 'config.yaml'), [formatConfig(config)]);
      described = true;
      result.iteration = event.iteration;
      if (event.type === 'validation') {
        result.validation = event;
        if (event.best) result.best = event;
      }
      if (event.type === 'end') result.reason = event.reason;
      onEvent?.(event);
    }
    return result;
  } finally {
    detector.dispose();
  }
}

function recipeOf({ optimizer, semi, batch }: ResolvedConfig): BatchAndRate | null {
  if (optimizer.type !== 'sgd') return null;
  return recipeFor(picturesOf(batch, { supervised: semi.method === 'supervised' }));
}
