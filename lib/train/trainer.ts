import { dirname } from 'node:path';
import { boxesPerImage } from '../data/index.js';
import type { TeachableDetector } from '../detector/types.js';
import { MixplError, type MixplErrorCode } from '../errors.js';
import { type CocoMetrics, statNames } from '../eval/index.js';
import { native } from '../native.js';
import { recipeOf, type StepReport } from '../semi/index.js';
import type { TrainingState } from './checkpoint.js';
import { evaluateDetector, evaluateTogether } from './evaluate.js';
import type { CheckpointEvent, Phase, StepEvent, TrainEvent, ValidationEvent } from './events.js';
import { beginLearning } from './learning.js';
import type { TrainOptions } from './options.js';
import { learningRate } from './schedule.js';
import { setUpTraining, type TrainingSetup, withoutOptimizer } from './setup.js';
import { StepMeter } from './step-meter.js';
import { PartDrawer } from './step-parts.js';
import { type TrainingWarning, TrainingWatch } from './watch.js';

/**
 * Trains a detector on labelled and unlabelled images. The training is an async iterator: it goes on
 * while its events are taken. Stopping early (break, or the signal) writes a checkpoint when `out` is
 * given. The detector is the student; the teacher lives in the run, its best weights in
 * `best.safetensors`.
 *
 * Every random decision follows from (seed, purpose, step, place in the batch), so a resumed run gives
 * the same losses to the last bit as one that was never stopped (same machine and thread count).
 *
 * @throws MixplError ERR_CONFIG, ERR_DATA; ERR_DIVERGED when a loss or gradient is not finite (the last
 *   checkpoint stays); ERR_IO for what cannot be read or written; ERR_STATE when `out` holds a run
 *   already, or another training teaches the detector; ERR_CHECKPOINT, ERR_BAD_FILE for a checkpoint of another run or a damaged one
 */
export async function* trainSemiSupervised(
  detector: TeachableDetector,
  options: TrainOptions,
): AsyncGenerator<TrainEvent, void, undefined> {
  const letGo = beginLearning(detector);
  let training: Training | undefined;
  let end: 'whole' | 'failed' | 'left' = 'left';
  try {
    training = new Training(await setUpTraining(detector, options));
    yield* training.run();
    end = 'whole';
  } catch (error) {
    end = 'failed';
    options?.processes?.fail(error);
    throw error;
  } finally {
    try {
      await training?.close({ end });
    } finally {
      letGo();
    }
  }
}

/** For errors that end a step: what to try, and what is known of the weights. */
const remedies: Partial<Record<MixplErrorCode, { remedy: string; state?: string }>> = {
  ERR_DIVERGED: {
    remedy: 'a lower learning rate or a longer warm-up',
    state: 'nothing was updated, ',
  },
  ERR_OUT_OF_MEMORY: {
    remedy: 'smaller batches or images, or to resume on a device with more memory',
  },
  ERR_DEVICE: {
    remedy: "to resume in a new process, on another device (device: 'cpu') if need be",
  },
};

class Training {
  readonly #setup: TrainingSetup;
  readonly #watch: TrainingWatch;
  readonly #parts: PartDrawer;
  readonly #meter = new StepMeter();
  /** Found while the loader works ahead, told after the step under way. */
  readonly #warnings: TrainingWarning[];

  /** Test images that were told to be left out. */
  readonly #unreadable = new Set<string>();

  /** Steps done. */
  #iteration = 0;
  #best: TrainingState['best'] = null;
  #validationDue = false;
  /** Iteration of the newest checkpoint of this state. */
  #saved: number | null = null;
  #lastCheckpoint: string | null = null;
  /** Weights, cache and counters are those after #iteration steps: a checkpoint may be written. */
  #consistent = true;

  constructor(setup: TrainingSetup) {
    const { semi, datasets, resumed } = setup;
    this.#setup = setup;
    const rates = boxesPerImage(datasets[0]!);
    this.#watch = new TrainingWatch({
      scoreThr: semi.scoreThr,
      classes: datasets[0]!.categories.map(({ name }, label) => ({
        name,
        perImage: rates[label]!,
      })),
    });
    this.#parts = new PartDrawer(setup, {
      teaches: (iteration) => this.#phaseOf(iteration) === 'semi-supervised',
      warn: (warning) => this.#warnings.push(warning),
    });
    this.#warnings = [...setup.warnings];
    if (!resumed) return;
    const { iteration, best, validationDue, watch } = resumed.state;
    this.#iteration = iteration;
    this.#best = best;
    this.#validationDue = validationDue;
    this.#watch.state = watch;
    // A checkpoint of another folder counts as none here.
    if (dirname(resumed.path) === setup.checkpoints) this.#saved = iteration;
    this.#lastCheckpoint = resumed.path;
  }

  async *run(): AsyncGenerator<TrainEvent, void, undefined> {
    const { settings, resumed } = this.#setup;
    const { iterations } = settings.schedule;
    if (resumed) yield { type: 'resumed', iteration: this.#iteration, path: resumed.path };
    yield* this.#tell();
    yield* this.#validateIfDue();
    try {
      while (this.#iteration < iterations && !this.#aborted) {
        const step = await this.#step();
        yield step;
        yield* this.#tell();
        const checkpointDue = this.#isDue(settings.checkpoint.interval);
        yield* this.#validateIfDue();
        if (checkpointDue) yield* this.#checkpoint();
      }
    } finally {
      await this.#parts.close();
    }
    if (this.#aborted) yield* this.#checkpoint();
    yield* this.#report();
    const finished = this.#iteration >= iterations && !this.#validationDue;
    yield { type: 'end', iteration: this.#iteration, reason: finished ? 'finished' : 'aborted' };
  }

  /** Keeps what was done since the last checkpoint, whatever ended the run; not where others have parts of it. */
  async close({ end }: { end: 'whole' | 'failed' | 'left' }): Promise<void> {
    const { folder, teacher, processes } = this.#setup;
    try {
      if (processes && end === 'left')
        processes.fail(new MixplError('ERR_STATE', 'the loop over its events was left'));
      if (this.#consistent && (!processes || end === 'whole')) await this.#save();
    } catch (error) {
      // After a failure that one is told: a device that is lost has no weights to save either.
      if (end !== 'failed') throw error;
    } finally {
      teacher?.dispose();
      await folder?.close();
    }
  }

  get #aborted(): boolean {
    const { processes, options } = this.#setup;
    return processes ? processes.stopped : (options.signal?.aborted ?? false);
  }

  /** What is done every `interval` steps (0: never), and after the last one. */
  #isDue(interval: number): boolean {
    const last = this.#iteration === this.#setup.settings.schedule.iterations;
    return last || isDue(this.#iteration, interval);
  }

  #phaseOf(iteration: number): Phase {
    const { semi } = this.#setup.settings;
    if (!this.#setup.teacher) return 'supervised';
    return iteration < semi.burnIn ? 'burn-in' : 'semi-supervised';
  }

  async #step(): Promise<StepEvent> {
    const { settings, loop, options, teacher } = this.#setup;
    const { schedule, lr: base } = settings;
    const began = performance.now();
    const phase = this.#phaseOf(this.#iteration);
    const parts = await this.#parts.begin(this.#iteration);
    const lr = learningRate(base, schedule, this.#iteration);
    this.#consistent = false;
    let report: StepReport;
    try {
      report = await loop.step({ iteration: teacher ? this.#iteration : null, lr, parts });
    } catch (error) {
      throw this.#explained(error);
    }
    this.#iteration++;
    this.#validationDue = this.#isDue(settings.validation.interval);
    this.#consistent = true;

    const seconds = (performance.now() - began) / 1000;
    const { dataSeconds } = this.#parts;
    const images = this.#parts.images * (this.#setup.processes?.processes ?? 1);
    const speed = this.#meter.add({ ...report, seconds, dataSeconds, lr, images });
    this.#warnings.push(...this.#watch.afterStep(report));
    const event: StepEvent = {
      type: 'step',
      iteration: this.#iteration,
      iterations: schedule.iterations,
      phase,
      lr,
      ...report,
      imagesPerSecond: speed.imagesPerSecond,
      seconds,
      dataSeconds,
      etaSeconds: speed.secondsPerStep * (schedule.iterations - this.#iteration),
      memory: memoryNow(this.#setup.device),
    };
    if (this.#isDue(settings.logging.interval))
      await this.#log('step', {
        phase,
        ...this.#meter.take(options.data.labelled.categories.map((c) => c.name)),
        imagesPerSecond: event.imagesPerSecond,
        memory: event.memory,
      });
    return event;
  }

  /** Says after which iteration it happened, what is left and what to try. */
  #explained(error: unknown): unknown {
    if (!(error instanceof MixplError)) return error;
    const { remedy, state = '' } = remedies[error.code] ?? {};
    if (!remedy) return error;
    const left = this.#lastCheckpoint
      ? `the last good checkpoint is ${this.#lastCheckpoint}`
      : 'there is no checkpoint yet';
    return new MixplError(
      error.code,
      `${error.message}, after ${this.#iteration} iterations; ${state}${left}; try ${remedy}`,
      { cause: error },
    );
  }

  /** An image of the run is no reason to fail it. */
  async *#report(): AsyncGenerator<TrainEvent, void, undefined> {
    try {
      await this.#setup.folder?.report();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#warnings.push({
        code: 'report-not-written',
        message: `report.html was not written: ${reason}; nothing else of the run depends on it`,
      });
    }
    // On a full disk the warning, too, is told and not kept.
    yield* this.#tell({ kept: false });
  }

  /** @param kept in metrics.jsonl; false: if it can be */
  async *#tell({ kept = true } = {}): AsyncGenerator<TrainEvent, void, undefined> {
    for (const warning of this.#warnings.splice(0)) {
      const logged = this.#log('warning', { ...warning });
      await (kept ? logged : logged.catch(() => undefined));
      yield { type: 'warning', iteration: this.#iteration, ...warning };
    }
  }

  async *#validateIfDue(): AsyncGenerator<TrainEvent, void, undefined> {
    const { test, options } = this.#setup;
    if (!test) this.#validationDue = false;
    if (!this.#validationDue || this.#aborted) return;
    let event: ValidationEvent | null;
    try {
      event = await this.#validate();
    } catch (error) {
      if (!options.signal?.aborted || error !== options.signal.reason) throw error;
      event = null;
    }
    // Cut off by a signal: it stays due, the checkpoint says so.
    if (!event) return;
    this.#validationDue = false;
    this.#saved = null;
    yield event;
    yield* this.#tell();
  }

  /** Null when a signal of several processes has cut it off. */
  async #validate(): Promise<ValidationEvent | null> {
    const { settings, student, teacher, test, options, folder, processes } = this.#setup;
    const evaluate = (detector: TeachableDetector, branch: 'teacher' | 'student') => {
      const evaluation = {
        resize: this.#setup.resize,
        preprocess: this.#setup.preprocess,
        dtype: this.#setup.dtype,
        device: this.#setup.device,
        batch: settings.validation.batch,
        protocol: settings.validation.protocol,
        voc: settings.validation.voc,
        cache: this.#setup.images,
        signal: options.signal,
        unreadable: options.unreadable,
        onUnreadable: ({ message }: MixplError, path: string) => this.#leftOut(path, message),
        onProgress: (done: number, total: number) =>
          options.onValidating?.({ branch, done, total }),
      };
      return processes
        ? evaluateTogether(processes, detector, test!, evaluation)
        : evaluateDetector(detector, test!, evaluation);
    };
    const ofTeacher = teacher && (await evaluate(teacher, 'teacher'));
    if (teacher && !ofTeacher) return null;
    const ofStudent = await evaluate(student, 'student');
    if (!ofStudent) return null;
    const metrics = { teacher: ofTeacher, student: ofStudent };
    const headline = teacher ? 'teacher' : 'student';
    const ap = metrics[headline]!.stats[0]!;
    // -1: nothing in the test data to find.
    const best = ap >= 0 && (this.#best === null || ap > this.#best.ap);
    if (best && folder) {
      const weights = withoutOptimizer(await (teacher ?? student).state());
      const facts = { iteration: String(this.#iteration), branch: headline, ap: String(ap) };
      await folder.saveBest(weights, facts);
    }
    if (best) this.#best = { ap, iteration: this.#iteration };
    if (metrics.teacher)
      this.#warnings.push(
        ...this.#watch.afterValidation({ teacher: ap, student: metrics.student.stats[0]! }),
      );
    await this.#log('validation', {
      headline,
      teacher: metrics.teacher && summaryOf(metrics.teacher),
      student: summaryOf(metrics.student),
      best,
    });
    return { type: 'validation', iteration: this.#iteration, headline, ...metrics, best };
  }

  /** Once an image: a run has many validations, and two branches. */
  #leftOut(path: string, message: string): void {
    if (this.#unreadable.has(path)) return;
    this.#unreadable.add(path);
    this.#warnings.push({
      code: 'unusable-image',
      message: `${message}; it is left out of the metrics`,
    });
  }

  async *#checkpoint(): AsyncGenerator<CheckpointEvent, void, undefined> {
    const path = await this.#save();
    if (path) yield { type: 'checkpoint', iteration: this.#iteration, path };
  }

  /** Writes a checkpoint unless this state has one already. */
  async #save(): Promise<string | null> {
    const { folder, student, teacher, loop, identity, environment, settings } = this.#setup;
    const { processes, options } = this.#setup;
    if (options.out === undefined || this.#iteration === 0 || this.#saved === this.#iteration)
      return null;
    const own = {
      sampler: this.#parts.sampler,
      caches: loop.policies.map(({ cache }) => cache.map(recipeOf)),
    };
    const all = processes ? await processes.gather(own) : [own];
    if (!folder || !all) {
      this.#saved = this.#iteration;
      return null;
    }
    const state: TrainingState = {
      iteration: this.#iteration,
      identity,
      sampler: all.at(-1)!.sampler,
      caches: all.flatMap(({ caches }) => caches),
      best: this.#best,
      validationDue: this.#validationDue,
      watch: this.#watch.state,
      environment,
    };
    this.#lastCheckpoint = await folder.checkpoints.save(
      {
        state,
        student: await student.state(),
        teacher: teacher && withoutOptimizer(await teacher.state()),
      },
      settings.checkpoint,
    );
    this.#saved = this.#iteration;
    return this.#lastCheckpoint;
  }

  async #log(type: string, record: Record<string, unknown>): Promise<void> {
    await this.#setup.folder?.log({ type, iteration: this.#iteration, ...record });
  }
}

/** Metrics say -1 where there is nothing to find. */
function known(metric: number): number | null {
  return metric === -1 ? null : metric;
}

/** COCO's twelve numbers, VOC's two when asked for, and the AP of each class by name; null where no class has ground truth for one. */
function summaryOf(metrics: CocoMetrics) {
  return {
    ...Object.fromEntries(statNames(metrics).map((name, i) => [name, known(metrics.stats[i]!)])),
    ...(metrics.voc && {
      VOC_AP50: known(metrics.voc.mapPerThreshold[0]!),
      VOC_AP: known(metrics.voc.map),
    }),
    perClass: Object.fromEntries(metrics.perClass.map(({ category, ap }) => [category.name, ap])),
  };
}

function isDue(iteration: number, interval: number): boolean {
  return interval > 0 && iteration % interval === 0;
}

function memoryNow(device: string): StepEvent['memory'] {
  const { liveBytes, peakLiveBytes } = native.memoryStats(device);
  return {
    rssBytes: process.memoryUsage.rss(),
    tensorBytes: liveBytes,
    peakTensorBytes: peakLiveBytes,
  };
}
