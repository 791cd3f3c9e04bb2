/** What the calls of a detector become for the native one: batches, targets, boxes. */
import { nameOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { mapBoxes, type View } from '../image/index.js';
import type { NativeDetector } from '../native.js';
import type { InputImage } from './batch.js';
import type { ImageBatch, Size, Targets } from './types.js';

/** The arguments of a native forward pass. @internal */
export type NativePass = Parameters<NativeDetector['loss']>;

/** @throws MixplError ERR_DTYPE when it is neither */
export function isBatch(
  method: string,
  images: ImageBatch | readonly InputImage[],
): images is ImageBatch {
  if (Array.isArray(images)) return false;
  const { tensor, sizes } = (images ?? {}) as Partial<ImageBatch>;
  if (tensor && Array.isArray(sizes)) return true;
  throw new MixplError(
    'ERR_DTYPE',
    `detector.${method}: images must be a list of 8-bit images or normalised arrays, or a prepared batch, got ${nameOf(images)}`,
  );
}

/** @throws MixplError ERR_SHAPE, ERR_DTYPE */
export function checkTargets(method: string, targets: readonly Targets[], count: number): void {
  if (targets?.length !== count)
    throw new MixplError(
      'ERR_SHAPE',
      `detector.${method}: targets must have one entry per image (${count}), got ${targets?.length ?? 'none'}`,
    );
  if (count === 0)
    throw new MixplError(
      'ERR_SHAPE',
      `detector.${method}: images must hold one at least, got none`,
    );
  targets.forEach((target, i) => {
    const { boxes, labels } = (target ?? {}) as Partial<Targets>;
    const check = (name: string, value: unknown, type: typeof Float32Array | typeof Int32Array) => {
      if (!(value instanceof type))
        throw new MixplError(
          'ERR_DTYPE',
          `detector.${method}: ${name} of image ${i} must be ${type === Int32Array ? 'an' : 'a'} ${type.name}, got ${nameOf(value)}`,
        );
    };
    check('boxes', boxes, Float32Array);
    check('labels', labels, Int32Array);
    if (boxes!.length !== 4 * labels!.length)
      throw new MixplError(
        'ERR_SHAPE',
        `detector.${method}: boxes of image ${i} must hold 4 numbers a label (${4 * labels!.length}), got ${boxes!.length}`,
      );
  });
}

/**
 * A copy of labels as the network counts them, from 0.
 * @param first what the caller calls class 0
 * @throws MixplError ERR_RANGE, in the caller's numbers
 */
export function ownLabels(
  labels: Int32Array,
  {
    method,
    image,
    first,
    classes,
  }: Record<'image' | 'first' | 'classes', number> & { method: string },
): Int32Array {
  const wrong = labels.findIndex((label) => label < first || label >= first + classes);
  if (wrong >= 0)
    throw new MixplError(
      'ERR_RANGE',
      `detector.${method}: label ${wrong} of image ${image} must be in [${first}, ${first + classes - 1}], got ${labels[wrong]}`,
    );
  return labels.map((label) => label - first);
}

/**
 * Boxes of an image in the pixels of its view.
 * @throws MixplError ERR_RANGE, in the image's pixels: what is no box, or not in the image
 */
export function boxesIn(
  view: View,
  boxes: Float32Array,
  { method, picture, image }: { method: string; picture: Size; image: number },
): Float32Array {
  const mapped = mapBoxes(view.matrix, boxes, view);
  const { width, height } = picture;
  for (let k = 0; k + 3 < boxes.length; k += 4) {
    const [x1, y1, x2, y2] = boxes.subarray(k, k + 4) as unknown as [
      number,
      number,
      number,
      number,
    ];
    const isBox = Number.isFinite(x1 + y1 + x2 + y2) && x1 < x2 && y1 < y2;
    if (isBox && x1 < width && y1 < height && x2 > 0 && y2 > 0) continue;
    throw new MixplError(
      'ERR_RANGE',
      `detector.${method}: boxes[${k / 4}] of image ${image} must be x1 < x2, y1 < y2 in 0 … ${width} by 0 … ${height}, ` +
        `got [${x1}, ${y1}, ${x2}, ${y2}]`,
    );
  }
  return mapped;
}

export function flatten(sizes: readonly Size[]): Float32Array {
  return Float32Array.from(sizes.flatMap((s) => [s.height, s.width]));
}

/** @throws MixplError ERR_SHAPE */
export function passOf(method: string, batch: ImageBatch, targets: readonly Targets[]): NativePass {
  checkTargets(method, targets, batch.tensor.shape[0]!);
  return [batch.tensor, flatten(batch.sizes), flatten(batch.padSizes), ...flatTargets(targets)];
}

/** Boxes and labels of all images, and how many each has. @internal */
export function flatTargets(
  targets: readonly Targets[],
): [boxes: Float32Array, labels: Int32Array, counts: Int32Array] {
  return [
    concat(
      Float32Array,
      targets.map((t) => t.boxes),
    ),
    concat(
      Int32Array,
      targets.map((t) => t.labels),
    ),
    new Int32Array(targets.map((t) => t.labels.length)),
  ];
}

function concat<T extends Float32Array | Int32Array>(
  type: { new (length: number): T },
  parts: readonly T[],
): T {
  const out = new type(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
