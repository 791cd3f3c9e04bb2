import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type JsonEntry, readJsonEntries } from '../../../lib/json/stream.js';
import { JsonTextError, parseJsonText } from '../../../lib/json/text.js';
import { put, temporaryFolder } from '../data/temporary.js';

const folder = await temporaryFolder();

async function entriesOf(content: string, chunkBytes?: number) {
  const path = await put(folder, 'file.json', content);
  const entries: JsonEntry[] = [];
  const root = await readJsonEntries(path, (entry) => entries.push(entry), { chunkBytes });
  return { root, entries };
}

/** What the entries say the file holds. */
function rebuilt({ root, entries }: { root: string; entries: readonly JsonEntry[] }): unknown {
  if (root === 'scalar') return entries[0]!.value;
  if (root === 'array') return entries.flatMap(({ index, value }) => (index < 0 ? [] : [value]));
  const object = new Map<string, unknown>();
  for (const { key, index, value } of entries) {
    if (index < 0) object.set(key, value);
    else if (index === 0) object.set(key, [value]);
    else (object.get(key) as unknown[]).push(value);
  }
  return Object.fromEntries(object);
}

const indents = fc.constantFrom(undefined, 1, '\t', '\r\n ');

describe('readJsonEntries', () => {
  test('gives what JSON.parse gives, whatever the chunks', () =>
    fc.assert(
      fc.asyncProperty(
        fc.jsonValue({ stringUnit: 'binary' }),
        indents,
        fc.integer({ min: 1, max: 9 }),
        async (value, indent, chunkBytes) => {
          const text = JSON.stringify(value, null, indent === '\r\n ' ? 1 : indent);
          const content = indent === '\r\n ' ? text.replaceAll('\n', '\r\n') : text;
          expect(rebuilt(await entriesOf(content, chunkBytes))).toEqual(JSON.parse(content));
        },
      ),
      { numRuns: 150 },
    ));

  test('a value that no string can hold is refused, where it begins', async () => {
    const path = await put(folder, 'long.json', `{"images": [1,\n  "${'x'.repeat(100)}"]}`);
    const read = (maxValueBytes: number, chunkBytes: number) =>
      readJsonEntries(path, () => {}, { maxValueBytes, chunkBytes });
    for (const chunkBytes of [7, 1000]) {
      await expect(read(101, chunkBytes)).rejects.toMatchObject({
        code: 'ERR_BAD_FILE',
        message: `${path}:2:3: a single value must have at most 101 bytes, got more`,
      });
      expect(await read(102, chunkBytes)).toBe('object');
    }
    await expect(read(0, 7)).rejects.toMatchObject({ code: 'ERR_RANGE' });
    await expect(read(7, 0)).rejects.toMatchObject({ code: 'ERR_RANGE' });
  });

  test('says on which line each value begins', async () => {
    const { entries } = await entriesOf('{\n "a": [\n  1,\n\n  {"b":\n2}\n ], "c": []\n}\n', 3);
    expect(entries).toEqual([
      { key: 'a', index: 0, value: 1, line: 3 },
      { key: 'a', index: 1, value: { b: 2 }, line: 5 },
      { key: 'c', index: -1, value: [], line: 7 },
    ]);
  });

  test('passes over a byte order mark', async () => {
    const { root, entries } = await entriesOf('\uFEFF[1]', 1 << 10);
    expect(root).toBe('array');
    expect(entries[0]!.value).toBe(1);
  });

  test.each([
    ['{"a": [1, }', 1, 11, "must have a value here (to be JSON), got '}'"],
    ['{"a": [{"b": 1\n "c": 2}]}', 2, 2, "must have ',' or '}' here (to be JSON), got '\"c\": 2}'"],
    ['{"a": [1] "b": 2}', 1, 11, "must have ',' or '}' here (to be JSON), got '\"b\": 2}'"],
    ['{\n"a" 1}', 2, 5, "must have ':' here (to be JSON), got '1}'"],
    ['{a: 1}', 1, 2, "must have a key in double quotes here (to be JSON), got 'a: 1}'"],
    ['{"a": 1}\n}', 2, 1, "must have the end here (to be JSON), got '}'"],
    ['{"a": 1,}', 1, 9, "must have a key in double quotes here (to be JSON), got '}'"],
    ['[1 2]', 1, 4, "must have ',' or ']' here (to be JSON), got '2]'"],
    ['{"a": [\n{"b": 01}]}', 2, 8, "must have ',' or '}' here (to be JSON), got '1}'"],
    ['hello', 1, 1, "must have a value here (to be JSON), got 'hello'"],
    ['{"a": [1,\n2', 2, 2, 'must hold complete JSON, got a file that is cut off here'],
    ['{"a": "b', 1, 9, 'must hold complete JSON, got a file that is cut off here'],
    ['{"a": [{"b": "\\q"}]}', 1, 16, "must have an escape sequence here (to be JSON), got 'q\"}'"],
  ])('%j: line and column', async (content, line, column, message) => {
    for (const chunkBytes of [2, 1 << 16])
      await expect(entriesOf(content, chunkBytes)).rejects.toMatchObject({
        code: 'ERR_BAD_FILE',
        message: expect.stringMatching(/file\.json:/),
      });
    const error = (await entriesOf(content).catch((reason: unknown) => reason)) as Error;
    expect(error.message).toBe(`${folder}/file.json:${line}:${column}: ${message}`);
  });

  test('refuses empty files, UTF-16, folders and missing files', async () => {
    await expect(entriesOf('')).rejects.toThrow('must hold JSON, got an empty file');
    const utf16 = await put(folder, 'utf16.json', Buffer.from('\uFEFF{}', 'utf16le'));
    await expect(readJsonEntries(utf16, () => {})).rejects.toThrow('must be UTF-8');
    await expect(readJsonEntries(folder, () => {})).rejects.toMatchObject({ code: 'ERR_IO' });
    await expect(readJsonEntries(`${folder}/none.json`, () => {})).rejects.toMatchObject({
      code: 'ERR_IO',
    });
  });

  test('an abort ends the reading', async () => {
    const path = await put(folder, 'long.json', JSON.stringify(new Array(1000).fill(1)));
    const controller = new AbortController();
    let seen = 0;
    const reading = readJsonEntries(
      path,
      () => {
        if (++seen === 10) controller.abort(new Error('enough'));
      },
      { chunkBytes: 50, signal: controller.signal },
    );
    await expect(reading).rejects.toThrow('enough');
    expect(seen).toBeLessThan(100);
  });
});

describe('parseJsonText', () => {
  // NaN sends the text to our own parser; JSON.parse takes everything else.
  const own = (text: string) => (parseJsonText(`[NaN,${text}]`) as unknown[])[1];

  test('agrees with JSON.parse', () =>
    fc.assert(
      fc.property(fc.jsonValue({ stringUnit: 'binary' }), indents, (value, indent) => {
        const text = JSON.stringify(value, null, indent);
        expect(own(text)).toEqual(JSON.parse(text));
      }),
    ));

  test('refuses exactly what JSON.parse refuses', () =>
    fc.assert(
      fc.property(
        fc.string({ unit: fc.constantFrom(...'[]{}",:\\0123.eE+-ntrufalse \n'), maxLength: 12 }),
        (text) => {
          let expected: unknown;
          let valid = true;
          try {
            expected = JSON.parse(`[1,${text}]`);
          } catch {
            valid = false;
          }
          if (valid)
            expect((parseJsonText(`[NaN,${text}]`) as unknown[]).slice(1)).toEqual(
              (expected as unknown[]).slice(1),
            );
          else expect(() => parseJsonText(`[NaN,${text}]`)).toThrow(JsonTextError);
        },
      ),
      { numRuns: 2000 },
    ));

  test('reads what Python writes for numbers that are not finite', () =>
    expect(parseJsonText('[NaN, -Infinity, Infinity]')).toEqual([NaN, -Infinity, Infinity]));

  test('escapes', () => expect(own('"\\u00e9\\n\\"\\\\\\/\\ud83d\\ude00"')).toBe('é\n"\\/😀'));

  test('refuses nesting that would exhaust the stack', () =>
    expect(() => parseJsonText(`${'['.repeat(1e5)}NaN`)).toThrow('1000 levels'));
});
