import type { Dirent, Stats } from 'node:fs';
import { readdir, realpath, stat } from 'node:fs/promises';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { MixplError } from '../errors.js';
import { systemReason } from '../files.js';
import { readImageSize } from './decode.js';
import { prefetch } from './prefetch.js';
import type { DatasetProblem, ProblemLog } from './problems.js';
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

/** A folder's names, and the images among them by name without extension. */
class Listing {
  readonly names: ReadonlySet<string>;
  #images: ReadonlyMap<string, string> | undefined;

  constructor(names: readonly string[]) {
    this.names = new Set(names);
  }

  /** The image that is called like `name` but for case and extension. */
  like(name: string): string | undefined {
    this.#images ??= new Map(
      [...this.names].filter(hasImageExtension).map((other) => [stemOf(other), other]),
    );
    return this.#images.get(stemOf(name));
  }
}

const stemOf = (name: string) => name.slice(0, name.length - extname(name).length).toLowerCase();

/** Answers whether files exist, with one directory listing per folder instead of one call per file. */
export class FileIndex {
  /** Listings, or why there is none. */
  readonly #folders = new Map<string, Promise<Listing | string>>();

  #folder(path: string): Promise<Listing | string> {
    let listing = this.#folders.get(path);
    if (!listing) {
      listing = readdir(path).then(
        (names) => new Listing(names),
        (cause: NodeJS.ErrnoException) =>
          cause.code === 'ENOENT'
            ? `no folder ${path}`
            : `a folder ${path} that cannot be read: ${systemReason(cause)}`,
      );
      this.#folders.set(path, listing);
    }
    return listing;
  }

  /** undefined when the file is there, else what is there instead. */
  async missing(path: string): Promise<string | undefined> {
    const absolute = resolve(path);
    const folder = dirname(absolute);
    const listing = await this.#folder(folder);
    if (typeof listing === 'string') return listing;
    const name = basename(absolute);
    if (listing.names.has(name)) return undefined;
    const other = listing.like(name);
    return other ? `no such file (there is ${other})` : 'no such file';
  }
}

/** Images between which a signal is looked at and other work may run. */
const breath = 4096;

/** Drops, by policy, the images whose file is not there. Of one that was written with `\` the path becomes that of its file. */
export async function checkFiles(
  images: readonly ImageDraft[],
  options: { log: ProblemLog; source: string; signal?: AbortSignal | undefined },
): Promise<ImageDraft[]> {
  const { log, source, signal } = options;
  const index = new FileIndex();
  const kept: ImageDraft[] = [];
  for (const [i, image] of images.entries()) {
    if (i % breath === 0) {
      await setImmediate();
      signal?.throwIfAborted();
    }
    const missing = await index.missing(image.path);
    if (missing === undefined) {
      kept.push(image);
      continue;
    }
    const slashed = image.path.replaceAll('\\', '/');
    if (slashed !== image.path && (await index.missing(slashed)) === undefined) {
      image.path = slashed;
      kept.push(image);
      continue;
    }
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
 * read are dropped by policy. Where the policy of 'size-mismatch' is another than `keep`, the sizes of annotated
 * images are compared with their headers, too.
 */
export async function readSizes(
  images: readonly ImageDraft[],
  options: { log: ProblemLog; annotated?: boolean } & HeaderOptions,
): Promise<ImageDraft[]> {
  const { log, annotated = false, concurrency = 8, signal, onProgress } = options;
  const isKnown = ({ width, height }: ImageDraft) => width > 0 && height > 0;
  const compares = annotated && log.actionOf('size-mismatch') !== 'keep';
  const unknown = images.filter((image) => compares || !isKnown(image));
  const dropped = new Set<ImageDraft>();
  let done = 0;
  const reads = prefetch(
    unknown,
    async (image) => {
      try {
        return { image, size: await readImageSize(image.path) };
      } catch (reason) {
        if (!(reason instanceof MixplError)) throw reason;
        return { image, reason };
      }
    },
    { concurrency, ahead: 4 * concurrency, signal },
  );
  for await (const { image, size, reason } of reads) {
    onProgress?.(++done, unknown.length);
    if (reason) {
      dropped.add(image);
      log.add({
        kind: 'unreadable-image',
        file: image.path,
        id: image.fileName,
        message: reason.message.replace(`${image.path}: `, ''),
      });
      continue;
    }
    const fits = image.width === size.width && image.height === size.height;
    if (isKnown(image) && !fits && log.add(sizeMismatch(image, size)) !== 'repair')
      dropped.add(image);
    else Object.assign(image, size);
  }
  return images.filter((image) => !dropped.has(image));
}

/** Of an image whose record says another size than its file. */
export function sizeMismatch(
  recorded: { path: string; fileName: string; width: number; height: number },
  { width, height }: { width: number; height: number },
): DatasetProblem {
  return {
    kind: 'size-mismatch',
    file: recorded.path,
    id: recorded.fileName,
    message: `must be ${recorded.width} by ${recorded.height} pixels (as recorded, EXIF orientation applied), got ${width} by ${height}`,
  };
}

/**
 * Every file under `root` that is named like an image, relative, with `/`, sorted by name. Links are followed, to a
 * folder once: not where it is searched already.
 * @throws MixplError ERR_IO when `root` cannot be read
 */
export async function listImages(
  root: string,
  options: {
    recursive: boolean;
    operation: string;
    /** Takes the folders below `root` that cannot be read. */
    onProblem: (problem: DatasetProblem) => void;
  },
): Promise<string[]> {
  const { recursive, operation, onProblem } = options;
  const found: string[] = [];
  const searched = new Set<string>();
  const linked: string[] = [];
  /** Undefined where it was looked before. */
  const open = async (folder: string): Promise<{ path: string; entries: Dirent[] } | undefined> => {
    const path = await realpath(join(root, folder));
    if (searched.has(path)) return undefined;
    searched.add(path);
    return { path, entries: await readdir(path, { withFileTypes: true }) };
  };
  const expected = 'must be a readable folder of images';
  const visit = async (folder: string): Promise<void> => {
    let opened: Awaited<ReturnType<typeof open>>;
    try {
      opened = await open(folder);
    } catch (cause) {
      const got = systemReason(cause);
      if (folder === '')
        throw new MixplError('ERR_IO', `${operation}: ${root} ${expected}, got ${got}`, { cause });
      const file = join(root, folder);
      onProblem({ kind: 'unreadable-image', file, message: `${expected}, got ${got}` });
      return;
    }
    if (!opened) return;
    const { path, entries } = opened;
    for (const entry of entries.sort((a, b) => byCodeUnit(a.name, b.name))) {
      if (entry.name.startsWith('.')) continue; // hidden, and what macOS leaves beside files
      const name = folder ? `${folder}/${entry.name}` : entry.name;
      const kind = entry.isSymbolicLink() ? await targetOf(join(path, entry.name)) : entry;
      if (kind?.isDirectory()) {
        if (recursive && kind === entry) await visit(name);
        else if (recursive) linked.push(name);
        // No pipe, which would never end. Of a link that leads nowhere it is told when it is read.
      } else if (hasImageExtension(entry.name) && (kind?.isFile() ?? true)) found.push(name);
    }
  };
  await visit('');
  // After all that is not linked, so that a folder has its own name rather than a link's.
  for (const name of linked) await visit(name);
  return found.sort(byCodeUnit);
}

async function targetOf(link: string): Promise<Stats | undefined> {
  return stat(link).catch(() => undefined);
}

export async function isFolder(path: string): Promise<boolean> {
  return (await targetOf(path))?.isDirectory() ?? false;
}

/** The order that is the same on every machine and in every locale. */
export function byCodeUnit(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
