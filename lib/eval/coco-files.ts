import { checkKeys, checkPath } from '../arguments.js';
import { MixplError } from '../errors.js';
import { writeFileWhole } from '../files.js';
import { readJsonEntries } from '../json/stream.js';
import { NumberTable } from '../number-table.js';
import type {
  DetectedBoxes,
  EvaluationCategory,
  EvaluationDataset,
  GroundTruthBoxes,
  ImageDetections,
  ImageId,
} from './boxes.js';

/** Ground truth of a COCO annotation file with what is needed to read detections against it. */
export interface CocoGroundTruth extends GroundTruthBoxes {
  /** Ascending; position = index in `images`. */
  readonly imageIds: readonly ImageId[];
  /** What was passed over or assumed, as pycocotools would, one line each. */
  readonly warnings: readonly string[];
}

export interface CocoResults extends DetectedBoxes {
  readonly warnings: readonly string[];
}

type Entry = Record<string, unknown>;

/**
 * Reads a COCO annotation file for evaluation, exactly (f64 boxes and areas, no policy applied).
 *
 * As in pycocotools: annotations of images or categories that the file does not list are passed
 * over, a repeated annotation id means the last annotation of that id (at every place), and
 * an id of 0 never counts as a match. Where pycocotools stops (no `area`, no `iscrowd`) the box's
 * own area and 0 stand in. Each of these is a warning.
 *
 * @throws MixplError ERR_IO, ERR_BAD_FILE, and ERR_DATA naming the entry that cannot be used
 */
export async function readCocoGroundTruth(
  path: string,
  options: { signal?: AbortSignal | undefined } = {},
): Promise<CocoGroundTruth> {
  checkPath('readCocoGroundTruth', 'path', path);
  checkKeys('readCocoGroundTruth', options, ['signal']);
  const lists: Record<string, unknown> = {};
  const root = await readJsonEntries(
    path,
    ({ key, index, value }) => {
      if (!Object.hasOwn(usedOf, key)) return;
      if (index <= 0) lists[key] = index < 0 ? value : [];
      if (index >= 0) (lists[key] as unknown[]).push(picked(value, usedOf[key]!));
    },
    { signal: options.signal },
  );
  if (root !== 'object') throw mustBe(path, 'a COCO annotation object', root);
  return parseCocoGroundTruth(lists, path);
}

/** What is read of an entry: outlines are most of a file, and none of metrics of boxes. */
const usedOf: Readonly<Record<string, readonly string[]>> = {
  images: ['id'],
  categories: ['id', 'name'],
  annotations: ['id', 'image_id', 'category_id', 'bbox', 'area', 'iscrowd'],
};

function picked(value: unknown, keys: readonly string[]): unknown {
  if (!isEntry(value)) return value;
  const entry: Entry = {};
  for (const key of keys) if (Object.hasOwn(value, key)) entry[key] = value[key];
  return entry;
}

/** As readCocoGroundTruth, from parsed JSON; `source` names it in messages. */
export function parseCocoGroundTruth(json: unknown, source = 'annotations'): CocoGroundTruth {
  if (!isEntry(json)) throw dataError(source, 'must be a COCO annotation object', json);
  const listOf = (key: string): readonly unknown[] => {
    const list = json[key];
    if (!Array.isArray(list)) throw dataError(`${source}: ${key}`, 'must be a list', list);
    return list;
  };
  const warnings = new Tally(source);
  const imageIds = sortedIds(listOf('images'), `${source}: images`);
  const imageIndex = new Map(imageIds.map((id, i) => [id, i]));
  const categories = categoriesOf(listOf('categories'), `${source}: categories`);
  const labelOf = new Map(categories.map(({ id }, label) => [id, label]));

  const annotations = listOf('annotations');
  const lastOfId = new Map<unknown, number>();
  annotations.forEach((annotation, i) => {
    const where = `${source}: annotations[${i}]`;
    if (!isEntry(annotation)) throw dataError(where, 'must be an object', annotation);
    const id = annotation.id;
    if (typeof id !== 'number' && typeof id !== 'string')
      throw dataError(`${where}.id`, 'must be a number', id);
    if (lastOfId.has(id)) warnings.add('repeated annotation ids, of which the last counts', id);
    if (Number(id) === 0) warnings.add('annotation ids of 0, which never count as matched', id);
    lastOfId.set(id, i);
  });

  const used: { image: number; index: number }[] = [];
  (annotations as readonly Entry[]).forEach((annotation, index) => {
    const image = imageIndex.get(annotation.image_id as ImageId);
    if (image === undefined)
      warnings.add('annotations of images that are not listed', annotation.image_id);
    else if (!labelOf.has(annotation.category_id as number))
      warnings.add('annotations of categories that are not listed', annotation.category_id);
    else used.push({ image, index });
  });
  // The reference collects ids image by image and only then looks the annotations up by id.
  if (lastOfId.size < annotations.length) {
    used.sort((a, b) => a.image - b.image);
    for (const entry of used)
      entry.index = lastOfId.get((annotations[entry.index] as Entry).id) as number;
  }

  const rows: GroundTruthRow[] = [];
  for (const { index } of used) {
    const annotation = annotations[index] as Entry;
    const image = imageIndex.get(annotation.image_id as ImageId);
    const label = labelOf.get(annotation.category_id as number);
    if (image === undefined || label === undefined) continue; // the last of a repeated id is elsewhere
    const where = `${source}: annotations[${index}]`;
    const box = boxOf(annotation.bbox, `${where}.bbox`);
    rows.push({
      image,
      label,
      box,
      area: areaOf(annotation, { box, where, warnings }),
      crowd: crowdOf(annotation, { where, warnings }),
      id: Number(annotation.id),
    });
  }
  return {
    categories,
    numImages: imageIds.length,
    imageIds,
    boxes: Float64Array.from(rows.flatMap((row) => row.box)),
    images: Int32Array.from(rows, (row) => row.image),
    labels: Int32Array.from(rows, (row) => row.label),
    ignore: Uint8Array.from(rows, (row) => (row.crowd ? 1 : 0)),
    areas: Float64Array.from(rows, (row) => row.area),
    ids: Float64Array.from(rows, (row) => row.id),
    warnings: warnings.lines(),
  };
}

/**
 * Reads a COCO results file: a list of { image_id, category_id, bbox [x, y, w, h], score }.
 *
 * Detections of categories that the ground truth lacks are passed over with a warning, as in
 * pycocotools; `unknownCategories: 'refuse'` makes them an error.
 *
 * @throws MixplError ERR_IO, ERR_BAD_FILE, and ERR_DATA naming the entry: an image that the ground
 *   truth does not list, a box that is not four finite numbers, a score that is not finite
 */
export async function readCocoResults(
  path: string,
  groundTruth: CocoGroundTruth,
  options: { unknownCategories?: 'skip' | 'refuse'; signal?: AbortSignal | undefined } = {},
): Promise<CocoResults> {
  checkPath('readCocoResults', 'path', path);
  checkKeys('readCocoResults', options, ['unknownCategories', 'signal']);
  const reader = new ResultsReader(groundTruth, { source: path, ...options });
  const root = await readJsonEntries(
    path,
    ({ key, index, value }) => {
      if (key === '' && index >= 0) reader.add(value, index);
    },
    { signal: options.signal },
  );
  if (root !== 'array') throw mustBe(path, listOfResults, root);
  return reader.results();
}

/** Of a file whose outermost value is another. */
function mustBe(path: string, expected: string, root: 'object' | 'array' | 'scalar'): MixplError {
  const got = { object: 'an object', array: 'a list', scalar: 'a single value' }[root];
  return new MixplError('ERR_DATA', `${path} must be ${expected}, got ${got}`);
}

const listOfResults = 'a list of { image_id, category_id, bbox, score }';

/** As readCocoResults, from parsed JSON; `source` names it in messages. */
export function parseCocoResults(
  json: unknown,
  groundTruth: CocoGroundTruth,
  options: { source?: string; unknownCategories?: 'skip' | 'refuse' } = {},
): CocoResults {
  checkKeys('parseCocoResults', options, ['source', 'unknownCategories']);
  const { source = 'detections' } = options;
  if (!Array.isArray(json)) throw dataError(source, `must be ${listOfResults}`, json);
  const reader = new ResultsReader(groundTruth, { ...options, source });
  for (const [i, entry] of (json as unknown[]).entries()) reader.add(entry, i);
  return reader.results();
}

/** Takes a results file's entries one by one. */
class ResultsReader {
  readonly #imageIndex: ReadonlyMap<ImageId, number>;
  readonly #labelOf: ReadonlyMap<number, number>;
  readonly #source: string;
  readonly #unknownCategories: 'skip' | 'refuse';
  readonly #warnings: Tally;
  /** Box, score, image, label. */
  readonly #rows = new NumberTable(7);

  constructor(
    groundTruth: CocoGroundTruth,
    options: { source: string; unknownCategories?: 'skip' | 'refuse' },
  ) {
    this.#source = options.source;
    this.#unknownCategories = options.unknownCategories ?? 'skip';
    this.#warnings = new Tally(options.source);
    this.#imageIndex = new Map(groundTruth.imageIds.map((id, i) => [id, i]));
    this.#labelOf = new Map(groundTruth.categories.map(({ id }, label) => [id, label]));
  }

  add(entry: unknown, i: number): void {
    const where = `${this.#source}: [${i}]`;
    if (!isEntry(entry)) throw dataError(where, 'must be an object', entry);
    const image = this.#imageIndex.get(entry.image_id as ImageId);
    if (image === undefined)
      throw dataError(
        `${where}.image_id`,
        'must be the id of an image of the ground truth',
        entry.image_id,
      );
    const box = boxOf(entry.bbox, `${where}.bbox`);
    const score = finite(entry.score, `${where}.score`);
    const label = this.#labelOf.get(entry.category_id as number);
    if (label !== undefined) {
      this.#rows.push([...box, score, image, label]);
      return;
    }
    if (this.#unknownCategories === 'refuse' || typeof entry.category_id !== 'number')
      throw dataError(
        `${where}.category_id`,
        'must be the id of a category of the ground truth',
        entry.category_id,
      );
    this.#warnings.add('detections of categories that the ground truth lacks', entry.category_id);
  }

  results(): CocoResults {
    const rows = this.#rows;
    const { length } = rows;
    const found = {
      boxes: new Float64Array(4 * length),
      scores: new Float64Array(length),
      images: new Int32Array(length),
      labels: new Int32Array(length),
    };
    for (let row = 0; row < length; row++) {
      for (let k = 0; k < 4; k++) found.boxes[4 * row + k] = rows.at(row, k);
      found.scores[row] = rows.at(row, 4);
      found.images[row] = rows.at(row, 5);
      found.labels[row] = rows.at(row, 6);
    }
    return { ...found, warnings: this.#warnings.lines() };
  }
}

/**
 * Writes detections (one entry per image of the data set, xyxy in original pixels) as a COCO
 * results file, whole or not at all.
 *
 * @throws MixplError ERR_IO; ERR_SHAPE when there is not one entry per image; ERR_RANGE for a label
 *   outside the classes or a value that is not finite
 */
export async function writeCocoResults(
  path: string,
  input: { dataset: EvaluationDataset; detections: readonly ImageDetections[] },
): Promise<void> {
  checkPath('writeCocoResults', 'path', path);
  const { dataset, detections } = input;
  if (detections.length !== dataset.images.length)
    throw new MixplError(
      'ERR_SHAPE',
      `writeCocoResults: detections must have ${dataset.images.length} entries (one per image), got ${detections.length}`,
    );
  await writeFileWhole(path, resultLines(dataset, detections));
}

function* resultLines(
  dataset: EvaluationDataset,
  detections: readonly ImageDetections[],
): Generator<string> {
  let separator = '[\n';
  for (const [i, { boxes, scores, labels }] of detections.entries()) {
    const image = dataset.images[i]!;
    let text = '';
    for (let k = 0; k < labels.length; k++) {
      const category = dataset.categories[labels[k]!];
      const [x1, y1, x2, y2] = [...boxes.subarray(4 * k, 4 * k + 4)] as [
        number,
        number,
        number,
        number,
      ];
      const bbox = [x1, y1, x2 - x1, y2 - y1];
      const score = scores[k]!;
      if (!category || ![...bbox, score].every(Number.isFinite))
        throw new MixplError(
          'ERR_RANGE',
          `writeCocoResults: detections must be finite with labels in [0, ${dataset.categories.length}), ` +
            `got label ${labels[k]}, box [${bbox.join(', ')}], score ${score} in image ${image.id}`,
        );
      text += `${separator}${JSON.stringify({ image_id: image.id, category_id: category.id, bbox, score })}`;
      separator = ',\n';
    }
    if (text) yield text;
  }
  yield separator === '[\n' ? '[]\n' : '\n]\n';
}

interface GroundTruthRow {
  image: number;
  label: number;
  box: readonly number[];
  area: number;
  crowd: boolean;
  id: number;
}

/** Counts what was passed over, with a few examples of each kind. */
class Tally {
  readonly #source: string;
  readonly #kinds = new Map<string, { count: number; examples: Set<unknown> }>();

  constructor(source: string) {
    this.#source = source;
  }
  add(kind: string, example: unknown): void {
    const entry = this.#kinds.get(kind) ?? { count: 0, examples: new Set() };
    entry.count++;
    if (entry.examples.size < 5) entry.examples.add(example);
    this.#kinds.set(kind, entry);
  }
  lines(): string[] {
    return [...this.#kinds].map(
      ([kind, { count, examples }]) =>
        `${this.#source}: ${count} ${kind} (such as ${[...examples].map((e) => shown(e)).join(', ')})`,
    );
  }
}

function isEntry(value: unknown): value is Entry {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function shown(value: unknown): string {
  if (value === undefined) return 'nothing';
  const text = JSON.stringify(value);
  return text.length > 80 ? `${text.slice(0, 77)}...` : text;
}

function dataError(where: string, expected: string, got: unknown): MixplError {
  return new MixplError('ERR_DATA', `${where} ${expected}, got ${shown(got)}`);
}

function finite(value: unknown, where: string): number {
  if (typeof value !== 'number' || !Number.isFinite(value))
    throw dataError(
      where,
      'must be a finite number',
      typeof value === 'number' ? String(value) : value,
    );
  return value;
}

function boxOf(value: unknown, where: string): readonly number[] {
  if (!Array.isArray(value) || value.length !== 4)
    throw dataError(where, 'must be [x, y, width, height]', value);
  value.forEach((number, i) => {
    finite(number, `${where}[${i}]`);
  });
  return value as number[];
}

function areaOf(
  annotation: Entry,
  { box, where, warnings }: { box: readonly number[]; where: string; warnings: Tally },
): number {
  if (annotation.area !== undefined) return finite(annotation.area, `${where}.area`);
  warnings.add("annotations without an area, of which the box's is taken", annotation.id);
  return finite(box[2]! * box[3]!, `${where}.bbox area`);
}

function crowdOf(
  annotation: Entry,
  { where, warnings }: { where: string; warnings: Tally },
): boolean {
  const value = annotation.iscrowd;
  if (typeof value === 'boolean') return value;
  if (value !== undefined) return finite(value, `${where}.iscrowd`) !== 0;
  warnings.add('annotations without iscrowd, taken as 0', annotation.id);
  return false;
}

/** Ids ascending and without repeats: numbers by value, strings by code point. */
function sortedIds(list: readonly unknown[], where: string): ImageId[] {
  const ids = new Set<ImageId>();
  list.forEach((image, i) => {
    const id = isEntry(image) ? image.id : image;
    const fits =
      typeof id === 'string' || (typeof id === 'number' && Math.abs(id) <= Number.MAX_SAFE_INTEGER);
    if (!fits) throw dataError(`${where}[${i}].id`, 'must be a number up to 2^53 or a string', id);
    const first = ids.values().next().value;
    if (first !== undefined && typeof first !== typeof id)
      throw dataError(`${where}[${i}].id`, `must be a ${typeof first} as the ids before it`, id);
    ids.add(id);
  });
  return [...ids].sort((a, b) =>
    typeof a === 'number' ? a - (b as number) : Buffer.compare(Buffer.from(a), Buffer.from(`${b}`)),
  );
}

function categoriesOf(list: readonly unknown[], where: string): EvaluationCategory[] {
  const byId = new Map<number, EvaluationCategory>();
  list.forEach((category, i) => {
    if (!isEntry(category)) throw dataError(`${where}[${i}]`, 'must be an object', category);
    const id = category.id;
    if (typeof id !== 'number' || !Number.isSafeInteger(id))
      throw dataError(`${where}[${i}].id`, 'must be an integer', id);
    byId.set(id, { id, name: typeof category.name === 'string' ? category.name : String(id) });
  });
  return [...byId.values()].sort((a, b) => a.id - b.id);
}
