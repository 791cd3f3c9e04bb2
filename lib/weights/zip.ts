/**
 * Directory of a zip file whose entries are stored as they are, as torch.save writes them. Nothing is
 * ever decompressed. Source: PKWARE APPNOTE.TXT 6.3, sections 4.3.7 (local header), 4.3.12 … 4.3.16
 * (directory and its ends), 4.5.3 (64-bit sizes).
 */
import { MixplError } from '../errors.js';
import type { FileBytes } from '../file-bytes.js';

export interface ZipEntry {
  name: string;
  /** Of its bytes. */
  size: number;
  /** Where its local header begins; the bytes follow it. */
  header: number;
}

const signatures = {
  local: 0x04034b50,
  entry: 0x02014b50,
  end: 0x06054b50,
  end64: 0x06064b50,
  end64Locator: 0x07064b50,
} as const;
const fixed = { local: 30, entry: 46, end: 22, end64: 56, end64Locator: 20 } as const;

/** Bytes of a directory that is read at most: about a million entries. */
const largestDirectory = 64 * 2 ** 20;
const largestComment = 0xffff;
/** Says that a number stands in the 64-bit record instead. */
const elsewhere = 0xffffffff;

/**
 * The entries by name.
 * @throws MixplError ERR_BAD_FILE: cut off, compressed, encrypted or repeated entries, sizes that the
 *   file does not have
 */
export async function readZipDirectory(file: FileBytes): Promise<Map<string, ZipEntry>> {
  const { offset, size, count } = await findDirectory(file);
  if (size > largestDirectory || offset + size > file.size || count * fixed.entry > size)
    refuse(
      file,
      `a directory of ${count} entries in ${size} bytes at byte ${offset} of ${file.size}`,
    );
  const bytes = await file.read(offset, size, 'zip directory');
  const entries = new Map<string, ZipEntry>();
  let at = 0;
  for (let i = 0; i < count; i++) {
    const { entry, length } = parseEntry(bytes.subarray(at), file);
    if (entries.has(entry.name)) refuse(file, `two entries named ${entry.name}`);
    if (entry.header + fixed.local + entry.size > offset)
      refuse(
        file,
        `${entry.name} of ${entry.size} bytes at byte ${entry.header}, before a directory at byte ${offset}`,
      );
    entries.set(entry.name, entry);
    at += length;
  }
  return entries;
}

/** Bytes of an entry. @throws MixplError ERR_BAD_FILE */
export async function readZipEntry(
  file: FileBytes,
  entry: ZipEntry,
  { offset = 0, length = entry.size }: { offset?: number; length?: number } = {},
): Promise<Buffer> {
  const header = await file.read(entry.header, fixed.local, `the header of ${entry.name}`);
  if (header.readUInt32LE(0) !== signatures.local)
    refuse(file, `no entry at byte ${entry.header}, where ${entry.name} should be`);
  const data = entry.header + fixed.local + header.readUInt16LE(26) + header.readUInt16LE(28);
  return file.read(data + offset, length, entry.name);
}

interface Directory {
  offset: number;
  size: number;
  count: number;
}

async function findDirectory(file: FileBytes): Promise<Directory> {
  const length = Math.min(file.size, fixed.end + largestComment);
  const start = file.size - length;
  const tail = await file.read(start, length, 'the end of a zip file');
  let at = length - fixed.end;
  // The end record closes the file: its comment reaches exactly to the last byte.
  const isEnd = () =>
    tail.readUInt32LE(at) === signatures.end &&
    at + fixed.end + tail.readUInt16LE(at + 20) === length;
  while (at >= 0 && !isEnd()) at--;
  if (at < 0) refuse(file, `${file.size} bytes without a directory at the end: cut off`);
  const directory = {
    count: tail.readUInt16LE(at + 10),
    size: tail.readUInt32LE(at + 12),
    offset: tail.readUInt32LE(at + 16),
  };
  const is64 =
    directory.count === 0xffff || directory.size === elsewhere || directory.offset === elsewhere;
  return is64 ? ((await findDirectory64(file, start + at)) ?? directory) : directory;
}

async function findDirectory64(file: FileBytes, end: number): Promise<Directory | null> {
  if (end < fixed.end64Locator) return null;
  const locator = await file.read(end - fixed.end64Locator, fixed.end64Locator, 'zip64 locator');
  if (locator.readUInt32LE(0) !== signatures.end64Locator) return null;
  const record = await file.read(whole(locator, 8), fixed.end64, 'zip64 directory end');
  if (record.readUInt32LE(0) !== signatures.end64) refuse(file, 'no zip64 directory end');
  return { count: whole(record, 32), size: whole(record, 40), offset: whole(record, 48) };
}

function parseEntry(bytes: Buffer, file: FileBytes): { entry: ZipEntry; length: number } {
  if (bytes.length < fixed.entry || bytes.readUInt32LE(0) !== signatures.entry)
    refuse(file, 'a damaged directory');
  const [nameLength, extraLength] = [bytes.readUInt16LE(28), bytes.readUInt16LE(30)];
  const length = fixed.entry + nameLength + extraLength + bytes.readUInt16LE(32);
  if (length > bytes.length) refuse(file, 'a damaged directory');
  const name = bytes.toString('utf8', fixed.entry, fixed.entry + nameLength);
  const [flags, method] = [bytes.readUInt16LE(8), bytes.readUInt16LE(10)];
  if (flags & 1) refuse(file, `${name} encrypted`);
  if (method !== 0)
    refuse(file, `${name} compressed (method ${method}), which torch.save does not do`);
  const sizes = {
    size: bytes.readUInt32LE(24),
    stored: bytes.readUInt32LE(20),
    header: bytes.readUInt32LE(42),
  };
  const extra = bytes.subarray(fixed.entry + nameLength, fixed.entry + nameLength + extraLength);
  for (const [key, value] of wideNumbers(sizes, extra)) sizes[key] = value;
  if (sizes.size !== sizes.stored)
    refuse(file, `${name} of ${sizes.size} bytes in ${sizes.stored} stored ones`);
  return { entry: { name, size: sizes.size, header: sizes.header }, length };
}

/** Extra field 1 holds, in this order, the 64-bit form of those numbers that did not fit. */
function wideNumbers<K extends string>(narrow: Record<K, number>, extra: Buffer): [K, number][] {
  const keys = (Object.keys(narrow) as K[]).filter((key) => narrow[key] === elsewhere);
  for (let at = 0; keys.length && at + 4 <= extra.length; ) {
    const [id, length] = [extra.readUInt16LE(at), extra.readUInt16LE(at + 2)];
    const field = extra.subarray(at + 4, at + 4 + length);
    if (id === 1 && field.length >= 8 * keys.length)
      return keys.map((key, i) => [key, whole(field, 8 * i)]);
    at += 4 + length;
  }
  return [];
}

/** A 64-bit number; beyond 2^53 it is no longer exact, and larger than any file. */
function whole(bytes: Buffer, at: number): number {
  return Number(bytes.readBigUInt64LE(at));
}

function refuse(file: FileBytes, what: string): never {
  throw new MixplError(
    'ERR_BAD_FILE',
    `${file.path}: must be a zip file of torch.save, got ${what}`,
  );
}
