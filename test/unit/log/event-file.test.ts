// Event files, read back by a reader of our own.
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BinaryReader, type WireType } from '@bufbuild/protobuf/wire';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { crc32c, EventFileWriter, scalarsOf } from '../../../lib/log/event-file.js';
import { settings, student, train } from '../cuda/runs.js';
import { metrics } from '../train/tiny-runs.js';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-events-'));
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true, force: true });
});

interface Event {
  wallTime: number;
  step: number;
  version?: string;
  starts?: boolean;
  values: Record<string, number>;
}

/** Bit by bit, over the polynomial x^32 + x^28 + … + 1 of RFC 3720. */
function slowCrc(bytes: Uint8Array): number {
  let crc = 0xffffffffn;
  for (const byte of bytes) {
    crc ^= BigInt(byte);
    for (let bit = 0; bit < 8; bit++) crc = crc & 1n ? (crc >> 1n) ^ 0x82f63b78n : crc >> 1n;
  }
  return Number(crc ^ 0xffffffffn);
}
const masked = (crc: number) =>
  (((crc / 2 ** 15) | 0) + (crc % 2 ** 15) * 2 ** 17 + 0xa282ead8) % 2 ** 32;

function fields(bytes: Uint8Array, visit: (field: number, reader: BinaryReader) => boolean): void {
  const reader = new BinaryReader(bytes);
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (!visit(field, reader)) reader.skip(type as WireType, field);
  }
}

async function read(path: string): Promise<Event[]> {
  const bytes = await readFile(path);
  const events: Event[] = [];
  for (let at = 0; at < bytes.length; ) {
    const length = Number(bytes.readBigUInt64LE(at));
    expect(bytes.readUInt32LE(at + 8)).toBe(masked(slowCrc(bytes.subarray(at, at + 8))));
    const data = bytes.subarray(at + 12, at + 12 + length);
    expect(bytes.readUInt32LE(at + 12 + length)).toBe(masked(slowCrc(data)));
    at += length + 16;
    const event: Event = { wallTime: 0, step: 0, values: {} };
    fields(data, (field, r) => {
      if (field === 1) event.wallTime = r.double();
      else if (field === 2) event.step = Number(r.int64());
      else if (field === 3) event.version = r.string();
      else if (field === 7)
        fields(r.bytes(), (_, session) => {
          event.starts = session.int32() === 1;
          return true;
        });
      else if (field === 5)
        fields(r.bytes(), (_, summary) => {
          let tag = '';
          fields(summary.bytes(), (f, v) => {
            if (f === 1) tag = v.string();
            else if (f === 2) event.values[tag] = v.float();
            else return false;
            return true;
          });
          return true;
        });
      else return false;
      return true;
    });
    events.push(event);
  }
  return events;
}

describe('event files', () => {
  test('the checksum of the published vectors', () => {
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283);
    expect(crc32c(new Uint8Array(32))).toBe(0x8a9136aa); // RFC 3720, B.4
    expect(crc32c(new Uint8Array(0))).toBe(0);
    const bytes = Uint8Array.from({ length: 999 }, (_, i) => (i * 37) % 251);
    expect(crc32c(bytes)).toBe(slowCrc(bytes));
  });

  test('hold what was written, in order', async () => {
    const before = Date.now() / 1000;
    const writer = await EventFileWriter.open(folder);
    const first = writer.scalars(
      5,
      new Map([
        ['losses/größe', 1.5],
        ['train/lr', 1e-3],
      ]),
    );
    const second = writer.scalars(
      2 ** 40,
      new Map([
        ['odd', Number.NaN],
        ['far', -Infinity],
      ]),
    );
    await Promise.all([first, second]);
    await writer.close();
    expect(writer.path).toMatch(/events\.out\.tfevents\.\d{10}\.\d{3}\./);
    const events = await read(writer.path);
    expect(events.map(({ wallTime: _, ...event }) => event)).toEqual([
      { step: 0, version: 'brain.Event:2', values: {} },
      { step: 1, starts: true, values: {} }, // whatever a run left here that was killed before a checkpoint
      { step: 5, values: { 'losses/größe': 1.5, 'train/lr': Math.fround(1e-3) } },
      { step: 2 ** 40, values: { odd: Number.NaN, far: -Infinity } },
    ]);
    for (const { wallTime } of events) {
      expect(wallTime).toBeGreaterThanOrEqual(before);
      expect(wallTime).toBeLessThanOrEqual(Date.now() / 1000);
    }
  });

  test('of a session that goes on say from which step', async () => {
    const writer = await EventFileWriter.open(folder, { stepsBefore: 40 });
    await writer.close();
    expect((await read(writer.path))[1]).toMatchObject({ step: 41, starts: true });
  });

  test('sort by name as they were begun, within a second, too', async () => {
    const paths: string[] = [];
    const now = vi.spyOn(Date, 'now');
    for (const at of [1_999_999_999_999, 2_000_000_000_007, 2_000_000_000_095, 2_000_000_000_950]) {
      now.mockReturnValue(at);
      const writer = await EventFileWriter.open(folder);
      await writer.close();
      paths.push(writer.path);
    }
    expect([...paths].sort()).toEqual(paths);
  });

  test('a folder that is not there is told', async () => {
    await expect(EventFileWriter.open(join(folder, 'no'))).rejects.toMatchObject({
      code: 'ERR_IO',
    });
  });

  test('scalars are the numbers of an object by path', () => {
    const record = {
      a: 1,
      b: { c: 2, d: { e: Number.NaN } },
      text: 'x',
      none: null,
      list: [1],
      is: true,
    };
    expect([...scalarsOf(record)]).toEqual([
      ['a', 1],
      ['b/c', 2],
      ['b/d/e', Number.NaN],
    ]);
    expect([...scalarsOf({ a: 1 }, 'p')]).toEqual([['p/a', 1]]);
  });
});

test('a run writes the numbers of metrics.jsonl, and goes on in a file of its own', async () => {
  const out = join(folder, 'run');
  const logging = { interval: 1, tensorboard: true };
  const controller = new AbortController();
  await using first = await student('retinanet', 'cpu');
  const changes = { out, settings: { ...settings, logging } };
  await train(first, { ...changes, signal: controller.signal }, ({ iteration }) => {
    if (iteration === 3) controller.abort();
  });
  await using second = await student('retinanet', 'cpu');
  await train(second, { ...changes, resume: true });
  const files = (await readdir(out)).filter((name) => name.startsWith('events.out')).sort();
  expect(files).toHaveLength(2);
  const [before, after] = [await read(join(out, files[0]!)), await read(join(out, files[1]!))];
  expect(after[1]).toMatchObject({ step: 4, starts: true });
  const steps = [...before, ...after].filter(({ values }) => 'train/lr' in values);
  expect(steps.map(({ step }) => step)).toEqual([1, 2, 3, 4, 5, 6]);
  const lines = (await metrics(out)).filter(({ type }) => type === 'step');
  lines.forEach((line, i) => {
    const { losses, lr, pseudo, memory } = line as Record<string, Record<string, number>>;
    expect(steps[i]!.values['train/lr']).toBe(Math.fround(lr as unknown as number));
    for (const [name, value] of Object.entries(losses!))
      expect(steps[i]!.values[`losses/${name}`]).toBe(Math.fround(value));
    expect(steps[i]!.values['memory/rssBytes']).toBe(Math.fround(memory!.rssBytes!));
    if (pseudo) expect(Object.keys(steps[i]!.values).join()).toContain('pseudo/');
  });
});

test('without the option there is none', async () => {
  const out = join(folder, 'run');
  await using detector = await student('retinanet', 'cpu');
  await train(detector, { out, settings: { ...settings, schedule: { iterations: 1 } } });
  expect((await readdir(out)).filter((name) => name.startsWith('events'))).toEqual([]);
});
