import {
  type ComposeOptions,
  type Composition,
  composeBatch,
  compositionOf,
  dropSmall,
  type LabelledComposition,
  type LabelledView,
  mapBoxes,
  mapInstances,
  type PreprocessOptions,
  selectInstances,
  type View,
} from '../augment/index.js';
import type { BufferPolicy, Detections, ImageBatch, TeachableDetector } from '../detector/types.js';
import { MixplError } from '../errors.js';
import type { ObjectBoxes } from '../eval/matching.js';
import type { Random } from '../random.js';
import { type Branch, type MixingPolicy, MixPL } from './mixpl.js';
import { emaMomentum, type SemiOptions } from './options.js';
import {
  clipped,
  countPseudoLabels,
  type JudgedPicture,
  judgePicture,
  type PseudoLabelReport,
} from './pseudo-labels.js';

/** Two independently drawn views of one picture without annotations. */
export interface UnlabelledPair {
  /** For the teacher. */
  readonly weak: View;
  /** For the student. */
  readonly strong: View;
  /** Which picture of the unlabelled data set this is; kept in the cache for checkpoints. */
  readonly image: number;
  /** What is in it, in pixels of the original, where that is known: counted, never learned from. */
  readonly truth?: ObjectBoxes | null;
}

/** A pseudo-labelled strong view with where it came from. */
export interface CachedView extends LabelledView {
  readonly image: number;
}

export interface StepReport {
  /**
   * Named losses, weighted as they entered the sum: `sup_*`, `mixup_unsup_*` (`unsup_*` without mixup)
   * and `mosaic_unsup_*`. Those of a silenced branch are 0. What a detector reports without "loss" in
   * its name is passed on as it is.
   */
  losses: Record<string, number>;
  /** Sum of the losses: what was minimised. */
  total: number;
  gradNorm: number;
  /** Student share of the EMA update after this step, or null. */
  emaMomentum: number | null;
  /** Of the step's unlabelled pictures; null while only labelled pictures are learned from. */
  pseudo: PseudoLabelReport | null;
  /** Branches that the empty-image rule silenced. */
  silenced: string[];
}

/** What a step shows to a detector: its labelled views and the teacher's weak ones. */
export interface ShownViews {
  labelled: readonly LabelledView[];
  /** Empty: a supervised step, of a burn-in or a run without a teacher. */
  unlabelled: readonly UnlabelledPair[];
}

/** Batches that prepare() started on; whoever does not give them to a step disposes them. */
export interface PreparedBatches {
  readonly labelled: Promise<ImageBatch> | null;
  readonly weak: Promise<ImageBatch> | null;
  dispose(): Promise<void>;
}

export interface StepInput extends ShownViews {
  /** Of the run, from 0: the EMA's momentum goes by it. Null leaves the teacher alone. */
  iteration: number | null;
  lr: number;
  random: Random;
  /** What prepare() made of these views; the step disposes it. */
  prepared?: PreparedBatches | undefined;
  /**
   * Awaited before the update, when the device has all else to do: the place to prepare() the next step,
   * so that a GPU has its pictures when it begins.
   */
  meanwhile?: () => Promise<void>;
}

export interface MeanTeacherSetup {
  student: TeachableDetector;
  teacher: TeachableDetector;
  options: SemiOptions;
  preprocess: PreprocessOptions;
  /** Type of the images that the detector takes. */
  dtype: ComposeOptions['dtype'];
  /** Where the detector takes them. @defaultValue 'cpu' */
  device?: string;
  policy?: MixingPolicy<CachedView>;
}

/** One forward and backward pass of a step, or one that was not worth it. */
interface Pass {
  prefix: string;
  weight: number;
  silent?: boolean;
  /** Absent: the student has them still. */
  values?: Record<string, number>;
}

/** Batches of mixed pictures are padded to at least this multiple (reference-facts 1.4). */
const leastMixedDivisor = 32;

/**
 * DetMeanTeacher: a student trained by gradient, a teacher that is its moving average and labels the
 * pictures that nobody annotated. Knows no concrete detector. Order of a step: reference-facts 1.2.
 * Deviation: a silenced branch is skipped, where the reference runs it with weight 0. The gradient is
 * the same; with several processes the reference's loss normalisers would still have counted it.
 */
export class MeanTeacher {
  readonly student: TeachableDetector;
  readonly teacher: TeachableDetector;
  readonly policy: MixingPolicy<CachedView>;
  readonly #options: SemiOptions;
  readonly #input: PreprocessOptions & Pick<ComposeOptions, 'dtype' | 'device'>;
  #lossNames: string[] = [];

  constructor(setup: MeanTeacherSetup) {
    this.student = setup.student;
    this.teacher = setup.teacher;
    this.policy = setup.policy ?? new MixPL(setup.options);
    this.#options = setup.options;
    const { preprocess, dtype, device = 'cpu' } = setup;
    this.#input = { ...preprocess, dtype, device };
  }

  /** Starts on the batches of a step to come: they depend on nothing that is learned before it. */
  prepare({ labelled, unlabelled }: ShownViews): PreparedBatches {
    const start = (views: readonly View[]) => {
      if (!views.length) return null;
      const batch = this.#compose(views.map(compositionOf), 'image');
      batch.catch(() => {}); // told to who awaits it
      return batch;
    };
    const weak = start(unlabelled.map((pair) => pair.weak));
    const batches = { weak, labelled: start(labelled.map(({ view }) => view)) };
    const dispose = async () => {
      for (const batch of Object.values(batches)) (await batch?.catch(() => null))?.dispose();
    };
    return { ...batches, dispose };
  }

  /**
   * One iteration: labelled loss, teacher's labels, mixed losses, update, EMA; the teacher may be asked
   * first. Each branch goes back as soon as it went forward, so that only one graph is in memory; the
   * sum of gradients is the same.
   * @throws MixplError ERR_DIVERGED when a loss or the gradient is not finite; nothing was updated
   */
  async step(input: StepInput): Promise<StepReport> {
    try {
      return await this.#step(input);
    } catch (error) {
      // A part of the gradient must not become a part of the next one.
      await this.student.zeroGradients?.().catch(() => {});
      throw error;
    } finally {
      await input.prepared?.dispose();
    }
  }

  async #step(input: StepInput): Promise<StepReport> {
    const teachersBoxes = input.unlabelled.length ? await this.#askTeacher(input) : undefined;
    const passes: Pass[] = [];
    if (input.labelled.length > 0) {
      const samples = input.labelled.map(({ view, instances }) => ({
        composition: compositionOf(view),
        instances,
      }));
      const batch = await (input.prepared?.labelled ?? this.#composeSamples(samples, 'image'));
      passes.push(await this.#learn(samples, batch, 'sup_', this.#options.supWeight));
    }
    let pseudo: PseudoLabelReport | null = null;
    if (teachersBoxes) {
      const labelled = this.#label(input.unlabelled, await teachersBoxes());
      pseudo = labelled.report;
      const { strong } = labelled;
      for (const branch of this.policy.branches(strong, this.#mixedDivisor, input.random)) {
        passes.push(await this.#learnPseudo(branch));
      }
    }
    const momentum =
      input.iteration === null ? null : emaMomentum(this.#options.ema, input.iteration);
    // BatchNorm's statistics that later updates skip are those at the end of the burn-in.
    let { buffers } = this.#options.ema;
    if (buffers === 'skip' && input.unlabelled.length === 0) buffers = 'copy';
    await input.meanwhile?.();
    const ema = momentum === null ? null : { momentum, buffers };
    const { gradNorm, losses } = await this.#update(input.lr, passes, ema);
    let total = 0;
    for (const [name, value] of Object.entries(losses)) if (isLoss(name)) total += value;
    const silenced = passes.filter((pass) => pass.silent).map((pass) => pass.prefix);
    return { losses, total, gradNorm, emaMomentum: momentum, pseudo, silenced };
  }

  /**
   * Has the teacher look at the weak views; what comes back waits for its boxes. A teacher that can be
   * read later starts at once: a GPU then learns from labelled pictures while its boxes are read.
   */
  async #askTeacher({ unlabelled, prepared }: StepInput): Promise<() => Promise<Detections[]>> {
    const { teacher } = this;
    const show = async <T>(look: (batch: ImageBatch) => Promise<T>): Promise<T> => {
      const batch = await (prepared?.weak ??
        this.#compose(
          unlabelled.map((pair) => compositionOf(pair.weak)),
          'image',
        ));
      try {
        return await look(batch);
      } finally {
        batch.dispose();
      }
    };
    if (!teacher.predictLater || !teacher.predictions)
      return () => show((batch) => teacher.predict(batch));
    await show((batch) => teacher.predictLater!(batch));
    // The last one: a step that failed may have left some.
    return async () => (await teacher.predictions!()).at(-1) ?? [];
  }

  /**
   * The teacher's boxes on the weak views, mapped back to the originals, clipped, and on to the strong
   * views. All scores are kept: the threshold comes after mixing.
   */
  #label(
    pairs: readonly UnlabelledPair[],
    found: readonly Detections[],
  ): { strong: CachedView[]; report: PseudoLabelReport } {
    if (found.length !== pairs.length)
      throw new MixplError(
        'ERR_SHAPE',
        `teacher.predict: detections must have ${pairs.length} entries (one per image), got ${found.length}`,
      );
    const { scoreThr, minBoxSize } = this.#options;
    const shownIn = (boxes: Float32Array) => (k: number) => isLarger(boxes, k, minBoxSize);
    const judged: JudgedPicture[] = [];
    const strong = pairs.map(({ weak, strong, image, truth }, i) => {
      const inOriginal = mapInstances(weak.layer.map, found[i]!, weak.layer.source);
      const inStrong = mapInstances(strong.matrix, inOriginal, strong);
      const objects = truth && clipped(truth, strong.layer.source);
      judged.push(
        judgePicture(
          { instances: inOriginal, shown: shownIn(inStrong.boxes) },
          objects
            ? { instances: objects, shown: shownIn(mapBoxes(strong.matrix, objects.boxes, strong)) }
            : null,
        ),
      );
      return { view: strong, image, instances: dropSmall(inStrong, minBoxSize) };
    });
    const { numClasses } = this.student;
    return { strong, report: countPseudoLabels(judged, { numClasses, scoreThr }) };
  }

  async #learnPseudo(branch: Branch): Promise<Pass> {
    const { scoreThr, emptyImageRule, leastNum, unsupWeight } = this.#options;
    const weight = unsupWeight * branch.weight;
    let samples = branch.samples.map(({ composition, instances }) => ({
      composition,
      instances: selectInstances(instances, (i) => instances.scores[i]! > scoreThr),
    }));
    const enough = (s: LabelledComposition) => s.instances.labels.length >= leastNum;
    if (emptyImageRule === 'per-image') samples = samples.filter(enough);
    const silent =
      weight === 0 ||
      samples.length === 0 ||
      (emptyImageRule === 'branch-gate' && !samples.every(enough));
    // A silenced branch has weight 0 in the reference, too; here its passes are saved.
    if (silent) return { prefix: branch.name, weight: 0, silent };
    const batch = await this.#composeSamples(samples, 'batch');
    return this.#learn(samples, batch, branch.name, weight);
  }

  /** @param batch of the samples; it is disposed */
  async #learn(
    samples: readonly LabelledComposition[],
    batch: ImageBatch,
    prefix: string,
    weight: number,
  ): Promise<Pass> {
    try {
      const targets = samples.map(({ instances: { boxes, labels } }) => ({ boxes, labels }));
      if (this.#deferred) {
        await this.student.forward!(batch, targets);
        await this.student.backward({ weight });
        return { prefix, weight };
      }
      const values = await this.student.loss(batch, targets);
      if (infiniteOf(values)) {
        await this.student.discard();
        throw diverged(prefix, values);
      }
      await this.student.backward({ weight });
      return { prefix, weight, values };
    } finally {
      batch.dispose();
    }
  }

  /** The student's step, then the teacher's; a teacher that can takes both at once, see stepStudent(). */
  async #update(
    lr: number,
    passes: readonly Pass[],
    ema: { momentum: number; buffers: BufferPolicy } | null,
  ): Promise<{ gradNorm: number; losses: Record<string, number> }> {
    const { student, teacher } = this;
    const together = ema && this.#deferred && teacher.stepStudent;
    let gradNorm: number;
    try {
      ({ gradNorm } = together
        ? await teacher.stepStudent!(student, { lr, ...ema })
        : await student.step({ lr }));
    } catch (error) {
      // The detector says that something is not finite, the losses which branch it is in.
      if (error instanceof MixplError && error.code === 'ERR_DIVERGED')
        await this.#lossesOf(passes);
      throw error;
    }
    const losses = await this.#lossesOf(passes);
    if (ema && !together) await teacher.ema(student, ema.momentum, { buffers: ema.buffers });
    return { gradNorm, losses };
  }

  /** The student does not have to be waited for before its values are wanted. */
  get #deferred(): boolean {
    return Boolean(this.student.forward && this.student.lossValues);
  }

  /** Losses by name, those of silent passes 0. @throws MixplError ERR_DIVERGED */
  async #lossesOf(passes: readonly Pass[]): Promise<Record<string, number>> {
    const waiting = passes.filter((pass) => !pass.silent && !pass.values).length;
    // The last ones: whoever had the student before may have left some.
    const later = waiting ? (await this.student.lossValues!()).slice(-waiting) : [];
    const losses: Record<string, number> = {};
    for (const { prefix, weight, silent, values: known } of passes) {
      if (silent) {
        for (const name of this.#lossNames) losses[prefix + name] = 0;
        continue;
      }
      const values = known ?? later.shift() ?? {};
      if (infiniteOf(values)) throw diverged(prefix, values);
      this.#lossNames = Object.keys(values).filter(isLoss);
      for (const [name, value] of Object.entries(values))
        losses[prefix + name] = isLoss(name) ? weight * value : value;
    }
    return losses;
  }

  #composeSamples(
    samples: readonly LabelledComposition[],
    padTo: ComposeOptions['padTo'],
  ): Promise<ImageBatch> {
    return this.#compose(
      samples.map((s) => s.composition),
      padTo,
    );
  }

  #compose(
    compositions: readonly Composition[],
    padTo: ComposeOptions['padTo'],
  ): Promise<ImageBatch> {
    const padDivisor = padTo === 'batch' ? this.#mixedDivisor : this.#input.padDivisor;
    return composeBatch(compositions, { ...this.#input, padDivisor, padTo });
  }

  get #mixedDivisor(): number {
    return Math.max(leastMixedDivisor, this.#input.padDivisor);
  }
}

/** Only what says so is a loss; a detector may report other numbers beside (reference-facts 1.2, 11). */
function isLoss(name: string): boolean {
  return /loss|(^|_)(classification|bbox_regression|bbox_ctrness)$/.test(name);
}

/** The name of a loss that is not finite. */
function infiniteOf(values: Record<string, number>): string | undefined {
  return Object.keys(values).find((name) => isLoss(name) && !Number.isFinite(values[name]));
}

function diverged(prefix: string, values: Record<string, number>): MixplError {
  const name = infiniteOf(values)!;
  return new MixplError(
    'ERR_DIVERGED',
    `training: ${prefix}${name} must be finite, got ${values[name]}`,
  );
}

function isLarger(boxes: Float32Array, i: number, least: number): boolean {
  return boxes[4 * i + 2]! - boxes[4 * i]! > least && boxes[4 * i + 3]! - boxes[4 * i + 1]! > least;
}
