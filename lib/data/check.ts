import { stat } from 'node:fs/promises';
import { checkKeys, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { decodeImage, readImageSize } from './decode.js';
import { sizeMismatch } from './image-files.js';
import { prefetch } from './prefetch.js';
import {
  type DatasetProblem,
  ProblemLog,
  type ProblemOptions,
  type ProblemSummary,
} from './problems.js';
import type { Category, DetectionDataset, ImageRecord } from './types.js';

/** How checkDataset looks at files. */
export interface CheckOptions extends ProblemOptions {
  /** How much of each file to read: nothing, its header, or all of its pixels. @defaultValue 'header' */
  files?: 'none' | 'header' | 'decode';
  /** Files read at the same time. @defaultValue 4 */
  concurrency?: number;
  /** Aborting it rejects with its reason. */
  signal?: AbortSignal;
  /** Called after each image. */
  onProgress?: (done: number, total: number) => void;
}

export interface ClassCount extends Category {
  /** Annotations without crowds. */
  readonly instances: number;
  readonly crowd: number;
  /** Images with an instance or crowd. */
  readonly images: number;
}

/** What a data set holds and what is wrong with it. */
export interface DatasetCheck {
  readonly name: string;
  readonly source: string;
  readonly fingerprint: string;
  readonly images: {
    readonly total: number;
    readonly unlabelled: number;
    /** Labelled, with no annotation. */
    readonly empty: number;
    /** Width < height. */
    readonly portrait: number;
    /** null without images. */
    readonly smallest: { readonly width: number; readonly height: number } | null;
    readonly largest: { readonly width: number; readonly height: number } | null;
  };
  readonly annotations: number;
  readonly crowd: number;
  /** In label order. */
  readonly classes: readonly ClassCount[];
  /** Without crowds, by COCO's areas of the box: below 32², below 96², above. */
  readonly boxSizes: {
    readonly small: number;
    readonly medium: number;
    readonly large: number;
    /** By sqrt(width × height) in pixels: from <= side < to, powers of two. */
    readonly histogram: readonly {
      readonly from: number;
      readonly to: number;
      readonly count: number;
    }[];
  };
  /** Those of reading the data set and those of its files, by kind. */
  readonly problems: readonly ProblemSummary[];
  /** No problem of any kind. */
  readonly clean: boolean;
}

const optionKeys = keysOf<CheckOptions>({
  ...{ files: 0, concurrency: 0, signal: 0, onProgress: 0 },
  ...{ onProblem: 0 },
});

/**
 * Counts classes and sizes, and looks into the image files. Throws nothing for a bad file: it is
 * counted. Load with `lenientPolicy` to see every problem of the annotations too.
 */
export async function checkDataset(
  dataset: DetectionDataset,
  options: CheckOptions = {},
): Promise<DatasetCheck> {
  checkKeys('checkDataset', options, optionKeys);
  const { files = 'header' } = options;
  if (!['none', 'header', 'decode'].includes(files))
    throw new MixplError(
      'ERR_CONFIG',
      `checkDataset: files must be none, header or decode, got '${files}'`,
    );
  const { name, fingerprint, images, report } = dataset;
  const found = await checkFilesOf(dataset, options);
  const problems = byKind([...report.problems, ...found]);
  const bySize = [...images].sort((a, b) => a.width * a.height - b.width * b.height);
  const sizeOf = (image: ImageRecord | undefined) =>
    image ? { width: image.width, height: image.height } : null;
  return {
    name,
    source: report.source,
    fingerprint,
    images: {
      total: images.length,
      unlabelled: images.filter(({ annotations }) => annotations === null).length,
      empty: images.filter(({ annotations }) => annotations?.labels.length === 0).length,
      portrait: images.filter(({ width, height }) => width < height).length,
      smallest: sizeOf(bySize[0]),
      largest: sizeOf(bySize.at(-1)),
    },
    annotations: report.annotations,
    crowd: report.crowd,
    classes: classCounts(dataset),
    boxSizes: boxSizes(dataset),
    problems,
    clean: problems.length === 0,
  };
}

/** Problems of a kind that reading met and those that its files have, together. */
function byKind(summaries: readonly ProblemSummary[]): ProblemSummary[] {
  const kinds = new Map<string, ProblemSummary>();
  for (const summary of summaries) {
    const { count, examples } = kinds.get(summary.kind) ?? { count: 0, examples: [] };
    kinds.set(summary.kind, {
      ...summary,
      count: count + summary.count,
      examples: [...examples, ...summary.examples],
    });
  }
  return [...kinds.values()];
}

function classCounts({ categories, images }: DetectionDataset): ClassCount[] {
  const counts = categories.map((category) => ({ ...category, instances: 0, crowd: 0, images: 0 }));
  for (const { annotations } of images) {
    if (!annotations) continue;
    annotations.labels.forEach((label, i) => {
      if (annotations.crowd[i]) counts[label]!.crowd++;
      else counts[label]!.instances++;
    });
    for (const label of new Set(annotations.labels)) counts[label]!.images++;
  }
  return counts;
}

function boxSizes({ images }: DetectionDataset): DatasetCheck['boxSizes'] {
  const octaves: number[] = [];
  const sizes = { small: 0, medium: 0, large: 0 };
  for (const { annotations } of images) {
    if (!annotations) continue;
    const { boxes, crowd } = annotations;
    for (let i = 0; i < crowd.length; i++) {
      if (crowd[i]) continue;
      const area = (boxes[4 * i + 2]! - boxes[4 * i]!) * (boxes[4 * i + 3]! - boxes[4 * i + 1]!);
      sizes[area < 32 ** 2 ? 'small' : area < 96 ** 2 ? 'medium' : 'large']++;
      const octave = Math.max(0, Math.floor(Math.log2(area) / 2));
      octaves[octave] = (octaves[octave] ?? 0) + 1;
    }
  }
  const histogram = Array.from(octaves, (count, octave) => ({
    from: octave === 0 ? 0 : 2 ** octave,
    to: 2 ** (octave + 1),
    count: count ?? 0,
  }));
  const first = histogram.findIndex(({ count }) => count > 0);
  return { ...sizes, histogram: first < 0 ? [] : histogram.slice(first) };
}

async function checkFilesOf(
  dataset: DetectionDataset,
  options: CheckOptions,
): Promise<ProblemSummary[]> {
  const { files = 'header', concurrency = 4, signal, onProgress } = options;
  if (files === 'none') return [];
  const policy = {
    'missing-image': 'skip',
    'unreadable-image': 'skip',
    'size-mismatch': 'keep',
  } as const;
  const log = new ProblemLog('checkDataset', policy, { onProblem: options.onProblem });
  const { images } = dataset;
  let done = 0;
  const bounds = { concurrency, ahead: 4 * concurrency, signal };
  for await (const problem of prefetch(images, (image) => inspect(image, files), bounds)) {
    if (problem) log.add(problem);
    onProgress?.(++done, images.length);
  }
  return log.summaries();
}

async function inspect(
  image: ImageRecord,
  files: 'header' | 'decode',
): Promise<DatasetProblem | undefined> {
  const { path, width, height } = image;
  const at = { file: path, id: image.fileName };
  try {
    const actual = await (files === 'decode' ? decodeImage(path) : readImageSize(path));
    if (actual.width === width && actual.height === height) return undefined;
    return sizeMismatch(image, actual);
  } catch (reason) {
    if (!(reason instanceof MixplError)) throw reason;
    const exists = await stat(path).then(
      () => true,
      () => false,
    );
    const message = reason.message.replace(`${path}: `, '');
    return { ...at, kind: exists ? 'unreadable-image' : 'missing-image', message };
  }
}
