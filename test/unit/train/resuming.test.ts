import { mkdtemp, readdir, readFile, rename, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { TrainSettingsInput } from '../../../lib/train/index.js';
import { type TrainEvent, trainSemiSupervised } from '../../../lib/train/index.js';
import { tinyData, tinySettings } from './tiny-data.js';
import {
  essence,
  kinds,
  metrics,
  newStudent,
  options,
  stepsOf,
  stoppedAfter,
  train,
} from './tiny-runs.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-train-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

describe('resuming', () => {
  test.each([1, 3, 5, 8, 11])('stopped after step %i it goes on to the last bit', async (stop) => {
    const whole = await train();
    const controller = new AbortController();
    const first: TrainEvent[] = [];
    const student = newStudent();
    for await (const event of trainSemiSupervised(
      student,
      options({ out: folder, signal: controller.signal }),
    )) {
      first.push(event);
      if (event.type === 'step' && event.iteration === stop) controller.abort();
    }
    expect(first.at(-1)).toMatchObject({ type: 'end', iteration: stop, reason: 'aborted' });
    const rest = await train({ out: folder, resume: true });
    expect(rest.events[0]).toMatchObject({ type: 'resumed', iteration: stop });
    expect(essence([...stepsOf(first), ...rest.steps])).toEqual(essence(whole.steps));
    expect(rest.student.weight).toBe(whole.student.weight);
    const steps = (await metrics(folder)).filter((r) => r.type === 'step').map((r) => r.iteration);
    expect(steps).toEqual([4, 8, 12]);
  });

  test('through a burn-in and repeated classes', async () => {
    const settings: TrainSettingsInput = {
      semi: {
        ...tinySettings.semi,
        burnIn: 4,
        resampling: { threshold: 0.9, rounding: 'stochastic' },
        indexRule: 'paper',
      },
    };
    const whole = await train({}, settings);
    for (const stop of [2, 4, 9]) {
      const out = join(folder, String(stop));
      const first = await stoppedAfter(stop, { out }, settings);
      const rest = await train({ out, resume: true }, settings);
      expect(essence([...first, ...rest.steps])).toEqual(essence(whole.steps));
    }
  });

  test('a run that was killed goes on from its last checkpoint', async () => {
    const whole = await train({ out: join(folder, 'whole') });
    // The student throws what no handler expects: the process might as well have died.
    const student = newStudent();
    const loss = student.loss.bind(student);
    let losses = 0;
    student.loss = async (...args) => {
      if (++losses > 22) throw new Error('killed');
      return loss(...args);
    };
    await expect(train({ out: folder }, {}, student)).rejects.toThrow('killed');
    const rest = await train({ out: folder, resume: true });
    expect(rest.events[0]).toMatchObject({ type: 'resumed', iteration: 5 });
    expect(essence(rest.steps)).toEqual(essence(whole.steps.slice(5)));
  });

  test('leaving the loop writes a checkpoint', async () => {
    for await (const event of trainSemiSupervised(newStudent(), options({ out: folder })))
      if (event.type === 'step' && event.iteration === 2) break;
    expect(await readdir(join(folder, 'checkpoints'))).toEqual(['iteration-000002']);
  });

  test('a validation that was due when the loop was left is made up for', async () => {
    const whole = await train({ out: join(folder, 'whole') });
    const last = whole.events.filter((e) => e.type === 'validation').at(-1)!;
    for await (const event of trainSemiSupervised(newStudent(), options({ out: folder })))
      if (event.type === 'step' && event.iteration === 12) break;
    const { events } = await train({ out: folder, resume: true });
    expect(kinds(events).slice(0, 2)).toEqual(['resumed 12', 'validation 12']);
    expect(events[1]).toEqual(last);
  });

  test('checkpoints of a course that was left go as the other one has its own', async () => {
    const checkpoints = join(folder, 'checkpoints');
    const settings = { checkpoint: { interval: 5, keep: 2 } };
    await train({ out: folder }, settings);
    expect(await readdir(checkpoints)).toEqual(['iteration-000010', 'iteration-000012']);
    const resume = join(checkpoints, 'iteration-000010');
    await stoppedAfter(11, { out: folder, resume }, settings);
    expect(await readdir(checkpoints)).toEqual(['iteration-000010', 'iteration-000011']);
    const rest = await train({ out: folder, resume: true }, settings);
    expect(kinds(rest.events).slice(0, 2)).toEqual(['resumed 11', 'step 12']);
  });

  test('checkpoints that cannot be read are no empty folder', async () => {
    await train({ out: folder });
    const before = await metrics(folder);
    const checkpoints = join(folder, 'checkpoints');
    await rename(checkpoints, join(folder, 'away'));
    await symlink('checkpoints', checkpoints); // a loop
    await expect(train({ out: folder, resume: true })).rejects.toMatchObject({
      code: 'ERR_IO',
      message: expect.stringMatching(/checkpoints: must be a readable folder of checkpoints/),
    });
    expect(await metrics(folder)).toEqual(before);
  });

  test('a finished run has nothing left to do', async () => {
    await train({ out: folder });
    const { events } = await train({ out: folder, resume: true });
    expect(kinds(events)).toEqual(['resumed 12', 'end 12']);
  });

  test('resume in an empty folder is a fresh start', async () => {
    const { events } = await train({ out: join(folder, 'new'), resume: true });
    expect(kinds(events)[0]).toBe('step 1');
  });

  test('a longer schedule needs permission', async () => {
    await train({ out: folder });
    const longer = { schedule: { ...tinySettings.schedule, iterations: 14 } };
    await expect(train({ out: folder, resume: true }, longer)).rejects.toMatchObject({
      code: 'ERR_CHECKPOINT',
      message: expect.stringMatching(/schedule.iterations: checkpoint 12, now 14; /),
    });
    const { steps } = await train(
      { out: folder, resume: true, allowChanges: ['schedule.iterations'] },
      longer,
    );
    expect(steps.map((s) => s.iteration)).toEqual([13, 14]);
  });

  test('what a refusal says to allow can be allowed, options that are gone too', async () => {
    const decay = { type: 'step' as const, milestones: [9], factor: 0.5 };
    await train({ out: folder }, { schedule: { ...tinySettings.schedule, decay } });
    const again = { schedule: { ...tinySettings.schedule, iterations: 13 } };
    const refusal = await train({ out: folder, resume: true }, again).catch(
      (e: Error) => e.message,
    );
    const [, listed] = /allow these changes \(--allow-change\): (.*)$/.exec(refusal as string)!;
    const allowChanges = listed!.split(', ');
    expect(allowChanges).toContain('schedule.decay.milestones');
    const { steps } = await train({ out: folder, resume: true, allowChanges }, again);
    expect(steps.map((s) => s.iteration)).toEqual([13]);
  });

  test('other data or options are refused with the difference, and nothing changes', async () => {
    await train({ out: folder });
    const before = await snapshot();
    await expect(
      train({ out: folder, resume: true, data: tinyData({ unlabelled: 13 }) }),
    ).rejects.toThrow(/unlabelled data: checkpoint \w{12}, now \w{12}/);
    await expect(train({ out: folder, resume: true }, { seed: 8, lr: 0.02 })).rejects.toThrow(
      /seed: checkpoint 7, now 8\n {2}lr: checkpoint 0.01, now 0.02/,
    );
    expect(await snapshot()).toEqual(before);
  });

  test('a folder that holds a run is not overwritten', async () => {
    await train({ out: folder });
    const before = await snapshot();
    await expect(train({ out: folder })).rejects.toMatchObject({ code: 'ERR_STATE' });
    expect(await snapshot()).toEqual(before);
  });

  test('two trainings cannot share a folder', async () => {
    const first = trainSemiSupervised(newStudent(), options({ out: folder }));
    await first.next();
    await expect(train({ out: folder, resume: true })).rejects.toMatchObject({
      code: 'ERR_STATE',
      message: expect.stringMatching(/another training writes into/),
    });
    await first.return();
    await expect(train({ out: folder, resume: true })).resolves.toBeDefined();
  });

  test('resumed on another machine says so', async () => {
    await stoppedAfter(5, { out: folder });
    const state = join(folder, 'checkpoints', 'iteration-000005', 'state.json');
    const { writeFile } = await import('node:fs/promises');
    const text = await readFile(state, 'utf8');
    for (const [now, was] of [
      [/"threads":\d+/, '"threads":64'],
      [/"mixpl":"/, '"mixpl":"0.0.'],
      [/"processor":"/, '"processor":"amx, '],
      [/"together":"none"/, '"together":"all"'],
    ] as const) {
      expect(text).toMatch(now);
      await writeFile(state, text.replace(now, was));
      const { value } = await firstWarning();
      expect(value).toMatchObject({ type: 'warning', code: 'environment-changed' });
    }
    // Of what an older checkpoint does not say nothing has changed.
    await writeFile(state, text.replace(/"processor":"[^"]*",/, ''));
    expect((await firstWarning()).value).toMatchObject({ type: 'step' });

    async function firstWarning() {
      const run = trainSemiSupervised(newStudent(), options({ out: folder, resume: true }));
      await run.next(); // resumed
      const second = await run.next();
      await run.return();
      return second;
    }
  });
});

/** Every file of the run with its content. */
async function snapshot(): Promise<Record<string, string>> {
  const names = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = names.filter((n) => n.isFile()).map((n) => join(n.parentPath, n.name));
  return Object.fromEntries(
    await Promise.all(files.map(async (f) => [f, await readFile(f, 'base64')] as const)),
  );
}
