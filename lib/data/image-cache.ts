import { checkKeys, keysOf, nameOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { neverChanges } from '../image/index.js';
import { decodeImage } from './decode.js';
import type { DecodedImage } from './types.js';

/** Size and source of an ImageCache. */
export interface ImageCacheOptions {
  /** Bytes of pixels to hold; 0 holds none. @defaultValue 1 GiB */
  maxBytes?: number;
  /** How a file that is not held is read. @defaultValue decodeImage */
  decode?: (path: string) => Promise<DecodedImage>;
}

const optionKeys = keysOf<ImageCacheOptions>({ maxBytes: 0, decode: 0 });

/**
 * Decoded images by path, the least recently used dropped first: a small data set is decoded once.
 * Images are shared, so nobody may write into them. A failure is not kept.
 */
export class ImageCache {
  readonly #maxBytes: number;
  readonly #decode: (path: string) => Promise<DecodedImage>;
  /** In order of last use. */
  readonly #held = new Map<string, DecodedImage>();
  readonly #decoding = new Map<string, Promise<DecodedImage>>();
  #bytes = 0;
  #hits = 0;
  #misses = 0;

  /** @throws MixplError ERR_RANGE for a negative size */
  constructor(options: ImageCacheOptions = {}) {
    checkKeys('ImageCache', options, optionKeys);
    const { maxBytes = 2 ** 30, decode = (path) => decodeImage(path) } = options;
    if (!(maxBytes >= 0))
      throw new MixplError('ERR_RANGE', `ImageCache: maxBytes must be at least 0, got ${maxBytes}`);
    this.#maxBytes = maxBytes;
    this.#decode = decode;
  }

  /** What it holds now, and how often it had what was asked for. */
  get stats(): { images: number; bytes: number; hits: number; misses: number } {
    return {
      images: this.#held.size,
      bytes: this.#bytes,
      hits: this.#hits,
      misses: this.#misses,
    };
  }

  /** The decoded image. Two requests at the same time decode once. @throws what decode throws */
  async get(path: string): Promise<DecodedImage> {
    const held = this.#held.get(path);
    if (held) {
      this.#hits++;
      this.#held.delete(path);
      this.#held.set(path, held);
      return held;
    }
    let decoding = this.#decoding.get(path);
    if (decoding) this.#hits++;
    else {
      this.#misses++;
      decoding = this.#decode(path)
        .then((image) => {
          checkDecoded(path, image);
          neverChanges(image);
          this.#hold(path, image);
          return image;
        })
        .finally(() => this.#decoding.delete(path));
      this.#decoding.set(path, decoding);
    }
    return decoding;
  }

  /** Lets go of every image; the counts stay. */
  clear(): void {
    this.#held.clear();
    this.#bytes = 0;
  }

  #hold(path: string, image: DecodedImage): void {
    if (image.data.byteLength > this.#maxBytes) return;
    this.#held.set(path, image);
    this.#bytes += image.data.byteLength;
    for (const [oldest, { data }] of this.#held) {
      if (this.#bytes <= this.#maxBytes) return;
      this.#held.delete(oldest);
      this.#bytes -= data.byteLength;
    }
  }
}

/** Of somebody's own `decode`; whether there are enough numbers is seen where they are used. @throws MixplError ERR_DTYPE */
function checkDecoded(path: string, image: DecodedImage | null | undefined): void {
  if (image?.data instanceof Uint8Array) return;
  throw new MixplError(
    'ERR_DTYPE',
    `decode: ${path} must become { data, width, height } with data a Uint8Array, got ${nameOf(image?.data)}`,
  );
}
