// Trainings of several processes, which are all in this one, with a detector of one weight.
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { ProcessGroup } from '../../../lib/processes/index.js';
import {
  type TrainEvent,
  type TrainOptions,
  type TrainSettingsInput,
  trainSemiSupervised,
} from '../../../lib/train/index.js';
import { closeGroups, groupOf } from '../processes/groups.js';
import type { FakeDetector } from '../semi/fake-detector.js';
import { decodeTiny } from './tiny-data.js';
import { kinds, metrics, newStudent, options, stepsOf, train } from './tiny-runs.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-processes-'));
});
afterAll(() => rm(folder, { recursive: true }));
afterEach(closeGroups);

const fourParts: TrainSettingsInput = { batch: { accumulate: 4 }, semi: { scoreThr: 0.3 } };

/** A process's student: the fake one, whose gradient goes by way of the group. */
function studentOfGroup(): FakeDetector {
  const student = newStudent();
  return Object.assign(student, {
    async sumGradients(processes: ProcessGroup) {
      const all = await processes.allGather(student.gradient);
      student.gradient = all.reduce((a, b) => a + b, 0);
    },
  });
}

interface Ran {
  events: TrainEvent[];
  student: FakeDetector;
}

async function trainTogether(
  count: number | ProcessGroup[],
  changes: Partial<TrainOptions> | ((rank: number) => Partial<TrainOptions>) = {},
  settings: TrainSettingsInput = fourParts,
): Promise<PromiseSettledResult<Ran>[]> {
  const groups = typeof count === 'number' ? await groupOf(count) : count;
  return Promise.allSettled(
    groups.map(async (processes) => {
      const own = typeof changes === 'function' ? changes(processes.rank) : changes;
      const student = studentOfGroup();
      const events: TrainEvent[] = [];
      const run = options({ ...own, processes }, settings);
      for await (const event of trainSemiSupervised(student, run)) events.push(event);
      return { events, student };
    }),
  );
}

const whole = (results: PromiseSettledResult<Ran>[]): Ran[] =>
  results.map((result) => {
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  });

describe.each([2, 4])('%i processes', (count) => {
  test('make the run of one: steps, validations, files, checkpoints', async () => {
    const [out, alone] = [join(folder, `of-${count}`), join(folder, `one-for-${count}`)];
    const one = await train({ out: alone }, fourParts);
    const all = whole(await trainTogether(count, { out }));
    const wanted = stepsOf(one.events);
    for (const { events, student } of all) {
      expect(kinds(events).filter((k) => !k.startsWith('checkpoint'))).toEqual(
        kinds(one.events).filter((k) => !k.startsWith('checkpoint')),
      );
      for (const [i, step] of stepsOf(events).entries()) {
        const { losses, gradNorm, pseudo, silenced, lr } = wanted[i]!;
        for (const [name, value] of Object.entries(losses))
          expect(step.losses[name]).toBeCloseTo(value, 10);
        expect(step.gradNorm).toBeCloseTo(gradNorm, 10);
        expect(step).toMatchObject({
          silenced,
          lr,
          pseudo: { boxes: pseudo!.boxes, perClass: pseudo!.perClass },
        });
        expect(step.pseudo!.meanScore).toBeCloseTo(pseudo!.meanScore!, 10);
      }
      expect(student.weight).toBeCloseTo(one.student.weight, 6);
      expect(events.filter((e) => e.type === 'validation')).toEqual(
        one.events.filter((e) => e.type === 'validation'),
      );
    }
    // The first one alone writes.
    expect(all.map(({ events }) => events.filter((e) => e.type === 'checkpoint').length)).toEqual([
      one.events.filter((e) => e.type === 'checkpoint').length,
      ...Array<number>(count - 1).fill(0),
    ]);
    expect((await readdir(out)).sort()).toEqual((await readdir(alone)).sort());
    const lines = async (path: string) =>
      (await metrics(path)).map(({ type, iteration }) => `${type} ${iteration}`);
    expect(await lines(out)).toEqual(await lines(alone));
  });

  test('share parts and test pictures out, none twice', async () => {
    const decoded = new Map<number, string[]>();
    const decode = (rank: number) => (path: string) => {
      decoded.set(rank, [...(decoded.get(rank) ?? []), path]);
      return decodeTiny(path);
    };
    // Every part has one pass then.
    const settings = { ...fourParts, semi: { burnIn: 100 } };
    const all = whole(await trainTogether(count, (rank) => ({ decode: decode(rank) }), settings));
    expect(decoded.size).toBe(count);
    for (const { student } of all) {
      const calls = (of: string) =>
        student.calls.filter(({ who, what }) => who === 'student' && what === of).length;
      expect(calls('step')).toBe(12);
      expect(calls('loss')).toBe((12 * 4) / count);
    }
    const tests = [...decoded.values()].map(
      (paths) => new Set(paths.filter((p) => p.startsWith('test/'))),
    );
    expect([...tests.flatMap((set) => [...set])].sort()).toEqual(
      [0, 1, 2, 3].map((i) => `test/${i}`),
    );
  });
});

describe('going on', () => {
  test('with another number of processes is the run that was never stopped', async () => {
    const out = join(folder, 'other-number');
    const one = await train({}, fourParts);
    const short = { ...fourParts, schedule: { iterations: 12, warmup: { iterations: 4 } } };
    for (const [stop, count] of [
      [3, 2],
      [5, 4],
      [8, 1],
    ] as const) {
      const controllers = Array.from({ length: count }, () => new AbortController());
      const groups = count > 1 ? await groupOf(count) : [null];
      await Promise.all(
        groups.map(async (processes, i) => {
          const student = studentOfGroup();
          const { signal } = controllers[i]!;
          const run = options({ out, resume: true, processes, signal }, short);
          // Not the first one: the others have to be told.
          for await (const event of trainSemiSupervised(student, run))
            if (event.type === 'step' && event.iteration === stop) controllers.at(-1)!.abort();
        }),
      );
      await closeGroups();
    }
    const results = whole(await trainTogether(2, { out, resume: true }, short));
    for (const { events, student } of results) {
      expect(events[0]).toMatchObject({ type: 'resumed' });
      expect(student.weight).toBeCloseTo(one.student.weight, 6);
    }
    const steps = (await metrics(out)).filter(({ type }) => type === 'step');
    expect(steps.map(({ iteration }) => iteration)).toEqual([4, 8, 12]);
  });

  test('a run that is done is left as it is', async () => {
    const out = join(folder, 'done');
    whole(await trainTogether(2, { out }));
    const before = await metrics(out);
    const again = whole(await trainTogether(2, { out, resume: true }));
    for (const { events } of again) expect(kinds(events)).toEqual(['resumed 12', 'end 12']);
    expect(await metrics(out)).toEqual(before);
  });
});

describe('what ends one ends all', () => {
  const reasons = (results: PromiseSettledResult<unknown>[]) =>
    results.map((r) => (r.status === 'rejected' ? [r.reason.code, r.reason.message] : r.value));

  test('a picture that cannot be read', async () => {
    const results = await trainTogether(2, (rank) => ({
      decode: async (path: string) => {
        if (rank === 1 && path.startsWith('labelled/')) throw new Error('a broken disk');
        return decodeTiny(path);
      },
    }));
    expect(reasons(results)).toEqual([
      ['ERR_PROCESS', 'process 1 of 2 ended the training: a broken disk'],
      [undefined, 'a broken disk'],
    ]);
  });

  test('a loss that is no number, with its name, in each of them', async () => {
    const groups = await groupOf(2);
    const results = await Promise.allSettled(
      groups.map(async (processes) => {
        const student = studentOfGroup();
        if (processes.rank === 1) student.nextLoss = Number.NaN;
        for await (const _ of trainSemiSupervised(student, options({ processes }, fourParts)));
      }),
    );
    expect(reasons(results)).toEqual([
      ['ERR_PROCESS', expect.stringMatching(/process 1 .*sup_loss_cls must be finite/)],
      ['ERR_DIVERGED', expect.stringMatching(/sup_loss_cls must be finite/)],
    ]);
  });

  test('a loop that is left; then there is no checkpoint of it', async () => {
    const out = join(folder, 'left');
    const groups = await groupOf(2);
    const results = await Promise.allSettled(
      groups.map(async (processes) => {
        const run = options({ processes, out }, { ...fourParts, checkpoint: { interval: 2 } });
        for await (const event of trainSemiSupervised(studentOfGroup(), run))
          if (processes.rank === 0 && event.iteration === 3) break;
        return 'left';
      }),
    );
    expect(reasons(results)).toEqual([
      'left',
      ['ERR_PROCESS', 'process 0 of 2 ended the training: the loop over its events was left'],
    ]);
    expect(await readdir(join(out, 'checkpoints'))).toEqual(['iteration-000002']);
  });

  test('other options, other data, a folder that is taken', async () => {
    const seeds = await groupOf(2);
    const other = await Promise.allSettled(
      seeds.map(async (processes) => {
        const settings = { ...fourParts, seed: processes.rank };
        for await (const _ of trainSemiSupervised(
          studentOfGroup(),
          options({ processes }, settings),
        ));
      }),
    );
    expect(reasons(other)[1]).toEqual([
      'ERR_CONFIG',
      expect.stringMatching(/got others at rank 1: seed$/),
    ]);
    expect(reasons(other)[0]).toMatchObject(['ERR_PROCESS', expect.stringMatching(/rank 1: seed/)]);
    const out = join(folder, 'taken');
    await train({ out }, { ...fourParts, schedule: { iterations: 2 } });
    const taken = reasons(await trainTogether(2, { out }));
    expect(taken).toEqual([
      ['ERR_STATE', expect.stringMatching(/must not contain a run yet/)],
      ['ERR_PROCESS', expect.stringMatching(/process 0 .*must not contain a run yet/)],
    ]);
  });
});

test('what cannot be shared out is refused', async () => {
  const [three] = await Promise.all([trainTogether(3)]);
  for (const result of three)
    expect(result).toMatchObject({
      status: 'rejected',
      reason: { message: expect.stringMatching(/accumulate must be a multiple of 3 .*, got 4/) },
    });
  const groups = await groupOf(2);
  const results = await Promise.allSettled(
    groups.map(async (processes) => {
      for await (const _ of trainSemiSupervised(newStudent(), options({ processes }, fourParts)));
    }),
  );
  for (const result of results)
    expect(result).toMatchObject({
      reason: { message: expect.stringMatching(/must have sumGradients\(\)/) },
    });
});

test('a validation that one of them cuts off stays due', async () => {
  const out = join(folder, 'cut');
  const settings = { ...fourParts, validation: { interval: 4, batch: 1 } };
  const groups = await groupOf(2);
  const controller = new AbortController();
  await Promise.all(
    groups.map(async (processes) => {
      const decode = async (path: string) => {
        if (processes.rank === 1 && path.startsWith('test/')) controller.abort();
        return decodeTiny(path);
      };
      const signal = processes.rank === 1 ? { signal: controller.signal } : {};
      const run = options({ processes, out, decode, ...signal }, settings);
      const events: TrainEvent[] = [];
      for await (const event of trainSemiSupervised(studentOfGroup(), run)) events.push(event);
      expect(events.at(-1)).toMatchObject({ type: 'end', iteration: 4, reason: 'aborted' });
      expect(events.some((e) => e.type === 'validation')).toBe(false);
    }),
  );
  // By the same processes: what stopped them then is no matter now.
  const [first] = whole(await trainTogether(groups, { out, resume: true }, settings));
  expect(kinds(first!.events).slice(0, 2)).toEqual(['resumed 4', 'validation 4']);
  expect(first!.events.at(-1)).toMatchObject({ type: 'end', reason: 'finished' });
});
