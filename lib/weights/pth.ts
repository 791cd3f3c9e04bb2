/**
 * Checkpoints of torch.save: the zip format of torch 1.6 and later, and the row of pickles before it.
 * Only the pickle is read at first; a tensor's bytes when somebody asks for it.
 */
import { elementSizes } from '../element-types.js';
import { MixplError } from '../errors.js';
import type { FileBytes } from '../file-bytes.js';
import { PickleCut, PickleError, type PickleRules, unpickle } from './pickle.js';
import { type TorchStorage, torchRules } from './torch-objects.js';
import { readZipDirectory, readZipEntry, type ZipEntry } from './zip.js';

/** An unpickled checkpoint. */
export interface TorchFile {
  /** What was saved: Maps, arrays, numbers, texts and TorchTensors. */
  root: unknown;
  /**
   * Where the storage's bytes are.
   * @throws MixplError ERR_BAD_FILE when the file does not have them all
   */
  locate(storage: TorchStorage): StorageBytes;
}

export interface StorageBytes {
  /** Little-endian bytes [offset, offset + length) of the storage. */
  read(offset: number, length: number): Promise<Buffer>;
}

/** No state dict has a pickle as large as this: it holds names and shapes. */
const largestPickle = 64 * 2 ** 20;

/** @throws MixplError ERR_BAD_FILE saying what is wrong; ERR_IO */
export async function openTorchFile(file: FileBytes): Promise<TorchFile> {
  try {
    const first = await file.read(0, Math.min(2, file.size), 'its first bytes');
    return await (first.toString('latin1') === 'PK' ? openZip(file) : openRow(file));
  } catch (error) {
    if (error instanceof PickleError) throw refusal(file, error.message, error);
    throw error;
  }
}

function refusal(file: FileBytes, what: string, cause?: unknown): MixplError {
  return new MixplError(
    'ERR_BAD_FILE',
    `${file.path}: must be a state dict of torch.save, got ${what}`,
    { cause },
  );
}

async function openZip(file: FileBytes): Promise<TorchFile> {
  const entries = await readZipDirectory(file);
  const pickles = [...entries.keys()].filter((name) => /^[^/]+\/data\.pkl$/.test(name));
  if (pickles.length !== 1)
    throw refusal(file, `a zip file with ${pickles.length} entries named data.pkl`);
  const folder = pickles[0]!.slice(0, -'data.pkl'.length);
  if (entries.has(`${folder}constants.pkl`))
    throw refusal(file, 'a TorchScript archive; save the state_dict() of the model instead');
  const order = entries.get(`${folder}byteorder`);
  const swapped = order ? await isBigEndian(file, order) : false;

  const pickle = entries.get(pickles[0]!)!;
  if (pickle.size > largestPickle) throw refusal(file, `a pickle of ${pickle.size} bytes`);
  const { value } = unpickle(await readZipEntry(file, pickle), torchRules);
  return {
    root: value,
    locate(storage) {
      const entry = entries.get(`${folder}data/${storage.key}`);
      const bytes = storage.count * elementSizes[storage.type];
      if (entry?.size !== bytes)
        throw refusal(
          file,
          `a storage ${storage.key} of ${bytes} bytes (${storage.count} × ${storage.type}) in ` +
            (entry ? `an entry of ${entry.size}` : 'no entry'),
        );
      return {
        async read(offset, length) {
          const read = await readZipEntry(file, entry, { offset, length });
          return swapped ? swap(read, elementSizes[storage.type]) : read;
        },
      };
    },
  };
}

async function isBigEndian(file: FileBytes, entry: ZipEntry): Promise<boolean> {
  const length = Math.min(entry.size, 16);
  const order = (await readZipEntry(file, entry, { length })).toString('latin1').trim();
  if (order !== 'little' && order !== 'big') throw refusal(file, `the byte order '${order}'`);
  return order === 'big';
}

function swap(bytes: Buffer, size: number): Buffer {
  return size === 8
    ? bytes.swap64()
    : size === 4
      ? bytes.swap32()
      : size === 2
        ? bytes.swap16()
        : bytes;
}

/** The pickle that opens a file of torch before 1.6. */
const rowMagic = 0x1950a86a20f9469cfc6cn;
const rowProtocol = 1001;

/**
 * Magic number, protocol, facts about the system, the object, the keys of its storages: five pickles.
 * Then for each key the number of elements (8 bytes) and the elements, always little endian.
 */
async function openRow(file: FileBytes): Promise<TorchFile> {
  const storages = new Map<string, TorchStorage>();
  const rules: PickleRules = {
    ...torchRules,
    persistent(id) {
      const storage = torchRules.persistent(id) as TorchStorage;
      const known = storages.get(storage.key);
      if (known && (known.type !== storage.type || known.count !== storage.count))
        throw new PickleError(`two storages with the key ${storage.key}`);
      storages.set(storage.key, storage);
      return storage;
    },
  };
  const pickles = new PickleRow(file, rules);
  if ((await firstOf(pickles, file)) !== rowMagic)
    throw refusal(file, 'another format (torch files begin with PK or a magic number)');
  const protocol = await pickles.next();
  if (protocol !== rowProtocol)
    throw refusal(file, `protocol ${String(protocol)} (${rowProtocol} is read)`);
  const system = await pickles.next();
  if (system instanceof Map && system.get('little_endian') === false)
    throw refusal(file, 'a file of a big-endian machine');
  const root = await pickles.next();
  const places = await placesOf(await pickles.next(), { file, storages, start: pickles.at });
  return {
    root,
    locate(storage) {
      const start = places.get(storage.key);
      if (start === undefined) throw refusal(file, `a storage ${storage.key} without bytes`);
      return {
        read: (offset, length) => file.read(start + offset, length, `the storage ${storage.key}`),
      };
    },
  };
}

/** Another kind of file is no pickle that is damaged. */
async function firstOf(pickles: PickleRow, file: FileBytes): Promise<unknown> {
  return pickles.next().catch((cause: unknown) => {
    if (!(cause instanceof PickleError)) throw cause;
    throw refusal(file, 'another format (torch files begin with PK or a magic number)', cause);
  });
}

async function placesOf(
  keys: unknown,
  {
    file,
    storages,
    start,
  }: { file: FileBytes; storages: Map<string, TorchStorage>; start: number },
): Promise<Map<string, number>> {
  if (!Array.isArray(keys)) throw refusal(file, 'no list of storages behind the object');
  const places = new Map<string, number>();
  let at = start;
  for (const key of keys) {
    const storage = storages.get(key as string);
    if (!storage || places.has(storage.key))
      throw refusal(file, `bytes of the unknown storage ${String(key)}`);
    const header = await file.read(at, 8, `the size of storage ${storage.key}`);
    const count = header.readBigInt64LE();
    const bytes = storage.count * elementSizes[storage.type];
    if (count !== BigInt(storage.count) || at + 8 + bytes > file.size)
      throw refusal(
        file,
        `a storage ${storage.key} of ${storage.count} × ${storage.type} where ${count} elements and ` +
          `${file.size - at - 8} bytes are left: cut off or damaged`,
      );
    places.set(storage.key, at + 8);
    at += 8 + bytes;
  }
  return places;
}

/** Pickles one behind the other; where one ends is known when it has been read. */
class PickleRow {
  readonly #file: FileBytes;
  readonly #rules: PickleRules;
  /** Where the next begins. */
  at = 0;
  #window: Buffer = Buffer.alloc(0);
  #windowAt = 0;

  constructor(file: FileBytes, rules: PickleRules) {
    this.#file = file;
    this.#rules = rules;
  }

  /** @throws PickleError */
  async next(): Promise<unknown> {
    for (let length = 2 ** 18; ; length *= 4) {
      try {
        const { value, end } = unpickle(this.#window, this.#rules, this.at - this.#windowAt);
        this.at = this.#windowAt + end;
        return value;
      } catch (error) {
        const known = this.#windowAt + this.#window.length - this.at;
        const more = known < Math.min(this.#file.size - this.at, largestPickle);
        if (!(error instanceof PickleCut) || !more) throw error;
        const wanted = Math.min(Math.max(length, 4 * known), this.#file.size - this.at);
        this.#window = await this.#file.read(this.at, wanted, 'a pickle');
        this.#windowAt = this.at;
      }
    }
  }
}
