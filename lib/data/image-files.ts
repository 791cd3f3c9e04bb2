import { readdir } from 'node:fs/promises';
import { dirname, extname, join, resolve } from 'node:path';
import { MixplError } from '../errors.js';
import { systemReason } from '../files.js';
import { readImageSize } from './decode.js';
import { prefetch } from './prefetch.js';
import type { ProblemLog } from './problems.js';
import type { Annotations } from './types.js';

/** What a folder scan takes for images; `.bmp` cannot be read and is reported. */
export const imageExtensions: ReadonlySet<string> = new Set([
  '.jpg',
  '.jpeg',
  '.jpe',
  '.jfif',
  '.png',
  '.webp',
  '.gif',
  '.tif',
  '.tiff',
  '.avif',
  '.bmp',
]);

export function hasImageExtension(fileName: string): boolean {
  return imageExtensions.has(extname(fileName).toLowerCase());
}

/** An image that a reader is about to take in. */
export interface ImageDraft {
  id: number;
  fileName: string;
  path: string;
  width: number;
  height: number;
  /** Where the annotation file speaks of it. */
  line?: number;
  annotations: Annotations | null;
}

export interface HeaderOptions {
  /** Headers read at the same time. @defaultValue 8 */
  concurrency?: number | undefined;
  signal?: AbortSignal | undefined;
  /** Called while image headers are read. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** Answers whether files exist, with one directory listing per folder instead of one call per file. */
export class FileIndex {
  readonly #folders = new Map<string, Promise<ReadonlySet<string> | undefined>>();

  #folder(path: string): Promise<ReadonlySet<string> | undefined> {
    let names = this.#folders.get(path);
    if (!names) {
      names = readdir(path).then(
        (list) => new Set(list),
        () => undefined,
      );
      this.#folders.set(path, names);
    }
    return names;
  }

  /** undefined when the file is there, else what is there instead. */
  async missing(path: string): Promise<string | undefined> {
    const absolute = resolve(path);
    const folder = dirname(absolute);
    const names = await this.#folder(folder);
    if (!names) return `no folder ${folder}`;
    const name = absolute.slice(folder.length).replace(/^[\\/]/, '');
    if (names.has(name)) return undefined;
    const stem = (file: string) => file.slice(0, file.length - extname(file).length).toLowerCase();
    for (const other of names)
      if (stem(other) === stem(name) && hasImageExtension(other))
        return `no such file (there is ${other})`;
    return 'no such file';
  }
}

/** Drops, by policy, the images whose file is not there. */
export async function checkFiles(
  images: readonly ImageDraft[],
  options: { log: ProblemLog; source: string },
): Promise<ImageDraft[]> {
  const { log, source } = options;
  const index = new FileIndex();
  const kept: ImageDraft[] = [];
  for (const image of images) {
    const missing = await index.missing(image.path);
    if (missing === undefined) kept.push(image);
    else
      log.add({
        kind: 'missing-image',
        file: source,
        line: image.line,
        id: image.id,
        message: `${image.path} must be an image file, got ${missing}`,
      });
  }
  return kept;
}

/**
 * Gives the images whose size is not known the one of their file's header. Those that cannot be
 * read are dropped by policy. Images whose size is known are left alone.
 */
export async function readSizes(
  images: readonly ImageDraft[],
  options: { log: ProblemLog } & HeaderOptions,
): Promise<ImageDraft[]> {
  const { log, concurrency = 8, signal, onProgress } = options;
  const unknown = images.filter((image) => !(image.width > 0 && image.height > 0));
  const unreadable = new Set<ImageDraft>();
  let done = 0;
  const reads = prefetch(
    unknown,
    async (image) => {
      try {
        Object.assign(image, await readImageSize(image.path));
        return undefined;
      } catch (reason) {
        if (!(reason instanceof MixplError)) throw reason;
        return { image, reason };
      }
    },
    { concurrency, ahead: 4 * concurrency, signal },
  );
  for await (const failure of reads) {
    onProgress?.(++done, unknown.length);
    if (!failure) continue;
    const { image, reason } = failure;
    unreadable.add(image);
    log.add({
      kind: 'unreadable-image',
      file: image.path,
      id: image.fileName,
      message: reason.message.replace(`${image.path}: `, ''),
    });
  }
  return images.filter((image) => !unreadable.has(image));
}

/** Every file under `root` that is named like an image, relative, with `/`, sorted by name. */
export async function listImages(
  root: string,
  options: { recursive: boolean; operation: string },
): Promise<string[]> {
  const { recursive, operation } = options;
  const found: string[] = [];
  const visit = async (folder: string): Promise<void> => {
    const entries = await readdir(join(root, folder), { withFileTypes: true });
    for (const entry of entries) {
      if (entry.name.startsWith('.')) continue; // hidden, and what macOS leaves beside files
      const name = folder ? `${folder}/${entry.name}` : entry.name;
      if (entry.isDirectory()) {
        if (recursive) await visit(name);
      } else if (hasImageExtension(entry.name)) found.push(name);
    }
  };
  try {
    await visit('');
  } catch (cause) {
    throw new MixplError(
      'ERR_IO',
      `${operation}: ${root} must be a readable folder of images, got ${systemReason(cause)}`,
      { cause },
    );
  }
  return found.sort(byCodeUnit);
}

/** The order that is the same on every machine and in every locale. */
export function byCodeUnit(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
