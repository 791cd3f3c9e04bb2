import { checkPath } from '../arguments.js';
import { writeFileWhole } from '../files.js';
import type { Category, DetectionDataset, ImageRecord } from './types.js';

/** An image of CocoJson; sizes in pixels. */
export interface CocoImage {
  id: number;
  file_name: string;
  width: number;
  height: number;
}
/** An object of CocoJson, in pixels and square pixels. */
export interface CocoAnnotation {
  id: number;
  image_id: number;
  category_id: number;
  bbox: [x: number, y: number, width: number, height: number];
  area: number;
  iscrowd: 0 | 1;
}
/** A data set as an annotation file of COCO has it. */
export interface CocoJson {
  images: CocoImage[];
  annotations: CocoAnnotation[];
  categories: { id: number; name: string }[];
}

/** The data set as a COCO annotation object. Unlabelled images have no annotations. */
export function toCoco(dataset: DetectionDataset): CocoJson {
  const { images, categories } = dataset;
  return {
    images: images.map(imageOf),
    annotations: images.flatMap((image) => [...annotationsOf(image, categories)]),
    categories: categories.map(({ id, name }) => ({ id, name })),
  };
}

/**
 * Writes the data set as a COCO annotation file, whole or not at all. Reading it back gives the same
 * boxes bit for bit.
 *
 * @throws MixplError ERR_IO
 */
export async function writeCoco(dataset: DetectionDataset, path: string): Promise<void> {
  checkPath('writeCoco', 'path', path);
  await writeFileWhole(path, piecesOf(dataset));
}

/** One image or annotation a line, in pieces that are worth a write. */
function* piecesOf(dataset: DetectionDataset): Generator<string> {
  const { images, categories } = dataset;
  let text = '{\n"images": [';
  let separator = '\n';
  const add = (value: unknown) => {
    text += separator + JSON.stringify(value);
    separator = ',\n';
  };
  for (const image of images) {
    add(imageOf(image));
    if (text.length > 1 << 16) {
      yield text;
      text = '';
    }
  }
  text += '\n],\n"annotations": [';
  separator = '\n';
  for (const image of images) {
    for (const annotation of annotationsOf(image, categories)) add(annotation);
    if (text.length > 1 << 16) {
      yield text;
      text = '';
    }
  }
  yield `${text}\n],\n"categories": ${JSON.stringify(categories.map(({ id, name }) => ({ id, name })))}\n}\n`;
}

function imageOf({ id, fileName, width, height }: ImageRecord): CocoImage {
  return { id, file_name: fileName, width, height };
}

function* annotationsOf(
  image: ImageRecord,
  categories: readonly Category[],
): Generator<CocoAnnotation> {
  const { annotations } = image;
  if (!annotations) return;
  const { boxes, labels, crowd, areas, ids } = annotations;
  for (let i = 0; i < labels.length; i++) {
    const [x, width] = extent(boxes[4 * i]!, boxes[4 * i + 2]!);
    const [y, height] = extent(boxes[4 * i + 1]!, boxes[4 * i + 3]!);
    yield {
      id: ids[i]!,
      image_id: image.id,
      category_id: categories[labels[i]!]!.id,
      bbox: [x, y, width, height],
      area: areas[i]!,
      iscrowd: crowd[i] ? 1 : 0,
    };
  }
}

/** Start and length with as few digits as give the same two f32 edges back. */
function extent(low: number, high: number): [number, number] {
  const start = shortest(low, (value) => Math.fround(value) === low);
  return [start, shortest(high - start, (value) => Math.fround(start + value) === high)];
}

function shortest(value: number, same: (candidate: number) => boolean): number {
  for (let digits = 3; digits <= 12; digits++) {
    const candidate = Number(value.toPrecision(digits));
    if (same(candidate)) return candidate;
  }
  return value;
}
