import { beforeEach, describe, expect, test, vi } from 'vitest';
import { drawView, flipping, type View } from '../../../lib/augment/index.js';
import { MixplError } from '../../../lib/errors.js';
import { invert3, multiply3 } from '../../../lib/geometry.js';
import { loadNative } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import {
  MeanTeacher,
  type PreparedBatches,
  resolveSemiOptions,
  type SemiChanges,
  type StepInput,
} from '../../../lib/semi/index.js';
import {
  type Call,
  DeferredDetector,
  detections,
  FakeDetector,
  PatientTeacher,
  SteppingTeacher,
} from './fake-detector.js';
import { picture, plainPair, plainView } from './pictures.js';

const preprocess = {
  mean: [0, 0, 0],
  std: [1, 1, 1],
  channelOrder: 'rgb',
  padDivisor: 32,
} as const;

let calls: Call[];
let student: FakeDetector;
let teacher: FakeDetector;

beforeEach(() => {
  calls = [];
  student = new FakeDetector({ who: 'student', calls });
  teacher = new FakeDetector({ who: 'teacher', calls });
  teacher.predict_ = (batch) => batch.sizes.map(() => detections([8, 8, 40, 40, 0.9, 1]));
});

function meanTeacher(changes: SemiChanges = {}) {
  const options = resolveSemiOptions({ erase: null, ...changes });
  return new MeanTeacher({ student, teacher, options, preprocess, dtype: 'f32' });
}

const labelled = [
  {
    view: plainView(picture(200)),
    instances: {
      boxes: Float32Array.of(1, 2, 30, 40),
      labels: Int32Array.of(2),
      scores: Float32Array.of(1),
    },
  },
];

/** What the only part of a step learns from. */
function part(step: number, { pairs = [0, 1, 2, 3].map((i) => plainPair(4 * step + i)) } = {}) {
  return { labelled, unlabelled: pairs, random: new Random(3).fork('mixing', step) };
}

const input = (step: number, pairs?: Parameters<typeof part>[1]) =>
  inputOf(step, [part(step, pairs)]);
const inputOf = (step: number | null, parts: StepInput['parts']): StepInput => ({
  ...{ iteration: step, lr: 0.01, parts },
});

/** Short form of the recorded calls. */
const told = () => calls.map((c) => `${c.who}.${c.what}${'weight' in c ? ` ${c.weight}` : ''}`);

describe('order of a step', () => {
  test('each branch goes back before the next goes forward; weights 1, 2 and 2 × 0.5', async () => {
    const loop = meanTeacher();
    for (const step of [0, 1]) await loop.step(input(step));
    calls.length = 0;
    const report = await loop.step(input(2));
    expect(told()).toEqual([
      'student.loss',
      'student.backward 1',
      'teacher.predict',
      'student.loss',
      'student.backward 2',
      'student.loss',
      'student.backward 1',
      'student.step',
      'teacher.ema',
    ]);
    expect(calls.at(-2)).toMatchObject({ lr: 0.01 });
    expect(calls.at(-1)!.momentum).toBeCloseTo(4 / 6, 12);
    expect(report.emaMomentum).toBeCloseTo(4 / 6, 12);
    expect(Object.keys(report.losses).filter((n) => n.includes('loss'))).toEqual([
      'sup_loss_cls',
      'sup_loss_bbox',
      'mixup_unsup_loss_cls',
      'mixup_unsup_loss_bbox',
      'mosaic_unsup_loss_cls',
      'mosaic_unsup_loss_bbox',
    ]);
  });

  test('a teacher whose boxes can be read later is asked first; the step is the same', async () => {
    const steps = [0, 1, 2];
    const reports = [];
    for (const Teacher of [FakeDetector, PatientTeacher]) {
      student = new FakeDetector({ who: 'student', calls });
      const found = teacher.predict_;
      teacher = new Teacher({ who: 'teacher', calls });
      teacher.predict_ = found;
      const loop = meanTeacher();
      calls.length = 0;
      const own = [];
      for (const step of steps) own.push(await loop.step(input(step)));
      reports.push({ own, weights: [student.weight, teacher.weight] });
    }
    expect(reports[1]).toEqual(reports[0]);
    expect(told().slice(0, 5)).toEqual([
      'teacher.predictLater',
      'student.loss',
      'student.backward 1',
      'teacher.predictions',
      'student.loss',
    ]);
  });

  test('boxes that a failed step did not read are not those of the next one', async () => {
    teacher = new PatientTeacher({ who: 'teacher', calls });
    const loop = meanTeacher();
    let score = 0.6;
    teacher.predict_ = (batch) => batch.sizes.map(() => detections([8, 8, 40, 40, score, 1]));
    student.nextLoss = Number.NaN;
    await expect(loop.step(input(0))).rejects.toMatchObject({ code: 'ERR_DIVERGED' });
    score = 0.9;
    const { pseudo } = await loop.step(input(1));
    expect(pseudo!.bestScore).toBeCloseTo(0.9, 6);
  });

  test('the total is the sum of the losses, without other numbers', async () => {
    const { losses, total } = await meanTeacher().step(input(0));
    expect(losses.sup_acc).toBe(7);
    const sum =
      losses.sup_loss_cls! +
      losses.sup_loss_bbox! +
      losses.mixup_unsup_loss_cls! +
      losses.mixup_unsup_loss_bbox!;
    expect(total).toBe(sum);
  });

  test("of losses with torchvision's names, too", async () => {
    const { losses: ours, total } = await meanTeacher().step(input(0));
    const renamed = new FakeDetector({ who: 'student', calls: [] });
    const loss = renamed.loss.bind(renamed);
    renamed.loss = async (...pass) => {
      const { loss_cls, loss_bbox, ...rest } = await loss(...pass);
      return { classification: loss_cls!, bbox_regression: loss_bbox!, ...rest };
    };
    student = renamed;
    const theirs = await meanTeacher().step(input(0));
    expect(theirs.total).toBe(total);
    expect(theirs.losses.mixup_unsup_classification).toBe(ours.mixup_unsup_loss_cls);
  });

  test('every weight is an option', async () => {
    const loop = meanTeacher({ supWeight: 3, unsupWeight: 5, mosaicWeight: 0.25 });
    for (const step of [0, 1, 2]) await loop.step(input(step));
    const weights = calls.filter((c) => c.what === 'backward').map((c) => c.weight);
    expect(weights).toEqual([3, 5, 3, 5, 3, 5, 1.25]);
  });

  test('without unlabelled pictures or a teacher only the student learns', async () => {
    const report = await meanTeacher().step({ ...input(0, { pairs: [] }), iteration: null });
    expect(told()).toEqual(['student.loss', 'student.backward 1', 'student.step']);
    expect(report).toMatchObject({ pseudo: null, emaMomentum: null, silenced: {} });
  });

  test('in a burn-in the teacher averages, and buffers that are skipped later are copied', async () => {
    const policies = ['skip', 'copy', 'average'] as const;
    for (const buffers of policies) {
      const loop = meanTeacher({ ema: { interval: 1, gamma: 4, momentum: 0, buffers } });
      await loop.step({ ...input(0, { pairs: [] }), iteration: 4 });
      await loop.step({ ...input(0), iteration: 5 });
    }
    const emas = calls.filter((c) => c.what === 'ema');
    expect(emas.map((c) => c.momentum)).toEqual(policies.flatMap(() => [4 / 8, 4 / 9]));
    expect(emas.map((c) => c.buffers)).toEqual([
      'copy',
      'skip',
      'copy',
      'copy',
      'average',
      'average',
    ]);
  });

  test('the labelled batch pads per image, pseudo-labelled ones as a batch', async () => {
    const small = plainView(picture(9, { width: 20, height: 20 }));
    const loop = meanTeacher();
    const shown = {
      labelled: [...labelled, { ...labelled[0]!, view: small }],
      unlabelled: [plainPair(1), { weak: small, strong: small, image: 2 }],
    };
    await loop.step(inputOf(0, [{ ...part(0), ...shown }]));
    const [sup, unsup] = calls.filter((c) => c.what === 'loss');
    expect(sup!.padSizes).toEqual([
      { width: 64, height: 64 },
      { width: 32, height: 32 },
    ]);
    expect(unsup!.padSizes).toEqual([
      { width: 64, height: 64 },
      { width: 64, height: 64 },
    ]);
  });
});

describe('pseudo labels', () => {
  const unmixed = { mixup: false, mosaic: false } as const;

  test('only scores strictly above the threshold are learned from', async () => {
    const thr = Math.fround(0.4);
    teacher.predict_ = () => [
      detections([8, 8, 40, 40, thr, 0], [8, 8, 40, 40, 0.41, 1], [8, 8, 40, 40, 0.1, 2]),
    ];
    await meanTeacher({ ...unmixed, scoreThr: thr }).step(input(0, { pairs: [plainPair(1)] }));
    expect(calls.filter((c) => c.what === 'loss')[1]!.labels).toEqual([[1]]);
  });

  test('the cache keeps the scores below the threshold', async () => {
    teacher.predict_ = (batch) => batch.sizes.map(() => detections([8, 8, 40, 40, 0.06, 0]));
    const loop = meanTeacher();
    await loop.step(input(0));
    expect(loop.policies[0]!.cache.map((c) => [...c.instances.scores])).toEqual(
      Array.from({ length: 4 }, () => [Math.fround(0.06)]),
    );
  });

  test('boxes go weak → original, clipped → strong', async () => {
    const source = picture(5, { width: 100, height: 80 });
    const weak = plainView(source);
    const mirrored = mapped(plainView(source), (view) => multiply3(flipping(100), view.matrix));
    // Half of the box hangs out of the picture: clipped in the original before it is mirrored.
    teacher.predict_ = () => [detections([-20, 10, 20, 30, 0.9, 0])];
    await meanTeacher(unmixed).step(
      input(0, { pairs: [{ weak: mirrored, strong: weak, image: 5 }] }),
    );
    expect(calls.filter((c) => c.what === 'loss')[1]!.boxes).toEqual([[80, 10, 100, 30]]);
  });

  test('a random pair of views puts a box where the object is', async () => {
    const source = picture(5, { width: 100, height: 80 });
    const draw = (name: string) =>
      drawView(
        source,
        {
          resize: { long: 150, short: [40, 120] },
          flip: 0.5,
          color: [],
          geometric: ['translate-x', 'translate-y'],
          rotate: 0,
          shear: 0,
          translate: 0.1,
          erase: null,
        },
        new Random(11).fork(name),
      );
    for (let k = 0; k < 10; k++) {
      const weak = draw(`weak ${k}`);
      const strong = draw(`strong ${k}`);
      const truth = [40, 30, 60, 50];
      const at = (view: View) => corners(view, truth);
      teacher.predict_ = () => [detections([...at(weak), 0.9, 0])];
      calls.length = 0;
      await meanTeacher(unmixed).step(input(0, { pairs: [{ weak, strong, image: 5 }] }));
      const found = (calls.filter((c) => c.what === 'loss')[1]!.boxes as number[][])[0]!;
      for (const [i, v] of at(strong).entries()) expect(found[i]).toBeCloseTo(v, 3);
    }
  });

  test('boxes that the strong view does not show are dropped', async () => {
    const source = picture(5);
    const weak = plainView(source);
    const shifted = mapped(weak, (view) => multiply3([1, 0, 50, 0, 1, 0, 0, 0, 1], view.matrix));
    teacher.predict_ = () => [detections([20, 10, 40, 30, 0.9, 0], [2, 10, 10, 30, 0.9, 1])];
    const { pseudo } = await meanTeacher(unmixed).step(
      input(0, { pairs: [{ weak, strong: shifted, image: 5 }] }),
    );
    expect(calls.filter((c) => c.what === 'loss')[1]!.labels).toEqual([[1]]);
    expect(pseudo).toMatchObject({ boxes: 1, perClass: [0, 1, 0] });
  });

  test('labels are compared in the original; of both, those count that the strong view shows', async () => {
    const source = picture(5);
    const weak = mapped(plainView(source), () => [0.5, 0, 0, 0, 0.5, 0, 0, 0, 1]);
    // 50 pixels to the right: of the 64, the first 14 are seen.
    const strong = mapped(plainView(source), () => [1, 0, 50, 0, 1, 0, 0, 0, 1]);
    teacher.predict_ = () => [
      detections(
        [1, 5, 5, 15, 0.9, 1], // [2, 10, 10, 30] in the original
        [1, 5, 4, 9, 0.8, 1], // wrong
        [10, 5, 20, 15, 0.9, 0], // right, but not shown
      ),
    ];
    const truth = {
      boxes: Float32Array.of(-5, 10, 10, 30, 20, 10, 40, 30, 0, 0, 8, 8),
      labels: Int32Array.of(1, 0, 2),
      crowd: new Uint8Array(3),
    };
    const { pseudo } = await meanTeacher(unmixed).step(
      input(0, { pairs: [{ weak, strong, image: 5, truth }] }),
    );
    expect(pseudo).toMatchObject({ boxes: 2, perClass: [0, 2, 0] });
    expect(pseudo!.truth).toMatchObject({ images: 1, boxes: 2, right: 1, objects: 2, found: 1 });
    expect(pseudo!.truth!.perClass[2]).toMatchObject({ boxes: 0, objects: 1, found: 0 });
  });

  test('nothing but the report depends on what is there', async () => {
    const told: unknown[] = [];
    for (const truth of [
      undefined,
      null,
      {
        boxes: Float32Array.of(8, 8, 40, 40),
        labels: Int32Array.of(1),
        crowd: new Uint8Array(1),
      },
    ]) {
      calls.length = 0;
      const loop = meanTeacher();
      const reports = [];
      for (const step of [0, 1, 2]) {
        const pairs = [0, 1, 2, 3].map((i) => ({
          ...plainPair(4 * step + i),
          ...(truth === undefined ? {} : { truth }),
        }));
        reports.push(await loop.step(input(step, { pairs })));
      }
      const known = reports.map(({ pseudo }) => pseudo!.truth);
      if (truth) expect(known[2]).toMatchObject({ boxes: 4, right: 4, objects: 4, found: 4 });
      else expect(known).toEqual([null, null, null]);
      for (const { pseudo } of reports) pseudo!.truth = null;
      told.push(
        structuredClone([reports, calls, loop.policies[0]!.cache.map(({ image }) => image)]),
      );
      Object.assign(student, { weight: 0.5, momentum: 0 });
      Object.assign(teacher, { weight: 0.5 });
    }
    expect(told[1]).toEqual(told[0]);
    expect(told[2]).toEqual(told[0]);
  });

  test('the report counts by class, by size in the original, and empty pictures', async () => {
    const source = picture(5, { width: 200, height: 200 });
    const half = mapped(plainView(source), () => [0.5, 0, 0, 0, 0.5, 0, 0, 0, 1]);
    const pair = { weak: half, strong: half, image: 5 };
    let image = 0;
    teacher.predict_ = (batch) =>
      batch.sizes.map(() =>
        image++ === 0
          ? detections(
              [0, 0, 15, 15, 0.9, 0], // 30 × 30 in the original
              [0, 0, 20, 20, 0.7, 1], // 40 × 40
              [0, 0, 60, 60, 0.5, 1], // 120 × 120
              [0, 0, 60, 60, 0.3, 2],
            )
          : detections([0, 0, 60, 60, 0.2, 2]),
      );
    const { pseudo } = await meanTeacher(unmixed).step(input(0, { pairs: [pair, pair] }));
    expect(pseudo).toMatchObject({
      images: 2,
      boxes: 3,
      emptyImages: 1,
      perClass: [1, 2, 0],
      bySize: [1, 1, 1],
    });
    expect(pseudo!.meanScore).toBeCloseTo(0.7, 6);
    expect(pseudo!.bestScore).toBeCloseTo(0.9, 6);
  });
});

describe('empty pictures', () => {
  beforeEach(() => {
    // The second picture of every batch has no pseudo label.
    teacher.predict_ = (batch) =>
      batch.sizes.map((_, i) =>
        i === 1 ? detections([8, 8, 40, 40, 0.3, 0]) : detections([8, 8, 40, 40, 0.9, i % 3]),
      );
  });

  test('branch gate: one of them silences the branch; its losses are exactly 0', async () => {
    const { losses, silenced, total } = await meanTeacher().step(input(0));
    expect(silenced).toEqual({ mixup_unsup_: 1 });
    expect(losses.mixup_unsup_loss_cls).toBe(0);
    expect(losses.mixup_unsup_loss_bbox).toBe(0);
    expect(total).toBe(losses.sup_loss_cls! + losses.sup_loss_bbox!);
    expect(told()).toEqual([
      'student.loss',
      'student.backward 1',
      'teacher.predict',
      'student.step',
    ]);
  });

  test('per-image: it is left out, the others count', async () => {
    const report = await meanTeacher({ emptyImageRule: 'per-image' }).step(input(0));
    expect(report.silenced).toEqual({});
    expect(calls.filter((c) => c.what === 'loss')[1]!.labels).toEqual([[0], [2], [0]]);
  });

  test('per-image with nothing but empty pictures is silent', async () => {
    teacher.predict_ = (batch) => batch.sizes.map(() => detections());
    const report = await meanTeacher({ emptyImageRule: 'per-image' }).step(input(0));
    expect(report.silenced).toEqual({ mixup_unsup_: 1 });
    expect(report.pseudo).toMatchObject({ emptyImages: 4, meanScore: null, bestScore: null });
  });

  test('leastNum 0 learns from them as background', async () => {
    const report = await meanTeacher({ leastNum: 0 }).step(input(0));
    expect(report.silenced).toEqual({});
    expect(calls.filter((c) => c.what === 'loss')[1]!.labels).toEqual([[0], [], [2], [0]]);
  });

  test('leastNum 2 asks for two boxes an image', async () => {
    teacher.predict_ = (batch) => batch.sizes.map(() => detections([8, 8, 40, 40, 0.9, 0]));
    expect((await meanTeacher({ leastNum: 2 }).step(input(0))).silenced).toEqual({
      mixup_unsup_: 1,
    });
  });

  test('a mixed picture is empty only when both of its sources are', async () => {
    const loop = meanTeacher({ mosaic: false });
    const step = async (i: number, ...boxes: number[][]) => {
      teacher.predict_ = (batch) => batch.sizes.map(() => detections(...boxes));
      calls.length = 0;
      const { silenced } = await loop.step(input(i));
      const learned = calls.filter((c) => c.what === 'loss')[1];
      return { silenced, labels: learned?.labels };
    };
    const box = [8, 8, 40, 40, 0.9, 0];
    for (const i of [0, 1]) await step(i, box);
    // Partners come from two steps before, once the cache of 8 is full.
    expect(await step(2, box)).toEqual({ silenced: {}, labels: Array(4).fill([0, 0]) });
    expect(await step(3)).toEqual({ silenced: {}, labels: Array(4).fill([0]) });
    expect(await step(4)).toEqual({ silenced: {}, labels: Array(4).fill([0]) });
    expect(await step(5)).toEqual({ silenced: { mixup_unsup_: 1 }, labels: undefined });
    expect(await step(6, box)).toEqual({ silenced: {}, labels: Array(4).fill([0]) });
  });

  test('weight 0 saves the passes', async () => {
    const report = await meanTeacher({ unsupWeight: 0 }).step(input(0));
    expect(report.silenced).toEqual({ mixup_unsup_: 1 });
  });
});

test('mixed pictures are padded to 32 whatever the detector pads its own to', async () => {
  const padded = async (padDivisor: number) => {
    calls.length = 0;
    await new MeanTeacher({
      ...{ student, teacher, dtype: 'f32', preprocess: { ...preprocess, padDivisor } },
      options: resolveSemiOptions({ erase: null }),
    }).step(input(0));
    return calls
      .filter((c) => c.what === 'loss')
      .map((c) => (c.padSizes as { width: number; height: number }[])[0]);
  };
  // Pictures of 64 × 48: the labelled one, then the strong views.
  expect(await padded(1)).toEqual([
    { width: 64, height: 48 },
    { width: 64, height: 64 },
  ]);
  expect(await padded(128)).toEqual(Array(2).fill({ width: 128, height: 128 }));
});

test('losses that the step reads are reported as those of loss()', async () => {
  const run = async (Type: typeof FakeDetector) => {
    student = new Type({ who: 'student', calls });
    const loop = meanTeacher();
    const reports: Record<string, number>[] = [];
    for (const step of [0, 1, 2]) reports.push((await loop.step(input(step))).losses);
    return reports;
  };
  const want = await run(FakeDetector);
  calls.length = 0;
  expect(await run(DeferredDetector)).toEqual(want);
  expect(told().slice(-4)).toEqual([
    'student.backward 1',
    'student.step',
    'student.lossValues',
    'teacher.ema',
  ]);
});

test('a teacher that can steps together with its student, and to the same weights', async () => {
  const run = async (Type: typeof FakeDetector) => {
    student = new DeferredDetector({ who: 'student', calls });
    teacher = new Type({ who: 'teacher', calls });
    teacher.predict_ = (batch) => batch.sizes.map(() => detections([8, 8, 40, 40, 0.9, 1]));
    const loop = meanTeacher({ ema: { interval: 2, gamma: 4, momentum: 0, buffers: 'average' } });
    const weights: number[] = [];
    for (const step of [0, 1, 2]) {
      const { emaMomentum } = await loop.step(input(step));
      weights.push(student.weight, teacher.weight, emaMomentum ?? -1);
    }
    return weights;
  };
  const want = await run(FakeDetector);
  calls.length = 0;
  expect(await run(SteppingTeacher)).toEqual(want);
  // Not where no update is due.
  expect(told().filter((what) => /step|ema/i.test(what))).toEqual([
    'student.step',
    'teacher.stepStudent',
    'student.step',
    'teacher.ema',
    'student.step',
  ]);
});

describe('batches that are made ahead', () => {
  const made = vi.spyOn(loadNative(), 'compose');
  beforeEach(() => {
    made.mockClear();
  });

  async function run(ahead: boolean) {
    student = new FakeDetector({ who: 'student', calls });
    teacher = new PatientTeacher({ who: 'teacher', calls });
    teacher.predict_ = (batch) => batch.sizes.map(() => detections([8, 8, 40, 40, 0.9, 1]));
    const loop = meanTeacher();
    const reports = [];
    let prepared: PreparedBatches | undefined;
    for (const step of [0, 1, 2]) {
      const parts = async function* () {
        yield { ...part(step), prepared };
        calls.push({ who: 'loop', what: 'meanwhile' });
        prepared = ahead && step < 2 ? loop.prepare(part(step + 1)) : undefined;
      };
      reports.push(await loop.step(inputOf(step, parts())));
    }
    return { reports, batches: made.mock.calls.length };
  }

  test('give the same steps and no further batches', async () => {
    const want = await run(false);
    made.mockClear();
    calls.length = 0;
    expect(await run(true)).toEqual(want);
    const order = told().filter((what) => /meanwhile|step|predictLater/.test(what));
    expect(order.slice(0, 4)).toEqual([
      'teacher.predictLater',
      'loop.meanwhile',
      'student.step',
      'teacher.predictLater',
    ]);
  });

  test('are begun on at once, before what the device is given next', async () => {
    const loop = meanTeacher();
    const batches = loop.prepare(part(0));
    expect(made).toHaveBeenCalledTimes(2);
    expect((await batches.weak!).tensor.shape[0]).toBe(4);
    await batches.dispose();
    expect(loop.prepare({ labelled, unlabelled: [] }).weak).toBeNull();
  });

  test('that cannot be made stop the step that they are for', async () => {
    const loop = meanTeacher();
    made.mockRejectedValueOnce(new MixplError('ERR_OUT_OF_MEMORY', 'compose: no'));
    const prepared = loop.prepare(part(1));
    await expect(loop.step(input(0))).resolves.toBeDefined();
    await expect(loop.step(inputOf(1, [{ ...part(1), prepared }]))).rejects.toMatchObject({
      code: 'ERR_OUT_OF_MEMORY',
    });
    const { tensor } = await prepared.labelled!;
    expect(() => tensor.read()).toThrow('disposed');
  });
});

describe('divergence', () => {
  test('a loss that is not finite stops before anything is updated', async () => {
    student.nextLoss = Number.NaN;
    const before = [student.weight, teacher.weight];
    await expect(meanTeacher().step(input(0))).rejects.toMatchObject({
      code: 'ERR_DIVERGED',
      message: 'training: sup_loss_cls must be finite, got NaN',
    });
    expect([student.weight, teacher.weight]).toEqual(before);
    expect(told()).toEqual(['student.loss', 'student.discard']);
  });

  test('the same of a detector whose losses the step reads', async () => {
    const deferred = new DeferredDetector({ who: 'student', calls });
    student = deferred;
    const loop = meanTeacher();
    await loop.step(input(0));
    const before = [student.weight, teacher.weight];
    calls.length = 0;
    deferred.badPass = 1;
    await expect(loop.step(input(1))).rejects.toMatchObject({
      code: 'ERR_DIVERGED',
      message: 'training: mixup_unsup_loss_cls must be finite, got NaN',
    });
    expect([student.weight, teacher.weight]).toEqual(before);
    expect(told().slice(-3)).toEqual([
      'student.step',
      'student.lossValues',
      'student.zeroGradients',
    ]);
  });

  test('a step that ends midway leaves no part of a gradient', async () => {
    student = new DeferredDetector({ who: 'student', calls });
    teacher.predict_ = () => Promise.reject(new Error('teacher'));
    await expect(meanTeacher().step(input(0))).rejects.toThrow('teacher');
    expect(told().slice(-2)).toEqual(['teacher.predict', 'student.zeroGradients']);
    expect(student.gradient).toBe(0);
  });

  test('a teacher that answers for the wrong number of pictures is an error', async () => {
    teacher.predict_ = () => [];
    await expect(meanTeacher().step(input(0))).rejects.toThrow(/must have 4 entries .* got 0/);
  });
});

test('the same seed gives the same losses', async () => {
  const run = async () => {
    student = new FakeDetector({ who: 'student', calls: [] });
    const loop = meanTeacher({ erase: {} });
    const totals: number[] = [];
    for (const step of [0, 1, 2, 3]) totals.push((await loop.step(input(step))).total);
    return totals;
  };
  expect(await run()).toEqual(await run());
});

/** The view with another matrix. */
function mapped(view: View, change: (view: View) => View['matrix']): View {
  const matrix = change(view);
  return { ...view, matrix, layer: { ...view.layer, map: invert3(matrix) } };
}

/** The box in the view, for maps that keep axes. */
function corners({ matrix: m }: View, [x1, y1, x2, y2]: number[]): number[] {
  const x = [m[0] * x1! + m[2], m[0] * x2! + m[2]].sort((a, b) => a - b);
  const y = [m[4] * y1! + m[5], m[4] * y2! + m[5]].sort((a, b) => a - b);
  return [x[0]!, y[0]!, x[1]!, y[1]!];
}
