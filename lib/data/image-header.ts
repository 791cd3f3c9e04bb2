/** Sizes of JPEG and PNG files: a library that knows all formats takes five times as long or more for 100,000 of them. */
import { type FileHandle, open } from 'node:fs/promises';

interface Size {
  width: number;
  height: number;
}

/** Bytes read at a time; most headers are shorter. */
const pieceBytes = 4096;
/** Segments of a file that are looked at; more are for somebody else to make sense of. */
const mostSegments = 256;

/**
 * Width and height of a plain JPEG (8 bits) or PNG file, EXIF orientation applied (ITU-T T.81 annex B, PNG 11.2.2,
 * EXIF 4.6.4). Undefined for whatever else there is: another format, a file that cannot be opened, a header that is damaged
 * or ends before the pixels begin.
 * @param source a path, or the bytes of a file
 */
export async function readHeader(source: string | Buffer): Promise<Size | undefined> {
  if (typeof source !== 'string') return sizeIn(new Window(source));
  const file = await open(source).catch(() => undefined);
  if (!file) return undefined;
  try {
    return await sizeIn(new Window(Buffer.alloc(0), file));
  } finally {
    await file.close();
  }
}

async function sizeIn(window: Window): Promise<Size | undefined> {
  try {
    const start = await window.at(0, 12);
    if (start?.readUInt16BE(0) === 0xffd8) return await jpegSize(window);
    if (start?.readUInt32BE(0) === 0x89504e47) return await pngSize(window);
    return undefined;
  } catch {
    return undefined;
  }
}

/** A piece of a file that is read anew where it does not reach; without a file it is all there is. */
class Window {
  #bytes: Buffer;
  #from = 0;
  readonly #file: FileHandle | undefined;

  constructor(bytes: Buffer, file?: FileHandle) {
    this.#bytes = bytes;
    this.#file = file;
  }

  /** `count` bytes; undefined where the file ends before. */
  async at(position: number, count: number): Promise<Buffer | undefined> {
    const inside = position >= this.#from && position + count <= this.#from + this.#bytes.length;
    if (!inside) {
      if (!this.#file) return undefined;
      const bytes = Buffer.alloc(Math.max(count, pieceBytes));
      const { bytesRead } = await this.#file.read(bytes, 0, bytes.length, position);
      this.#bytes = bytes.subarray(0, bytesRead);
      this.#from = position;
      if (bytesRead < count) return undefined;
    }
    return this.#bytes.subarray(position - this.#from, position - this.#from + count);
  }
}

async function jpegSize(window: Window): Promise<Size | undefined> {
  let position = 2;
  let frame: Size | undefined;
  let turned: boolean | undefined;
  for (let i = 0; i < mostSegments; i++) {
    const head = await window.at(position, 4);
    if (head?.[0] !== 0xff) return undefined;
    const marker = head[1]!;
    const length = head.readUInt16BE(2);
    if (marker === startOfScan) return frame && oriented(frame, turned);
    // Frames but those of Huffman-coded pictures, and what else may stand before the scan, are rare.
    const isFrame = marker >= 0xc0 && marker <= 0xc2 && !frame;
    const isApplication = marker >= 0xe0 && marker <= 0xef;
    if (!(isFrame || isApplication || tablesAndComments.has(marker)) || length < 2)
      return undefined;
    const content = await window.at(position + 4, length - 2);
    if (!content) return undefined;
    if (isFrame) {
      if (content[0] !== 8 || ![1, 3, 4].includes(content[5]!)) return undefined;
      frame = { width: content.readUInt16BE(3), height: content.readUInt16BE(1) };
    } else if (marker === 0xe1 && turned === undefined) {
      if (content.toString('latin1', 0, 6) === 'Exif\0\0') turned = isTurned(content.subarray(6));
    }
    position += 2 + length;
  }
  return undefined;
}

const startOfScan = 0xda;
const tablesAndComments: ReadonlySet<number> = new Set([0xc4, 0xdb, 0xdd, 0xfe]);

async function pngSize(window: Window): Promise<Size | undefined> {
  const header = await window.at(0, 33);
  if (
    header?.toString('latin1', 1, 8) !== 'PNG\r\n\x1a\n' ||
    header.toString('latin1', 12, 16) !== 'IHDR' ||
    !pngDepths[header[25]!]?.includes(header[24]!)
  )
    return undefined;
  const size = { width: header.readUInt32BE(16), height: header.readUInt32BE(20) };
  let position = 33;
  for (let i = 0; i < mostSegments; i++) {
    const chunk = await window.at(position, 8);
    const type = chunk?.toString('latin1', 4, 8);
    if (type === 'IDAT') return oriented(size);
    if (!chunk || type === 'eXIf') return undefined;
    position += 12 + chunk.readUInt32BE(0);
  }
  return undefined;
}

/** Bits a sample of each colour type. */
const pngDepths: Readonly<Record<number, readonly number[]>> = {
  0: [1, 2, 4, 8, 16],
  2: [8, 16],
  3: [1, 2, 4, 8],
  4: [8, 16],
  6: [8, 16],
};

function oriented({ width, height }: Size, turned = false): Size | undefined {
  if (width === 0 || height === 0) return undefined;
  return turned ? { width: height, height: width } : { width, height };
}

/** Whether an orientation of 5 to 8 stands in the first directory of a TIFF header. @throws RangeError for a damaged one */
function isTurned(tiff: Buffer): boolean {
  const order = tiff.toString('latin1', 0, 2);
  const short = (at: number) => (order === 'II' ? tiff.readUInt16LE(at) : tiff.readUInt16BE(at));
  const long = (at: number) => (order === 'II' ? tiff.readUInt32LE(at) : tiff.readUInt32BE(at));
  if ((order !== 'II' && order !== 'MM') || short(2) !== 42) throw new RangeError('no TIFF header');
  const directory = long(4);
  for (let i = 0; i < short(directory); i++) {
    const entry = directory + 2 + 12 * i;
    if (short(entry) === 0x0112) {
      if (short(entry + 2) !== 3 || long(entry + 4) !== 1) throw new RangeError('no short number');
      const value = short(entry + 8);
      return value >= 5 && value <= 8;
    }
  }
  return false;
}
