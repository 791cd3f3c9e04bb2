import { appendFile, mkdtemp, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  createLogger,
  formatDuration,
  JsonLinesWriter,
  type Line,
  Progress,
  StatusLine,
  trimJsonLines,
  visible,
  wholeLines,
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

  test('what is shown briefly gives way to the text before', () => {
    const stream = recorder({ isTTY: true });
    const line = new StatusLine(stream, { interval_ms: 0 });
    line.set('3/9');
    line.setBriefly('validating 1/2', { plain_ms: 30_000 });
    line.print('AP 0.5');
    line.finish();
    expect(stream.text).toBe(
      '\r\x1b[K3/9\r\x1b[Kvalidating 1/2\r\x1b[KAP 0.5\n\r\x1b[K3/9\r\x1b[K3/9\n',
    );
  });

  test('or to nothing where there was none', () => {
    const stream = recorder({ isTTY: true });
    const line = new StatusLine(stream, { interval_ms: 0 });
    line.setBriefly('validating 1/2', { plain_ms: 30_000 });
    line.finish();
    expect(stream.text).toBe('\r\x1b[Kvalidating 1/2\r\x1b[K');
  });

  test('without a terminal that is a line now and then', () => {
    const stream = recorder();
    let now = 0;
    const line = new StatusLine(stream, { now: () => now });
    line.set('3/9');
    for (now = 1000; now <= 70_000; now += 1000)
      line.setBriefly(`validating ${now / 1000}/99`, { plain_ms: 30_000 });
    line.finish();
    expect(stream.text).toBe('3/9\nvalidating 30/99\nvalidating 60/99\n3/9\n');
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
    expect(await readFile(path, 'utf8')).toBe(
      '{"i":0,"loss":0}\n{"i":1,"loss":"NaN"}\n{"i":2,"loss":1}\n{"i":3}\n',
    );
  });

  const below = (most: number) => (record: Record<string, unknown>) => (record.i as number) < most;
  const written = async (name: string, text: string) => {
    const path = join(folder, name);
    await writeFile(path, text);
    return path;
  };

  test('trimming cuts off the end that a resumed run repeats, and a line that a crash cut short', async () => {
    const path = await written('tail.jsonl', '{"i":0}\n{ "i": 1 }\n{"i":2}\n\n{"i":3}\n{"i":4,"lo');
    const { ino } = await stat(path);
    await trimJsonLines(path, below(2));
    expect(await readFile(path, 'utf8')).toBe('{"i":0}\n{ "i": 1 }\n');
    expect((await stat(path)).ino).toBe(ino); // nothing was written anew
    await appendFile(path, '{"i":2');
    await trimJsonLines(path, below(9));
    expect(await readFile(path, 'utf8')).toBe('{"i":0}\n{ "i": 1 }\n');
    await trimJsonLines(path, below(0));
    expect(await readFile(path, 'utf8')).toBe('');
  });

  test('where there is nothing to drop nothing is touched', async () => {
    const path = await written('all.jsonl', '{"i":0}\n{ "i": 1 }\n');
    const before = await stat(path);
    await trimJsonLines(path, below(2));
    const { ino, ctimeMs } = await stat(path);
    expect({ ino, ctimeMs }).toEqual({ ino: before.ino, ctimeMs: before.ctimeMs });
  });

  test('what is kept behind what is dropped stays as it is', async () => {
    const path = await written(
      'mixed.jsonl',
      '{"i":0}\n{"i":5}\n{ "i": 1 }\n{"i":6}\n{"i":2}\n{"i"',
    );
    await trimJsonLines(path, below(3));
    expect(await readFile(path, 'utf8')).toBe('{"i":0}\n{ "i": 1 }\n{"i":2}\n');
  });

  test('of very many lines as well', async () => {
    const lines = Array.from({ length: 200_000 }, (_, i) => `{"i":${i}}\n`);
    const path = await written('many.jsonl', lines.join(''));
    await trimJsonLines(path, ({ i }) => i !== 1000);
    expect((await readFile(path, 'utf8')).split('\n')).toHaveLength(200_000);
    await trimJsonLines(path, below(150_000));
    expect(await readFile(path, 'utf8')).toMatch(/\{"i":149999\}\n$/);
  });

  test('a line that is not JSON is named, and nothing is dropped', async () => {
    const text = '{"i":0}\nhello\n{"i":9}\n';
    const path = await written('bad.jsonl', text);
    await expect(trimJsonLines(path, below(2))).rejects.toMatchObject({
      code: 'ERR_IO',
      message: expect.stringContaining(`${path}: must have a line of JSON at byte 8, got `),
    });
    expect(await readFile(path, 'utf8')).toBe(text);
    await writeFile(path, '{"i":1}\r\n\r\n{"i":2}\r\n');
    await trimJsonLines(path, below(2));
    expect(await readFile(path, 'utf8')).toBe('{"i":1}\r\n\r\n');
    await writeFile(path, '{"i":1}\nnull\n');
    await expect(trimJsonLines(path, below(2))).rejects.toMatchObject({
      code: 'ERR_BAD_FILE',
      message: `${path}: must have an object at byte 8, got null`,
    });
    await expect(trimJsonLines(join(folder, 'none.jsonl'), below(2))).rejects.toMatchObject({
      code: 'ERR_IO',
    });
  });

  test('a full disk and a folder that is not there are ERR_IO', async () => {
    await expect(JsonLinesWriter.open(join(folder, 'no', 'a.jsonl'))).rejects.toMatchObject({
      code: 'ERR_IO',
    });
    await using writer = await JsonLinesWriter.open('/dev/full');
    await expect(writer.append({ i: 1 })).rejects.toMatchObject({ code: 'ERR_IO' });
  });
});

describe('lines of a file', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'mixpl-lines-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  const linesOf = async (path: string, from = 0) => {
    await using file = await open(path);
    const lines: Line[] = [];
    for await (const line of wholeLines(file, path, { from })) lines.push(line);
    return lines;
  };

  test('come with their places, from anywhere; one without its end is none', async () => {
    const path = join(folder, 'a');
    await writeFile(path, 'ä\n\nbc\nde');
    const all = [
      { text: 'ä', start: 0, end: 3 },
      { text: '', start: 3, end: 4 },
      { text: 'bc', start: 4, end: 7 },
    ];
    expect(await linesOf(path)).toEqual(all);
    expect(await linesOf(path, 4)).toEqual(all.slice(2));
    expect(await linesOf(path, 7)).toEqual([]);
    expect(await linesOf(path, 99)).toEqual([]);
  });

  test('may be longer than what is read at once, and end anywhere in it', async () => {
    const path = join(folder, 'b');
    const texts = [1, (1 << 20) - 3, 3 << 19, 0, 5 << 19, 7].map((n) => 'ä細'.repeat(n / 5));
    await writeFile(path, texts.map((text) => `${text}\n`).join(''));
    const lines = await linesOf(path);
    expect(lines.map(({ text }) => text.length)).toEqual(texts.map(({ length }) => length));
    expect(lines.every(({ text }, i) => text === texts[i])).toBe(true);
    expect(await linesOf(path, lines[4]!.start)).toEqual(lines.slice(4));
  });

  test('without an end for very long, they are none', async () => {
    const path = join(folder, 'c');
    await writeFile(path, 'a\n');
    await using file = await open(path, 'r+');
    await file.truncate(70 << 20); // a hole: it takes no room
    await expect(linesOf(path)).rejects.toMatchObject({
      code: 'ERR_BAD_FILE',
      message: `${path}: lines must have at most 64 MiB, got a longer one at byte 2`,
    });
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
