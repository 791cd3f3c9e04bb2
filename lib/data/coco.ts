import { basename, dirname, extname, resolve } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { checkKeys, checkPath, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { readJsonEntries } from '../json/stream.js';
import { NumberTable } from '../number-table.js';
import { AnnotationTable, type Box, boxProblem } from './annotation-table.js';
import { type CategoryOptions, chooseCategories } from './categories.js';
import { finishDataset, hideEmptiness } from './dataset.js';
import { checkFiles, type HeaderOptions, type ImageDraft, readSizes } from './image-files.js';
import {
  type DatasetProblem,
  type DatasetPurpose,
  lenientPolicy,
  ProblemLog,
  type ProblemOptions,
  type ProblemPolicy,
} from './problems.js';
import type { Category, DatasetLabels, DetectionDataset } from './types.js';

/** How loadCoco reads. */
export interface LoadCocoOptions extends CategoryOptions, HeaderOptions, ProblemOptions {
  /** Folder that `file_name` is relative to. @defaultValue the annotation file's folder */
  images?: string | undefined;
  /**
   * false: an unlabelled source; annotations are passed over and categories need not be there. 'hidden': the
   * same images, with those annotations that can be used, see DatasetLabels. @defaultValue true
   */
  labelled?: DatasetLabels | undefined;
  /** What to do with problems, by kind. @defaultValue the first action of each problemRules entry */
  policy?: ProblemPolicy | undefined;
  /** 'evaluation' keeps every annotation that metrics count, as pycocotools does. @defaultValue 'training' */
  purpose?: DatasetPurpose | undefined;
  /** Whether to look for every image file, also where its path was written with `\`. @defaultValue true */
  checkFiles?: boolean | undefined;
  /** @defaultValue the file's name */
  name?: string | undefined;
}

const optionKeys = keysOf<LoadCocoOptions>({
  ...{ categories: 0, classes: 0, otherClasses: 0, concurrency: 0 },
  ...{ signal: 0, onProgress: 0, onProblem: 0, images: 0 },
  ...{ labelled: 0, policy: 0, purpose: 0, checkFiles: 0 },
  ...{ name: 0 },
});

type Entry = Record<string, unknown>;

/**
 * Reads a COCO annotation file of any size. Images keep the order of the file, labels that of its
 * categories. As in the reference, annotations are left out of training that are flagged `ignore`, miss the
 * image, are less than a pixel wide or high, or have no area; crowds are kept and flagged; boxes
 * are not clipped. Unlike it, ids that do not exist or repeat are refused unless `policy` skips them.
 *
 * @throws MixplError ERR_IO, ERR_BAD_FILE (not JSON: file:line:column), ERR_DATA (what the policy
 *   refuses, or no categories), ERR_CONFIG (policy or classes)
 */
export async function loadCoco(
  annotationFile: string,
  options: LoadCocoOptions = {},
): Promise<DetectionDataset> {
  checkPath('loadCoco', 'annotationFile', annotationFile);
  checkKeys('loadCoco', options, optionKeys);
  const {
    images: folder = dirname(annotationFile),
    labelled = true,
    policy,
    checkFiles: check = true,
    name = basename(annotationFile, extname(annotationFile)),
    concurrency = 8,
    signal,
    onProgress,
  } = options;
  checkPath('loadCoco', 'images', folder);
  const log = new ProblemLog('loadCoco', policy, options);
  const file = new CocoFile(annotationFile, { folder, labelled, log });
  const root = await readJsonEntries(annotationFile, (entry) => file.visit(entry), { signal });
  if (root !== 'object')
    throw new MixplError(
      'ERR_DATA',
      `${annotationFile}: must be a COCO annotation object with images, annotations and categories, ` +
        `got ${root === 'array' ? 'a list (a results file?)' : 'a single value'}`,
    );
  const choice = file.categories(options);

  let images = file.images;
  if (check) {
    const listed = images.length;
    images = await checkFiles(images, { log, source: annotationFile, signal });
    const [first] = log.summaries().find(({ kind }) => kind === 'missing-image')?.examples ?? [];
    if (first && images.length === 0)
      throw new MixplError(
        'ERR_DATA',
        `${annotationFile}: its images must be in ${folder}, got none of ${listed} there: ${first.message}; ` +
          'try to name the folder of its images',
      );
  }
  images = await readSizes(images, {
    ...{ log, concurrency, signal, onProgress },
    annotated: labelled === true,
  });
  if (file.annotated) await file.annotate(images, choice, signal);
  else for (const image of images) image.annotations = null;
  if (labelled === 'hidden') hideEmptiness(images);
  await setImmediate();
  return finishDataset({
    name,
    source: annotationFile,
    categories: choice.categories,
    images,
    log,
  });
}

/** Annotations between which other work may run. */
const rowsPerTurn = 4096;

/** Columns of the annotations as the file has them. */
const columns = {
  ...{ image: 0, category: 1, box: 2, area: 6, crowd: 7, ignore: 8 },
  ...{ id: 9, line: 10, index: 11 },
};

class CocoFile {
  images: ImageDraft[] = [];
  readonly #path: string;
  readonly #folder: string;
  readonly #labelled: DatasetLabels;
  readonly #log: ProblemLog;
  /** Nobody has to mend what is only compared with. */
  readonly #annotationLog: ProblemLog;
  readonly #categories: Category[] = [];
  readonly #found = new Set<string>();
  readonly #annotations = new NumberTable(12);
  /** All ids of images that the file lists, dropped ones included. */
  readonly #imageIds = new Set<number>();
  readonly #fileNames = new Set<string>();

  constructor(path: string, options: { folder: string; labelled: DatasetLabels; log: ProblemLog }) {
    this.#path = path;
    this.#folder = options.folder;
    this.#labelled = options.labelled;
    this.#log = options.log;
    this.#annotationLog =
      options.labelled === 'hidden' ? new ProblemLog('loadCoco', lenientPolicy) : options.log;
  }

  /** The file says what is in its images, and in classes with a name. */
  get annotated(): boolean {
    if (this.#labelled !== 'hidden') return this.#labelled;
    return this.#found.has('annotations') && this.#categories.length > 0;
  }

  visit(entry: { key: string; index: number; value: unknown; line: number }): void {
    const { key, index, value, line } = entry;
    if (key !== 'images' && key !== 'annotations' && key !== 'categories') return;
    if (index <= 0) {
      if (this.#found.has(key))
        throw new MixplError(
          'ERR_DATA',
          `${this.#path}:${line}: '${key}' must appear only once, got it twice`,
        );
      this.#found.add(key);
    }
    if (index < 0) {
      if (Array.isArray(value) && value.length === 0) return;
      throw new MixplError(
        'ERR_DATA',
        `${this.#path}:${line}: '${key}' must be a list, got ${shown(value)}`,
      );
    }
    if (key === 'images') this.#addImage(value, { index, line });
    else if (key === 'categories') this.#addCategory(value, { index, line });
    else if (this.#labelled) this.#addAnnotation(value, { index, line });
  }

  #addCategory(value: unknown, { index, line }: { index: number; line: number }): void {
    const { id, name } = isEntry(value) ? value : ({} as Entry);
    if (!Number.isSafeInteger(id) || typeof name !== 'string' || name === '')
      throw new MixplError(
        'ERR_DATA',
        `${this.#path}:${line}: categories[${index}] must have an integer id${limitOf(id)} and a name, got ${shown(value)}`,
      );
    this.#categories.push({ id: id as number, name });
  }

  #addImage(value: unknown, { index, line }: { index: number; line: number }): void {
    const entry = isEntry(value) ? value : {};
    const { id, file_name: fileName } = entry;
    if (!Number.isSafeInteger(id) || typeof fileName !== 'string' || fileName === '') {
      if (Number.isSafeInteger(id)) this.#imageIds.add(id as number);
      this.#problem({
        kind: 'invalid-image',
        line,
        ...(typeof id === 'number' || typeof id === 'string' ? { id } : {}),
        message: `images[${index}] must have an integer id${limitOf(id)} and a file_name, got ${shown(value)}`,
      });
      return;
    }
    const image: ImageDraft = {
      id: id as number,
      fileName: fileName.replaceAll('\\', '/'),
      path: resolve(this.#folder, fileName),
      width: Number(entry.width),
      height: Number(entry.height),
      line,
      annotations: null,
    };
    const at = { line, id: image.id };
    if (this.#imageIds.has(image.id)) {
      this.#problem({
        ...at,
        kind: 'duplicate-image-id',
        message: `images[${index}].id must not have been used before, got ${image.id} ('${fileName}')`,
      });
      return;
    }
    this.#imageIds.add(image.id);
    if (this.#fileNames.has(image.fileName)) {
      const action = this.#problem({
        ...at,
        kind: 'duplicate-file-name',
        message: `images[${index}].file_name should not have been used before, got '${fileName}'`,
      });
      if (action !== 'keep') return;
    }
    this.#fileNames.add(image.fileName);
    if (
      ![entry.width, entry.height].every((side) => Number.isSafeInteger(side) && Number(side) > 0)
    ) {
      const action = this.#problem({
        ...at,
        kind: 'invalid-image-size',
        message: `images[${index}] must have a positive integer width and height, got ${shown(entry.width)} by ${shown(entry.height)}`,
      });
      if (action !== 'repair') return;
      image.width = 0; // readSizes asks the file
    }
    this.images.push(image);
  }

  #addAnnotation(value: unknown, { index, line }: { index: number; line: number }): void {
    const entry = isEntry(value) ? value : {};
    const { id, image_id: image, category_id: category, bbox, area } = entry;
    const crowd = flag(entry.iscrowd);
    const ignore = flag(entry.ignore);
    const wrong = !Number.isSafeInteger(id)
      ? `an integer id${limitOf(id)}, got ${shown(id)}`
      : !Number.isSafeInteger(image)
        ? `an integer image_id${limitOf(image)}, got ${shown(image)}`
        : !Number.isSafeInteger(category)
          ? `an integer category_id${limitOf(category)}, got ${shown(category)}`
          : !Array.isArray(bbox) || bbox.length !== 4 || !bbox.every((x) => typeof x === 'number')
            ? `a bbox [x, y, width, height], got ${shown(bbox)}`
            : area !== undefined && (typeof area !== 'number' || !Number.isFinite(area))
              ? `a finite area, got ${shown(area)}`
              : crowd === undefined
                ? `an iscrowd of 0 or 1, got ${shown(entry.iscrowd)}`
                : ignore === undefined
                  ? `an ignore of 0 or 1, got ${shown(entry.ignore)}`
                  : undefined;
    if (wrong !== undefined) {
      this.#annotationProblem({
        kind: 'invalid-annotation',
        line,
        ...(typeof id === 'number' || typeof id === 'string' ? { id } : {}),
        message: `annotations[${index}] must have ${wrong}`,
      });
      return;
    }
    const [x, y, w, h] = bbox as [number, number, number, number];
    this.#annotations.push([
      image as number,
      category as number,
      x,
      y,
      w,
      h,
      typeof area === 'number' ? area : w * h,
      crowd!,
      ignore!,
      id as number,
      line,
      index,
    ]);
  }

  categories(options: CategoryOptions) {
    if (!this.#found.has('images'))
      throw new MixplError(
        'ERR_DATA',
        `${this.#path}: must be a COCO annotation object with a list 'images', got ${[...this.#found].join(', ') || 'none'}`,
      );
    if (this.#labelled === true) {
      if (!this.#found.has('annotations'))
        throw new MixplError(
          'ERR_DATA',
          `${this.#path}: must have a list 'annotations' (to be a labelled data set), got none; try it as unlabelled data: data.unlabelled of a config, --unlabelled of \`mixpl data\`, { labelled: false } of loadCoco`,
        );
      if (this.#categories.length === 0 && !options.categories?.length)
        throw new MixplError(
          'ERR_DATA',
          `${this.#path}: must have a list 'categories' (their order decides the labels), got none; unlabelled data needs none`,
        );
    }
    return chooseCategories(this.#categories, {
      categories: options.categories,
      classes: options.classes,
      otherClasses: options.otherClasses,
      source: this.#path,
    });
  }

  /** Gives the images their annotations, problems decided by policy. Other work runs in between. */
  async annotate(
    images: readonly ImageDraft[],
    choice: ReturnType<CocoFile['categories']>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    const indexOf = new Map(images.map(({ id }, index) => [id, index]));
    const nameOf = new Map(this.#categories.map(({ id, name }) => [id, name]));
    const ids = new Set<number>();
    const table = new AnnotationTable();
    let [looked, corners] = [0, 0];
    for (let row = 0; row < this.#annotations.length; row++) {
      if (row % rowsPerTurn === 0) {
        await setImmediate();
        signal?.throwIfAborted();
      }
      const get = (column: number) => this.#annotations.at(row, column);
      const id = get(columns.id);
      const imageId = get(columns.image);
      const categoryId = get(columns.category);
      const at = { line: get(columns.line), id };
      const place = () => `annotations[${get(columns.index)}]`;
      if (!this.#imageIds.has(imageId)) {
        this.#annotationProblem({
          ...at,
          kind: 'unknown-image',
          message: `${place()}.image_id must be the id of a listed image, got ${imageId}`,
        });
        continue;
      }
      const image = indexOf.get(imageId);
      if (image === undefined) continue; // its image was dropped
      if (ids.has(id)) {
        const action = this.#annotationProblem({
          ...at,
          kind: 'duplicate-annotation-id',
          message: `${place()}.id must not have been used before, got ${id}`,
        });
        if (action !== 'keep') continue;
      }
      ids.add(id);
      if (get(columns.ignore)) {
        const problem = {
          ...at,
          kind: 'ignored-annotation',
          message: `${place()} is flagged ignore`,
        } as const;
        if (this.#annotationProblem(problem) !== 'keep') continue;
      }
      const label = choice.labelOf.get(categoryId);
      if (label === undefined) {
        if (choice.notChosen.has(categoryId)) continue;
        const named = nameOf.get(categoryId);
        const listed = choice.categories.map((category) => `${category.id} ${category.name}`);
        this.#annotationProblem({
          ...at,
          kind: 'unknown-category',
          message: `${place()}.category_id must be one of ${listed.slice(0, 10).join(', ')}${listed.length > 10 ? ', …' : ''}, got ${categoryId}${named === undefined ? '' : ` (${named})`}`,
        });
        continue;
      }
      const [x, y, width, height] = [0, 1, 2, 3].map((k) => get(columns.box + k)) as [
        number,
        number,
        number,
        number,
      ];
      const box: Box = [x, y, x + width, y + height];
      const written: Box = [x, y, width, height];
      looked++;
      if (looksLikeCorners(written, images[image]!)) corners++;
      const wrong = boxProblem(box, { width, height, image: images[image]!, written });
      if (wrong) {
        const message = `${place()}: ${wrong.message}`;
        if (this.#annotationProblem({ ...at, ...wrong, message }) !== 'keep') continue;
      }
      const area = get(columns.area);
      if (!(area > 0)) {
        const action = this.#annotationProblem({
          ...at,
          kind: 'area-not-positive',
          message: `${place()}.area must be positive, got ${area}`,
        });
        if (action !== 'keep') continue;
      }
      table.add({ image, box, label, crowd: get(columns.crowd) === 1, area, id });
    }
    if (corners >= fewestCorners && 2 * corners > looked)
      this.#annotationProblem({
        kind: 'box-corners',
        message: `bbox must be [x, y, width, height], got what fits its image only as [x1, y1, x2, y2] in ${corners} of ${looked}`,
      });
    await setImmediate();
    table.byImage(images.length).forEach((annotations, image) => {
      images[image]!.annotations = annotations;
    });
  }

  #problem(problem: Omit<DatasetProblem, 'file'>) {
    return this.#log.add({ ...problem, file: this.#path });
  }

  #annotationProblem(problem: Omit<DatasetProblem, 'file'>) {
    return this.#annotationLog.add({ ...problem, file: this.#path });
  }
}

function isEntry(value: unknown): value is Entry {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Fewer boxes that look like corners may do so by chance. */
const fewestCorners = 10;

/** Far outside the image as [x, y, width, height], within it as [x1, y1, x2, y2]. */
function looksLikeCorners([x, y, w, h]: Box, image: ImageDraft): boolean {
  const { width, height } = image;
  const outside = x + w > 1.05 * width || y + h > 1.05 * height;
  return outside && x >= 0 && y >= 0 && x < w && y < h && w <= width && h <= height;
}

/** Said of integers that a number of JavaScript cannot tell from their neighbours. */
const limitOf = (value: unknown) => (Number.isInteger(value) ? ' below 2^53' : '');

/** 0 or 1; undefined when it is neither. */
function flag(value: unknown): 0 | 1 | undefined {
  if (value === undefined || value === null || value === 0 || value === false) return 0;
  return value === 1 || value === true ? 1 : undefined;
}

function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  if (typeof value === 'number') return String(value);
  const text = JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}
