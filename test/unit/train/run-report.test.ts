import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { MixplError } from '../../../lib/errors.js';
import { trainSemiSupervised } from '../../../lib/train/index.js';
import { RunFolder } from '../../../lib/train/run-folder.js';
import { temporaryFolder } from '../temporary-folder.js';
import { kinds, metrics, newStudent, options, train } from './tiny-runs.js';

describe("a run's report", () => {
  test('one that cannot be written is told, and fails nothing', async () => {
    const folder = await temporaryFolder();
    const page = join(folder, 'report.html');
    await mkdir(page);
    const { events } = await train({ out: folder });
    expect(kinds(events).slice(-3)).toEqual(['checkpoint 12', 'warning 12', 'end 12']);
    expect(events.at(-2)).toMatchObject({
      code: 'report-not-written',
      message: `report.html was not written: ${page}: must be a writable file, got a folder (EISDIR); nothing else of the run depends on it`,
    });
    expect(events.at(-1)).toMatchObject({ reason: 'finished' });
    expect((await metrics(folder)).at(-1)).toMatchObject({ code: 'report-not-written' });
  });

  test('nor does it fail one where the warning finds no room, either', async () => {
    const folder = await temporaryFolder();
    const page = join(folder, 'report.html');
    await mkdir(page);
    const { log } = RunFolder.prototype;
    const full = vi.spyOn(RunFolder.prototype, 'log').mockImplementation(function (
      this: RunFolder,
      record,
    ) {
      if (record.type === 'warning') return Promise.reject(new MixplError('ERR_IO', 'ENOSPC'));
      return log.call(this, record);
    });
    const { events } = await train({ out: folder });
    full.mockRestore();
    expect(kinds(events).slice(-2)).toEqual(['warning 12', 'end 12']);
    expect(events.at(-1)).toMatchObject({ reason: 'finished' });
  });

  test('the report has the end of the run, and of one whose loop was left', async () => {
    const folder = await temporaryFolder();
    const whole = join(folder, 'whole');
    await train({ out: whole });
    expect(await readFile(join(whole, 'report.html'), 'utf8')).toContain('iteration 12');
    const left = join(folder, 'left');
    for await (const event of trainSemiSupervised(newStudent(), options({ out: left })))
      if (event.iteration === 7) break;
    expect(await readFile(join(left, 'report.html'), 'utf8')).toContain('iteration 6');
  });
});
