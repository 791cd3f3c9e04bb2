import {
  type ComposeOptions,
  type Composition,
  composeBatch,
  compositionOf,
  type Instances,
  joinInstances,
  type LabelledComposition,
  type LabelledView,
  type PreprocessOptions,
  projectInstances,
  selectInstances,
  type View,
} from '../augment/index.js';
import type { ImageBatch, TeachableDetector } from '../detector/types.js';
import { MixplError } from '../errors.js';
import type { Random } from '../random.js';
import { type Branch, type MixingPolicy, MixPL } from './mixpl.js';
import { emaMomentum, type SemiOptions } from './options.js';

/** Two independently drawn views of one picture without annotations. */
export interface UnlabelledPair {
  /** For the teacher. */
  readonly weak: View;
  /** For the student. */
  readonly strong: View;
  /** Which picture of the unlabelled data set this is; kept in the cache for checkpoints. */
  readonly image: number;
}

/** A pseudo-labelled strong view with where it came from. */
export interface CachedView extends LabelledView {
  readonly image: number;
}

/** What the teacher found in one step, after the score threshold. */
export interface PseudoLabelReport {
  images: number;
  boxes: number;
  emptyImages: number;
  /** NaN without boxes. */
  meanScore: number;
  perClass: number[];
  /** COCO's small, medium and large, by area in the original picture. */
  bySize: [small: number, medium: number, large: number];
}

export interface StepReport {
  /** Named losses, weighted as they entered the sum. */
  losses: Record<string, number>;
  /** Their sum: what was minimised. */
  total: number;
  gradNorm: number;
  /** Student share of the EMA update after this step, or null. */
  emaMomentum: number | null;
  /** Null while only labelled pictures are learned from. */
  pseudo: PseudoLabelReport | null;
  /** Branches that the empty-image rule silenced. */
  silenced: string[];
}

export interface StepInput {
  /** 0-based, since the teacher started. */
  iteration: number;
  lr: number;
  labelled: readonly LabelledView[];
  /** Empty: a supervised step. */
  unlabelled: readonly UnlabelledPair[];
  random: Random;
}

export interface MeanTeacherSetup {
  student: TeachableDetector;
  teacher: TeachableDetector;
  options: SemiOptions;
  preprocess: PreprocessOptions;
  /** Type of the images that the detector takes. */
  dtype: ComposeOptions['dtype'];
  policy?: MixingPolicy<CachedView>;
}

/**
 * DetMeanTeacher: a student trained by gradient, a teacher that is its moving average and labels the
 * pictures that nobody annotated. Knows no concrete detector. Order of a step: reference-facts 1.2.
 */
export class MeanTeacher {
  readonly student: TeachableDetector;
  readonly teacher: TeachableDetector;
  readonly policy: MixingPolicy<CachedView>;
  readonly #options: SemiOptions;
  readonly #preprocess: PreprocessOptions;
  readonly #dtype: ComposeOptions['dtype'];

  constructor(setup: MeanTeacherSetup) {
    this.student = setup.student;
    this.teacher = setup.teacher;
    this.policy = setup.policy ?? new MixPL(setup.options);
    this.#options = setup.options;
    this.#preprocess = setup.preprocess;
    this.#dtype = setup.dtype;
  }

  /**
   * One iteration: labelled loss, teacher's labels, mixed losses, update, EMA. Each branch goes back
   * as soon as it went forward, so that only one graph is in memory; the sum of gradients is the same.
   * @throws MixplError ERR_DIVERGED when a loss or the gradient is not finite; nothing was updated
   */
  async step(input: StepInput): Promise<StepReport> {
    const losses: Record<string, number> = {};
    const silenced: string[] = [];
    if (input.labelled.length > 0) {
      const samples = input.labelled.map(({ view, instances }) => ({
        composition: compositionOf(view),
        instances,
      }));
      await this.#learn(samples, 'image', 'sup_', this.#options.supWeight, losses);
    }
    let pseudo: PseudoLabelReport | null = null;
    if (input.unlabelled.length > 0) {
      const strong = await this.#label(input.unlabelled);
      pseudo = this.#report(strong);
      const { padDivisor } = this.#preprocess;
      for (const branch of this.policy.branches(strong, padDivisor, input.random)) {
        if (!(await this.#learnPseudo(branch, losses))) silenced.push(branch.name);
      }
    }
    const total = Object.values(losses).reduce((sum, value) => sum + value, 0);
    const { gradNorm } = await this.student.step({ lr: input.lr });
    const momentum = emaMomentum(this.#options.ema, input.iteration);
    if (momentum !== null)
      await this.teacher.ema(this.student, momentum, { buffers: this.#options.ema.buffers });
    return { losses, total, gradNorm, emaMomentum: momentum, pseudo, silenced };
  }

  /** Teacher := student, buffers too: the start of semi-supervised training. */
  async startTeacher(): Promise<void> {
    await this.teacher.ema(this.student, 1, { buffers: 'copy' });
  }

  /** The teacher's boxes on the weak views, mapped to the strong ones; all scores are kept. */
  async #label(pairs: readonly UnlabelledPair[]): Promise<CachedView[]> {
    const batch = await this.#compose(
      pairs.map((pair) => compositionOf(pair.weak)),
      'image',
    );
    try {
      const found = await this.teacher.predict(batch);
      return pairs.map((pair, i) => ({
        view: pair.strong,
        image: pair.image,
        instances: projectInstances(found[i]!, pair.weak, pair.strong, this.#options.minBoxSize),
      }));
    } finally {
      batch.dispose();
    }
  }

  async #learnPseudo(branch: Branch, losses: Record<string, number>): Promise<boolean> {
    const { scoreThr, emptyImages, leastBoxes, unsupWeight } = this.#options;
    const weight = unsupWeight * branch.weight;
    let samples = branch.samples.map(({ composition, instances }) => ({
      composition,
      instances: selectInstances(instances, (i) => instances.scores[i]! > scoreThr),
    }));
    const enough = (s: LabelledComposition) => s.instances.labels.length >= leastBoxes;
    if (emptyImages === 'per-image') samples = samples.filter(enough);
    const silent =
      weight === 0 ||
      samples.length === 0 ||
      (emptyImages === 'branch-gate' && !samples.every(enough));
    // A silenced branch has weight 0 in the reference, too; here its passes are saved.
    if (silent) return false;
    await this.#learn(samples, 'batch', branch.name, weight, losses);
    return true;
  }

  async #learn(
    samples: readonly LabelledComposition[],
    padTo: ComposeOptions['padTo'],
    prefix: string,
    weight: number,
    losses: Record<string, number>,
  ): Promise<void> {
    const batch = await this.#compose(
      samples.map((s) => s.composition),
      padTo,
    );
    try {
      const values = await this.student.loss(
        batch,
        samples.map((s) => ({ boxes: s.instances.boxes, labels: s.instances.labels })),
      );
      for (const [name, value] of Object.entries(values)) {
        losses[prefix + name] = weight * value;
        if (!Number.isFinite(value)) {
          await this.student.discard();
          throw new MixplError(
            'ERR_DIVERGED',
            `training: ${prefix}${name} must be finite, got ${value}`,
          );
        }
      }
      await this.student.backward({ weight });
    } finally {
      batch.dispose();
    }
  }

  #compose(
    compositions: readonly Composition[],
    padTo: ComposeOptions['padTo'],
  ): Promise<ImageBatch> {
    return composeBatch(compositions, { ...this.#preprocess, dtype: this.#dtype, padTo });
  }

  #report(strong: readonly CachedView[]): PseudoLabelReport {
    const kept = strong.map(({ view, instances }) => ({
      view,
      instances: selectInstances(instances, (i) => instances.scores[i]! > this.#options.scoreThr),
    }));
    const all: Instances = joinInstances(kept.map((k) => k.instances));
    const perClass = new Array<number>(this.student.numClasses).fill(0);
    for (const label of all.labels) perClass[label]!++;
    const bySize: [number, number, number] = [0, 0, 0];
    for (const { view, instances } of kept) {
      const [a, b, , c, d] = view.matrix;
      const zoom = Math.abs(a * d - b * c);
      for (let i = 0; i < instances.labels.length; i++) {
        const [x1, y1, x2, y2] = instances.boxes.subarray(4 * i, 4 * i + 4);
        const area = ((x2! - x1!) * (y2! - y1!)) / zoom;
        bySize[area < 32 ** 2 ? 0 : area < 96 ** 2 ? 1 : 2]++;
      }
    }
    return {
      images: strong.length,
      boxes: all.labels.length,
      emptyImages: kept.filter((k) => k.instances.labels.length === 0).length,
      meanScore: all.scores.reduce((sum, s) => sum + s, 0) / all.scores.length,
      perClass,
      bySize,
    };
  }
}
