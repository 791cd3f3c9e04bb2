import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { makeDataset, noAnnotations, selectImages } from '../../../lib/data/index.js';
import { MixplError } from '../../../lib/errors.js';
import type { CocoMetrics } from '../../../lib/eval/index.js';
import { loadNative, native } from '../../../lib/native.js';
import { readSafetensors } from '../../../lib/safetensors.js';
import type { TrainSettingsInput } from '../../../lib/train/index.js';
import {
  type TrainEvent,
  type TrainOptions,
  trainSemiSupervised,
} from '../../../lib/train/index.js';
import { FakeDetector } from '../semi/fake-detector.js';
import { decodeTiny, tinyData, tinySettings } from './tiny-data.js';
import { essence, kinds, newStudent, options, stepsOf, train } from './tiny-runs.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-train-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Where newStudent finds something, of the first class. */
const boxAt = (i: number) => ({
  boxes: Float32Array.of(i % 4, 2, (i % 4) + 20, 24),
  labels: Int32Array.of(i % 2),
  crowd: Uint8Array.of(0),
  areas: Float64Array.of(440),
  ids: Float64Array.of(i + 1),
});

const numGroundTruths = ({ perClass }: CocoMetrics) =>
  perClass.reduce((sum, c) => sum + c.numGroundTruths, 0);

describe('a run', () => {
  test('yields its events in order and ends', async () => {
    const { events } = await train({ out: folder });
    expect(kinds(events).filter((k) => !k.startsWith('step'))).toEqual([
      'checkpoint 5',
      'validation 6',
      'checkpoint 10',
      'validation 12',
      'checkpoint 12',
      'end 12',
    ]);
    expect(stepsOf(events)).toHaveLength(12);
    expect(events.at(-1)).toMatchObject({ reason: 'finished' });
  });

  test('leaves metrics, the newest checkpoints and the best weights', async () => {
    await train({ out: folder, metadata: { name: 'tiny' } });
    expect((await readdir(folder)).sort()).toEqual([
      'best.safetensors',
      'checkpoints',
      'metrics.jsonl',
      'report.html',
    ]);
    expect((await readdir(join(folder, 'checkpoints'))).sort()).toEqual([
      'iteration-000010',
      'iteration-000012',
    ]);
    const best = await readSafetensors(join(folder, 'best.safetensors'));
    expect([...best.tensors.keys()]).toEqual(['weight']);
    expect(best.metadata).toMatchObject({ name: 'tiny', branch: 'teacher', format: 'mixpl' });
    expect(JSON.parse(best.metadata.categories!)).toHaveLength(3);
    const lines = (await readFile(join(folder, 'metrics.jsonl'), 'utf8')).trim().split('\n');
    const records = lines.map((line) => JSON.parse(line));
    expect(records.map((r) => `${r.type} ${r.iteration}`)).toEqual([
      'step 4',
      'validation 6',
      'step 8',
      'step 12',
      'validation 12',
    ]);
    expect(records[2]).toMatchObject({
      steps: 4,
      phase: 'semi-supervised',
      pseudo: { perImage: 1, emptyShare: 0, perClass: { red: 0.5, green: 0.25, blue: 0.25 } },
    });
    expect(Object.keys(records[1].teacher)).toContain('AP50');
  });

  test('annotated unlabelled pictures: the metrics compare, nothing else changes', async () => {
    const data = tinyData();
    const images = data.unlabelled.images.map((image, i) => ({
      ...image,
      annotations: i === 3 ? null : boxAt(i),
    }));
    const unlabelled = selectImages(data.unlabelled, images);
    const known = await train({ out: join(folder, 'known'), data: { ...data, unlabelled } });
    const hidden = await train({ out: join(folder, 'hidden'), data });
    const truths = known.steps.map(({ pseudo }) => pseudo!.truth!);
    expect(truths.every(({ images }) => images >= 3)).toBe(true);
    expect(truths.some(({ right }) => right > 0)).toBe(true);
    expect(truths.some(({ right, boxes }) => right < boxes)).toBe(true);
    const blind = essence(known.steps).map((step) => ({
      ...step,
      pseudo: { ...step.pseudo, truth: null },
    }));
    expect(blind).toEqual(essence(hidden.steps));
    const weights = async (run: string) => {
      const newest = join(folder, run, 'checkpoints', 'iteration-000012');
      const files = ['student.safetensors', 'teacher.safetensors', 'state.json'];
      return Promise.all(files.map((file) => readFile(join(newest, file))));
    };
    expect(await weights('known')).toEqual(await weights('hidden'));

    const logged = async (run: string) =>
      (await readFile(join(folder, run, 'metrics.jsonl'), 'utf8'))
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line))
        .filter(({ type }) => type === 'step')
        .map(({ pseudo }) => pseudo);
    const sum = (of: (truth: (typeof truths)[0]) => number) =>
      truths.slice(8).reduce((total, truth) => total + of(truth), 0);
    expect((await logged('known'))[2].truth).toMatchObject({
      perImage: sum((t) => t.objects) / sum((t) => t.images),
      precision: sum((t) => t.right) / sum((t) => t.boxes),
      recall: sum((t) => t.found) / sum((t) => t.objects),
      perClass: { green: sum((t) => t.perClass[1]!.objects) / sum((t) => t.images) },
    });
    const without = await logged('hidden');
    expect(without.map((pseudo) => 'truth' in pseudo)).toEqual([false, false, false]);
    const page = await readFile(join(folder, 'known', 'report.html'), 'utf8');
    expect(page).toContain('green, annotated');
  });

  test('boxes of other classes, or of a picture of another size, are no truth', async () => {
    const data = tinyData();
    const annotated = (categories: typeof data.labelled.categories, size: object = {}) =>
      makeDataset({
        ...{ name: 'unlabelled', source: 'unlabelled', categories },
        images: data.unlabelled.images.map((image, i) => ({
          ...{ ...image, ...size },
          annotations: boxAt(i),
        })),
      });
    const reversed = [...data.labelled.categories].reverse();
    for (const unlabelled of [
      annotated(reversed),
      annotated(data.labelled.categories, { width: 50, height: 50 }),
    ]) {
      const { steps } = await train({ data: { ...data, unlabelled } });
      expect(steps.map(({ pseudo }) => pseudo!.truth)).toEqual(steps.map(() => null));
    }
  });

  test('without a folder it writes nothing and still reports', async () => {
    const { events } = await train();
    expect(kinds(events)).toContain('validation 12');
    expect(events.some((e) => e.type === 'checkpoint')).toBe(false);
    expect(await readdir(folder)).toEqual([]);
  });

  test('a validation says how far it is', async () => {
    const told: string[] = [];
    await train({
      onValidating: ({ branch, done, total }) => told.push(`${branch} ${done}/${total}`),
    });
    const one = ['teacher 2/4', 'teacher 4/4', 'student 2/4', 'student 4/4'];
    expect(told).toEqual([...one, ...one]);
  });

  test('the loop gets learning rate, weak and strong pictures, and mixes from the third step', async () => {
    const { steps } = await train();
    expect(steps[0]!.lr).toBeCloseTo(0.01 * 0.001, 12);
    expect(steps[3]!.lr).toBe(0.01);
    const mosaic = steps.map((s) => 'mosaic_unsup_loss_cls' in s.losses);
    expect(mosaic).toEqual([false, false, ...Array(10).fill(true)]);
    expect(steps[2]!.emaMomentum).toBeCloseTo(0.6667, 4);
    expect(steps[0]!.memory.rssBytes).toBeGreaterThan(0);
    expect(steps[11]!.etaSeconds).toBe(0);
  });

  test('the same seed gives the same losses whatever the loader does; another seed does not', async () => {
    const first = await train();
    const second = await train({}, { loader: { prefetch: 7, cacheMiB: 0 } });
    expect(essence(second.steps)).toEqual(essence(first.steps));
    const third = await train({}, { seed: 8 });
    expect(essence(third.steps)).not.toEqual(essence(first.steps));
  });

  test('two at once in one process do not disturb each other', async () => {
    const [alone] = [await train()];
    const [a, b] = await Promise.all([
      train({ out: join(folder, 'a') }),
      train({ out: join(folder, 'b') }),
    ]);
    expect(essence(a.steps)).toEqual(essence(alone.steps));
    expect(essence(b.steps)).toEqual(essence(alone.steps));
  });
});

describe('the next step', () => {
  const supervised = { semi: { method: 'supervised' as const }, validation: { interval: 0 } };
  const data = { ...tinyData(), unlabelled: null };

  test('has its batch made before the update of the one before; the last step has no next', async () => {
    const made = vi.spyOn(loadNative(), 'compose');
    const student = newStudent();
    const before: number[] = [];
    const step = student.step.bind(student);
    student.step = (how) => {
      before.push(made.mock.calls.length);
      return step(how);
    };
    const { steps } = await train({ data }, supervised, student);
    made.mockRestore();
    const last = steps.length;
    expect(before).toEqual(steps.map((_, i) => Math.min(i + 2, last)));
  });

  test('is drawn for its own phase', async () => {
    const made = vi.spyOn(loadNative(), 'compose');
    await train(
      { data: { ...tinyData(), test: null } },
      { semi: { burnIn: 3 }, schedule: { iterations: 4 }, validation: { interval: 0 } },
    );
    const pictures = made.mock.calls.map((call) => call[2]);
    made.mockRestore();
    const { labelled, unlabelled } = { labelled: 1, unlabelled: 4 };
    // Three steps of the burn-in; the teacher's batch comes first, the mixed one after.
    expect(pictures).toEqual([labelled, labelled, labelled, unlabelled, labelled, unlabelled]);
  });

  test('leaves no memory behind when it never comes', async () => {
    const live = native.memoryStats('cpu').liveBytes;
    for await (const event of trainSemiSupervised(newStudent(), options({ data }, supervised)))
      if (event.type === 'step' && event.iteration === 2) break;
    expect(native.memoryStats('cpu').liveBytes).toBe(live);
  });

  test('tells what it cannot draw when it is its turn', async () => {
    const bad = new MixplError('ERR_IO', 'decode: no');
    const seen: TrainEvent[] = [];
    let decoded = 0;
    const decode: TrainOptions['decode'] = async (path) => {
      if (++decoded > 2) throw bad;
      return decodeTiny(path);
    };
    const run = async () => {
      const loader = { prefetch: 1 };
      for await (const event of trainSemiSupervised(
        newStudent(),
        options(
          { data, decode, unreadable: 'refuse' },
          { ...supervised, loader, batch: { labelled: 1 } },
        ),
      ))
        seen.push(event);
    };
    await expect(run()).rejects.toMatchObject({ code: 'ERR_IO' });
    expect(stepsOf(seen).length).toBeGreaterThan(0);
  });
});

describe('phases', () => {
  test('burn-in: labelled pictures alone, while the teacher averages already', async () => {
    const { steps, student, events } = await train(
      {},
      { semi: { ...tinySettings.semi, burnIn: 6 } },
    );
    expect(steps.map((s) => s.phase)).toEqual([
      ...Array(6).fill('burn-in'),
      ...Array(6).fill('semi-supervised'),
    ]);
    expect(steps.slice(0, 6).every((s) => s.pseudo === null)).toBe(true);
    const emas = student.calls.filter((c) => c.what === 'ema');
    // After iterations 2, 5, 8 and 11, the burn-in's among them.
    expect(emas.map((c) => c.momentum)).toEqual(
      [2, 5, 8, 11].map((i) => expect.closeTo(4 / (4 + i), 9)),
    );
    expect(emas.map((c) => c.buffers)).toEqual(['copy', 'copy', 'skip', 'skip']);
    const validations = events.filter((e) => e.type === 'validation');
    expect(validations.map((v) => v.headline)).toEqual(['teacher', 'teacher']);
  });

  test('supervised: no teacher at all', async () => {
    const { steps, student, events } = await train(
      { data: { ...tinyData(), unlabelled: null } },
      { semi: { method: 'supervised' } },
    );
    expect(steps.every((s) => s.phase === 'supervised')).toBe(true);
    expect(new Set(student.calls.map((c) => c.what))).toEqual(
      new Set(['loss', 'backward', 'step', 'predict']),
    );
    const validation = events.find((e) => e.type === 'validation')!;
    expect(validation).toMatchObject({ headline: 'student', student: { voc: null } });
  });

  test("VOC's metrics on request, in the run's record, too", async () => {
    const settings = { validation: { voc: '11point' as const } };
    const { events } = await train({ out: folder }, settings);
    const { student } = events.find((e) => e.type === 'validation')!;
    expect(student.voc).toMatchObject({ interpolation: '11point' });
    const records = (await readFile(join(folder, 'metrics.jsonl'), 'utf8')).trim().split('\n');
    const record = records.map((line) => JSON.parse(line)).find((r) => r.type === 'validation');
    expect(record.student.VOC_AP50).toBe(student.voc!.mapPerThreshold[0]);
  });

  test('boxes that the labelled pipeline erased are no targets', async () => {
    const erase = { patches: [1, 1] as [number, number], ratio: [1, 1] as [number, number] };
    const labelled = { ...tinySettings.augment.labelled, erase: { ...erase, value: 0 } };
    const { student } = await train(
      { data: { ...tinyData(), unlabelled: null } },
      { semi: { method: 'supervised' }, augment: { ...tinySettings.augment, labelled } },
    );
    const learned = student.calls.filter((c) => c.what === 'loss');
    expect(learned.length).toBe(12);
    expect(learned.flatMap((c) => (c.boxes as number[][]).flat())).toEqual([]);
  });

  test('mean teacher: unmixed strong views', async () => {
    const { steps } = await train({}, { semi: { method: 'mean-teacher' } });
    const names = Object.keys(steps.at(-1)!.losses).filter((n) => n.includes('loss'));
    expect(names).toEqual(['sup_loss_cls', 'sup_loss_bbox', 'unsup_loss_cls', 'unsup_loss_bbox']);
  });
});

describe('abort', () => {
  test('before the first step', async () => {
    const { events } = await train({ out: folder, signal: AbortSignal.abort() });
    expect(kinds(events)).toEqual(['end 0']);
    expect(events[0]).toMatchObject({ reason: 'aborted' });
  });

  test('during a validation: it is repeated after resuming', async () => {
    const controller = new AbortController();
    const student = newStudent();
    const predict = student.predict_;
    let during = false;
    student.predict_ = async (batch) => {
      // The student predicts in validations only.
      if (!during) controller.abort(new Error('stop'));
      during = true;
      return predict(batch);
    };
    const createTeacher = student.createTeacher.bind(student);
    student.createTeacher = async () => {
      const teacher = await createTeacher();
      teacher.predict_ = predict;
      return teacher;
    };
    const first = await train({ out: folder, signal: controller.signal }, {}, student);
    expect(kinds(first.events).slice(-2)).toEqual(['checkpoint 6', 'end 6']);
    const rest = await train({ out: folder, resume: true });
    expect(kinds(rest.events).slice(0, 3)).toEqual(['resumed 6', 'validation 6', 'step 7']);
  });

  test('at any event nothing is lost and the folder is free again', async () => {
    const whole = await train();
    for (let after = 1; after <= 16; after += 3) {
      const out = join(folder, String(after));
      const controller = new AbortController();
      let count = 0;
      let last = 0;
      for await (const event of trainSemiSupervised(
        newStudent(),
        options({ out, signal: controller.signal }),
      )) {
        if (event.type === 'step') last = event.iteration;
        if (++count === after) controller.abort();
      }
      const rest = await train({ out, resume: true });
      expect(essence(rest.steps)).toEqual(essence(whole.steps.slice(last)));
    }
  });
});

describe('divergence', () => {
  test('stops with the last good checkpoint kept', async () => {
    const student = newStudent();
    const loss = student.loss.bind(student);
    let losses = 0;
    student.loss = async (...args) => {
      if (++losses === 20) student.nextLoss = Number.NaN;
      return loss(...args);
    };
    await expect(train({ out: folder }, {}, student)).rejects.toMatchObject({
      code: 'ERR_DIVERGED',
      message: expect.stringMatching(
        /sup_loss_cls must be finite, got NaN, after \d+ iterations; nothing was updated, the last good checkpoint is .*iteration-000005; try a lower learning rate/,
      ),
    });
    expect(await readdir(join(folder, 'checkpoints'))).toEqual(['iteration-000005']);
  });

  test('a gradient that is not finite stops too', async () => {
    const student = newStudent();
    student.step = async () => {
      throw new MixplError('ERR_DIVERGED', 'step: the gradient is not finite');
    };
    await expect(train({ out: folder }, {}, student)).rejects.toThrow(/there is no checkpoint yet/);
  });
});

describe('warnings', () => {
  test('no pseudo label for long', async () => {
    const student = new FakeDetector({ who: 'student' });
    const { events } = await train(
      {},
      { schedule: { iterations: 201 }, validation: { interval: 0 } },
      student,
    );
    expect(events.filter((e) => e.type === 'warning')).toMatchObject([
      { iteration: 200, code: 'no-pseudo-labels' },
    ]);
  });

  test('a batch that does not fit the recipe', async () => {
    const { events } = await train({ recipe: { labelled: 8, unlabelled: 32, lr: 0.01 } });
    expect(events[0]).toMatchObject({ type: 'warning', code: 'batch-and-rate', iteration: 0 });
  });

  test('pictures that cannot be read: refused, or replaced and told', async () => {
    let bad = tinyData().labelled.images[0]!.path;
    const decode = (path: string) =>
      path === bad
        ? Promise.reject(new MixplError('ERR_BAD_FILE', `${path}: must be an image`))
        : decodeTiny(path);
    await expect(train({ decode, out: folder })).rejects.toMatchObject({ code: 'ERR_BAD_FILE' });
    bad = 'unlabelled/3';
    const { events, steps } = await train({ decode });
    expect(steps).toHaveLength(12);
    expect(events.filter((e) => e.type === 'warning')).toMatchObject([
      {
        code: 'unusable-image',
        message: expect.stringMatching(/^unlabelled\/3: must be an image/),
      },
    ]);
  });

  test('a test picture that cannot be read: refused, or left out of the metrics and told once', async () => {
    const decode = (path: string) =>
      path === 'test/1'
        ? Promise.reject(new MixplError('ERR_BAD_FILE', `${path}: must be an image`))
        : decodeTiny(path);
    await expect(train({ decode })).rejects.toMatchObject({
      code: 'ERR_BAD_FILE',
      message: expect.stringContaining('try the policy unreadable-image=skip'),
    });
    const { events } = await train({ decode, unreadable: 'skip' });
    expect(events.filter((e) => e.type === 'warning')).toMatchObject([
      { iteration: 6, message: 'test/1: must be an image; it is left out of the metrics' },
    ]);
    // Of four pictures three count.
    const boxes = events.flatMap((e) =>
      e.type === 'validation' ? [e.teacher!, e.student].map(numGroundTruths) : [],
    );
    expect(boxes).toEqual([3, 3, 3, 3]);
  });

  test('test data without anything to find: told, and nothing is the best', async () => {
    const { test: whole, ...rest } = tinyData();
    const empty = { ...whole.images[0]!, annotations: noAnnotations() };
    const data = { ...rest, test: selectImages(whole, [empty]) };
    const { events } = await train(
      { data, out: folder },
      { validation: { ...tinySettings.validation, voc: 'area' } },
    );
    const lines = (await readFile(join(folder, 'metrics.jsonl'), 'utf8')).trim().split('\n');
    const record = lines.map((line) => JSON.parse(line)).find((r) => r.type === 'validation');
    expect(record.student).toMatchObject({ AP: null, VOC_AP50: null, VOC_AP: null });
    expect(events[0]).toMatchObject({
      ...{ type: 'warning', code: 'nothing-to-find' },
      message:
        'test has no annotated object: its metrics say nothing, and no weights are kept as the best',
    });
    const validations = events.filter((e) => e.type === 'validation');
    expect(validations.map(({ best }) => best)).toEqual([false, false]);
    expect(await readdir(folder)).not.toContain('best.safetensors');
  });
});

describe('wrong options', () => {
  test.each<[string, Partial<TrainOptions>, TrainSettingsInput, RegExp]>([
    ['no data', { data: undefined as never }, {}, /data.labelled must be a data set, got none/],
    [
      'no unlabelled data',
      { data: { labelled: tinyData().labelled } },
      {},
      /data.unlabelled must be given/,
    ],
    [
      'labelled data without labels',
      { data: { ...tinyData(), labelled: tinyData().unlabelled } },
      {},
      /data.labelled must have annotations/,
    ],
    [
      'test data without labels',
      { data: { ...tinyData(), test: tinyData().unlabelled } },
      {},
      /data.test must be annotated .*, got 'unlabelled\/0.png' without annotations/,
    ],
    [
      'a cache that is too small',
      {},
      { batch: { labelled: 1, unlabelled: 6 } },
      /cacheSize must be at least 10/,
    ],
    [
      'an unknown setting',
      {},
      { semi: { mixUp: true } as object },
      /settings: semi.mixUp: unknown key; nearest is mixup/,
    ],
    ['a negative rate', {}, { lr: -1 }, /settings: lr must be .*, got -1/],
    [
      'a change of nothing',
      { allowChanges: ['schedule', 'semi.mixUp'] },
      {},
      /allowChanges must name options of the config, got 'semi.mixUp'; did you mean 'semi.mixup'\?/,
    ],
  ])('%s', async (_, changes, settings, message) => {
    await expect(train({ out: folder, ...changes }, settings)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringMatching(message),
    });
    expect(await readdir(folder)).toEqual([]);
  });

  test('a detector of other classes', async () => {
    const student = new FakeDetector({ numClasses: 4 });
    await expect(train({}, {}, student)).rejects.toThrow(
      /detector must have 3 classes \(those of labelled: red, green, blue\), got 4/,
    );
  });
});
