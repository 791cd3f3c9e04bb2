import { arch, platform } from 'node:process';
import { checkSignal } from '../abort.js';
import { checkKeys, keysOf } from '../arguments.js';
import type { PreprocessOptions, TestResizeOptions } from '../augment/index.js';
import { asUnlabelled, BatchSampler, ImageCache, repeatFactors } from '../data/index.js';
import type { Annotations, DetectionDataset } from '../data/types.js';
import { defaultPreprocess } from '../detector/create.js';
import { Detector } from '../detector/detector.js';
import { hasLiveBatchNorm, objectLimits } from '../detector/options.js';
import type { DetectorState, TeachableDetector } from '../detector/types.js';
import { MixplError } from '../errors.js';
import { native, resolveDevice } from '../native.js';
import type { ProcessGroup } from '../processes/index.js';
import { togetherByDefault } from '../semi/branch-group.js';
import {
  type CachedView,
  checkMixing,
  MeanTeacher,
  type MixingPolicy,
  MixPL,
  type SemiOptions,
  viewOfRecipe,
} from '../semi/index.js';
import { packageVersion } from '../version.js';
import type { Checkpoint } from './checkpoint.js';
import { checkAllowed, checkIdentity, type RunIdentity } from './identity.js';
import type { TrainOptions } from './options.js';
import { checkSame, leads, shareCheckpoint, shareWeights } from './processes.js';
import { RunFolder } from './run-folder.js';
import { resolveTrainSettings, semiOptionsOf, type TrainSettings } from './settings.js';
import { batchWarning, crowdedWarning, picturesOf, type TrainingWarning } from './watch.js';

/** Everything that a training needs, checked and built. */
export interface TrainingSetup {
  options: TrainOptions;
  settings: TrainSettings;
  semi: SemiOptions;
  student: TeachableDetector;
  /** Null in supervised training. */
  teacher: TeachableDetector | null;
  loop: MeanTeacher;
  /** Null: this process alone. */
  processes: ProcessGroup | null;
  preprocess: PreprocessOptions;
  dtype: 'f32' | 'bf16';
  device: string;
  /** Of evaluation. */
  resize: TestResizeOptions;
  /** Labelled, then unlabelled unless the training is supervised; the latter without annotations. */
  datasets: DetectionDataset[];
  /** The annotations of the unlabelled images, by position; none where they have other classes. */
  truth: readonly (Annotations | null)[];
  test: DetectionDataset | null;
  sampler: BatchSampler;
  images: ImageCache;
  folder: RunFolder | null;
  /** Where this run's checkpoints are, whichever process writes them. */
  checkpoints: string | null;
  resumed: Checkpoint | null;
  identity: RunIdentity;
  environment: Record<string, string | number>;
  /** Told before the first step. */
  warnings: TrainingWarning[];
}

const optionKeys = keysOf<TrainOptions>({
  ...{ data: 0, settings: 0, preprocess: 0, dtype: 0, device: 0, out: 0, resume: 0 },
  ...{ allowChanges: 0, config: 0, recipe: 0, policy: 0, unreadable: 0, sizeMismatch: 0 },
  ...{ decode: 0, metadata: 0, processes: 0, onValidating: 0, signal: 0 },
});

/**
 * Checks the options, opens the run's folder, makes the teacher, and restores a checkpoint.
 * @throws MixplError as trainSemiSupervised; then nothing is left open
 */
export async function setUpTraining(
  student: TeachableDetector,
  options: TrainOptions,
): Promise<TrainingSetup> {
  checkKeys('trainSemiSupervised', options, optionKeys);
  checkSignal('trainSemiSupervised', options.signal);
  if (options.out !== undefined && typeof options.out !== 'string')
    throw new MixplError(
      'ERR_CONFIG',
      `trainSemiSupervised: out must be the path of a folder, got ${typeof options.out}`,
    );
  if (!options.data?.labelled)
    throw new MixplError(
      'ERR_CONFIG',
      'trainSemiSupervised: data.labelled must be a data set, got none',
    );
  const settings = resolveTrainSettings(options.settings);
  const own = student instanceof Detector ? student : null;
  const semi = semiOptionsOf(settings, own?.options.type);
  const supervised = settings.semi.method === 'supervised';
  const { labelled, unlabelled = null, test = null } = options.data;
  checkData(student, { labelled, unlabelled, test, supervised });
  const processes = options.processes && options.processes.processes > 1 ? options.processes : null;
  processes?.stopWith(options.signal ?? null);
  const policies = policiesOf(options, semi, settings);
  if (!supervised && !options.policy) checkMixing(semi, settings.batch.unlabelled);

  const preprocess = options.preprocess ?? own?.preprocess ?? defaultPreprocess;
  const dtype = options.dtype ?? own?.computeDtype ?? 'f32';
  const device = resolveDevice(options.device ?? own?.device ?? 'cpu');
  const resize = options.settings?.augment?.test
    ? settings.augment.test
    : (own?.preprocess.resize ?? settings.augment.test);
  const datasets = supervised || !unlabelled ? [labelled] : [labelled, asUnlabelled(unlabelled)];
  const known = unlabelled && classNames(unlabelled) === classNames(labelled);
  const truth = known ? unlabelled.images.map(({ annotations }) => annotations) : [];
  const identity: RunIdentity = {
    config: {
      ...(options.config ?? settings),
      compute: { dtype: options.dtype ?? own?.dtype ?? dtype, preprocess: plain(preprocess) },
    },
    data: {
      labelled: labelled.fingerprint,
      unlabelled: datasets[1]?.fingerprint ?? null,
      test: test?.fingerprint ?? null,
    },
  };
  const sampler = samplerOf(datasets, settings);
  const images = new ImageCache({
    maxBytes: settings.loader.cacheMiB * 2 ** 20,
    ...(options.decode ? { decode: options.decode } : {}),
  });

  const allowed = options.allowChanges ?? [];
  // Of a run that goes on, those that its checkpoint has count, too: see below.
  if (!options.resume) checkAllowed(allowed, identity.config);
  if (processes) await checkSame(processes, identity);
  const folder =
    options.out === undefined || !leads(processes)
      ? null
      : await RunFolder.open(
          options.out,
          {
            metadata: metadataOf(own, { preprocess, resize, labelled, options }),
            resume: options.resume ?? false,
            tensorboard: settings.logging.tensorboard,
          },
          (checkpoint) => {
            const { path, state } = checkpoint;
            checkAllowed(allowed, identity.config, state.identity.config);
            checkIdentity({ path, identity: state.identity }, identity, allowed);
          },
        );
  let teacher: TeachableDetector | null = null;
  try {
    let resumed = folder?.resumed ?? null;
    let checkpoints = folder?.checkpoints.folder ?? null;
    if (processes) {
      checkpoints = await processes.broadcast(checkpoints);
      resumed = await shareCheckpoint(processes, resumed);
    }
    if (resumed) await student.loadState(resumed.student);
    if (processes && !resumed) await shareWeights(processes, student);
    if (!supervised) teacher = await student.createTeacher();
    if (resumed?.teacher) await teacher?.loadState(resumed.teacher);
    const loop = new MeanTeacher({
      student,
      teacher: teacher ?? student,
      options: semi,
      preprocess,
      dtype,
      device,
      policies,
      processes,
    });
    if (resumed) {
      if (resumed.state.sampler) sampler.restore(resumed.state.sampler);
      const decode = (index: number) => images.get(datasets[1]!.images[index]!.path);
      // Parts that a run was allowed to add have nothing to mix yet.
      const first = (processes?.rank ?? 0) * policies.length;
      const caches = resumed.state.caches.slice(first, first + policies.length);
      for (const [part, recipes] of caches.entries())
        policies[part]!.restore(
          await Promise.all(recipes.map((recipe) => viewOfRecipe(recipe, decode))),
        );
    }
    const environment = environmentOf(device);
    return {
      ...{ options, settings, semi, student, teacher, loop, processes, preprocess, dtype, device },
      ...{ resize, datasets, truth },
      ...{ test, sampler, images, folder, checkpoints, resumed, identity, environment },
      warnings: warningsOf({ own, semi, settings, supervised, options, resumed, environment }),
    };
  } catch (error) {
    teacher?.dispose();
    await folder?.close();
    throw error;
  }
}

/** Weights without what only training needs. */
export function withoutOptimizer(state: DetectorState): DetectorState {
  return new Map([...state].filter(([name]) => !name.startsWith('optimizer.')));
}

function checkData(
  student: TeachableDetector,
  data: {
    labelled: DetectionDataset;
    unlabelled: DetectionDataset | null;
    test: DetectionDataset | null;
    supervised: boolean;
  },
): void {
  const refuse = (message: string): never => {
    throw new MixplError('ERR_CONFIG', `trainSemiSupervised: ${message}`);
  };
  for (const set of [data.labelled, data.test]) {
    if (set && set.categories.length !== student.numClasses)
      refuse(
        `detector must have ${set.categories.length} classes (those of ${set.name}: ` +
          `${set.categories.map((c) => c.name).join(', ')}), got ${student.numClasses}`,
      );
  }
  if (data.test && classNames(data.test) !== classNames(data.labelled))
    refuse(
      `data.test must have the classes of data.labelled in their order, got ${classNames(data.test)} and ${classNames(data.labelled)}`,
    );
  if (!data.labelled.images.some((image) => image.annotations))
    refuse('data.labelled must have annotations, got none');
  const bare = data.test?.images.find((image) => !image.annotations);
  if (bare)
    refuse(
      `data.test must be annotated (metrics need ground truth), got '${bare.fileName}' without annotations`,
    );
  if (!data.supervised && !data.unlabelled)
    refuse("data.unlabelled must be given (or settings.semi.method 'supervised'), got none");
}

/** In label order, as JSON. */
function classNames({ categories }: DetectionDataset): string {
  return JSON.stringify(categories.map(({ name }) => name));
}

/** One for each part of an iteration that this process has. */
function policiesOf(
  { policy, processes }: TrainOptions,
  semi: SemiOptions,
  { batch: { accumulate } }: TrainSettings,
): MixingPolicy<CachedView>[] {
  const parts = accumulate / (processes?.processes ?? 1);
  if (!Number.isInteger(parts))
    throw new MixplError(
      'ERR_CONFIG',
      `trainSemiSupervised: batch.accumulate must be a multiple of ${processes!.processes} (processes share the parts of an iteration), got ${accumulate}`,
    );
  if (policy && typeof policy !== 'function') {
    if (accumulate === 1) return [policy];
    throw new MixplError(
      'ERR_CONFIG',
      'trainSemiSupervised: policy must be a function that makes one for each part of an iteration ' +
        `(batch.accumulate is ${accumulate}; each has a cache of its own), got one policy`,
    );
  }
  return Array.from({ length: parts }, () => policy?.() ?? new MixPL(semi));
}

/** Of batches that are a part of an iteration each. */
function samplerOf(datasets: readonly DetectionDataset[], settings: TrainSettings): BatchSampler {
  const { batch, seed, semi } = settings;
  const [labelled, unlabelled] = datasets;
  const repeat = semi.resampling ? repeatFactors(labelled!, semi.resampling) : undefined;
  return new BatchSampler(
    [
      { images: labelled!.images, ratio: batch.labelled, repeat },
      ...(unlabelled ? [{ images: unlabelled.images, ratio: batch.unlabelled }] : []),
    ],
    {
      batchSize: batch.labelled + (unlabelled ? batch.unlabelled : 0),
      seed,
      groupByAspect: batch.aspectGrouping,
    },
  );
}

/** What somebody needs to use the weights: the network, its input, its classes. */
function metadataOf(
  own: Detector | null,
  {
    preprocess,
    resize,
    labelled,
    options,
  }: Pick<TrainingSetup, 'preprocess' | 'resize' | 'options'> & { labelled: DetectionDataset },
): Record<string, string> {
  return {
    ...(own ? own.metadata() : { format: 'mixpl' }),
    preprocess: JSON.stringify({ ...plain(preprocess), resize }),
    categories: JSON.stringify(labelled.categories),
    ...options.metadata,
  };
}

function plain({ mean, std, channelOrder, padDivisor }: PreprocessOptions): PreprocessOptions {
  return { mean, std, channelOrder, padDivisor };
}

function environmentOf(device: string): Record<string, string | number> {
  const { threads, onednnVersion, cpuFeatures } = native.buildInfo();
  const name = native.devices().find(({ id }) => id === device)?.name ?? device;
  return {
    mixpl: packageVersion(),
    machine: `${platform}-${arch}`,
    processor: cpuFeatures.join(', '),
    device: name,
    threads,
    onednn: onednnVersion,
    together: togetherByDefault(),
  };
}

function warningsOf(facts: {
  own: Detector | null;
  semi: SemiOptions;
  settings: TrainSettings;
  supervised: boolean;
  options: TrainOptions;
  resumed: Checkpoint | null;
  environment: Record<string, string | number>;
}): TrainingWarning[] {
  const { own, semi, settings, supervised, options, resumed, environment } = facts;
  const warnings: TrainingWarning[] = [];
  const { test } = options.data;
  if (test && !test.images.some(({ annotations }) => annotations?.crowd.includes(0)))
    warnings.push({
      code: 'nothing-to-find',
      message: `${test.name} has no annotated object: its metrics say nothing, and no weights are kept as the best`,
    });
  if (own) {
    const { learned, found } = objectLimits(own.options);
    warnings.push(...crowdedWarning(options.data.labelled, learned, 'learned'));
    if (test) warnings.push(...crowdedWarning(test, found, 'found'));
  }
  if (!supervised && own && hasLiveBatchNorm(own.options) && semi.ema.buffers === 'skip')
    warnings.push({
      code: 'buffers-skipped',
      message:
        'the detector has live BatchNorm, whose statistics the teacher never gets: its AP will stay near 0; ' +
        "set semi.ema.buffers to 'copy' or 'average'",
    });
  if (options.recipe) {
    const run = { ...picturesOf(settings.batch, { supervised }), lr: settings.lr };
    warnings.push(...batchWarning(run, options.recipe));
  }
  const was = resumed?.state.environment ?? environment;
  // Older checkpoints say less.
  const changed = Object.keys(environment).filter(
    (key) => key in was && was[key] !== environment[key],
  );
  if (changed.length > 0)
    warnings.push({
      code: 'environment-changed',
      message: `resumed in another environment (${changed.map((key) => `${key}: ${was[key]}, now ${environment[key]}`).join('; ')}): the last bits of the losses may differ from a run that was never stopped`,
    });
  return warnings;
}
