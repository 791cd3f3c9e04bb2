/** Writes checkpoints byte by byte, those of torch.save and those that nobody should write. */

/** Bytes of a pickle that stand for themselves. */
export class Raw {
  constructor(readonly bytes: Buffer) {}
}

export const raw = (...parts: (string | number | Buffer)[]) =>
  new Raw(
    Buffer.concat(
      parts.map((part) =>
        typeof part === 'number'
          ? Buffer.from([part])
          : typeof part === 'string'
            ? Buffer.from(part, 'latin1')
            : part,
      ),
    ),
  );

export const global = (module: string, name: string) => raw(`c${module}\n${name}\n`);

/** A call of a global, as pickle's REDUCE asks for it. */
export const call = (module: string, name: string, ...args: unknown[]) =>
  raw(global(module, name).bytes, encode(args), 'R');

/** Arrays become tuples, objects dictionaries. */
export function encode(value: unknown): Buffer {
  if (value instanceof Raw) return value.bytes;
  if (value === null) return Buffer.from('N');
  if (typeof value === 'boolean') return Buffer.from([value ? 0x88 : 0x89]);
  if (typeof value === 'number') return encodeNumber(value);
  if (typeof value === 'string') {
    const text = Buffer.from(value);
    return Buffer.concat([Buffer.from('X'), uint32(text.length), text]);
  }
  if (Array.isArray(value)) return Buffer.concat([Buffer.from('('), ...value.map(encode), t]);
  const items = Object.entries(value as object).flatMap(([k, v]) => [encode(k), encode(v)]);
  return Buffer.concat([Buffer.from('}('), ...items, Buffer.from('u')]);
}

const t = Buffer.from('t');

function encodeNumber(value: number): Buffer {
  if (!Number.isInteger(value)) {
    const bytes = Buffer.alloc(9, 'G');
    bytes.writeDoubleBE(value, 1);
    return bytes;
  }
  const bytes = Buffer.alloc(10);
  bytes.set([0x8a, 8]);
  bytes.writeBigInt64LE(BigInt(value), 2);
  return bytes;
}

/** Protocol 2. */
export function pickle(value: unknown): Buffer {
  return Buffer.concat([Buffer.from([0x80, 2]), encode(value), Buffer.from('.')]);
}

export interface TensorBytes {
  key: string;
  /** Elements of the storage. */
  count: number;
  type?: string;
  offset?: number;
  shape: readonly number[];
  strides?: readonly number[];
}

export function tensor({ key, count, type = 'Float', offset = 0, shape, strides }: TensorBytes) {
  const rowMajor = shape.map((_, i) => shape.slice(i + 1).reduce((a, b) => a * b, 1));
  const id = ['storage', global('torch', `${type}Storage`), key, 'cpu', count];
  const storage = raw(encode(id), 'Q');
  const hooks = call('collections', 'OrderedDict');
  const args = [storage, offset, shape, strides ?? rowMajor, false, hooks];
  return call('torch._utils', '_rebuild_tensor_v2', ...args);
}

export function floats(...values: number[]): Buffer {
  return Buffer.from(Float32Array.from(values).buffer);
}

export interface ZipOptions {
  method?: number;
  /** Claimed in place of the real size. */
  size?: number;
  /** A 64-bit size in an extra field. */
  size64?: bigint;
}

/** A zip file; options are of the entries that they name. */
export function zip(
  entries: Record<string, Buffer>,
  options: Record<string, ZipOptions> = {},
): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let at = 0;
  for (const [name, data] of Object.entries(entries)) {
    const { method = 0, size64, size = size64 ? 0xffffffff : data.length } = options[name] ?? {};
    const stored = size64 ? 0xffffffff : size;
    const label = Buffer.from(name);
    const extra = size64
      ? Buffer.concat([uint16(1), uint16(16), uint64(size64), uint64(size64)])
      : Buffer.alloc(0);
    const common = Buffer.concat([
      ...[0, method, 0, 0].map(uint16),
      ...[0, stored, size].map(uint32),
      ...[label.length].map(uint16),
    ]);
    const local = Buffer.concat([uint32(0x04034b50), uint16(20), common, uint16(0), label]);
    const place = [uint16(extra.length), ...[0, 0, 0].map(uint16), uint32(0), uint32(at)];
    directory.push(
      Buffer.concat([uint32(0x02014b50), uint16(20), uint16(20), common, ...place, label, extra]),
    );
    parts.push(local, data);
    at += local.length + data.length;
  }
  const list = Buffer.concat(directory);
  const counts = [0, 0, directory.length, directory.length].map(uint16);
  const end = Buffer.concat([
    uint32(0x06054b50),
    ...counts,
    ...[list.length, at].map(uint32),
    uint16(0),
  ]);
  return Buffer.concat([...parts, list, end]);
}

/** A checkpoint: its object and the bytes of its storages. */
export function torchZip(
  object: unknown,
  storages: Record<string, Buffer> = {},
  more: Record<string, Buffer> = {},
): Buffer {
  const data = Object.entries(storages).map(([key, bytes]) => [`archive/data/${key}`, bytes]);
  return zip({ 'archive/data.pkl': pickle(object), ...more, ...Object.fromEntries(data) });
}

/** A checkpoint of torch before 1.6. */
export function torchRow(object: unknown, storages: Record<string, [number, Buffer]>): Buffer {
  const magic = raw(0x8a, 10, Buffer.from('6cfc9c46f9206aa85019', 'hex'));
  const pickles = [magic, 1001, { little_endian: true }, object, Object.keys(storages)];
  const data = Object.values(storages).flatMap(([count, bytes]) => [uint64(BigInt(count)), bytes]);
  return Buffer.concat([...pickles.map(pickle), ...data]);
}

function uint16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}
function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
function uint64(value: bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(value);
  return bytes;
}
