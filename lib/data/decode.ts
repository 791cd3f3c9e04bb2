import { readFile } from 'node:fs/promises';
import type { Sharp, SharpOptions } from 'sharp';
import { checkKeys, nameOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { ioError } from '../files.js';
import { readHeader } from './image-header.js';
import type { DecodedImage } from './types.js';

type SharpFactory = (input: Buffer | string, options?: SharpOptions) => Sharp;

/** Pixels of an image file; more are taken for damage, or for a trap. As sharp has it. */
const mostPixels = 0x3fff * 0x3fff;

let loading: Promise<SharpFactory> | undefined;

/** sharp, imported on first use (it is heavy) and set up for one thread an image and no cache. */
function loadSharp(): Promise<SharpFactory> {
  loading ??= import('sharp').then(({ default: sharp }) => {
    sharp.concurrency(1);
    sharp.cache(false);
    return sharp;
  });
  return loading;
}

/** How decodeImage treats files. */
export interface DecodeOptions {
  /**
   * What to do with a file that ends early or is damaged: `refuse` throws, `accept` fills what is
   * missing with grey, as OpenCV does. @defaultValue 'refuse'
   */
  damaged?: 'refuse' | 'accept';
  /**
   * An image of more pixels (width × height) is refused by its header, before memory is taken for them: 3 bytes
   * each, at least. @defaultValue 268 402 689
   */
  maxPixels?: number;
}

/**
 * Decodes an image file to uint8 RGB with its EXIF orientation applied; alpha is dropped, grey and
 * CMYK become RGB, 16 bits become 8. Colour profiles are not applied (as in the reference). Of
 * an animation the first frame counts.
 *
 * The first call sets sharp, for the whole process, to one thread an image and no cache (`sharp.concurrency(1)`,
 * `sharp.cache(false)`): several images are decoded at once, and a file may be replaced. Set it afterwards for other
 * uses of sharp.
 *
 * @param source a path, or what a file would hold (an upload, say); those bytes are not changed meanwhile
 * @returns pixels, as predict() takes them
 * @throws MixplError ERR_BAD_FILE with path and reason, also for too many pixels; ERR_IO when the file cannot be
 *   opened; ERR_DTYPE; ERR_CONFIG for options
 */
export async function decodeImage(
  source: string | Uint8Array,
  options: DecodeOptions = {},
): Promise<DecodedImage> {
  checkKeys('decodeImage', options, ['damaged', 'maxPixels']);
  const { damaged = 'refuse', maxPixels = mostPixels } = options;
  if (!Number.isSafeInteger(maxPixels) || maxPixels < 1)
    throw new MixplError(
      'ERR_CONFIG',
      `decodeImage: maxPixels must be an integer >= 1, got ${maxPixels}`,
    );
  const { name, bytes } =
    typeof source === 'string'
      ? { name: source, bytes: await readBytes(source) }
      : uploaded('decodeImage', source);
  const sharp = await loadSharp();
  try {
    const { data, info } = await sharp(bytes, {
      failOn: damaged === 'refuse' ? 'error' : 'none',
      ignoreIcc: true,
      limitInputPixels: maxPixels,
    })
      .autoOrient()
      .removeAlpha()
      .toColourspace('srgb')
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true });
    if (info.channels !== 3)
      throw new Error(`decoding gave ${info.channels} channels where RGB has 3`);
    return {
      data: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
      width: info.width,
      height: info.height,
    };
  } catch (cause) {
    throw badImage(name, cause, maxPixels);
  }
}

/** What a file would hold, and how messages call it. @throws MixplError ERR_DTYPE, ERR_BAD_FILE */
function uploaded(call: string, source: Uint8Array): { name: string; bytes: Buffer } {
  if (!(source instanceof Uint8Array))
    throw new MixplError(
      'ERR_DTYPE',
      `${call}: source must be a path or a Uint8Array (the bytes of a file), got ${nameOf(source)}`,
    );
  const name = `${call}: source of ${source.length} bytes`;
  const bytes = Buffer.from(source.buffer, source.byteOffset, source.byteLength);
  refuseEmpty(name, bytes);
  return { name, bytes };
}

/**
 * Reads width and height from an image file's header, EXIF orientation applied; no pixel is decoded.
 *
 * @param source a path, or what a file would hold
 * @throws MixplError ERR_BAD_FILE with path and reason, also for more than 268 402 689 pixels; ERR_IO when the file
 *   cannot be opened; ERR_DTYPE
 */
export async function readImageSize(
  source: string | Uint8Array,
): Promise<{ width: number; height: number }> {
  const { name, bytes } =
    typeof source === 'string' ? { name: source } : uploaded('readImageSize', source);
  const size = await readHeader(bytes ?? name);
  if (size && size.width * size.height <= mostPixels) return size;
  const sharp = await loadSharp();
  let metadata: Awaited<ReturnType<Sharp['metadata']>>;
  try {
    // By path: only the header is read, not the whole file.
    metadata = await sharp(bytes ?? name, { limitInputPixels: mostPixels }).metadata();
  } catch (cause) {
    if (!bytes) await readBytes(name); // a missing or empty file says so itself
    throw badImage(name, cause, mostPixels);
  }
  const { width, height } = metadata.autoOrient;
  return { width, height };
}

async function readBytes(path: string): Promise<Buffer> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw ioError(path, 'must be a readable image', cause);
  }
  refuseEmpty(path, bytes);
  return bytes;
}

function refuseEmpty(name: string, { length }: Buffer): void {
  if (length === 0)
    throw new MixplError('ERR_BAD_FILE', `${name}: must be an image, got an empty file`);
}

function badImage(name: string, cause: unknown, maxPixels: number): MixplError {
  // libvips repeats itself, a line each time.
  const lines = new Set(
    reasonOf(cause)
      .split('\n')
      .map((line) => line.trim()),
  );
  const reason = [...lines]
    .join(' ')
    .trim()
    .replace(/^Input (buffer|file) /, 'a file that ')
    .replace(/^Input image exceeds pixel limit$/, `one of more than ${maxPixels} pixels`)
    // Of several images that are decoded at the same time libvips may mix up the messages.
    .replace(/^(Unknown error)?$/, 'a file that ends early or is damaged');
  return new MixplError('ERR_BAD_FILE', `${name}: must be a readable image, got ${reason}`, {
    cause,
  });
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
