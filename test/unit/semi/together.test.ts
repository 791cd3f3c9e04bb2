// Branches that go forward and back at once: the same step in fewer passes.
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { ImageBatch, LabelledBatch } from '../../../lib/detector/types.js';
import { createDetector, native } from '../../../lib/index.js';
import { Random } from '../../../lib/random.js';
import { togetherByDefault } from '../../../lib/semi/branch-group.js';
import {
  MeanTeacher,
  type MeanTeacherSetup,
  MixPL,
  resolveSemiOptions,
  type SemiChanges,
  type StepPart,
  type StepReport,
  type Together,
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

const preprocess: MeanTeacherSetup['preprocess'] = {
  ...{ mean: [0, 0, 0], std: [1, 1, 1], channelOrder: 'rgb', padDivisor: 32 },
};

/** Makes a graph of several batches out of those of single ones. */
class SociableDetector extends DeferredDetector {
  #graphs: number[] = [];

  async forwardTogether(passes: readonly LabelledBatch[]): Promise<void> {
    this.record('together', { passes: passes.length });
    for (const { batch, targets } of passes) {
      await this.forward(batch, targets);
      const before = this.gradient;
      await super.backward();
      this.#graphs.push(this.gradient - before);
      this.gradient = before;
    }
  }

  override async backward({
    weight = 1,
    weights = null as readonly number[] | null,
  } = {}): Promise<void> {
    if (!weights) return super.backward({ weight });
    if (weights.length !== this.#graphs.length) throw new Error('one weight per graph');
    this.record('backward', { weights });
    this.#graphs.forEach((graph, i) => {
      this.gradient += weights[i]! * graph;
    });
    this.#graphs = [];
  }
}

let calls: Call[];
let student: SociableDetector;
let teacher: PatientTeacher;

beforeEach(() => {
  calls = [];
  student = new SociableDetector({ who: 'student', calls });
  teacher = new PatientTeacher({ who: 'teacher', calls });
  teacher.predict_ = (batch: ImageBatch) =>
    batch.sizes.map(() => detections([8, 8, 40, 40, 0.9, 1]));
});

function loopOf(
  together: Together | undefined,
  changes: SemiChanges = {},
  who = { student, teacher },
) {
  const options = resolveSemiOptions({ erase: null, mosaicShape: [[32, 32]], ...changes });
  const policies = [new MixPL<never>(options)];
  return new MeanTeacher({
    ...{ ...who, options, preprocess, dtype: 'f32', policies },
    ...(together && { together }),
  });
}

function partOf(step: number): StepPart {
  return {
    labelled: [
      {
        view: plainView(picture(1 + step)),
        instances: {
          boxes: Float32Array.of(1, 2, 30, 40),
          labels: Int32Array.of(step % 3),
          scores: Float32Array.of(1),
        },
      },
    ],
    unlabelled: [1, 2, 3, 4].map((i) => plainPair(10 * step + i)),
    random: new Random(3).fork('mixing', step),
  };
}

/** What was asked of the student and teacher in the third step, when the cache is full enough to mix. */
async function thirdStep(together: Together | undefined, changes: SemiChanges = {}) {
  student.weight = 0.5;
  student.momentum = 0;
  const loop = loopOf(together, changes);
  const reports: StepReport[] = [];
  for (const step of [0, 1, 2]) {
    calls.length = 0;
    reports.push(await loop.step({ iteration: step, lr: 0.01, parts: [partOf(step)] }));
  }
  const told = calls.map(({ who, what, ...rest }) =>
    [`${who}.${what}`, rest.passes ?? rest.weights ?? rest.weight].flat().join(' ').trim(),
  );
  return { reports, told: told.filter((what) => !/loss$|backward 1$|Values$/.test(what)) };
}

describe('branches', () => {
  test('none: each by itself', async () => {
    expect((await thirdStep('none')).told).not.toContain('student.together 2');
  });

  test('unlabelled: mixed pictures and mosaics', async () => {
    expect((await thirdStep('unlabelled')).told).toEqual([
      ...['teacher.predictLater', 'teacher.predictions'],
      ...['student.together 2', 'student.backward 2 1', 'student.step', 'teacher.ema'],
    ]);
  });

  test('all: labelled ones wait for the teacher', async () => {
    expect((await thirdStep('all')).told).toEqual([
      ...['teacher.predictLater', 'teacher.predictions'],
      ...['student.together 3', 'student.backward 1 2 1', 'student.step', 'teacher.ema'],
    ]);
  });

  test.each(['unlabelled', 'all'] as const)(
    '%s: the same step as by themselves',
    async (together) => {
      const [apart, joined] = [await thirdStep('none'), await thirdStep(together)];
      joined.reports.forEach((report, i) => {
        const want = apart.reports[i]!;
        expect(report).toMatchObject({ pseudo: want.pseudo, silenced: want.silenced });
        expect(Object.keys(report.losses)).toEqual(Object.keys(want.losses));
        for (const [name, value] of Object.entries(want.losses))
          expect(report.losses[name]).toBeCloseTo(value, 6);
        expect(report.gradNorm).toBeCloseTo(want.gradNorm, 6);
      });
      expect(Object.keys(joined.reports[2]!.losses)).toContain('mosaic_unsup_loss_cls');
    },
  );

  test('one that the gate silenced is not in the group', async () => {
    teacher.predict_ = (batch: ImageBatch) => batch.sizes.map(() => detections());
    const { told, reports } = await thirdStep('all');
    expect(told.filter((what) => what.includes('together'))).toEqual([]);
    expect(reports[2]!.silenced).toEqual({ mixup_unsup_: 1, mosaic_unsup_: 1 });
    expect(reports[2]!.losses.sup_loss_cls).toBeGreaterThan(0);
  });

  test('a student that cannot is asked for one after the other', async () => {
    const plain = new DeferredDetector({ who: 'student', calls });
    const loop = loopOf('all', {}, { student: plain as never, teacher });
    await loop.step({ iteration: 0, lr: 0.01, parts: [partOf(0)] });
    const plainest = new FakeDetector({ who: 'student', calls });
    const other = loopOf('unlabelled', {}, { student: plainest as never, teacher });
    await other.step({ iteration: 0, lr: 0.01, parts: [partOf(0)] });
    expect(calls.filter(({ what }) => what === 'together')).toEqual([]);
  });

  test.each(['unlabelled', 'all'] as const)(
    '%s: a pass that fails leaves no batch and no gradient',
    async (together) => {
      const loop = loopOf(together);
      await loop.step({ iteration: 0, lr: 0.01, parts: [partOf(0)] });
      await loop.step({ iteration: 1, lr: 0.01, parts: [partOf(1)] });
      const live = native.memoryStats('cpu').liveBytes;
      const { weight } = student;
      student.forwardTogether = () => Promise.reject(new Error('no'));
      const part = partOf(2);
      const prepared = loop.prepare(part);
      await expect(
        loop.step({ iteration: 2, lr: 0.01, parts: [{ ...part, prepared }] }),
      ).rejects.toThrow('no');
      expect([student.weight, student.gradient]).toEqual([weight, 0]);
      expect(native.memoryStats('cpu').liveBytes).toBe(live);
    },
  );

  test.each(['unlabelled', 'all'] as const)(
    '%s: a teacher that fails leaves no batch',
    async (together) => {
      const loop = loopOf(together);
      const live = native.memoryStats('cpu').liveBytes;
      teacher.predictions = () => Promise.reject(new Error('no'));
      const part = partOf(0);
      const prepared = loop.prepare(part);
      await expect(
        loop.step({ iteration: 0, lr: 0.01, parts: [{ ...part, prepared }] }),
      ).rejects.toThrow('no');
      expect(native.memoryStats('cpu').liveBytes).toBe(live);
    },
  );

  test('of a detector of ours: losses and gradients but for rounding', async () => {
    const run = async (together: Together) => {
      await using detector = await createDetector(tinyDetector, {
        ...{ dtype: 'fp32', seed: 2, optimizer: { type: 'sgd', momentum: 0.9, clipNorm: 1 } },
      });
      const found = await detector.createTeacher();
      try {
        const changes = { scoreThr: 0, leastNum: 0 };
        const loop = loopOf(together, changes, {
          student: detector as never,
          teacher: found as never,
        });
        const reports: StepReport[] = [];
        for (const step of [0, 1, 2])
          reports.push(await loop.step({ iteration: step, lr: 1e-3, parts: [partOf(step)] }));
        return reports;
      } finally {
        found.dispose();
      }
    };
    const want = await run('none');
    for (const together of ['unlabelled', 'all'] as const)
      (await run(together)).forEach((report, i) => {
        expect(Object.keys(report.losses)).toEqual(Object.keys(want[i]!.losses));
        for (const [name, value] of Object.entries({
          ...want[i]!.losses,
          norm: want[i]!.gradNorm,
        })) {
          const got = { ...report.losses, norm: report.gradNorm }[name]!;
          expect(Math.abs(got - value), `${together} ${i} ${name}`).toBeLessThanOrEqual(
            1e-4 * value,
          );
        }
      });
    expect(Object.keys(want[2]!.losses)).toContain('mosaic_unsup_loss_cls');
  });
});

describe('the default', () => {
  const name = 'MIXPL_BRANCHES_TOGETHER';
  const before = process.env[name];
  afterEach(() => {
    if (before === undefined) delete process.env[name];
    else process.env[name] = before;
  });

  test('is the environment’s, else none', async () => {
    delete process.env[name];
    expect(togetherByDefault()).toBe('none');
    process.env[name] = 'all';
    expect(togetherByDefault()).toBe('all');
    expect((await thirdStep(undefined)).told).toContain('student.together 3');
    process.env[name] = 'some';
    expect(togetherByDefault).toThrow(
      "MIXPL_BRANCHES_TOGETHER must be one of none, unlabelled, all, got 'some'",
    );
  });
});
