import { checkKeys } from '../arguments.js';
import { MixplError } from '../errors.js';
import { fingerprintOf } from './fingerprint.js';
import type { ImageDraft } from './image-files.js';
import { type DatasetReport, describe, type ProblemLog, type ProblemSummary } from './problems.js';
import type { Category, DetectionDataset, ImageRecord } from './types.js';

/**
 * Closes a reader's work: throws what the policy refuses, else counts and signs the data set.
 *
 * @throws MixplError ERR_DATA or ERR_BAD_FILE
 */
export function finishDataset(input: {
  name: string;
  source: string;
  categories: readonly Category[];
  images: readonly ImageDraft[];
  log: ProblemLog;
}): DetectionDataset {
  const { name, source, categories, log } = input;
  log.refuse(source);
  if (input.images.length === 0) {
    const found = log.summaries();
    const skipped = found.map(({ kind, count }) => `${count} '${kind}'`);
    const example = found[0]?.examples[0];
    throw new MixplError(
      'ERR_DATA',
      `${source}: must have at least one image, got none` +
        (skipped.length ? ` (left out: ${skipped.join(', ')})` : '') +
        (example ? `\n  ${describe(example)}` : '') +
        (found[0]?.kind === 'missing-image' ? '\ntry to name the folder of its images' : ''),
    );
  }
  const images = input.images.map(
    ({ id, fileName, path, width, height, annotations }): ImageRecord => ({
      id,
      fileName,
      path,
      width,
      height,
      annotations,
    }),
  );
  return makeDataset({ name, source, categories, images, problems: log.summaries() });
}

/** A data set with its counts and fingerprint. */
export function makeDataset(input: {
  name: string;
  source: string;
  categories: readonly Category[];
  images: readonly ImageRecord[];
  problems?: readonly ProblemSummary[];
}): DetectionDataset {
  const { name, source, categories, images, problems = [] } = input;
  const report: DatasetReport = { source, images: images.length, ...countOf(images), problems };
  return { name, categories, images, fingerprint: fingerprintOf({ categories, images }), report };
}

/** A source in which nothing is annotated says nothing of its images: not that they are empty. */
export function hideEmptiness(images: readonly ImageDraft[]): void {
  if (images.some(({ annotations }) => annotations?.labels.length)) return;
  for (const image of images) image.annotations = null;
}

/** The same data set with some of its images, in the order given. */
export function selectImages(
  dataset: DetectionDataset,
  images: readonly ImageRecord[],
  options: { name?: string } = {},
): DetectionDataset {
  checkKeys('selectImages', options, ['name']);
  const { name = dataset.name } = options;
  const { categories, report } = dataset;
  return makeDataset({
    name,
    source: report.source,
    categories,
    images,
    problems: report.problems,
  });
}

/** [K] by label: boxes without crowds an annotated image has, on average; 0 without annotated images. */
export function boxesPerImage({ categories, images }: DetectionDataset): number[] {
  const annotated = images.flatMap(({ annotations }) => annotations ?? []);
  const counts = new Array<number>(categories.length).fill(0);
  for (const { labels, crowd } of annotated)
    labels.forEach((label, i) => {
      if (!crowd[i]) counts[label]!++;
    });
  return counts.map((count) => count / Math.max(annotated.length, 1));
}

function countOf(images: readonly ImageRecord[]): { annotations: number; crowd: number } {
  let count = 0;
  let crowds = 0;
  for (const { annotations } of images) {
    if (!annotations) continue;
    count += annotations.labels.length;
    for (const crowd of annotations.crowd) crowds += crowd;
  }
  return { annotations: count, crowd: crowds };
}
