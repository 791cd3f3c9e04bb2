import { open } from 'node:fs/promises';
import { MixplError } from './errors.js';
import { ioError, writeFileWhole } from './files.js';

/** One tensor of a file: f32, row-major. */
export interface StoredTensor {
  shape: readonly number[];
  data: Float32Array;
}

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
  const header: Record<string, unknown> = {};
  if (Object.keys(metadata).length) header.__metadata__ = metadata;
  let offset = 0;
  for (const [name, { shape, data }] of tensors) {
    const count = shape.reduce((product, size) => product * size, 1);
    if (count !== data.length)
      throw new MixplError(
        'ERR_SHAPE',
        `writeSafetensors: ${name} must hold ${count} numbers ([${shape}]), got ${data.length}`,
      );
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, offset + data.byteLength] };
    offset += data.byteLength;
  }
  const json = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([json, Buffer.alloc((8 - (json.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  await writeFileWhole(path, pieces(length, padded, tensors));
}

function* pieces(
  length: Uint8Array,
  header: Uint8Array,
  tensors: ReadonlyMap<string, StoredTensor>,
): Generator<Uint8Array> {
  yield length;
  yield header;
  for (const { data } of tensors.values())
    yield new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/**
 * Reads a safetensors file; F32, F16 and BF16 tensors arrive as f32. Everything the header claims is
 * checked against the file before memory is taken for it.
 * @throws MixplError ERR_IO (cannot be opened), ERR_BAD_FILE (not such a file, cut off, overlapping, other types)
 */
export async function readSafetensors(path: string): Promise<SafetensorsFile> {
  const fail = (what: string): never => {
    throw new MixplError('ERR_BAD_FILE', `${path}: must be a safetensors file, got ${what}`);
  };
  const file = await open(path, 'r').catch((cause) => {
    throw ioError(path, 'must be a readable file', cause);
  });
  try {
    const { size } = await file.stat();
    if (size < 8) fail(`${size} bytes`);
    const first = Buffer.alloc(8);
    await file.read(first, 0, 8, 0);
    const headerLength = first.readBigUInt64LE();
    if (headerLength > BigInt(largestHeader) || headerLength > BigInt(size - 8))
      fail(`a header of ${headerLength} bytes in a file of ${size}: cut off, or another format`);
    const headerBytes = Buffer.alloc(Number(headerLength));
    await file.read(headerBytes, 0, headerBytes.length, 8);
    const base = 8 + headerBytes.length;
    const entries = parseHeader(headerBytes, size - base, fail);
    const tensors = new Map<string, StoredTensor>();
    for (const entry of entries.tensors) {
      const bytes = Buffer.alloc(entry.end - entry.begin);
      let done = 0;
      while (done < bytes.length) {
        const { bytesRead } = await file.read(
          bytes,
          done,
          bytes.length - done,
          base + entry.begin + done,
        );
        if (bytesRead === 0) fail(`the end of the file inside ${entry.name}`);
        done += bytesRead;
      }
      tensors.set(entry.name, { shape: entry.shape, data: toFloat32(bytes, entry.dtype) });
    }
    return { tensors, metadata: entries.metadata };
  } finally {
    await file.close();
  }
}

interface Entry {
  name: string;
  dtype: keyof typeof elementSize;
  shape: number[];
  begin: number;
  end: number;
}

const elementSize = { F32: 4, F16: 2, BF16: 2 } as const;

function parseHeader(
  bytes: Buffer,
  dataLength: number,
  fail: (what: string) => never,
): { tensors: Entry[]; metadata: Record<string, string> } {
  let header: unknown;
  try {
    header = JSON.parse(bytes.toString('utf8'));
  } catch (cause) {
    fail(`a header that is no JSON (${(cause as Error).message})`);
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header))
    fail('a header that is no object');
  const { __metadata__: metadata = {}, ...rest } = header as Record<string, unknown>;
  const tensors = Object.entries(rest).map(([name, value]) => {
    const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
    if (typeof dtype !== 'string' || !(dtype in elementSize))
      fail(`${name} of type ${String(dtype)} (F32, F16 and BF16 are read)`);
    const whole = (v: unknown) => Number.isSafeInteger(v) && (v as number) >= 0;
    if (!Array.isArray(shape) || !shape.every(whole)) fail(`${name} without a shape`);
    if (!Array.isArray(offsets) || offsets.length !== 2 || !offsets.every(whole))
      fail(`${name} without offsets`);
    const [begin, end] = offsets as [number, number];
    const entry: Entry = {
      name,
      dtype: dtype as Entry['dtype'],
      shape: shape as number[],
      begin,
      end,
    };
    const wanted = entry.shape.reduce((product, s) => product * s, 1) * elementSize[entry.dtype];
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
  return { tensors, metadata: metadata as Record<string, string> };
}

function toFloat32(bytes: Buffer, dtype: Entry['dtype']): Float32Array {
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length);
  if (dtype === 'F32') return new Float32Array(buffer);
  const half = new Uint16Array(buffer);
  if (dtype === 'BF16') {
    const words = Uint32Array.from(half, (h) => h << 16);
    return new Float32Array(words.buffer);
  }
  return Float32Array.from(half, (h) => {
    const sign = h & 0x8000 ? -1 : 1;
    const exponent = (h >> 10) & 0x1f;
    const fraction = h & 0x3ff;
    if (exponent === 0) return sign * fraction * 2 ** -24;
    if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
    return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  });
}
