import type { StepReport } from '../semi/index.js';

export type WarningCode =
  | 'no-pseudo-labels'
  | 'branch-silenced'
  | 'teacher-behind'
  | 'buffers-skipped'
  | 'batch-and-rate'
  | 'unusable-image'
  | 'environment-changed';

/** Something that usually ends in a failed run, while it can still be helped. */
export interface TrainingWarning {
  code: WarningCode;
  message: string;
}

export interface WatchState {
  /** Iterations that are being counted, up to the patience; pictures in them, those with a pseudo label. */
  iterations: number;
  images: number;
  labelled: number;
  /** Highest score in them. */
  bestScore: number;
  /** Iterations in a row in which every branch was silenced. */
  silent: number;
}

const fresh = { iterations: 0, images: 0, labelled: 0, bestScore: 0 };

/** With fewer pictures than this share, pseudo labels teach next to nothing. */
const leastLabelled = 0.05;

/** Names the usual failures early: see reference-facts, section 11. */
export class TrainingWatch {
  readonly #scoreThr: number;
  readonly #patience: number;
  #state: WatchState = { ...fresh, silent: 0 };

  /** @param options.patience iterations before a warning, and again after as many. @defaultValue 200 */
  constructor(options: { scoreThr: number; patience?: number }) {
    this.#scoreThr = options.scoreThr;
    this.#patience = options.patience ?? 200;
  }

  get state(): WatchState {
    return { ...this.#state };
  }
  set state(state: WatchState) {
    this.#state = { ...this.#state, ...state };
  }

  afterStep({ pseudo, silenced, losses }: StepReport): TrainingWarning[] {
    if (!pseudo) return [];
    const state = this.#state;
    const warnings: TrainingWarning[] = [];
    state.iterations++;
    state.images += pseudo.images;
    state.labelled += pseudo.images - pseudo.emptyImages;
    state.bestScore = Math.max(state.bestScore, pseudo.bestScore ?? 0);
    if (state.iterations === this.#patience) {
      if (state.labelled < leastLabelled * state.images)
        warnings.push({ code: 'no-pseudo-labels', message: this.#withoutLabels(state) });
      Object.assign(state, fresh);
    }
    const learned = Object.keys(losses).some((name) => name.includes('unsup_') && losses[name]);
    const silent = silenced.length > 0 && !learned;
    state.silent = silent && pseudo.boxes > 0 ? state.silent + 1 : 0;
    if (state.silent > 0 && state.silent % this.#patience === 0)
      warnings.push({
        code: 'branch-silenced',
        message:
          `pseudo labels were found but not used for ${state.silent} iterations: each time one picture of the batch had none ` +
          "(semi.emptyImageRule branch-gate); try semi.emptyImageRule 'per-image'",
      });
    return warnings;
  }

  #withoutLabels({ iterations, images, labelled, bestScore }: WatchState): string {
    const best = `best score ${bestScore.toFixed(3)}`;
    const what = labelled
      ? `only ${labelled} of ${images} pictures had a pseudo label above ${this.#scoreThr} in ${iterations} iterations (${best}): the student learns next to nothing from the others`
      : `no pseudo label above ${this.#scoreThr} for ${iterations} iterations (${best}): the student learns from labelled pictures alone`;
    return `${what}; try a longer semi.burnIn, a lower semi.scoreThr, or weights of a supervised run`;
  }

  afterValidation(ap: { teacher: number; student: number }): TrainingWarning[] {
    if (!(ap.student >= 0.02 && ap.teacher < 0.5 * ap.student)) return [];
    return [
      {
        code: 'teacher-behind',
        message:
          `the teacher's AP (${ap.teacher.toFixed(3)}) is far below the student's (${ap.student.toFixed(3)}): ` +
          'its average is too slow for this schedule (raise semi.ema.momentum), or live BatchNorm statistics ' +
          'are not averaged (semi.ema.buffers)',
      },
    ];
  }
}

/** A batch and the learning rate that was tuned for it. */
export interface BatchAndRate {
  labelled: number;
  unlabelled: number;
  lr: number;
}

/** The paper's: SGD, 8 processes of 1 + 4 pictures (reference-facts, section 9, and issue 10 there). */
export const paperBatch: BatchAndRate = { labelled: 8, unlabelled: 32, lr: 0.01 };

/** Compares a run with a recipe: the linear rule wants the rate to follow the batch. */
export function batchWarning(run: BatchAndRate, recipe: BatchAndRate): TrainingWarning[] {
  const size = (b: BatchAndRate) => b.labelled + b.unlabelled;
  const wanted = (recipe.lr * size(run)) / size(recipe);
  const warnings: TrainingWarning[] = [];
  if (run.lr > 2 * wanted || run.lr < wanted / 2)
    warnings.push({
      code: 'batch-and-rate',
      message:
        `learning rate ${run.lr} with ${run.labelled} + ${run.unlabelled} pictures an iteration; ` +
        `the recipe has ${recipe.lr} with ${recipe.labelled} + ${recipe.unlabelled}: by the linear rule this batch wants ${Number(wanted.toPrecision(3))}`,
    });
  const ratio = (b: BatchAndRate) => b.unlabelled / b.labelled;
  if (ratio(run) > 2 * ratio(recipe) || ratio(run) < ratio(recipe) / 2)
    warnings.push({
      code: 'batch-and-rate',
      message: `${run.labelled} labelled to ${run.unlabelled} unlabelled pictures an iteration; the recipe has ${recipe.labelled} to ${recipe.unlabelled}`,
    });
  return warnings;
}
