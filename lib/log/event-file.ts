/**
 * Event files of TensorBoard. A file is a row of records: length (uint64), its checksum, an Event message, its
 * checksum; little endian. Field numbers are those of tensorflow/core/util/event.proto and summary.proto.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { BinaryWriter } from '@bufbuild/protobuf/wire';
import { ioError } from '../files.js';

const polynomial = 0x82f63b78; // Castagnoli's, reflected
const table = Uint32Array.from({ length: 256 }, (_, i) => {
  let value = i;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ polynomial : value >>> 1;
  return value;
});

/** CRC-32C (Castagnoli). */
export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = (crc >>> 8) ^ table[(crc ^ byte) & 0xff]!;
  return (crc ^ 0xffffffff) >>> 0;
}

/** Checksums are turned and moved, so that those of data that hold checksums are none of theirs. */
function masked(crc: number): number {
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

function record(event: Uint8Array): Uint8Array {
  const out = Buffer.alloc(event.length + 16);
  out.writeBigUInt64LE(BigInt(event.length), 0);
  out.writeUInt32LE(masked(crc32c(out.subarray(0, 8))), 8);
  out.set(event, 12);
  out.writeUInt32LE(masked(crc32c(event)), event.length + 12);
  return out;
}

/** Numbers of an object by their paths, `a/b/c`; other values are left out. */
export function scalarsOf(value: object, prefix = ''): Map<string, number> {
  const scalars = new Map<string, number>();
  for (const [name, entry] of Object.entries(value)) {
    const tag = prefix ? `${prefix}/${name}` : name;
    if (typeof entry === 'number') scalars.set(tag, entry);
    else if (typeof entry === 'object' && entry !== null && !Array.isArray(entry))
      for (const [path, number] of scalarsOf(entry, tag)) scalars.set(path, number);
  }
  return scalars;
}

type Wire = typeof import('@bufbuild/protobuf/wire');

export class EventFileWriter {
  readonly path: string;
  readonly #file: FileHandle;
  readonly #wire: Wire;
  #tail: Promise<void> = Promise.resolve();

  private constructor(path: string, file: FileHandle, wire: Wire) {
    this.path = path;
    this.#file = file;
    this.#wire = wire;
  }

  /**
   * Begins a file in `folder`. Older files there may have been written by a run that was killed: they stay,
   * and readers forget what they hold beyond `stepsBefore`.
   * @param options.stepsBefore steps that were made before, which this file goes on from
   * @throws MixplError ERR_IO
   */
  static async open(folder: string, { stepsBefore = 0 } = {}): Promise<EventFileWriter> {
    const now = Date.now();
    // Readers take files in the order of their names, so the time comes first, to the millisecond.
    const seconds = Math.floor(now / 1000);
    const milliseconds = String(now % 1000).padStart(3, '0');
    const path = join(
      folder,
      `events.out.tfevents.${seconds}.${milliseconds}.${hostname()}.${process.pid}`,
    );
    const wire = await import('@bufbuild/protobuf/wire');
    let writer: EventFileWriter;
    try {
      writer = new EventFileWriter(path, await open(path, 'a'), wire);
    } catch (cause) {
      throw ioError(path, 'must be a writable file', cause);
    }
    await writer.#append(0, (w) => w.tag(3, wire.WireType.LengthDelimited).string('brain.Event:2'));
    // SessionLog, status START: steps from this one on count anew. Always, because a run that was killed
    // before its first checkpoint begins again at 0.
    await writer.#append(stepsBefore + 1, (w) =>
      w.tag(7, wire.WireType.LengthDelimited).fork().tag(1, wire.WireType.Varint).int32(1).join(),
    );
    return writer;
  }

  /** Resolves when the numbers are with the system. @throws MixplError ERR_IO (full disk, ...) */
  scalars(step: number, values: ReadonlyMap<string, number>): Promise<void> {
    const { WireType } = this.#wire;
    return this.#append(step, (w) => {
      w.tag(5, WireType.LengthDelimited).fork();
      for (const [tag, value] of values)
        w.tag(1, WireType.LengthDelimited)
          .fork()
          .tag(1, WireType.LengthDelimited)
          .string(tag)
          .tag(2, WireType.Bit32)
          .float(value)
          .join();
      w.join();
    });
  }

  async close(): Promise<void> {
    await this.#tail;
    await this.#file.close();
  }

  #append(step: number, fill: (w: BinaryWriter) => void): Promise<void> {
    const { BinaryWriter, WireType } = this.#wire;
    const w = new BinaryWriter()
      .tag(1, WireType.Bit64)
      .double(Date.now() / 1000)
      .tag(2, WireType.Varint)
      .int64(step);
    fill(w);
    const bytes = record(w.finish());
    const write = this.#tail.then(async () => {
      try {
        await this.#file.appendFile(bytes);
      } catch (cause) {
        throw ioError(this.path, 'must take another event', cause);
      }
    });
    // The failure is the caller's, who awaits it; later events are still tried.
    this.#tail = write.catch(() => undefined);
    return write;
  }
}
