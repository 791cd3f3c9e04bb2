import { readdir, readFile } from 'node:fs/promises';
import { basename, extname, join, resolve } from 'node:path';
import { checkKeys, checkPath, keysOf } from '../arguments.js';
import { didYouMean, MixplError } from '../errors.js';
import { ioError } from '../files.js';
import { AnnotationTable, type Box, boxProblem } from './annotation-table.js';
import { type CategoryOptions, chooseCategories } from './categories.js';
import { finishDataset, hideEmptiness } from './dataset.js';
import {
  byCodeUnit,
  type HeaderOptions,
  type ImageDraft,
  isFolder,
  listImages,
  readSizes,
} from './image-files.js';
import { mapBounded } from './prefetch.js';
import {
  type DatasetPurpose,
  lenientPolicy,
  ProblemLog,
  type ProblemOptions,
  type ProblemPolicy,
} from './problems.js';
import type { DatasetLabels, DetectionDataset } from './types.js';
import { parseVocXml, type VocAnnotation, type VocObject } from './voc-xml.js';

/** How loadVoc reads. */
export interface LoadVocOptions extends CategoryOptions, HeaderOptions, ProblemOptions {
  /** Name of a list in ImageSets/Main, or the path of one. @defaultValue every annotated image */
  imageSet?: string | undefined;
  /**
   * false: an unlabelled source; annotation files need not exist. 'hidden': the same images, with those
   * annotations that can be used, see DatasetLabels. @defaultValue true
   */
  labelled?: DatasetLabels | undefined;
  /** Subtract 1 from all four coordinates, as mmdetection does (VOC counts pixels from 1). @defaultValue true */
  subtractOne?: boolean | undefined;
  /** What to do with problems, by kind. @defaultValue the first action of each problemRules entry */
  policy?: ProblemPolicy | undefined;
  /** 'evaluation' keeps every object that metrics count. @defaultValue 'training' */
  purpose?: DatasetPurpose | undefined;
  /** @defaultValue the folder's name, with the image set */
  name?: string | undefined;
}

const optionKeys = keysOf<LoadVocOptions>({
  ...{ categories: 0, classes: 0, otherClasses: 0, concurrency: 0 },
  ...{ signal: 0, onProgress: 0, onProblem: 0, imageSet: 0 },
  ...{ labelled: 0, subtractOne: 0, policy: 0, purpose: 0 },
  ...{ name: 0 },
});

/**
 * Reads a Pascal VOC folder: JPEGImages, Annotations, ImageSets/Main. Images are in order of name
 * and numbered from 1. Without `categories`, the classes are the names found in the folder's
 * annotations in alphabetical order (that of VOC's own twenty), whatever the image set, so that train
 * and test agree; their ids count from 1. Difficult objects are kept with the crowd flag.
 *
 * @throws MixplError ERR_IO, ERR_BAD_FILE (not XML: file:line:column), ERR_DATA (what the policy
 *   refuses), ERR_CONFIG (no such image set, policy or classes)
 */
export async function loadVoc(
  root: string,
  options: LoadVocOptions = {},
): Promise<DetectionDataset> {
  checkPath('loadVoc', 'root', root);
  checkKeys('loadVoc', options, optionKeys);
  const { imageSet, subtractOne = true, policy, signal, onProgress } = options;
  const { labelled: wanted = true, concurrency = 8 } = options;
  const labelled = wanted === true;
  const suffix = imageSet === undefined ? '' : `-${basename(imageSet, extname(imageSet))}`;
  const { name = `${basename(resolve(root))}${suffix}` } = options;
  const log = new ProblemLog('loadVoc', policy, options);

  const imageFolder = join(root, 'JPEGImages');
  const files = await listImages(imageFolder, {
    ...{ recursive: true, operation: 'loadVoc' },
    onProblem: (problem) => log.add(problem),
  });
  const fileOf = new Map(files.map((file) => [stemOf(file), file]));
  const annotated =
    labelled || (await isFolder(join(root, 'Annotations')))
      ? await listAnnotations(root)
      : new Set<string>();
  const listed = await listedIds(root, {
    imageSet,
    fallback: labelled ? annotated : fileOf.keys(),
  });

  const drafts: { image: ImageDraft; id: string }[] = [];
  const seen = new Set<string>();
  for (const { id, file, line } of listed.sort((a, b) => byCodeUnit(a.id, b.id))) {
    const at = { file, line, id };
    if (seen.has(id)) {
      log.add({
        ...at,
        kind: 'duplicate-image-id',
        message: 'image must not have been listed before',
      });
      continue;
    }
    seen.add(id);
    const fileName = fileOf.get(id);
    if (fileName === undefined) {
      log.add({
        ...at,
        kind: 'missing-image',
        message: `${join(imageFolder, id)} must be an image (.jpg, .png, …), got no such file`,
      });
      continue;
    }
    if (labelled && !annotated.has(id)) {
      log.add({
        ...at,
        kind: 'missing-annotation',
        message: `${xmlPath(root, id)} must be an annotation file, got no such file`,
      });
      continue;
    }
    const path = join(imageFolder, fileName);
    const image = { id: drafts.length + 1, fileName, path, width: 0, height: 0, annotations: null };
    drafts.push({ image, id });
  }

  const parse = (id: string) => readAnnotation(xmlPath(root, id)).catch(whenMixplError);
  const bounded = { concurrency, ahead: 4 * concurrency, signal };
  const annotations = labelled
    ? await mapBounded(drafts, ({ id }) => parse(id), bounded)
    : drafts.map(() => undefined);
  let names: string[] = [];
  if (!options.categories?.length && annotated.size > 0) {
    const elsewhere = [...annotated].filter((id) => !labelled || !seen.has(id));
    const others = await mapBounded(elsewhere, parse, bounded);
    const all = [...annotations, ...others].flatMap((annotation) =>
      annotation && !(annotation instanceof MixplError) ? annotation.objects : [],
    );
    names = [...new Set(all.map((object) => object.name))].filter(Boolean).sort(byCodeUnit);
  }
  const choice = chooseCategories(
    names.map((className, index) => ({ id: index + 1, name: className })),
    { categories: options.categories, classes: options.classes, source: root },
  );
  const labels: Labels = {
    of: new Map(choice.categories.map((category, label) => [category.name, label])),
    notChosen: new Set(names.filter((_, index) => choice.notChosen.has(index + 1))),
    // With classes chosen out of given categories, the others are known too.
    others: options.otherClasses ?? 'policy',
  };
  for (const category of options.categories ?? [])
    if (!labels.of.has(category.name)) labels.notChosen.add(category.name);

  const sized: ImageDraft[] = [];
  const annotationOf = new Map<ImageDraft, { annotation: VocAnnotation; file: string }>();
  drafts.forEach(({ image, id }, index) => {
    const annotation = annotations[index];
    if (annotation) {
      const file = xmlPath(root, id);
      if (annotation instanceof MixplError) {
        const [, line, message] = /^(?:(\d+):)?\s*(.*)/s.exec(
          annotation.message.replace(`${file}:`, ''),
        )!;
        log.add({
          kind: 'invalid-annotation',
          file,
          line: line === undefined ? undefined : Number(line),
          id,
          message: message!.replace(/^(\d+): /, 'column $1: '),
        });
        return;
      }
      if (
        ![annotation.width, annotation.height].every((side) => Number.isInteger(side) && side > 0)
      ) {
        const action = log.add({
          kind: 'invalid-image-size',
          file,
          id,
          message: `size must be a positive integer width and height, got ${annotation.width} by ${annotation.height}`,
        });
        if (action !== 'repair') return;
      } else Object.assign(image, { width: annotation.width, height: annotation.height });
      annotationOf.set(image, { annotation, file });
    }
    sized.push(image);
  });
  const images = await readSizes(sized, {
    ...{ log, concurrency, signal, onProgress },
    annotated: labelled,
  });
  if (labelled) annotate(images, { annotationOf, labels, log, subtractOne });
  else if (wanted === 'hidden') {
    const found = drafts.filter(({ id }) => annotated.has(id));
    const parsed = await mapBounded(found, ({ id }) => parse(id), bounded);
    found.forEach(({ image, id }, index) => {
      const annotation = parsed[index]!;
      if (annotation instanceof MixplError || !fits(annotation, image)) return;
      annotationOf.set(image, { annotation, file: xmlPath(root, id) });
    });
    const lenient = new ProblemLog('loadVoc', lenientPolicy);
    const usable = images.filter((image) => annotationOf.has(image));
    annotate(usable, { annotationOf, labels, log: lenient, subtractOne });
    hideEmptiness(images);
  }
  return finishDataset({ name, source: root, categories: choice.categories, images, log });
}

/** Whether boxes are of the image that the image file holds; an annotation need not say its size. */
function fits(annotation: VocAnnotation, { width, height }: ImageDraft): boolean {
  const said = [annotation.width, annotation.height].every((side) => side > 0);
  return !said || (annotation.width === width && annotation.height === height);
}

interface Labels {
  of: ReadonlyMap<string, number>;
  notChosen: Set<string>;
  others: 'policy' | 'skip';
}

function annotate(
  images: readonly ImageDraft[],
  options: {
    annotationOf: ReadonlyMap<ImageDraft, { annotation: VocAnnotation; file: string }>;
    labels: Labels;
    log: ProblemLog;
    subtractOne: boolean;
  },
): void {
  const { annotationOf, labels, log, subtractOne } = options;
  const table = new AnnotationTable();
  let nextId = 1;
  images.forEach((image, index) => {
    const { annotation, file } = annotationOf.get(image)!;
    for (const object of annotation.objects) {
      const id = nextId++;
      const at = { file, line: object.line, id: image.fileName };
      const label = labels.of.get(object.name);
      if (label === undefined) {
        const passed =
          labels.notChosen.has(object.name) || (labels.others === 'skip' && object.name);
        if (!passed) unknownClass(object, { at, labels, log });
        continue;
      }
      if (
        object.boxText.some(
          (text) => text === '' || (Number.isNaN(Number(text)) && !/^[+-]?nan$/i.test(text)),
        )
      ) {
        log.add({
          ...at,
          kind: 'invalid-annotation',
          message: `bndbox must have the numbers xmin, ymin, xmax, ymax, got [${object.boxText.map((text) => text || 'nothing').join(', ')}]`,
        });
        continue;
      }
      const shift = subtractOne ? 1 : 0;
      const box = object.box.map((coordinate) => coordinate - shift) as unknown as Box;
      const width = box[2] - box[0];
      const height = box[3] - box[1];
      const wrong = boxProblem(box, { width, height, image });
      if (wrong && log.add({ ...at, ...wrong }) !== 'keep') continue;
      table.add({ image: index, box, label, crowd: object.difficult, area: width * height, id });
    }
  });
  table.byImage(images.length).forEach((annotations, index) => {
    images[index]!.annotations = annotations;
  });
}

function unknownClass(
  object: VocObject,
  options: { at: { file: string; line: number; id: string }; labels: Labels; log: ProblemLog },
): void {
  const { at, labels, log } = options;
  log.add({
    ...at,
    ...(object.name
      ? {
          kind: 'unknown-category' as const,
          message: `name must be one of ${[...labels.of.keys()].slice(0, 20).join(', ')}, got '${object.name}'${didYouMean(object.name, labels.of.keys())}`,
        }
      : { kind: 'invalid-annotation' as const, message: 'object must have a name, got none' }),
  });
}

/** Problems of a file are counted; anything else is a fault of ours. */
function whenMixplError(reason: unknown): MixplError {
  if (reason instanceof MixplError) return reason;
  throw reason;
}

async function readAnnotation(file: string): Promise<VocAnnotation> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    throw ioError(file, 'must be a readable annotation', cause);
  }
  return parseVocXml(text, file);
}

/** Ids of the annotation files. */
async function listAnnotations(root: string): Promise<Set<string>> {
  const folder = join(root, 'Annotations');
  let names: string[];
  try {
    names = await readdir(folder, { recursive: true });
  } catch (cause) {
    throw ioError(folder, 'must be a readable folder of annotations', cause);
  }
  return new Set(
    names
      .filter((name) => extname(name).toLowerCase() === '.xml' && !basename(name).startsWith('.'))
      .map((name) => stemOf(name.replaceAll('\\', '/'))),
  );
}

/** Whether an image set is the path of a list, not the name of one in ImageSets/Main. */
export function isImageSetPath(imageSet: string): boolean {
  return /[\\/]|\.txt$/.test(imageSet);
}

interface ListedId {
  id: string;
  file: string;
  line?: number;
}

async function listedIds(
  root: string,
  options: { imageSet: string | undefined; fallback: Iterable<string> },
): Promise<ListedId[]> {
  const { imageSet, fallback } = options;
  if (imageSet === undefined) return Array.from(fallback, (id) => ({ id, file: root }));
  const sets = join(root, 'ImageSets', 'Main');
  const file = isImageSetPath(imageSet) ? imageSet : join(sets, `${imageSet}.txt`);
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    const names = (await readdir(sets).catch((): string[] => []))
      .filter((entry) => entry.endsWith('.txt'))
      .map((entry) => stemOf(entry))
      .sort(byCodeUnit);
    throw new MixplError(
      'ERR_CONFIG',
      `loadVoc: imageSet must be one of ${names.join(', ') || `the lists of ${sets}, which has none`} (or the path of a list), got '${imageSet}'`,
      { cause },
    );
  }
  // Lists for one class carry a second column: 1, 0 (difficult) or -1 (absent).
  return text
    .split(/\r?\n/)
    .map((line, index) => ({ id: line.trim().split(/\s+/)[0]!, file, line: index + 1 }))
    .filter(({ id }) => id !== '');
}

function xmlPath(root: string, id: string): string {
  return join(root, 'Annotations', `${id}.xml`);
}

function stemOf(file: string): string {
  return file.slice(0, file.length - extname(file).length);
}
