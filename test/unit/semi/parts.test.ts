// Steps of several parts: what as many processes would compute, and the mean of their gradients.
import { beforeEach, describe, expect, test } from 'vitest';
import { MixplError } from '../../../lib/errors.js';
import {
  composeBatch,
  compositionOf,
  createDetector,
  type Detector,
  native,
} from '../../../lib/index.js';
import { Random } from '../../../lib/random.js';
import {
  MeanTeacher,
  MixPL,
  recipeOf,
  resolveSemiOptions,
  type SemiChanges,
  type StepPart,
  type StepReport,
} from '../../../lib/semi/index.js';
import { tinyDetector } from '../detector/scenes.js';
import {
  type Call,
  DeferredDetector,
  detections,
  FakeDetector,
  PatientTeacher,
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

function loopOf(parts: number, changes: SemiChanges = {}, who = { student, teacher }) {
  const options = resolveSemiOptions({ erase: null, ...changes });
  const policies = Array.from({ length: parts }, () => new MixPL<never>(options));
  return new MeanTeacher({ ...who, options, preprocess, dtype: 'f32', policies });
}

/** Pictures of their own for each step of each process. */
function partOf(step: number, process: number, { unlabelled = true } = {}): StepPart {
  const first = 1 + 10 * process + 40 * (step % 6);
  return {
    labelled: [
      {
        view: plainView(picture(first)),
        instances: {
          boxes: Float32Array.of(1, 2, 30 + process, 40),
          labels: Int32Array.of(process % 3),
          scores: Float32Array.of(1),
        },
      },
    ],
    unlabelled: unlabelled ? [1, 2, 3, 4].map((i) => plainPair(first + i)) : [],
    random: new Random(3).fork('mixing', step, process),
  };
}

const told = () => calls.map((c) => `${c.who}.${c.what}${'weight' in c ? ` ${c.weight}` : ''}`);

describe('a step of two parts', () => {
  test('each goes back with half the weight; one update, one average', async () => {
    const loop = loopOf(2);
    for (const step of [0, 1])
      await loop.step({ iteration: step, lr: 0.01, parts: [partOf(step, 0), partOf(step, 1)] });
    calls.length = 0;
    const parts = [partOf(2, 0), partOf(2, 1)];
    const { emaMomentum } = await loop.step({ iteration: 2, lr: 0.01, parts });
    const part = [
      'student.loss',
      'student.backward 0.5',
      'teacher.predict',
      'student.loss',
      'student.backward 1',
      'student.loss',
      'student.backward 0.5',
    ];
    expect(told()).toEqual([...part, ...part, 'student.step', 'teacher.ema']);
    expect(emaMomentum).toBeCloseTo(4 / 6, 12);
  });

  test('waits for the teacher alone; the next part is asked for when the device has this one', async () => {
    student = new DeferredDetector({ who: 'student', calls });
    const found = teacher.predict_;
    teacher = new PatientTeacher({ who: 'teacher', calls });
    teacher.predict_ = found;
    const parts = async function* () {
      yield partOf(0, 0);
      calls.push({ who: 'parts', what: 'second' });
      yield partOf(0, 1);
      calls.push({ who: 'parts', what: 'end' });
    };
    await loopOf(2).step({ iteration: 0, lr: 0.01, parts: parts() });
    const part = [
      'teacher.predictLater',
      'student.loss',
      'student.backward 0.5',
      'teacher.predictions',
      'student.loss',
      'student.backward 1',
    ];
    const end = ['parts.end', 'student.step', 'student.lossValues'];
    expect(told()).toEqual([...part, 'parts.second', ...part, ...end]);
  });

  test.each([
    ['of their own', FakeDetector],
    ['that the step reads', DeferredDetector],
  ])(
    'is two processes: caches and gates apart, losses (%s) and gradients averaged',
    async (_, Type) => {
      // In every third picture of the second process nothing is found.
      const predictions = (batch: Parameters<FakeDetector['predict_']>[0], process: number) =>
        batch.sizes.map((_, i) =>
          process === 1 && i === 2 ? detections() : detections([8 + i, 8, 40, 40, 0.9, process]),
        );
      const run = async (processes: readonly number[]) => {
        calls = [];
        student = new Type({ who: 'student', calls });
        teacher = new FakeDetector({ who: 'teacher', calls });
        let asked = 0;
        teacher.predict_ = (batch) => predictions(batch, processes[asked++ % processes.length]!);
        const loop = loopOf(processes.length, { mosaicShape: [[32, 32]] });
        const reports: StepReport[] = [];
        const learned: Call[][] = [];
        for (const step of [0, 1, 2, 3]) {
          const parts = processes.map((process) => partOf(step, process));
          calls.length = 0;
          // Rate 0: every step is of the same weights.
          reports.push(await loop.step({ iteration: step, lr: 0, parts }));
          learned.push(calls.filter(({ what }) => what === 'loss'));
        }
        return { loop, reports, learned };
      };
      const [first, second, both] = [await run([0]), await run([1]), await run([0, 1])];
      expect(both.loop.policies.map(({ cache }) => cache.map(recipeOf))).toEqual(
        [first, second].map(({ loop }) => loop.policies[0]!.cache.map(recipeOf)),
      );
      // One process after the other.
      both.learned.forEach((passes, step) => {
        expect(passes).toEqual([...first.learned[step]!, ...second.learned[step]!]);
      });
      both.reports.forEach((report, i) => {
        const [a, b] = [first.reports[i]!, second.reports[i]!];
        const names = new Set([...Object.keys(a.losses), ...Object.keys(b.losses)]);
        expect(new Set(Object.keys(report.losses))).toEqual(names);
        for (const name of names)
          if (name.endsWith('acc')) expect(report.losses[name]).toBe(7);
          else
            expect(report.losses[name]).toBeCloseTo(
              ((a.losses[name] ?? 0) + (b.losses[name] ?? 0)) / 2,
              12,
            );
        expect(report.total).toBeCloseTo((a.total + b.total) / 2, 12);
        expect(report.gradNorm).toBeCloseTo((a.gradNorm + b.gradNorm) / 2, 12);
        expect(report.pseudo).toMatchObject({
          images: 8,
          boxes: a.pseudo!.boxes + b.pseudo!.boxes,
          emptyImages: 1,
          perClass: [a.pseudo!.perClass[0], b.pseudo!.perClass[1], 0],
        });
      });
      // The gate of the second process, and of that alone, closes until its cache is full.
      expect(first.reports.map((r) => r.silenced)).toEqual([{}, {}, {}, {}]);
      expect(both.reports.slice(0, 2).map((r) => r.silenced)).toEqual([
        { mixup_unsup_: 0.5 },
        { mixup_unsup_: 0.5 },
      ]);
      expect(second.reports[0]!.silenced).toEqual({ mixup_unsup_: 1 });
      expect(both.reports[0]!.losses.mixup_unsup_loss_bbox).toBeGreaterThan(0);
    },
  );

  test('of a burn-in: labelled pictures alone', async () => {
    const parts = [0, 1].map((process) => partOf(2, process, { unlabelled: false }));
    const report = await loopOf(2).step({ iteration: 2, lr: 0.01, parts });
    expect(report).toMatchObject({ pseudo: null, silenced: {} });
    expect(told()).toEqual([
      ...['student.loss', 'student.backward 0.5', 'student.loss', 'student.backward 0.5'],
      ...['student.step', 'teacher.ema'],
    ]);
    expect(calls.at(-1)).toMatchObject({ buffers: 'copy' });
  });

  test('uses the batches that were made, and leaves none behind', async () => {
    const loop = loopOf(2);
    const live = native.memoryStats('cpu').liveBytes;
    const parts = [0, 1].map((process) => {
      const part = partOf(0, process);
      return { ...part, prepared: loop.prepare(part) };
    });
    await loop.step({ iteration: 0, lr: 0.01, parts });
    for (const { prepared } of parts)
      for (const batch of [await prepared.weak!, await prepared.labelled!])
        expect(() => batch.tensor.read()).toThrow('disposed');
    expect(native.memoryStats('cpu').liveBytes).toBe(live);
  });
});

describe('nothing is updated, and no part of the gradient stays,', () => {
  const expectUntouched = async (
    step: Promise<StepReport>,
    error: { code: string; message: string | RegExp },
  ) => {
    const { message } = error;
    await expect(step).rejects.toMatchObject({ ...error, message: expect.stringMatching(message) });
    expect([student.weight, student.gradient, teacher.weight]).toEqual([0.5, 0, 0.5]);
    expect(told()).not.toContain('teacher.ema');
  };
  const input = { iteration: 2, lr: 0.01 };

  test('when a loss of the second part is not finite', async () => {
    const deferred = new DeferredDetector({ who: 'student', calls });
    student = deferred;
    // Of the passes: labelled, mixed; labelled, mixed.
    deferred.badPass = 3;
    await expectUntouched(loopOf(2).step({ ...input, parts: [partOf(0, 0), partOf(0, 1)] }), {
      code: 'ERR_DIVERGED',
      message: 'training: mixup_unsup_loss_cls must be finite, got NaN',
    });
  });

  test('when one that is read at once is not', async () => {
    class Clearing extends FakeDetector {
      async zeroGradients() {
        this.gradient = 0;
      }
    }
    student = new Clearing({ who: 'student', calls });
    const parts = async function* () {
      yield partOf(0, 0);
      student.nextLoss = Number.NaN;
      yield partOf(0, 1);
    };
    await expectUntouched(loopOf(2).step({ ...input, parts: parts() }), {
      code: 'ERR_DIVERGED',
      message: 'training: sup_loss_cls must be finite, got NaN',
    });
    expect(told()).not.toContain('student.step');
  });

  test('when the second part cannot be drawn', async () => {
    student = new DeferredDetector({ who: 'student', calls });
    const parts = async function* () {
      yield partOf(0, 0);
      throw new MixplError('ERR_IO', 'decode: no');
    };
    await expectUntouched(loopOf(2).step({ ...input, parts: parts() }), {
      code: 'ERR_IO',
      message: 'decode: no',
    });
  });

  test.each([
    [1, 1],
    [3, 'more'],
  ])('when there are %i parts for two policies', async (count, got) => {
    student = new DeferredDetector({ who: 'student', calls });
    const parts = Array.from({ length: count }, (_, process) => partOf(0, process));
    await expectUntouched(loopOf(2).step({ ...input, parts }), {
      code: 'ERR_SHAPE',
      message: new RegExp(`^MeanTeacher.step: parts must have 2 entries \\(.*\\), got ${got}$`),
    });
  });
});

describe('of a detector of ours', () => {
  const open = () =>
    createDetector(tinyDetector, {
      ...{ dtype: 'fp32', seed: 2, optimizer: { type: 'sgd', momentum: 0.9, clipNorm: 1 } },
    });

  /** Gradients of every step, as they are when the student is asked to step. */
  function watch(detector: Detector) {
    const steps: Map<string, Float32Array>[] = [];
    const step = detector.step.bind(detector);
    detector.step = async (how) => {
      const gradients = new Map<string, Float32Array>();
      for (const { name } of detector.parameters()) {
        const gradient = await detector.gradient(name);
        if (gradient) gradients.set(name, gradient as Float32Array);
      }
      steps.push(gradients);
      return step(how);
    };
    return steps;
  }

  /** Student and teacher that stay as they are, over steps of one process or of several. */
  async function gradientsOf(processes: readonly number[]) {
    const changes: SemiChanges = { scoreThr: 0, leastNum: 0, mosaicShape: [[32, 32]], erase: {} };
    await using detector = await open();
    const gradients = watch(detector);
    const found = await detector.createTeacher();
    try {
      const loop = loopOf(processes.length, changes, {
        student: detector as never,
        teacher: found as never,
      });
      const reports: StepReport[] = [];
      for (const step of [0, 1, 2])
        reports.push(
          await loop.step({
            // No average is due: it would take the student's step with it.
            ...{ iteration: null, lr: 0 },
            parts: processes.map((process) => partOf(step, process)),
          }),
        );
      return { gradients, reports };
    } finally {
      found.dispose();
    }
  }

  test('the gradient is the mean of those of each part alone, mixed branches included', async () => {
    const [first, second, both] = [
      await gradientsOf([0]),
      await gradientsOf([1]),
      await gradientsOf([0, 1]),
    ];
    expect(Object.keys(both.reports[2]!.losses)).toContain('mosaic_unsup_loss_cls');
    both.gradients.forEach((gradients, step) => {
      const [a, b] = [first.gradients[step]!, second.gradients[step]!];
      expect(gradients.size).toBeGreaterThan(10);
      for (const [name, gradient] of gradients) {
        let [error, size] = [0, 0];
        gradient.forEach((got, i) => {
          const want = (a.get(name)![i]! + b.get(name)![i]!) / 2;
          error += (got - want) ** 2;
          size += want ** 2;
        });
        // Rounding of sums in another order.
        expect(Math.sqrt(error), `step ${step}: ${name}`).toBeLessThanOrEqual(
          1e-5 * Math.sqrt(size),
        );
      }
    });
  });

  test('the step is that of a loop of loss() and backward() with half the weight', async () => {
    const lr = 0.1;
    await using ours = await open();
    const loop = loopOf(2, {}, { student: ours as never, teacher: ours as never });
    const parts = [0, 1].map((process) => partOf(0, process, { unlabelled: false }));
    const { losses, gradNorm } = await loop.step({ iteration: null, lr, parts });

    await using theirs = await open();
    const values: Record<string, number>[] = [];
    for (const { labelled } of parts) {
      const batch = await composeBatch(
        labelled.map(({ view }) => compositionOf(view)),
        { ...preprocess, dtype: 'f32', padTo: 'image' },
      );
      values.push(
        await theirs.loss(
          batch,
          labelled.map(({ instances }) => instances),
        ),
      );
      await theirs.backward({ weight: 0.5 });
      batch.dispose();
    }
    expect(gradNorm).toBe((await theirs.step({ lr })).gradNorm);
    for (const [name, value] of Object.entries(values[0]!))
      expect(losses[`sup_${name}`]).toBeCloseTo((value + values[1]![name]!) / 2, 12);
    for (const { name } of ours.parameters())
      expect(
        bytesOf(await ours.readTensor(name)).equals(bytesOf(await theirs.readTensor(name))),
      ).toBe(true);
  });
});

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array) =>
  Buffer.from(buffer, byteOffset, byteLength);
