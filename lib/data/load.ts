import { checkKeys, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import type { CategoryOptions } from './categories.js';
import { loadCoco } from './coco.js';
import type { HeaderOptions } from './image-files.js';
import { type LoadImageFolderOptions, loadImageFolder } from './image-folder.js';
import type { DatasetPurpose, ProblemOptions, ProblemPolicy } from './problems.js';
import type { DatasetLabels, DetectionDataset } from './types.js';
import { loadVoc } from './voc.js';

/** Where a data set is, as a run's config has it. */
export type DatasetSource =
  | { format: 'coco'; annotations: string; images?: string | undefined }
  | { format: 'voc'; folder: string; imageSet?: string | undefined }
  | { format: 'folder'; images: string };

/** How loadDataset reads, whatever the format. */
export interface LoadDatasetOptions extends CategoryOptions, HeaderOptions, ProblemOptions {
  /** false or 'hidden': as an unlabelled source. A folder always is one. @defaultValue true */
  labelled?: DatasetLabels | undefined;
  /** What to do with problems, by kind. @defaultValue the first action of each problemRules entry */
  policy?: ProblemPolicy | undefined;
  /** 'evaluation' keeps every annotation that metrics count. @defaultValue 'training' */
  purpose?: DatasetPurpose | undefined;
  /** @defaultValue that of the format's own reader */
  name?: string | undefined;
}

const optionKeys = keysOf<LoadDatasetOptions>({
  ...{ categories: 0, classes: 0, otherClasses: 0, concurrency: 0 },
  ...{ signal: 0, onProgress: 0, onProblem: 0, labelled: 0 },
  ...{ policy: 0, purpose: 0, name: 0 },
});

/** Reads a data set of any format. @throws as loadCoco, loadVoc and loadImageFolder */
export async function loadDataset(
  source: DatasetSource,
  options: LoadDatasetOptions = {},
): Promise<DetectionDataset> {
  checkKeys('loadDataset', options, optionKeys);
  switch (source.format) {
    case 'coco':
      return loadCoco(source.annotations, { ...options, images: source.images });
    case 'voc':
      return loadVoc(source.folder, { ...options, imageSet: source.imageSet });
    case 'folder':
      return loadImageFolder(source.images, withoutLabels(options));
    default:
      throw new MixplError(
        'ERR_CONFIG',
        `loadDataset: format must be coco, voc or folder, got '${(source as { format: unknown }).format}'`,
      );
  }
}

/** What there is to say of a folder, where nothing is annotated. */
function withoutLabels(options: LoadDatasetOptions): LoadImageFolderOptions {
  const { labelled, purpose, classes, otherClasses, ...rest } = options;
  return rest;
}
