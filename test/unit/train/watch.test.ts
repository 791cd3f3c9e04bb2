import { describe, expect, test } from 'vitest';
import { type DetectorOptions, objectLimits } from '../../../lib/detector/options.js';
import type { StepReport } from '../../../lib/semi/index.js';
import {
  batchWarning,
  crowdedWarning,
  paperBatches,
  recipeFor,
  TrainingWatch,
} from '../../../lib/train/watch.js';
import { tinyData } from './tiny-data.js';

function report(
  changes: Partial<NonNullable<StepReport['pseudo']>> = {},
  silenced: Record<string, number> = {},
) {
  return {
    losses: { sup_loss_cls: 1, mixup_unsup_loss_cls: Object.keys(silenced).length ? 0 : 0.5 },
    total: 1,
    gradNorm: 1,
    emaMomentum: null,
    silenced,
    pseudo: {
      images: 4,
      boxes: 3,
      emptyImages: 1,
      meanScore: 0.5,
      bestScore: 0.6,
      perClass: [3],
      bySize: [3, 0, 0] as [number, number, number],
      truth: null,
      ...changes,
    },
  } satisfies StepReport;
}
const nothing = report(
  { boxes: 0, emptyImages: 4, meanScore: null, bestScore: 0.21 },
  { mixup_unsup_: 1 },
);

function warn(watch: TrainingWatch, reports: StepReport[]) {
  return reports.map((r) => watch.afterStep(r).map((w) => w.code));
}

describe('pseudo labels', () => {
  test('a warning after N iterations without one, and again after N more', () => {
    const watch = new TrainingWatch({ scoreThr: 0.4, patience: 3 });
    const codes = warn(
      watch,
      Array.from({ length: 7 }, () => nothing),
    );
    expect(codes).toEqual([[], [], ['no-pseudo-labels'], [], [], ['no-pseudo-labels'], []]);
  });

  test('it says threshold, count and the best score', () => {
    const watch = new TrainingWatch({ scoreThr: 0.4, patience: 1 });
    expect(watch.afterStep(nothing)[0]!.message).toMatch(
      /no pseudo label above 0.4 for 1 iterations \(best score 0.210\)/,
    );
  });

  test('hardly any: a picture in twenty is enough; supervised steps do not count', () => {
    const one = report({ boxes: 1, emptyImages: 3 });
    const supervised = { ...report(), pseudo: null };
    const codes = (reports: StepReport[]) =>
      warn(new TrainingWatch({ scoreThr: 0.4, patience: 6 }), reports).flat();
    expect(codes([nothing, one, nothing, nothing, supervised, nothing, nothing])).toEqual([
      'no-pseudo-labels',
    ]);
    expect(codes([nothing, one, nothing, one, nothing, nothing, nothing])).toEqual([]);
    const watch = new TrainingWatch({ scoreThr: 0.4, patience: 6 });
    const messages = [one, ...Array(5).fill(nothing)].flatMap((r) => watch.afterStep(r));
    expect(messages[0]!.message).toMatch(
      /^only 1 of 24 images had a pseudo label above 0.4 in 6 iterations \(best score 0.600\)/,
    );
  });

  test('the count survives a checkpoint', () => {
    const first = new TrainingWatch({ scoreThr: 0.4, patience: 3 });
    warn(first, [nothing, nothing]);
    const second = new TrainingWatch({ scoreThr: 0.4, patience: 3 });
    second.state = JSON.parse(JSON.stringify(first.state));
    expect(warn(second, [nothing])).toEqual([['no-pseudo-labels']]);
  });

  test('labels that the branch gate never lets through', () => {
    const watch = new TrainingWatch({ scoreThr: 0.4, patience: 2 });
    const gated = report({}, { mixup_unsup_: 1 });
    expect(warn(watch, [gated, gated, report(), gated])).toEqual([[], ['branch-silenced'], [], []]);
  });
});

describe('classes without pseudo labels', () => {
  const classes = [
    { name: 'common', perImage: 5 },
    { name: 'tail', perImage: 1 },
    { name: 'rare', perImage: 0.2 },
  ];
  const found = (...perClass: number[]) => report({ perClass });
  const watching = () => new TrainingWatch({ scoreThr: 0.4, classes, patience: 20 });
  const run = (watch: TrainingWatch, step: StepReport) =>
    Array.from({ length: 20 }, () => watch.afterStep(step)).flat();

  test('what the annotations have and pseudo labels lack is named, with both rates', () => {
    const warnings = run(watching(), found(20, 0, 0));
    expect(warnings).toMatchObject([{ code: 'class-without-pseudo-labels' }]);
    // 80 pictures would have 16 of the rare class: its absence may be chance.
    expect(warnings[0]!.message).toMatch(
      /^too few pseudo labels per image in 20 iterations: tail 0.00 \(annotated images have 1.00\): .*background/,
    );
  });

  test('a tenth of the rate is enough', () => {
    const watch = watching();
    const few = [...Array(19).fill(found(20, 0, 4)), found(20, 8, 4)];
    expect(few.flatMap((step) => watch.afterStep(step))).toEqual([]);
    const fewer = [...Array(19).fill(found(20, 0, 4)), found(20, 7, 4)];
    expect(fewer.flatMap((step) => watch.afterStep(step))).toHaveLength(1);
  });

  test('told once, again after it had recovered, across a checkpoint, too', () => {
    const first = watching();
    expect(run(first, found(20, 0, 4))).toHaveLength(1);
    const second = watching();
    second.state = JSON.parse(JSON.stringify(first.state));
    expect(run(second, found(20, 0, 4))).toEqual([]);
    expect(run(second, found(20, 4, 4))).toEqual([]);
    expect(run(second, found(20, 0, 4))).toHaveLength(1);
    const both = run(second, found(0, 0, 4));
    expect(both[0]!.message).toContain('common 0.00 (annotated images have 5.00), tail 0.00');
  });

  test('a window that an earlier version began is begun anew', () => {
    const { perClass: _, starved: __, ...before } = watching().state;
    const watch = watching();
    watch.state = { ...before, iterations: 18, images: 72, labelled: 72 } as never;
    expect(run(watch, found(20, 4, 4))).toEqual([]);
  });

  test('not where hardly any picture has a label: that is another warning', () => {
    const empty = report({ boxes: 0, emptyImages: 4, perClass: [0, 0, 0] });
    expect(run(watching(), empty).map((w) => w.code)).toEqual(['no-pseudo-labels']);
  });

  test('five classes by name, the others counted', () => {
    const many = Array.from({ length: 8 }, (_, i) => ({ name: `c${i}`, perImage: 1 }));
    const watch = new TrainingWatch({ scoreThr: 0.4, classes: many, patience: 20 });
    const [warning] = run(watch, report({ perClass: [4, ...Array(7).fill(0)] }));
    expect(warning!.message).toMatch(
      /: c1 0.00 .*, c5 0.00 \(annotated images have 1.00\) and 2 more:/,
    );
  });
});

test('a teacher far below its student', () => {
  const watch = new TrainingWatch({ scoreThr: 0.4 });
  const codes = (teacher: number, student: number) =>
    watch.afterValidation({ teacher, student }).map((w) => w.code);
  expect(codes(0, 0.3)).toEqual(['teacher-behind']);
  expect(codes(0.2, 0.3)).toEqual([]);
  expect(codes(0, 0.01)).toEqual([]);
  expect(codes(-1, -1)).toEqual([]);
});

describe('batch and learning rate', () => {
  const messages = (labelled: number, unlabelled: number, lr: number) => {
    const run = { labelled, unlabelled, lr };
    return batchWarning(run, recipeFor(run)).map(({ code, message }) => `${code}: ${message}`);
  };

  test("the paper's recipes are silent about themselves, and scaled by the linear rule", () => {
    for (const { labelled, unlabelled, lr } of paperBatches) {
      expect(messages(labelled, unlabelled, lr)).toEqual([]);
      expect(messages(labelled / 8, unlabelled / 8, lr / 8)).toEqual([]);
    }
  });
  test('one process with the rate of eight: the linear rule is named', () => {
    expect(messages(1, 4, 0.01)).toEqual([
      'batch-and-rate: learning rate 0.01 with 1 + 4 images per iteration (labelled + unlabelled); the recipe has 0.01 with 8 + 32: ' +
        'by the linear rule this batch needs 0.00125, or this rate needs 8 times as many parts (batch.accumulate)',
    ]);
    // Of 32 + 32 pictures, not of 8 + 32.
    expect(messages(4, 4, 0.01)[0]).toMatch(
      /has 0.01 with 32 \+ 32: .* needs 0.00125, or this rate needs 8 times/,
    );
  });
  test('without a teacher: 16 pictures, of which none is unlabelled', () => {
    expect(messages(16, 0, 0.01)).toEqual([]);
    expect(messages(2, 0, 0.0025)).toEqual([]);
    // No whole number of parts, or another rate.
    expect(messages(3, 0, 0.01)[0]).toMatch(/ needs 0.00187$/);
    expect(messages(2, 0, 0.02)[0]).toMatch(/ needs 0.00125$/);
    expect(messages(1, 0, 0.01)[0]).toMatch(
      /with 1 \+ 0 .* with 16 \+ 0: .* needs 0.000625, or this rate needs 16 times/,
    );
  });
  test('another ratio of the sources', () => {
    expect(messages(1, 12, 13 / 4000)).toEqual([
      'batch-and-rate: 1 labelled and 12 unlabelled images per iteration; the recipe has 8 and 32',
    ]);
    expect(messages(12, 4, 16 / 6400)).toEqual([
      'batch-and-rate: 12 labelled and 4 unlabelled images per iteration; the recipe has 32 and 32',
    ]);
  });
});

describe('pictures with many objects', () => {
  const { labelled, unlabelled } = tinyData({ labelled: 3 });
  const [first, ...others] = labelled.images;
  const crowd = Uint8Array.of(0, 1, 0, 0);
  const images = [{ ...first!, annotations: { ...first!.annotations!, crowd } }, ...others];
  const crowded = { ...labelled, images };
  const limit = (count: number) => ({ option: 'queries', count });

  test('are told when the detector cannot have as many; crowds do not count', () => {
    expect(crowdedWarning(crowded, limit(2), 'learned')).toEqual([
      {
        code: 'too-many-objects',
        message:
          '1 of 3 images of labelled have more objects (up to 3) than model.queries 2: the rest are not learned; raise it',
      },
    ]);
  });

  test('are nothing to tell of otherwise', () => {
    expect(crowdedWarning(crowded, limit(3), 'learned')).toEqual([]);
    expect(crowdedWarning(crowded, null, 'learned')).toEqual([]);
    expect(crowdedWarning(unlabelled, limit(1), 'found')).toEqual([]);
  });

  test('limits are those of the options that are given', () => {
    const dino = { type: 'dino', numClasses: 1, queries: 7 } as const;
    expect(objectLimits(dino)).toEqual({ learned: limit(7), found: null });
    const sparse = { type: 'sparse-rcnn', numClasses: 1, proposals: 5, test: { maxPerImage: 3 } };
    expect(objectLimits(sparse as DetectorOptions)).toEqual({
      learned: { option: 'proposals', count: 5 },
      found: { option: 'test.maxPerImage', count: 3 },
    });
    expect(objectLimits({ type: 'fcos', numClasses: 1 })).toEqual({ learned: null, found: null });
  });
});
