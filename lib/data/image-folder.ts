import { basename, join, resolve } from 'node:path';
import { checkKeys, checkPath, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { finishDataset } from './dataset.js';
import { type HeaderOptions, type ImageDraft, listImages, readSizes } from './image-files.js';
import { ProblemLog, type ProblemOptions, type ProblemPolicy } from './problems.js';
import type { Category, DetectionDataset } from './types.js';

/** How loadImageFolder looks for images. */
export interface LoadImageFolderOptions extends HeaderOptions, ProblemOptions {
  /** Also search subfolders. Hidden files and folders are passed over. @defaultValue true */
  recursive?: boolean | undefined;
  /** Those of the labelled data set. @defaultValue [] */
  categories?: readonly Category[] | undefined;
  /** `unreadable-image` is what can happen here. @defaultValue refuse */
  policy?: ProblemPolicy | undefined;
  /** @defaultValue the folder's name */
  name?: string | undefined;
}

const optionKeys = keysOf<LoadImageFolderOptions>({
  ...{ concurrency: 0, signal: 0, onProgress: 0, onProblem: 0 },
  ...{ recursive: 0, categories: 0, policy: 0, name: 0 },
});

/**
 * Takes a plain folder of images as an unlabelled data set. Images are in order of name (by code
 * unit, so the same on every machine) and numbered from 1; their sizes come from the headers.
 *
 * @throws MixplError ERR_IO (no such folder), ERR_DATA (no images), ERR_BAD_FILE (an image, or a folder in
 *   the folder, that cannot be read, unless `policy` skips it)
 */
export async function loadImageFolder(
  folder: string,
  options: LoadImageFolderOptions = {},
): Promise<DetectionDataset> {
  checkPath('loadImageFolder', 'folder', folder);
  checkKeys('loadImageFolder', options, optionKeys);
  const {
    recursive = true,
    categories = [],
    policy,
    concurrency = 8,
    signal,
    onProgress,
  } = options;
  const { name = basename(resolve(folder)) } = options;
  const log = new ProblemLog('loadImageFolder', policy, { onProblem: options.onProblem });
  const files = await listImages(folder, {
    ...{ recursive, operation: 'loadImageFolder' },
    onProblem: (problem) => log.add(problem),
  });
  if (files.length === 0 && log.summaries().length === 0)
    throw new MixplError(
      'ERR_DATA',
      `loadImageFolder: ${folder} must contain images (.jpg, .png, .webp, .tif, .gif, .avif), got none${recursive ? '' : ' (subfolders were not searched)'}`,
    );
  const drafts = files.map(
    (fileName, index): ImageDraft => ({
      id: index + 1,
      fileName,
      path: join(folder, fileName),
      width: 0,
      height: 0,
      annotations: null,
    }),
  );
  const images = await readSizes(drafts, { log, concurrency, signal, onProgress });
  return finishDataset({ name, source: folder, categories, images, log });
}
