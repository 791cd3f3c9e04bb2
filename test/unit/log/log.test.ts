import { appendFile, mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  createLogger,
  formatDuration,
  JsonLinesWriter,
  Progress,
  readJsonLines,
  StatusLine,
  trimJsonLines,
  visible,
} from '../../../lib/log/index.js';

test('durations', () => {
  expect([0, 59.4, 60, 337, 11_100, 187_200, Number.NaN].map(formatDuration)).toEqual([
    '0s',
    '59s',
    '1m00s',
    '5m37s',
    '3h05m',
    '2d04h',
    '?',
  ]);
});

describe('logger', () => {
  test("takes pino's two forms and leaves out what is below its level", () => {
    const lines: string[] = [];
    const logger = createLogger({ level: 'info', write: (line) => lines.push(line) });
    logger.debug('quiet');
    logger.info('plain');
    logger.info({ iteration: 3, name: 'a' }, 'with fields');
    logger.warn('careful');
    logger.error({ code: 'ERR_IO' }, 'broken');
    expect(lines).toEqual([
      'plain',
      'with fields iteration=3 name=a',
      'warn: careful',
      'error: broken code=ERR_IO',
    ]);
  });
});

/** A stream that keeps what is written to it. */
function recorder(options: { isTTY?: boolean; columns?: number } = {}) {
  const stream = { ...options, text: '', write: (text: string) => void (stream.text += text) };
  return stream;
}

describe('progress', () => {
  test('without a terminal: a plain line every few seconds', () => {
    const stream = recorder();
    let now = 0;
    const line = new StatusLine(stream, { interval_ms: 5000, now: () => now });
    const progress = new Progress(line, { total: 100, label: 'train', now: () => now });
    for (let i = 1; i <= 100; i++) {
      now = 200 * i;
      progress.update(i, { loss: 1 / 3 });
    }
    progress.finish();
    const lines = stream.text.trimEnd().split('\n');
    expect(lines).toHaveLength(5); // at 0.2, 5.2, 10.2, 15.2 s and the end
    expect(lines[1]).toBe('train 26/100 26% 5/s ETA 15s  loss 0.333');
    expect(lines.at(-1)).toBe('train 100/100 100% 5/s  loss 0.333');
    expect(stream.text).not.toContain('\r');
  });

  test('in a terminal: one line, redrawn, no wider than the window; messages go above it', () => {
    const stream = recorder({ isTTY: true, columns: 30 });
    const line = new StatusLine(stream, { interval_ms: 0 });
    line.set('x'.repeat(100));
    expect(stream.text).toBe(`\r\x1b[K${'x'.repeat(28)}…`);
    stream.text = '';
    line.set('short');
    line.print('note');
    line.finish();
    expect(stream.text).toBe('\r\x1b[Kshort\r\x1b[Knote\n\r\x1b[Kshort\r\x1b[Kshort\n');
  });

  test('a resumed run estimates from what it did itself, and the rate follows the recent past', () => {
    const stream = recorder();
    let now = 0;
    const line = new StatusLine(stream, { interval_ms: 0, now: () => now });
    const progress = new Progress(line, { total: 1000, done: 900, now: () => now });
    now = 10_000;
    progress.update(910);
    expect(stream.text).toBe('910/1000 91% 1/s ETA 1m30s\n');
    for (now = 11_000; now <= 100_000; now += 1000) progress.update(910 + (now - 10_000) / 2000);
    expect(stream.text.trimEnd().split('\n').at(-1)).toMatch(/ 0\.5\/s ETA 1m30s$/);
  });
});

describe('JSON lines', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'mixpl-log-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  test('are appended in call order and read back', async () => {
    const path = join(folder, 'a.jsonl');
    {
      await using writer = await JsonLinesWriter.open(path);
      await Promise.all(
        [0, 1, 2].map((i) => writer.append({ i, loss: i === 1 ? Number.NaN : i / 2 })),
      );
      await writer.flush();
    }
    {
      await using writer = await JsonLinesWriter.open(path);
      await writer.append({ i: 3 });
    }
    expect(await readJsonLines(path)).toEqual([
      { i: 0, loss: 0 },
      { i: 1, loss: 'NaN' },
      { i: 2, loss: 1 },
      { i: 3 },
    ]);
  });

  test('a line that a crash cut short is dropped; trimming drops what a resumed run repeats', async () => {
    const path = join(folder, 'b.jsonl');
    await using writer = await JsonLinesWriter.open(path);
    for (let i = 0; i < 4; i++) await writer.append({ i });
    await appendFile(path, '{"i":4,"lo');
    expect(await readJsonLines(path)).toHaveLength(4);
    await trimJsonLines(path, (record) => (record.i as number) < 2);
    expect(await readFile(path, 'utf8')).toBe('{"i":0}\n{"i":1}\n');
    expect(await readJsonLines(join(folder, 'none.jsonl'))).toEqual([]);
  });

  test('a full disk and a folder that is not there are ERR_IO', async () => {
    await expect(JsonLinesWriter.open(join(folder, 'no', 'a.jsonl'))).rejects.toMatchObject({
      code: 'ERR_IO',
    });
    await using writer = await JsonLinesWriter.open('/dev/full');
    await expect(writer.append({ i: 1 })).rejects.toMatchObject({ code: 'ERR_IO' });
  });
});

test('control characters of names are shown, not sent to the terminal', () => {
  expect(visible('a\x1b[2J\x07\r\x9b1m\x7f\u202eb')).toBe(
    'a\\x1b[2J\\x07\\x0d\\x9b1m\\x7f\\u202eb',
  );
  const plain = 'Zelle\tä 細胞 🩸\nnext';
  expect(visible(plain)).toBe(plain);
  const written: string[] = [];
  const log = createLogger({
    write: (line) => written.push(line),
    mark: (_, text) => `\x1b[1m${text}`,
  });
  log.warn({ file: '\x1bc' }, 'bad \x1b[31m name');
  expect(written).toEqual(['\x1b[1mbad \\x1b[31m name file=\\x1bc']);
  const line = new StatusLine({ isTTY: false, write: (text) => written.push(text) });
  line.set('3/4 \x1b]0;title\x07.jpg');
  expect(written.at(-1)).toBe('3/4 \\x1b]0;title\\x07.jpg\n');
});
