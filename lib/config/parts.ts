/** The parts of a run's options in the form that the layers below take them. */
import { resolve } from 'node:path';
import type { DatasetSource } from '../data/index.js';
import { isImageSetPath } from '../data/voc.js';
import type { OptimizerOptions } from '../detector/create.js';
import type { DetectorOptions } from '../detector/options.js';
import type { ResolvedConfig } from './schema.js';

/** What createDetector builds. `numClasses` comes from the data, unless the config names it. */
export function detectorOptions(
  { model }: Pick<ResolvedConfig, 'model'>,
  numClasses: number,
): DetectorOptions {
  const { weights: _, weightsLayout: __, preset: ___, ...options } = model;
  return { ...options, numClasses: model.numClasses ?? numClasses };
}

export function optimizerOptions({
  optimizer,
}: Pick<ResolvedConfig, 'optimizer'>): OptimizerOptions {
  const { lr: _, normDecay, biasDecay, ...options } = optimizer;
  const { weightDecay } = optimizer;
  return { ...options, normDecay: normDecay ?? weightDecay, biasDecay: biasDecay ?? weightDecay };
}

/** Where one of the data sets is, from `data.root`. */
export function datasetSource(
  { data }: Pick<ResolvedConfig, 'data'>,
  part: 'labelled' | 'unlabelled' | 'test',
): DatasetSource | null {
  const source = data[part];
  const at = (name: string) => resolve(data.root, name);
  switch (source?.format) {
    case undefined:
      return null;
    case 'coco': {
      const images = source.images === null ? undefined : at(source.images);
      return { format: 'coco', annotations: at(source.annotations), images };
    }
    case 'voc': {
      const given = source.imageSet ?? undefined;
      const imageSet = given && isImageSetPath(given) ? at(given) : given;
      return { format: 'voc', folder: at(source.folder), imageSet };
    }
    case 'folder':
      return { format: 'folder', images: at(source.images) };
  }
}
