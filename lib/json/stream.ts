import { constants } from 'node:buffer';
import { open } from 'node:fs/promises';
import { checkKeys, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { ioError } from '../files.js';
import { JsonTextError, parseJsonText } from './text.js';

/** One value of the outermost object, or one element of an array in it. */
export interface JsonEntry {
  /** The key in the outermost object; '' when the outermost value is itself the array or a scalar. */
  readonly key: string;
  /** Position in the array under `key`; -1 when the value is not an element. */
  readonly index: number;
  readonly value: unknown;
  /** 1-based line where the value begins. */
  readonly line: number;
}

/** How a large JSON file is read. */
export interface JsonStreamOptions {
  /** Bytes read at a time: how long the event loop may be held. @defaultValue 262144 */
  chunkBytes?: number;
  /**
   * Bytes of one value, an element of an array for instance: a longer one is refused before memory is taken for
   * the rest of it. @defaultValue what a string of V8 holds, 512 MiB
   */
  maxValueBytes?: number;
  signal?: AbortSignal | undefined;
}

const optionKeys = keysOf<JsonStreamOptions>({ chunkBytes: 0, maxValueBytes: 0, signal: 0 });

/**
 * Reads a JSON file of any size and hands over its outermost values one by one, arrays by element
 * (an empty array is handed over whole). Memory holds one chunk and one element, so files beyond
 * V8's 512 MiB string limit work; other work runs between chunks. NaN and Infinity are read.
 *
 * @returns the kind of the outermost value
 * @throws MixplError ERR_IO, or ERR_BAD_FILE with file:line:column when the file is not JSON
 */
export async function readJsonEntries(
  path: string,
  visit: (entry: JsonEntry) => void,
  options: JsonStreamOptions = {},
): Promise<'object' | 'array' | 'scalar'> {
  checkKeys('readJsonEntries', options, optionKeys);
  const { chunkBytes = 1 << 18, maxValueBytes = constants.MAX_STRING_LENGTH, signal } = options;
  for (const [name, value] of Object.entries({ chunkBytes, maxValueBytes }))
    if (!Number.isSafeInteger(value) || value < 1)
      throw new MixplError(
        'ERR_RANGE',
        `readJsonEntries: ${name} must be a whole number of bytes from 1, got ${value}`,
      );
  const splitter = new JsonSplitter(path, visit, maxValueBytes);
  const file = await open(path).catch((cause: unknown) => {
    throw unreadable(path, cause);
  });
  try {
    for (;;) {
      signal?.throwIfAborted();
      // A fresh buffer each time: the splitter may keep a part of the last one.
      const buffer = Buffer.allocUnsafe(chunkBytes);
      const { bytesRead } = await file.read(buffer, 0, chunkBytes).catch((cause: unknown) => {
        throw unreadable(path, cause);
      });
      if (bytesRead === 0) return splitter.end();
      splitter.write(buffer.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
}

function unreadable(path: string, cause: unknown): MixplError {
  return ioError(path, 'must be a readable JSON file', cause);
}

/** What the splitter waits for. */
type Expectation =
  | 'root'
  | 'first-key'
  | 'key'
  | 'colon'
  | 'value'
  | 'after-value'
  | 'first-element'
  | 'element'
  | 'after-element'
  | 'nothing';

/** A pushed-to scanner that finds where each outermost value ends and parses those bytes. */
class JsonSplitter {
  readonly #path: string;
  readonly #visit: (entry: JsonEntry) => void;
  readonly #maxValueBytes: number;
  #expect: Expectation = 'root';
  #rootKind: 'object' | 'array' | 'scalar' | undefined;
  #key = '';
  #index = -1;
  /** Bytes of the current value from earlier chunks. */
  #held: Buffer[] = [];
  #heldBytes = 0;
  /** The value being scanned: how it ends, how deep it is, whether inside a string or an escape. */
  #scanning: 'none' | 'string' | 'nested' | 'word' = 'none';
  #depth = 0;
  #inString = false;
  #escaped = false;
  #line = 1;
  /** Offset in the file where the current line begins, and where the current chunk does. */
  #lineStart = 0;
  #chunkStart = 0;
  #valueLine = 1;
  #valueColumn = 1;
  #arrayLine = 1;

  constructor(path: string, visit: (entry: JsonEntry) => void, maxValueBytes: number) {
    this.#path = path;
    this.#visit = visit;
    this.#maxValueBytes = maxValueBytes;
  }

  write(chunk: Buffer): void {
    let at = 0;
    if (this.#chunkStart === 0) {
      if (chunk[0] === 0xef && chunk[1] === 0xbb && chunk[2] === 0xbf) at = 3;
      else if (chunk[0] === 0 && chunk[1] === 0)
        throw this.#error(1, 1, 'must hold JSON, got zero bytes (as a full disk leaves them)');
      else if ((chunk[0] === 0xff && chunk[1] === 0xfe) || chunk[1] === 0)
        throw this.#error(1, 1, 'must be UTF-8 (to be JSON), got UTF-16');
    }
    while (at < chunk.length)
      at = this.#scanning === 'none' ? this.#next(chunk, at) : this.#scan(chunk, at);
    this.#chunkStart += chunk.length;
  }

  end(): 'object' | 'array' | 'scalar' {
    if (this.#scanning === 'word') this.#finishValue(Buffer.alloc(0));
    if (this.#expect !== 'nothing') {
      const column = this.#chunkStart - this.#lineStart + 1;
      throw this.#chunkStart === 0
        ? new MixplError('ERR_BAD_FILE', `${this.#path}: must hold JSON, got an empty file`)
        : this.#error(
            this.#line,
            column,
            'must hold complete JSON, got a file that is cut off here',
          );
    }
    return this.#rootKind!;
  }

  /** Between values: takes one character of structure, or begins a value. @returns where to go on */
  #next(chunk: Buffer, at: number): number {
    const c = chunk[at]!;
    if (c === 10) {
      this.#line++;
      this.#lineStart = this.#chunkStart + at + 1;
    }
    if (c === 32 || c === 10 || c === 13 || c === 9) return at + 1;
    switch (this.#expect) {
      case 'root':
        if (c === 123 || c === 91) {
          this.#rootKind = c === 123 ? 'object' : 'array';
          this.#arrayLine = this.#line;
          this.#expect = c === 123 ? 'first-key' : 'first-element';
          return at + 1;
        }
        this.#rootKind = 'scalar';
        return this.#begin(chunk, at);
      case 'first-key':
      case 'key':
        if (c === 125 && this.#expect === 'first-key') return this.#close(at);
        if (c !== 34) throw this.#unexpected(chunk, at, 'a key in double quotes');
        return this.#begin(chunk, at);
      case 'colon':
        if (c !== 58) throw this.#unexpected(chunk, at, "':'");
        this.#expect = 'value';
        return at + 1;
      case 'value':
        if (c !== 91) return this.#begin(chunk, at);
        this.#arrayLine = this.#line;
        this.#expect = 'first-element';
        return at + 1;
      case 'after-value':
        if (c === 125) return this.#close(at);
        if (c !== 44) throw this.#unexpected(chunk, at, "',' or '}'");
        this.#expect = 'key';
        return at + 1;
      case 'first-element':
        if (c === 93) {
          this.#visit({ key: this.#key, index: -1, value: [], line: this.#arrayLine });
          return this.#close(at);
        }
        this.#index = 0;
        return this.#begin(chunk, at);
      case 'element':
        return this.#begin(chunk, at);
      case 'after-element':
        if (c === 93) return this.#close(at);
        if (c !== 44) throw this.#unexpected(chunk, at, "',' or ']'");
        this.#expect = 'element';
        this.#index++;
        return at + 1;
      case 'nothing':
        throw this.#unexpected(chunk, at, 'the end');
    }
  }

  /** After the bracket that closes an array, or the outermost value. */
  #close(at: number): number {
    const inArray = this.#expect === 'first-element' || this.#expect === 'after-element';
    this.#expect = inArray && this.#rootKind === 'object' ? 'after-value' : 'nothing';
    this.#index = -1;
    return at + 1;
  }

  #begin(chunk: Buffer, at: number): number {
    const c = chunk[at]!;
    this.#valueLine = this.#line;
    this.#valueColumn = this.#chunkStart + at - this.#lineStart + 1;
    this.#depth = 0;
    this.#inString = false;
    this.#escaped = false;
    this.#scanning = c === 34 ? 'string' : c === 123 || c === 91 ? 'nested' : 'word';
    if (c === 44 || c === 58 || c === 93 || c === 125) throw this.#unexpected(chunk, at, 'a value');
    return this.#scan(chunk, at);
  }

  /** Goes on with the value that begins at, or reached into, `chunk` at `from`. */
  #scan(chunk: Buffer, from: number): number {
    const size = chunk.length;
    let at = from;
    let ended = false;
    if (this.#scanning === 'word') {
      while (at < size && !endsWord(chunk[at]!)) at++;
      ended = at < size;
    } else {
      let depth = this.#depth;
      let inString = this.#inString;
      let escaped = this.#escaped;
      while (at < size && !ended) {
        const c = chunk[at++]!;
        if (c === 10) {
          this.#line++;
          this.#lineStart = this.#chunkStart + at;
        }
        if (inString) {
          if (escaped) escaped = false;
          else if (c === 92) escaped = true;
          else if (c === 34) {
            inString = false;
            ended = depth === 0;
          }
        } else if (c === 34) inString = true;
        else if (c === 123 || c === 91) depth++;
        else if (c === 125 || c === 93) ended = --depth === 0;
      }
      this.#depth = depth;
      this.#inString = inString;
      this.#escaped = escaped;
    }
    const bytes = chunk.subarray(from, at);
    this.#heldBytes += bytes.length;
    if (this.#heldBytes > this.#maxValueBytes)
      throw this.#error(
        this.#valueLine,
        this.#valueColumn,
        `a single value must have at most ${this.#maxValueBytes} bytes, got more`,
      );
    if (ended) this.#finishValue(bytes);
    else this.#held.push(bytes);
    return at;
  }

  #finishValue(last: Buffer): void {
    const bytes = this.#held.length ? Buffer.concat([...this.#held, last]) : last;
    this.#held = [];
    this.#heldBytes = 0;
    this.#scanning = 'none';
    const text = bytes.toString('utf8');
    let value: unknown;
    try {
      value = parseJsonText(text);
    } catch (cause) {
      if (!(cause instanceof JsonTextError)) throw cause;
      const before = text.slice(0, cause.offset).split('\n');
      const column = before.at(-1)!.length + (before.length === 1 ? this.#valueColumn : 1);
      throw this.#error(this.#valueLine + before.length - 1, column, cause.message);
    }
    if (this.#expect === 'first-key' || this.#expect === 'key') {
      this.#key = value as string;
      this.#expect = 'colon';
      return;
    }
    const isElement = this.#expect === 'first-element' || this.#expect === 'element';
    this.#expect = isElement
      ? 'after-element'
      : this.#rootKind === 'scalar'
        ? 'nothing'
        : 'after-value';
    this.#visit({
      key: this.#key,
      index: isElement ? this.#index : -1,
      value,
      line: this.#valueLine,
    });
  }

  #unexpected(chunk: Buffer, at: number, expected: string): MixplError {
    const got = chunk
      .subarray(at, at + 12)
      .toString('utf8')
      .split('\n')[0]!;
    const column = this.#chunkStart + at - this.#lineStart + 1;
    return this.#error(this.#line, column, `must have ${expected} here (to be JSON), got '${got}'`);
  }

  #error(line: number, column: number, message: string): MixplError {
    return new MixplError('ERR_BAD_FILE', `${this.#path}:${line}:${column}: ${message}`);
  }
}

/** White space and the structure that may follow a number or a word. */
function endsWord(c: number): boolean {
  return c === 44 || c === 93 || c === 125 || c === 32 || c === 10 || c === 13 || c === 9;
}
