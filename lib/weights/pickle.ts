/**
 * Reads pickles (protocols 0 … 5) without running anything: the rules decide what a global, a call and a
 * persistent id stand for. Source: the comments of Python's pickletools.
 *
 * Dictionaries become Maps; lists, tuples and sets arrays. Nothing is recursive, so that nesting
 * costs no stack.
 */

export interface PickleRules {
  /** What `module.name` stands for; throws for what it does not know. */
  global(module: string, name: string): unknown;
  /** What the call of a callee stands for; throws for one that is no function of the rules. */
  call(callee: unknown, args: readonly unknown[]): unknown;
  /** What an object outside the pickle stands for. */
  persistent(id: unknown): unknown;
}

/** A pickle that is not well formed. */
export class PickleError extends Error {}
/** The bytes end before the pickle does. */
export class PickleCut extends PickleError {}

/** Some twenty thousand tensors; few enough to take a moment and little memory, whatever they make. */
const mostInstructions = 1_000_000;

/**
 * @param start where the pickle begins
 * @returns its object, and where it ends
 * @throws PickleError; whatever the rules throw
 */
export function unpickle(
  bytes: Buffer,
  rules: PickleRules,
  start = 0,
): { value: unknown; end: number } {
  const machine = new Machine(bytes, rules, start);
  for (let i = 0; i < mostInstructions; i++) {
    if (machine.step()) return { value: machine.pop(), end: machine.at };
  }
  throw new PickleError(`a pickle of more than ${mostInstructions} instructions`);
}

type Instruction = (m: Machine) => void;

class Machine {
  at: number;
  readonly #bytes: Buffer;
  readonly rules: PickleRules;
  readonly #stack: unknown[] = [];
  /** Heights of the stack. */
  readonly #marks: number[] = [];
  readonly #memo = new Map<number, unknown>();

  constructor(bytes: Buffer, rules: PickleRules, start: number) {
    this.#bytes = bytes;
    this.rules = rules;
    this.at = start;
  }

  /** @returns whether that was the last instruction */
  step(): boolean {
    const code = this.byte();
    if (code === stop) return true;
    const instruction = instructions[code];
    if (!instruction)
      throw new PickleError(`pickle instruction 0x${code.toString(16)} at byte ${this.at - 1}`);
    instruction(this);
    return false;
  }

  byte(): number {
    const value = this.#bytes[this.at];
    if (value === undefined) throw new PickleCut('a pickle that is cut off');
    this.at++;
    return value;
  }

  take(length: number): Buffer {
    const end = this.at + length;
    if (!(end <= this.#bytes.length)) throw new PickleCut('a pickle that is cut off');
    const taken = this.#bytes.subarray(this.at, end);
    this.at = end;
    return taken;
  }

  line(): string {
    const end = this.#bytes.indexOf(0x0a, this.at);
    if (end < 0) throw new PickleCut('a pickle that is cut off');
    const text = this.#bytes.toString('utf8', this.at, end);
    this.at = end + 1;
    return text;
  }

  push(value: unknown): void {
    this.#stack.push(value);
  }

  pop(): unknown {
    if (this.#stack.length <= (this.#marks.at(-1) ?? 0)) throw new PickleError('an empty stack');
    return this.#stack.pop();
  }

  top(): unknown {
    const value = this.pop();
    this.#stack.push(value);
    return value;
  }

  mark(): void {
    this.#marks.push(this.#stack.length);
  }

  popToMark(): unknown[] {
    const mark = this.#marks.pop();
    if (mark === undefined) throw new PickleError('a pickle without the mark it refers to');
    return this.#stack.splice(mark);
  }

  put(index: number): void {
    this.#memo.set(index, this.top());
  }

  memoize(): void {
    this.put(this.#memo.size);
  }

  get(index: number): void {
    if (!this.#memo.has(index)) throw new PickleError(`a reference to the unknown object ${index}`);
    this.push(this.#memo.get(index));
  }

  text(length: number): string {
    return this.take(length).toString('utf8');
  }

  /** A length of 8 bytes. */
  wideLength(): number {
    return Number(this.take(8).readBigUInt64LE());
  }
}

const stop = 0x2e;

/** A new list, dictionary or set gets items; objects that stand for something else ignore them. */
function append(target: unknown, items: readonly unknown[]): void {
  if (Array.isArray(target)) for (const item of items) target.push(item);
}

function setItems(target: unknown, items: readonly unknown[]): void {
  if (items.length % 2) throw new PickleError('a dictionary with a key and no value');
  if (target instanceof Map)
    for (let i = 0; i < items.length; i += 2) target.set(items[i], items[i + 1]);
}

function mapOf(items: readonly unknown[]): Map<unknown, unknown> {
  const map = new Map();
  setItems(map, items);
  return map;
}

/** Little endian, two's complement. Numbers beyond 16 bytes are nothing that a checkpoint holds. */
function longOf(bytes: Buffer): number | bigint {
  if (bytes.length > 16) throw new PickleError(`an integer of ${bytes.length} bytes`);
  let value = 0n;
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i]!);
  return narrow(BigInt.asIntN(8 * bytes.length, value));
}

function narrow(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function decimal(text: string): number | bigint | boolean {
  if (text === '01' || text === '00') return text === '01';
  if (!/^[+-]?\d{1,40}L?$/.test(text)) throw new PickleError(`the integer '${text.slice(0, 40)}'`);
  return narrow(BigInt(text.replace('L', '').replace('+', '')));
}

function globalOf(m: Machine, module: unknown, name: unknown): void {
  if (typeof module !== 'string' || typeof name !== 'string')
    throw new PickleError('a global whose name is not text');
  m.push(m.rules.global(module, name));
}

function call(m: Machine, args: unknown): void {
  if (!Array.isArray(args)) throw new PickleError('a call without arguments');
  m.push(m.rules.call(m.pop(), args));
}

/** By the character of pickletools that stands for each, or its code. */
const instructions: Record<number, Instruction | undefined> = Object.fromEntries(
  (
    [
      [0x80, (m) => m.take(1)], // PROTO
      [0x95, (m) => m.take(8)], // FRAME: what is in it is read in place
      ['(', (m) => m.mark()],
      ['0', (m) => m.pop()], // POP
      ['1', (m) => m.popToMark()],
      ['2', (m) => m.push(m.top())], // DUP
      // Constants and numbers
      ['N', (m) => m.push(null)],
      [0x88, (m) => m.push(true)],
      [0x89, (m) => m.push(false)],
      ['I', (m) => m.push(decimal(m.line()))],
      ['L', (m) => m.push(decimal(m.line()))],
      ['J', (m) => m.push(m.take(4).readInt32LE())],
      ['K', (m) => m.push(m.byte())],
      ['M', (m) => m.push(m.take(2).readUInt16LE())],
      [0x8a, (m) => m.push(longOf(m.take(m.byte())))],
      [0x8b, (m) => m.push(longOf(m.take(m.take(4).readUInt32LE())))],
      ['F', (m) => m.push(Number(m.line()))],
      ['G', (m) => m.push(m.take(8).readDoubleBE())],
      // Texts and bytes
      ['X', (m) => m.push(m.text(m.take(4).readUInt32LE()))],
      [0x8c, (m) => m.push(m.text(m.byte()))],
      [0x8d, (m) => m.push(m.text(m.wideLength()))],
      ['V', (m) => m.push(m.line())],
      ['S', (m) => m.push(m.line().replace(/^(['"])(.*)\1$/, '$2'))],
      ['T', (m) => m.push(m.text(m.take(4).readUInt32LE()))],
      ['U', (m) => m.push(m.text(m.byte()))],
      ['B', (m) => m.push(m.take(m.take(4).readUInt32LE()))],
      ['C', (m) => m.push(m.take(m.byte()))],
      [0x8e, (m) => m.push(m.take(m.wideLength()))],
      [0x96, (m) => m.push(m.take(m.wideLength()))],
      // Containers
      [']', (m) => m.push([])],
      ['l', (m) => m.push(m.popToMark())],
      ['a', (m) => appendOne(m)],
      ['e', (m) => appendMany(m)],
      [')', (m) => m.push([])],
      ['t', (m) => m.push(m.popToMark())],
      [0x85, (m) => m.push([m.pop()])],
      [0x86, (m) => m.push([m.pop(), m.pop()].reverse())],
      [0x87, (m) => m.push([m.pop(), m.pop(), m.pop()].reverse())],
      ['}', (m) => m.push(new Map())],
      ['d', (m) => m.push(mapOf(m.popToMark()))],
      ['s', (m) => setOne(m)],
      ['u', (m) => setMany(m)],
      [0x8f, (m) => m.push([])],
      [0x90, (m) => appendMany(m)],
      [0x91, (m) => m.push(m.popToMark())],
      // Memory
      ['p', (m) => m.put(Number(decimal(m.line())))],
      ['q', (m) => m.put(m.byte())],
      ['r', (m) => m.put(m.take(4).readUInt32LE())],
      [0x94, (m) => m.memoize()],
      ['g', (m) => m.get(Number(decimal(m.line())))],
      ['h', (m) => m.get(m.byte())],
      ['j', (m) => m.get(m.take(4).readUInt32LE())],
      // What Python would run
      ['c', (m) => globalOf(m, m.line(), m.line())],
      [0x93, (m) => globalOf(m, ...([m.pop(), m.pop()].reverse() as [unknown, unknown]))],
      ['R', (m) => call(m, m.pop())],
      [0x81, (m) => call(m, m.pop())], // NEWOBJ
      [0x92, (m) => callWithKeywords(m)], // NEWOBJ_EX
      ['b', (m) => m.pop()], // BUILD: attributes of an object, of which no tensor needs any
      ['Q', (m) => m.push(m.rules.persistent(m.pop()))],
      ['P', (m) => m.push(m.rules.persistent(m.line()))],
    ] as [string | number, Instruction][]
  ).map(([code, run]) => [typeof code === 'string' ? code.charCodeAt(0) : code, run]),
);

function appendOne(m: Machine): void {
  const item = m.pop();
  append(m.top(), [item]);
}

function appendMany(m: Machine): void {
  const items = m.popToMark();
  append(m.top(), items);
}

function setOne(m: Machine): void {
  const value = m.pop();
  const key = m.pop();
  setItems(m.top(), [key, value]);
}

function setMany(m: Machine): void {
  const items = m.popToMark();
  setItems(m.top(), items);
}

function callWithKeywords(m: Machine): void {
  m.pop();
  call(m, m.pop());
}
