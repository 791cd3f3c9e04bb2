import {
  type ComposeOptions,
  type Composition,
  composeBatch,
  compositionOf,
  type LabelledComposition,
  type LabelledView,
  type PreprocessOptions,
  selectInstances,
  type View,
} from '../augment/index.js';
import type {
  BufferPolicy,
  Detections,
  ImageBatch,
  LabelledBatch,
  TeachableDetector,
} from '../detector/types.js';
import { MixplError } from '../errors.js';
import type { ProcessGroup } from '../processes/index.js';
import type { Random } from '../random.js';
import { BranchGroup, type Together, togetherByDefault } from './branch-group.js';
import { type CachedView, PseudoLabels, type UnlabelledPair } from './labelling.js';
import { checkFinite, type LossReport, LossSum, type Pass } from './losses.js';
import { type Branch, type MixingPolicy, MixPL } from './mixpl.js';
import { emaMomentum, type SemiOptions } from './options.js';
import { type PseudoLabelReport, sumReports } from './pseudo-labels.js';

/** What one step did. */
export interface StepReport extends LossReport {
  /** L2 norm before clipping. */
  gradNorm: number;
  /** Student share of the EMA update after this step, or null. */
  emaMomentum: number | null;
  /** Pseudo labels of all parts; null while only labelled images are learned from. */
  pseudo: PseudoLabelReport | null;
}

/** What a part of a step shows to a detector: its labelled views and the teacher's weak ones. */
export interface ShownViews {
  labelled: readonly LabelledView[];
  /** Empty: a supervised step, of a burn-in or a run without a teacher. */
  unlabelled: readonly UnlabelledPair[];
}

/** Batches that prepare() started on; whoever does not give them to a step disposes them. */
export interface PreparedBatches {
  readonly labelled: Promise<ImageBatch> | null;
  readonly weak: Promise<ImageBatch> | null;
  /** Waits for the batches and lets go of them. */
  dispose(): Promise<void>;
}

/** What one of several processes would learn from in a step. */
export interface StepPart extends ShownViews {
  random: Random;
  /** Among all parts of the run: what a detector draws at random in a training of several processes goes by it. */
  number?: number;
  /** What prepare() made of these views; the step disposes it. */
  prepared?: PreparedBatches | undefined;
}

/** What a step takes. */
export interface StepInput {
  /** Of the run, from 0: the EMA's momentum goes by it. Null leaves the teacher alone. */
  iteration: number | null;
  /** Learning rate of parameters without a factor of their own. */
  lr: number;
  /**
   * As many as there are policies: of several processes, this one's. Each is asked for when the device has
   * all of the one before to do, and the end when it has all but the update: the places to prepare() what
   * comes next, so that a GPU has its images when it begins.
   */
  parts: Iterable<StepPart> | AsyncIterable<StepPart>;
}

/** What a MeanTeacher is made of. */
export interface MeanTeacherSetup {
  student: TeachableDetector;
  teacher: TeachableDetector;
  options: SemiOptions;
  /** Preprocessing of both detectors. */
  preprocess: PreprocessOptions;
  /** Type of the images that the detector takes. */
  dtype: ComposeOptions['dtype'];
  /** Where the detector takes them. @defaultValue 'cpu' */
  device?: string;
  /** One for each part of a step, with a cache of its own. @defaultValue one MixPL */
  policies?: readonly MixingPolicy<CachedView>[];
  /** Processes that have as many parts of a step each. @defaultValue this one alone */
  processes?: ProcessGroup | null;
  /** Which branches of a part share a graph, where the student can. @defaultValue togetherByDefault() */
  together?: Together;
}

/** What the parts of a step came to. */
interface Learned {
  passes: readonly Pass[];
  /** Null: no part had unlabelled images. */
  pseudo: PseudoLabelReport | null;
}

/** Batches of mixed images are padded to at least this multiple, as in the reference. */
const leastMixedDivisor = 32;

/**
 * DetMeanTeacher: a student trained by gradient, a teacher that is its moving average and labels the
 * images that nobody annotated. Knows no concrete detector. Order of a step: see step().
 *
 * A step has parts, each what one of the reference's processes has in an iteration: batches, a cache, an
 * empty-image rule and loss normalisers of its own. Their gradients are averaged, as those of processes
 * are, for one clip and one update. Deviations:
 * - A silenced branch is skipped, where the reference runs it with weight 0. The gradient is the same;
 *   with several processes the reference's loss normalisers would still have counted it.
 * - FCOS, CenterNet, ATSS, GFL, TOOD, Sparse R-CNN and the DETRs normalise by means over the reference's
 *   processes; a part has its own. RetinaNet, PAA, Faster and Cascade R-CNN do not look at the others.
 * - A live BatchNorm sees the parts one after the other, where each process has statistics of its own.
 */
export class MeanTeacher {
  /** Trained by gradient. */
  readonly student: TeachableDetector;
  /** Its moving average. */
  readonly teacher: TeachableDetector;
  /** One policy per part. */
  readonly policies: readonly MixingPolicy<CachedView>[];
  readonly #options: SemiOptions;
  readonly #input: PreprocessOptions & Pick<ComposeOptions, 'dtype' | 'device'>;
  readonly #losses = new LossSum();
  readonly #together: Together;
  readonly #processes: ProcessGroup | null;

  /** Keeps both detectors, which stay the caller's to dispose. */
  constructor(setup: MeanTeacherSetup) {
    this.student = setup.student;
    this.teacher = setup.teacher;
    this.policies = setup.policies ?? [new MixPL(setup.options)];
    this.#options = setup.options;
    const { preprocess, dtype, device = 'cpu' } = setup;
    this.#input = { ...preprocess, dtype, device };
    this.#together = setup.together ?? togetherByDefault();
    this.#processes = setup.processes ?? null;
    if (this.#processes && !this.student.sumGradients)
      throw new MixplError(
        'ERR_CONFIG',
        'MeanTeacher: a student of several processes must have sumGradients(), got one without',
      );
  }

  /** Starts on the batches of a part to come: they depend on nothing that is learned before it. */
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
   * One iteration: of each part the labelled loss, teacher's labels (it may be asked first) and mixed
   * losses; then update and EMA. Each branch goes back as soon as it went forward, so that only one graph
   * is in memory (but see Together); the sum of gradients is the same.
   * @throws MixplError ERR_DIVERGED when a loss or the gradient is not finite; ERR_SHAPE for parts that
   *   are not as many as the policies; nothing was updated
   */
  async step({ iteration, lr, parts }: StepInput): Promise<StepReport> {
    const passes: Pass[] = [];
    const pseudo = new PseudoLabels(this.student.numClasses, this.#options);
    try {
      let count = 0;
      for await (const part of parts) {
        try {
          const policy = this.policies[count++] ?? this.#refuseParts('more');
          await this.#learnPart(part, policy, { passes, pseudo });
        } finally {
          await part.prepared?.dispose();
        }
      }
      if (count < this.policies.length) this.#refuseParts(count);
      if (this.#processes) await this.student.sumGradients!(this.#processes);
      return await this.#finish({ iteration, lr }, { passes, pseudo: pseudo.report });
    } catch (error) {
      // A part of the gradient must not become a part of the next one.
      await this.student.zeroGradients?.().catch(() => {});
      throw error;
    }
  }

  #refuseParts(got: number | string): never {
    throw new MixplError(
      'ERR_SHAPE',
      `MeanTeacher.step: parts must have ${this.policies.length} entries (one per policy), got ${got}`,
    );
  }

  /** Adds its passes, whose gradients the student has then, and counts its pseudo labels. */
  async #learnPart(
    part: StepPart,
    policy: MixingPolicy<CachedView>,
    { passes, pseudo }: { passes: Pass[]; pseudo: PseudoLabels },
  ): Promise<void> {
    const { labelled, unlabelled, random, prepared, number = 0 } = part;
    if (this.#processes) await this.student.startPart?.(number);
    const teachersBoxes = unlabelled.length ? await this.#askTeacher(part) : undefined;
    const group = new BranchGroup();
    try {
      if (labelled.length > 0) {
        const samples = labelled.map(({ view, instances }) => ({
          composition: compositionOf(view),
          instances,
        }));
        const batch = prepared?.labelled ?? this.#composeSamples(samples, 'image');
        group.add(samples, batch, { prefix: 'sup_', weight: this.#share(this.#options.supWeight) });
        if (!teachersBoxes || this.#groups !== 'all') passes.push(...(await this.#learn(group)));
      }
      if (!teachersBoxes) return;
      const strong = pseudo.label(unlabelled, await teachersBoxes());
      for (const branch of policy.branches(strong, this.#mixedDivisor, random)) {
        this.#addPseudo(group, branch);
        if (this.#groups === 'none') passes.push(...(await this.#learn(group)));
      }
      passes.push(...(await this.#learn(group)));
    } finally {
      await group.dispose();
    }
  }

  /** What the student can do. */
  get #groups(): Together {
    return this.#deferred && this.student.forwardTogether ? this.#together : 'none';
  }

  /** Of a part's weight in the step. */
  #share(weight: number): number {
    return weight / (this.policies.length * (this.#processes?.processes ?? 1));
  }

  /**
   * Has the teacher look at the weak views; what comes back waits for its boxes. A teacher that can be
   * read later starts at once: a GPU then learns from labelled images while its boxes are read.
   */
  async #askTeacher({ unlabelled, prepared }: StepPart): Promise<() => Promise<Detections[]>> {
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

  #addPseudo(group: BranchGroup, branch: Branch): void {
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
    if (silent) {
      group.addSilent(branch.name);
      return;
    }
    const batch = this.#composeSamples(samples, 'batch');
    group.add(samples, batch, { prefix: branch.name, weight: this.#share(weight) });
  }

  /** Goes forward and back with what is in the group, and empties it. */
  async #learn(group: BranchGroup): Promise<Pass[]> {
    const { student } = this;
    const { batches, passes } = await group.take();
    try {
      if (!batches.length) return passes;
      const weights = passes.filter((pass) => !pass.silent).map((pass) => pass.weight);
      if (batches.length > 1) {
        await student.forwardTogether!(batches);
        await student.backward({ weights });
        return passes;
      }
      const [{ batch, targets }] = batches as [LabelledBatch];
      if (this.#deferred) {
        await student.forward!(batch, targets);
        await student.backward({ weight: weights[0]! });
        return passes;
      }
      const pass = passes.find((p) => !p.silent)!;
      pass.values = await student.loss(batch, targets);
      try {
        checkFinite(pass.prefix, pass.values);
      } catch (error) {
        await student.discard();
        throw error;
      }
      await student.backward({ weight: pass.weight });
      return passes;
    } finally {
      for (const { batch } of batches) batch.dispose();
    }
  }

  async #finish(
    { iteration, lr }: Pick<StepInput, 'iteration' | 'lr'>,
    learned: Learned,
  ): Promise<StepReport> {
    const momentum = iteration === null ? null : emaMomentum(this.#options.ema, iteration);
    // BatchNorm's statistics that later updates skip are those at the end of the burn-in.
    let { buffers } = this.#options.ema;
    if (buffers === 'skip' && !learned.pseudo) buffers = 'copy';
    const ema = momentum === null ? null : { momentum, buffers };
    return { ...(await this.#update(lr, learned, ema)), emaMomentum: momentum };
  }

  /** The student's step, then the teacher's; a teacher that can takes both at once, see stepStudent(). */
  async #update(
    lr: number,
    learned: Learned,
    ema: { momentum: number; buffers: BufferPolicy } | null,
  ): Promise<Omit<StepReport, 'emaMomentum'>> {
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
        await this.#reportOf(learned);
      throw error;
    }
    const report = await this.#reportOf(learned);
    if (ema && !together) await teacher.ema(student, ema.momentum, { buffers: ema.buffers });
    return { ...report, gradNorm };
  }

  /** The student does not have to be waited for before its values are wanted. */
  get #deferred(): boolean {
    return Boolean(this.student.forward && this.student.lossValues);
  }

  /** Of all processes; what the student has still is read. @throws MixplError ERR_DIVERGED */
  async #reportOf({ passes, pseudo }: Learned): Promise<LossReport & Pick<StepReport, 'pseudo'>> {
    const waiting = passes.filter((pass) => !pass.silent && !pass.values);
    // The last ones: whoever had the student before may have left some.
    const later = waiting.length ? (await this.student.lossValues!()).slice(-waiting.length) : [];
    waiting.forEach((pass, i) => {
      pass.values = later[i] ?? {};
    });
    const own: Learned = { passes, pseudo };
    const all = this.#processes ? await this.#processes.allGather(own) : [own];
    return {
      ...this.#losses.of(all.flatMap((one) => one.passes)),
      pseudo: sumReports(all.flatMap((one) => one.pseudo ?? [])),
    };
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
