// Iterations of several parts (batch.accumulate).
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BatchSampler } from '../../../lib/data/index.js';
import { MixplError } from '../../../lib/errors.js';
import { native } from '../../../lib/native.js';
import { MixPL, resolveSemiOptions } from '../../../lib/semi/index.js';
import type { TrainingState } from '../../../lib/train/checkpoint.js';
import {
  type TrainOptions,
  type TrainSettingsInput,
  trainSemiSupervised,
} from '../../../lib/train/index.js';
import type { Call } from '../semi/fake-detector.js';
import { decodeTiny, tinyData, tinySettings } from './tiny-data.js';
import { essence, kinds, metrics, newStudent, options, stoppedAfter, train } from './tiny-runs.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-accumulate-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const parts = (accumulate: number, settings: TrainSettingsInput = {}): TrainSettingsInput => ({
  ...{ batch: { accumulate }, validation: { interval: 0 } },
  ...settings,
});
const supervised: TrainSettingsInput = { semi: { method: 'supervised' } };
const withoutTest = { ...tinyData(), test: null };

/** What the student learned from, without what depends on its weights. */
const shown = (calls: readonly Call[]) =>
  calls
    .filter(({ what }) => what === 'loss')
    .map(({ sizes, labels, boxes }) => ({ sizes, labels, boxes }));
const countOf = (what: string, calls: readonly Call[]) =>
  calls.filter((call) => call.what === what).length;

async function stateAt(iteration: number, at = folder) {
  const name = `iteration-${String(iteration).padStart(6, '0')}`;
  const path = join(at, 'checkpoints', name, 'state.json');
  const state = JSON.parse(await readFile(path, 'utf8')) as TrainingState & { version: number };
  return { path, state };
}

describe('a run', () => {
  test('of one part is a run that says nothing', async () => {
    const [silent, one] = [await train(), await train({}, { batch: { accumulate: 1 } })];
    expect(essence(one.steps)).toEqual(essence(silent.steps));
    expect(one.student.calls).toEqual(silent.student.calls);
  });

  test('learns from the pictures of as many iterations, and updates once', async () => {
    const data = { ...withoutTest, unlabelled: null };
    const batch = { labelled: 2 };
    const six = { ...tinySettings.schedule, iterations: 6 };
    const one = await train({ data }, { ...supervised, batch });
    const two = await train(
      { data },
      { ...supervised, batch: { ...batch, accumulate: 2 }, schedule: six },
    );
    expect(shown(two.student.calls)).toEqual(shown(one.student.calls));
    expect(countOf('loss', two.student.calls)).toBe(12);
    expect(countOf('step', two.student.calls)).toBe(6);
    // The rate goes by iterations.
    expect(two.steps.map(({ lr }) => lr)).toEqual(one.steps.slice(0, 6).map(({ lr }) => lr));
    expect(two.steps.every(({ phase }) => phase === 'supervised')).toBe(true);
  });

  test('burn-in, EMA and mixing count iterations', async () => {
    const { steps, student, events } = await train(
      { data: withoutTest, out: folder },
      parts(3, { semi: { ...tinySettings.semi, burnIn: 4 } }),
    );
    const calls = student.calls;
    expect(steps.map(({ phase }) => phase)).toEqual([
      ...Array(4).fill('burn-in'),
      ...Array(8).fill('semi-supervised'),
    ]);
    expect(calls.filter(({ what }) => what === 'ema').map(({ momentum }) => momentum)).toEqual(
      [2, 5, 8, 11].map((i) => expect.closeTo(4 / (4 + i), 9)),
    );
    expect(countOf('predict', calls)).toBe(3 * 8);
    expect(countOf('step', calls)).toBe(12);
    // Each cache of 8 is full after two iterations of 4.
    expect(steps.map(({ losses }) => 'mosaic_unsup_loss_cls' in losses)).toEqual([
      ...Array(6).fill(false),
      ...Array(6).fill(true),
    ]);
    expect(steps.at(-1)!.pseudo!.images).toBe(12);
    expect(kinds(events).filter((kind) => !kind.startsWith('step'))).toEqual([
      ...['checkpoint 5', 'checkpoint 10', 'checkpoint 12', 'end 12'],
    ]);
  });

  test('each part has the pictures of its own batches in its cache', async () => {
    const data = tinyData();
    await train({ data, out: folder }, parts(2));
    const sampler = new BatchSampler(
      [
        { images: data.labelled.images, ratio: 1 },
        { images: data.unlabelled.images, ratio: 4 },
      ],
      { batchSize: 5, seed: tinySettings.seed },
    );
    const drawn = Array.from({ length: 24 }, () => sampler.next().indices[1]!);
    const cached = (part: number) => drawn.filter((_, batch) => batch % 2 === part).flat();
    const { state } = await stateAt(12);
    expect(state.caches.map((cache) => cache.map(({ image }) => image))).toEqual(
      [0, 1].map((part) => cached(part).slice(-8)),
    );
    expect(state.sampler!.step).toBe(24);
  });

  test('reports the share of parts that were silent, and the speed of all pictures', async () => {
    const student = newStudent();
    // Of one part of three the first picture has nothing.
    let asked = 0;
    const found = student.predict_;
    student.predict_ = async (batch) => {
      const all = await found(batch);
      return asked++ % 3 === 1
        ? [{ ...all[0]!, scores: all[0]!.scores.map(() => 0.1) }, ...all.slice(1)]
        : all;
    };
    const { steps } = await train(
      { data: withoutTest, out: folder },
      parts(3, { semi: { method: 'mean-teacher' } }),
      student,
    );
    for (const { silenced, losses } of steps) {
      expect(silenced).toEqual({ unsup_: expect.closeTo(1 / 3, 12) });
      expect(losses.unsup_loss_cls).not.toBe(0);
    }
    const [line] = await metrics(folder);
    expect(line).toMatchObject({
      silenced: { unsup_: expect.closeTo(1 / 3, 12) },
      pseudo: { emptyShare: expect.closeTo(1 / 12, 12) },
    });
    const first = steps[0]!;
    expect(first.imagesPerSecond).toBeCloseTo(15 / first.seconds, 9);
  });

  test('leaves no memory behind when it is left', async () => {
    const live = native.memoryStats('cpu').liveBytes;
    const data = { ...withoutTest, unlabelled: null };
    const run = options({ data }, parts(3, supervised));
    for await (const event of trainSemiSupervised(newStudent(), run))
      if (event.type === 'step' && event.iteration === 2) break;
    expect(native.memoryStats('cpu').liveBytes).toBe(live);
  });
});

describe('resuming', () => {
  const settings = parts(2, {
    semi: {
      ...tinySettings.semi,
      burnIn: 3,
      resampling: { threshold: 0.9, rounding: 'stochastic' },
    },
  });

  test.each([2, 4, 7])('after iteration %i goes on to the last bit', async (stop) => {
    const whole = await train({}, settings);
    const first = await stoppedAfter(stop, { out: folder }, settings);
    const rest = await train({ out: folder, resume: true }, settings);
    expect(essence([...first, ...rest.steps])).toEqual(essence(whole.steps));
    expect(rest.student.weight).toBe(whole.student.weight);
  });

  test('an abort within an iteration comes after it', async () => {
    const whole = await train({}, settings);
    const controller = new AbortController();
    const student = newStudent();
    const loss = student.loss.bind(student);
    let passes = 0;
    student.loss = async (...pass) => {
      // Iterations of the burn-in have 2 passes: this is the first part of the second.
      if (++passes === 3) controller.abort();
      return loss(...pass);
    };
    const first = await train({ out: folder, signal: controller.signal }, settings, student);
    expect(first.events.at(-1)).toMatchObject({ type: 'end', iteration: 2, reason: 'aborted' });
    expect(countOf('loss', student.calls)).toBe(4);
    const rest = await train({ out: folder, resume: true }, settings);
    expect(essence([...first.steps, ...rest.steps])).toEqual(essence(whole.steps));
  });

  test('with another number of parts needs permission; those that are new have nothing cached', async () => {
    await stoppedAfter(5, { out: folder }, parts(2));
    await expect(train({ out: folder, resume: true }, parts(3))).rejects.toMatchObject({
      code: 'ERR_CHECKPOINT',
      message: expect.stringMatching(/batch.accumulate: checkpoint 2, now 3; /),
    });
    const allowChanges = ['batch.accumulate'];
    const schedule = { ...tinySettings.schedule, iterations: 6 };
    const { steps } = await train(
      { out: folder, resume: true, allowChanges: [...allowChanges, 'schedule.iterations'] },
      parts(3, { schedule }),
    );
    expect(steps.map(({ iteration }) => iteration)).toEqual([6]);
    const { state } = await stateAt(6);
    expect(state.caches.map((cache) => cache.length)).toEqual([8, 8, 4]);
    expect(state.sampler!.step).toBe(2 * 5 + 3);
  });

  /** As releases before there were parts wrote it. */
  async function makeOld(change: (state: Record<string, unknown>) => void = () => {}) {
    const { path, state } = await stateAt(5);
    const { caches, ...rest } = state;
    const old = { ...rest, version: 1, cache: caches[0]! };
    const { batch } = old.identity.config as { batch: { accumulate?: number } };
    delete batch.accumulate;
    change(old);
    await writeFile(path, JSON.stringify(old));
  }

  test('from a checkpoint of before there were parts', async () => {
    const whole = await train();
    await stoppedAfter(5, { out: folder });
    await makeOld();
    await expect(
      train({ out: folder, resume: true }, { batch: { accumulate: 2 } }),
    ).rejects.toThrow(/batch.accumulate: checkpoint 1, now 2;/);
    const { steps } = await train({ out: folder, resume: true });
    expect(essence(steps)).toEqual(essence(whole.steps.slice(5)));
    expect((await stateAt(12)).state.version).toBe(2);
  });

  test.each<[string, (state: Record<string, unknown>) => void, string, RegExp]>([
    ['an old one without its cache', (s) => delete s.cache, 'ERR_BAD_FILE', /got parts/],
    [
      'caches that are none',
      (s) => Object.assign(s, { version: 2, caches: [1] }),
      'ERR_BAD_FILE',
      /got parts/,
    ],
    [
      'a later version',
      (s) => Object.assign(s, { version: 3 }),
      'ERR_CHECKPOINT',
      /must be 1 or 2 .*, got 3/,
    ],
  ])('not from %s', async (_, change, code, message) => {
    await stoppedAfter(5, { out: folder });
    await makeOld(change);
    await expect(train({ out: folder, resume: true })).rejects.toMatchObject({
      code,
      message: expect.stringMatching(message),
    });
  });
});

describe('what goes wrong', () => {
  test('in the second part updates nothing and keeps the last checkpoint', async () => {
    const student = newStudent();
    const loss = student.loss.bind(student);
    let passes = 0;
    student.loss = async (...pass) => {
      // Of iteration 6: two passes an iteration twice, then three of each part; the second part's first.
      if (++passes === 2 * 4 + 3 * 6 + 4) student.nextLoss = Number.NaN;
      return loss(...pass);
    };
    await expect(train({ out: folder }, parts(2), student)).rejects.toMatchObject({
      code: 'ERR_DIVERGED',
      message: expect.stringMatching(
        /sup_loss_cls must be finite, got NaN, after 5 iterations; nothing was updated, .*iteration-000005/,
      ),
    });
    expect(countOf('step', student.calls)).toBe(5);
    expect(await readdir(join(folder, 'checkpoints'))).toEqual(['iteration-000005']);
  });

  test('a labelled picture of the second part that cannot be read ends the run', async () => {
    const data = { ...withoutTest, unlabelled: null };
    const { images } = data.labelled;
    const sampler = new BatchSampler([{ images, ratio: 1 }], {
      ...{ batchSize: 1, seed: tinySettings.seed },
    });
    const drawn = Array.from({ length: 12 }, () => sampler.next().indices[0]![0]!);
    // The first that is new in a second part, not that of the first iteration.
    const batch = drawn.findIndex((image, i) => i > 1 && i % 2 === 1 && drawn.indexOf(image) === i);
    expect(batch).toBeGreaterThan(1);
    const bad = images[drawn[batch]!]!.path;
    const decode: TrainOptions['decode'] = async (path) => {
      if (path === bad) throw new MixplError('ERR_BAD_FILE', `${path}: must be an image`);
      return decodeTiny(path);
    };
    const student = newStudent();
    await expect(
      train({ data, decode }, { ...supervised, batch: { labelled: 1, accumulate: 2 } }, student),
    ).rejects.toMatchObject({
      code: 'ERR_BAD_FILE',
      message: expect.stringContaining(`${bad}: must be an image`),
    });
    expect(countOf('step', student.calls)).toBe((batch - 1) / 2);
    expect(countOf('loss', student.calls)).toBe(batch);
  });

  test.each([0, 1.5, 65])('accumulate %d is refused', async (accumulate) => {
    await expect(train({}, { batch: { accumulate } })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringMatching(/settings: batch.accumulate must be .*, got /),
    });
  });
});

describe('a policy of the caller', () => {
  const semi = resolveSemiOptions({ mosaicShape: tinySettings.semi.mosaicShape });

  test('is made for each part', async () => {
    const made: MixPL<never>[] = [];
    const policy = () => {
      made.push(new MixPL<never>(semi));
      return made.at(-1)!;
    };
    const own = await train({ policy }, parts(2));
    expect(made.map(({ cache }) => cache.length)).toEqual([8, 8]);
    expect(essence(own.steps)).toEqual(essence((await train({}, parts(2))).steps));
  });

  test('may be an object where there is one part, and only there', async () => {
    const policy = new MixPL<never>(semi);
    await train({ policy }, parts(1));
    expect(policy.cache).toHaveLength(8);
    await expect(train({ policy }, parts(2))).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringMatching(
        /policy must be a function .*accumulate is 2.*, got one policy/,
      ),
    });
  });
});

test('the batch that a recipe is compared with is that of all parts', async () => {
  const recipe = { labelled: 8, unlabelled: 32, lr: 0.01 };
  const warnings = async (accumulate: number) =>
    (await train({ recipe }, parts(accumulate, { schedule: { iterations: 1 } }))).events.filter(
      ({ type }) => type === 'warning',
    );
  expect(await warnings(8)).toEqual([]);
  expect(await warnings(1)).toMatchObject([
    { code: 'batch-and-rate', message: expect.stringMatching(/ 8 times as many parts/) },
  ]);
});
