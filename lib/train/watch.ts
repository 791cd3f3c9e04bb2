import type { DetectionDataset } from '../data/types.js';
import type { ObjectLimit } from '../detector/options.js';
import type { StepReport } from '../semi/index.js';

/** What a warning is about; stable. */
export type WarningCode =
  | 'no-pseudo-labels'
  | 'class-without-pseudo-labels'
  | 'branch-silenced'
  | 'teacher-behind'
  | 'buffers-skipped'
  | 'batch-and-rate'
  | 'nothing-to-find'
  | 'too-many-objects'
  | 'unusable-image'
  | 'size-mismatch'
  | 'environment-changed'
  | 'report-not-written';

/** Something that usually ends in a failed run, while it can still be helped. */
export interface TrainingWarning {
  code: WarningCode;
  message: string;
}

/** What the watch has counted; part of a checkpoint. */
export interface WatchState {
  /** Iterations that are being counted, up to the patience; images in them, those with a pseudo label. */
  iterations: number;
  images: number;
  labelled: number;
  /** Highest score in them. */
  bestScore: number;
  /** [K] pseudo labels in them, by class. */
  perClass: number[];
  /** [K] classes that a warning has named; one that recovers is forgotten. */
  starved: boolean[];
  /** Iterations in a row in which every branch was silenced. */
  silent: number;
}

const fresh = { iterations: 0, images: 0, labelled: 0, bestScore: 0, perClass: [] as number[] };

/** With fewer images than this share, pseudo labels teach next to nothing. */
const leastLabelled = 0.05;
/** A class with less than this share of the annotations' rate is unlearned: its objects count as background. */
const leastOfClass = 0.1;
/** Annotations of a class that as many images must make us expect before its absence says anything. */
const leastExpected = 50;
/** Classes that a warning names. */
const namedClasses = 5;

/** A class and how many boxes of it an annotated image has. */
export interface ClassRate {
  name: string;
  perImage: number;
}

/** Names the usual failures early: starving classes, silent branches, rates that do not fit. */
export class TrainingWatch {
  readonly #scoreThr: number;
  readonly #patience: number;
  readonly #classes: readonly ClassRate[];
  #state: WatchState = { ...fresh, starved: [], silent: 0 };

  /**
   * @param options.classes by label; classes that starve are named when given
   * @param options.patience iterations before a warning, and again after as many. @defaultValue 200
   */
  constructor(options: { scoreThr: number; classes?: readonly ClassRate[]; patience?: number }) {
    this.#scoreThr = options.scoreThr;
    this.#classes = options.classes ?? [];
    this.#patience = options.patience ?? 200;
  }

  get state(): WatchState {
    return { ...this.#state };
  }
  set state(state: WatchState) {
    // One without counts by class, of an earlier version, starts its window anew.
    const window = state.perClass ? {} : fresh;
    this.#state = { ...this.#state, ...state, ...window };
  }

  afterStep({ pseudo, silenced, losses }: StepReport): TrainingWarning[] {
    if (!pseudo) return [];
    const state = this.#state;
    const warnings: TrainingWarning[] = [];
    state.iterations++;
    state.images += pseudo.images;
    state.labelled += pseudo.images - pseudo.emptyImages;
    state.bestScore = Math.max(state.bestScore, pseudo.bestScore ?? 0);
    state.perClass = pseudo.perClass.map((count, label) => count + (state.perClass[label] ?? 0));
    if (state.iterations === this.#patience) {
      if (state.labelled < leastLabelled * state.images)
        warnings.push({ code: 'no-pseudo-labels', message: this.#withoutLabels(state) });
      else warnings.push(...this.#starvedClasses(state));
      Object.assign(state, fresh);
    }
    const learned = Object.keys(losses).some((name) => name.includes('unsup_') && losses[name]);
    const silent = Object.keys(silenced).length > 0 && !learned;
    state.silent = silent && pseudo.boxes > 0 ? state.silent + 1 : 0;
    if (state.silent > 0 && state.silent % this.#patience === 0)
      warnings.push({
        code: 'branch-silenced',
        message:
          `pseudo labels were found but not used for ${state.silent} iterations: each time at least one image of the batch had none ` +
          "(semi.emptyImageRule branch-gate); try semi.emptyImageRule 'per-image'",
      });
    return warnings;
  }

  #withoutLabels({ iterations, images, labelled, bestScore }: WatchState): string {
    const best = `best score ${bestScore.toFixed(3)}`;
    const what = labelled
      ? `only ${labelled} of ${images} images had a pseudo label above ${this.#scoreThr} in ${iterations} iterations (${best}): the student learns next to nothing from the others`
      : `no pseudo label above ${this.#scoreThr} for ${iterations} iterations (${best}): the student learns from labelled images alone`;
    return `${what}; try a longer semi.burnIn, a lower semi.scoreThr, or weights of a supervised run`;
  }

  /** Told once, until a class has recovered: many runs live with a class that nothing finds. */
  #starvedClasses(state: WatchState): TrainingWarning[] {
    const { images, perClass, iterations } = state;
    const now = this.#classes.map(
      ({ perImage }, label) =>
        perImage * images >= leastExpected && perClass[label]! < leastOfClass * perImage * images,
    );
    const told = state.starved;
    state.starved = now;
    const news = this.#classes.filter((_, label) => now[label] && !told[label]);
    if (news.length === 0) return [];
    const rates = this.#classes.flatMap(({ name, perImage }, label) =>
      now[label]
        ? `${name} ${(perClass[label]! / images).toFixed(2)} (annotated images have ${perImage.toFixed(2)})`
        : [],
    );
    const more = rates.length > namedClasses ? ` and ${rates.length - namedClasses} more` : '';
    return [
      {
        code: 'class-without-pseudo-labels',
        message:
          `too few pseudo labels per image in ${iterations} iterations: ${rates.slice(0, namedClasses).join(', ')}${more}: ` +
          'the student learns such objects as background; try a longer semi.burnIn, semi.resampling, or ' +
          'annotate more images with them',
      },
    ];
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

/** Images of an iteration and the learning rate that was tuned for them. */
export interface BatchAndRate {
  labelled: number;
  unlabelled: number;
  lr: number;
}

/**
 * The paper's, all with SGD on 8 processes: 1 + 4 images each (COCO-Standard), 4 + 4 (COCO-Full and
 * VOC-Mixture).
 * @source arXiv:2312.07006 and MixPL's configs
 */
export const paperBatches: readonly BatchAndRate[] = [
  { labelled: 8, unlabelled: 32, lr: 0.01 },
  { labelled: 32, unlabelled: 32, lr: 0.01 },
];
/** mmdetection's for one-stage detectors without a teacher: 8 processes of 2 images; two-stage ones take twice the rate. */
const supervisedBatch: BatchAndRate = { labelled: 16, unlabelled: 0, lr: 0.01 };

/** Of an iteration: all its parts. */
export function picturesOf(
  {
    labelled,
    unlabelled,
    accumulate,
  }: Pick<BatchAndRate, 'labelled' | 'unlabelled'> & { accumulate: number },
  { supervised }: { supervised: boolean },
): Pick<BatchAndRate, 'labelled' | 'unlabelled'> {
  return {
    labelled: accumulate * labelled,
    unlabelled: supervised ? 0 : accumulate * unlabelled,
  };
}

/** The recipe with the ratio of labelled to unlabelled images that is closest to the batch's. */
export function recipeFor(batch: { labelled: number; unlabelled: number }): BatchAndRate {
  if (batch.unlabelled === 0) return supervisedBatch;
  const ratio = (b: typeof batch) => Math.log(b.unlabelled / b.labelled);
  const away = (recipe: BatchAndRate) => Math.abs(ratio(recipe) - ratio(batch));
  return paperBatches.reduce((best, recipe) => (away(recipe) < away(best) ? recipe : best));
}

/** Compares a run with a recipe: the linear rule wants the rate to follow the batch. */
export function batchWarning(run: BatchAndRate, recipe: BatchAndRate): TrainingWarning[] {
  const size = (b: BatchAndRate) => b.labelled + b.unlabelled;
  const wanted = (recipe.lr * size(run)) / size(recipe);
  const times = size(recipe) / size(run);
  const more =
    run.lr === recipe.lr && times > 1 && Number.isInteger(times)
      ? `, or this rate needs ${times} times as many parts (batch.accumulate)`
      : '';
  const warnings: TrainingWarning[] = [];
  if (run.lr > 2 * wanted || run.lr < wanted / 2)
    warnings.push({
      code: 'batch-and-rate',
      message:
        `learning rate ${run.lr} with ${run.labelled} + ${run.unlabelled} images per iteration (labelled + unlabelled); ` +
        `the recipe has ${recipe.lr} with ${recipe.labelled} + ${recipe.unlabelled}: ` +
        `by the linear rule this batch needs ${Number(wanted.toPrecision(3))}${more}`,
    });
  const ratio = (b: BatchAndRate) => b.unlabelled / b.labelled;
  if (ratio(run) > 2 * ratio(recipe) || ratio(run) < ratio(recipe) / 2)
    warnings.push({
      code: 'batch-and-rate',
      message: `${run.labelled} labelled and ${run.unlabelled} unlabelled images per iteration; the recipe has ${recipe.labelled} and ${recipe.unlabelled}`,
    });
  return warnings;
}

/**
 * Warns when annotated images have more objects than the detector can learn or find.
 * @param cannot what happens to the others, as in 'learned'
 */
export function crowdedWarning(
  { name, images }: DetectionDataset,
  limit: ObjectLimit | null,
  cannot: 'learned' | 'found',
): TrainingWarning[] {
  if (!limit) return [];
  const objects = images.map(({ annotations }) =>
    annotations ? annotations.crowd.filter((crowd) => !crowd).length : 0,
  );
  const over = objects.filter((count) => count > limit.count);
  if (over.length === 0) return [];
  const most = over.reduce((a, b) => Math.max(a, b));
  return [
    {
      code: 'too-many-objects',
      message:
        `${over.length} of ${images.length} images of ${name} have more objects (up to ${most}) than ` +
        `model.${limit.option} ${limit.count}: the rest are not ${cannot}; raise it`,
    },
  ];
}
