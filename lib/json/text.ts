/** Where and why a text is not JSON. `offset` counts UTF-16 units from its beginning. */
export class JsonTextError extends Error {
  readonly offset: number;
  constructor(offset: number, message: string) {
    super(message);
    this.name = 'JsonTextError';
    this.offset = offset;
  }
}

const maxDepth = 1000;
const numberPattern = /-?(?:NaN|Infinity|(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)/y;
const escapes: Readonly<Record<string, string>> = {
  '"': '"',
  '\\': '\\',
  '/': '/',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
};

/**
 * Parses JSON as JSON.parse does, but also the NaN, Infinity and -Infinity that Python writes, and
 * says where a text that is not JSON goes wrong. JSON.parse goes first, being much faster.
 *
 * @throws JsonTextError
 */
export function parseJsonText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return new TextParser(text).document();
  }
}

class TextParser {
  readonly #text: string;
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): unknown {
    const value = this.#value();
    this.#space();
    if (this.#at < this.#text.length) throw this.#error('the end');
    return value;
  }

  #value(): unknown {
    this.#space();
    switch (this.#text[this.#at]) {
      case '{':
        return this.#nested(() => this.#object());
      case '[':
        return this.#nested(() => this.#array());
      case '"':
        return this.#string();
      case 't':
        return this.#word('true', true);
      case 'f':
        return this.#word('false', false);
      case 'n':
        return this.#word('null', null);
      default:
        return this.#number();
    }
  }

  #nested<T>(parse: () => T): T {
    if (++this.#depth > maxDepth) throw this.#error(`at most ${maxDepth} levels of nesting`);
    this.#at++;
    const value = parse();
    this.#depth--;
    return value;
  }

  #object(): Record<string, unknown> {
    const entries: [string, unknown][] = [];
    if (!this.#take('}'))
      do {
        this.#space();
        if (this.#text[this.#at] !== '"') throw this.#error('a key in double quotes');
        const key = this.#string();
        if (!this.#take(':')) throw this.#error("':'");
        entries.push([key, this.#value()]);
      } while (this.#more('}'));
    return Object.fromEntries(entries);
  }

  #array(): unknown[] {
    const values: unknown[] = [];
    if (!this.#take(']'))
      do values.push(this.#value());
      while (this.#more(']'));
    return values;
  }

  #more(end: string): boolean {
    if (this.#take(',')) return true;
    if (this.#take(end)) return false;
    throw this.#error(`',' or '${end}'`);
  }

  #string(): string {
    let result = '';
    let from = ++this.#at;
    for (; ; this.#at++) {
      const c = this.#text.charCodeAt(this.#at);
      if (c === 34) break;
      if (Number.isNaN(c) || c < 32) throw this.#error('a closing double quote');
      if (c !== 92) continue;
      result += this.#text.slice(from, this.#at++);
      const letter = this.#text[this.#at] ?? '';
      if (letter === 'u') {
        const digits = this.#text.slice(this.#at + 1, this.#at + 5);
        if (!/^[\da-fA-F]{4}$/.test(digits)) throw this.#error('four hexadecimal digits');
        result += String.fromCharCode(Number.parseInt(digits, 16));
        this.#at += 4;
      } else {
        const character = escapes[letter];
        if (character === undefined) throw this.#error('an escape sequence');
        result += character;
      }
      from = this.#at + 1;
    }
    return result + this.#text.slice(from, this.#at++);
  }

  #word<T>(word: string, value: T): T {
    if (!this.#text.startsWith(word, this.#at)) throw this.#error('a value');
    this.#at += word.length;
    return value;
  }

  #number(): number {
    numberPattern.lastIndex = this.#at;
    const match = numberPattern.exec(this.#text);
    if (!match) throw this.#error('a value');
    this.#at = numberPattern.lastIndex;
    return Number(match[0]);
  }

  #take(character: string): boolean {
    this.#space();
    if (this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  #space(): void {
    for (; ; this.#at++) {
      const c = this.#text.charCodeAt(this.#at);
      if (c !== 32 && c !== 10 && c !== 13 && c !== 9) return;
    }
  }

  #error(expected: string): JsonTextError {
    const got =
      this.#at < this.#text.length
        ? `'${this.#text.slice(this.#at, this.#at + 12).split('\n')[0]}'`
        : 'the end';
    return new JsonTextError(this.#at, `must have ${expected} here (to be JSON), got ${got}`);
  }
}
