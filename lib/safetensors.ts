import { checkPath } from './arguments.js';
import { type ElementType, elementSizes, isElementType, toFloat32 } from './element-types.js';
import { MixplError } from './errors.js';
import { FileBytes } from './file-bytes.js';
import { writeFileWhole } from './files.js';

/** One tensor of a file: f32, row-major. */
export interface StoredTensor {
  shape: readonly number[];
  data: Float32Array;
}

/** A file, read. */
export interface SafetensorsFile {
  tensors: Map<string, StoredTensor>;
  metadata: Record<string, string>;
}

/** Largest header that is read; the format's own implementations use the same limit. */
const largestHeader = 100_000_000;

/**
 * Writes f32 tensors in the safetensors format (8-byte header length, JSON header, data), atomically.
 * @throws MixplError ERR_IO
 */
export async function writeSafetensors(
  path: string,
  tensors: ReadonlyMap<string, StoredTensor>,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  checkPath('writeSafetensors', 'path', path);
  const sources = [...tensors].map(([name, { shape, data }]) => {
    if (countOf(shape) !== data.length)
      throw new MixplError(
        'ERR_SHAPE',
        `writeSafetensors: ${name} must hold ${countOf(shape)} numbers ([${shape}]), got ${data.length}`,
      );
    return { name, shape, values: () => data };
  });
  await writeTensors(path, sources, metadata);
}

/** A tensor to be written, whose numbers are made when their turn comes. */
export interface TensorSource {
  name: string;
  shape: readonly number[];
  values(): Float32Array | Promise<Float32Array>;
}

/** writeSafetensors() of tensors that need not all be there at once. @throws MixplError ERR_IO */
export async function writeTensors(
  path: string,
  sources: readonly TensorSource[],
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const header: Record<string, unknown> = {};
  if (Object.keys(metadata).length) header.__metadata__ = metadata;
  let offset = 0;
  for (const { name, shape } of sources) {
    const end = offset + 4 * countOf(shape);
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, end] };
    offset = end;
  }
  const json = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([json, Buffer.alloc((8 - (json.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  await writeFileWhole(path, pieces(length, padded, sources));
}

async function* pieces(
  length: Uint8Array,
  header: Uint8Array,
  sources: readonly TensorSource[],
): AsyncGenerator<Uint8Array> {
  yield length;
  yield header;
  for (const source of sources) {
    const { buffer, byteOffset, byteLength } = await source.values();
    yield new Uint8Array(buffer, byteOffset, byteLength);
  }
}

function countOf(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** A tensor that is still in its file. */
export interface TensorEntry {
  shape: readonly number[];
  type: ElementType;
}

/**
 * Reads a safetensors file; numbers of every type arrive as f32. Everything the header claims is
 * checked against the file before memory is taken for it.
 * @throws MixplError ERR_IO (cannot be opened), ERR_BAD_FILE (not such a file, cut off, overlapping, other types)
 */
export async function readSafetensors(path: string): Promise<SafetensorsFile> {
  checkPath('readSafetensors', 'path', path);
  await using file = await SafetensorsReader.open(await FileBytes.open(path));
  const tensors = new Map<string, StoredTensor>();
  for (const [name, { shape }] of file.entries)
    tensors.set(name, { shape, data: await file.read(name) });
  return { tensors, metadata: file.metadata };
}

/** The header of a safetensors file, and its tensors one by one. */
export class SafetensorsReader implements AsyncDisposable {
  readonly entries: ReadonlyMap<string, TensorEntry>;
  readonly metadata: Record<string, string>;
  readonly #file: FileBytes;
  readonly #ranges: ReadonlyMap<string, Entry>;
  /** Where the data begins. */
  readonly #base: number;

  private constructor(file: FileBytes, header: Header, base: number) {
    this.#file = file;
    this.#base = base;
    this.#ranges = new Map(header.tensors.map((entry) => [entry.name, entry]));
    this.entries = this.#ranges;
    this.metadata = header.metadata;
  }

  /** Takes the file over: it is closed with the reader, or at once when it is refused. */
  static async open(file: FileBytes): Promise<SafetensorsReader> {
    const fail = (what: string): never => {
      throw new MixplError('ERR_BAD_FILE', `${file.path}: must be a safetensors file, got ${what}`);
    };
    try {
      if (file.size < 8) fail(`${file.size} bytes`);
      const length = (await file.read(0, 8, 'header length')).readBigUInt64LE();
      if (length > BigInt(largestHeader) || length > BigInt(file.size - 8))
        fail(`a header of ${length} bytes in a file of ${file.size}: cut off, or another format`);
      const bytes = await file.read(8, Number(length), 'header');
      const base = 8 + bytes.length;
      return new SafetensorsReader(file, parseHeader(bytes, file.size - base, fail), base);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** @param name one of entries */
  async read(name: string): Promise<Float32Array> {
    const { begin, end, type } = this.#ranges.get(name)!;
    return await toFloat32(await this.#file.read(this.#base + begin, end - begin, name), type);
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

interface Entry extends TensorEntry {
  name: string;
  begin: number;
  end: number;
}

interface Header {
  tensors: Entry[];
  metadata: Record<string, string>;
}

function parseHeader(bytes: Buffer, dataLength: number, fail: (what: string) => never): Header {
  let header: unknown;
  try {
    header = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    fail(`a header that is not JSON (${(cause as Error).message})`);
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header))
    fail('a header that is not an object');
  const { __metadata__: metadata = {}, ...rest } = header as Record<string, unknown>;
  const tensors = Object.entries(rest).map(([name, value]) => {
    const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
    if (!isElementType(dtype))
      return fail(
        `${name} of type ${String(dtype)} (${Object.keys(elementSizes).join(', ')} are read)`,
      );
    const whole = (v: unknown) => Number.isSafeInteger(v) && (v as number) >= 0;
    if (!Array.isArray(shape) || !shape.every(whole)) fail(`${name} without a shape`);
    if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(whole))
      fail(`${name} without offsets`);
    const [begin, end] = offsets as [number, number];
    const entry: Entry = { name, type: dtype, shape: shape as number[], begin, end };
    const wanted = entry.shape.reduce((product, s) => product * s, 1) * elementSizes[dtype];
    if (end - begin !== wanted)
      fail(`${name} of ${end - begin} bytes where [${entry.shape}] needs ${wanted}`);
    if (end > dataLength)
      fail(`${name} ending at byte ${end} of ${dataLength}: the file is cut off`);
    return entry;
  });
  let last = 0;
  for (const entry of [...tensors].sort((a, b) => a.begin - b.begin)) {
    if (entry.begin < last) fail(`${entry.name} overlapping another tensor`);
    last = entry.end;
  }
  return { tensors, metadata: textsOf(metadata) };
}

/** Of the metadata what the format allows: texts. */
function textsOf(metadata: unknown): Record<string, string> {
  const entries = Object.entries((metadata ?? {}) as Record<string, unknown>);
  return Object.fromEntries(
    entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
  );
}
