import { MixplError } from '../errors.js';
import { type Matrix3, multiply3 } from '../geometry.js';
import {
  type Composition,
  dropErased,
  dropSmall,
  type EraseRect,
  flipping,
  type Instances,
  joinInstances,
  makeView,
  mapBoxes,
  mapInstances,
  placeLayer,
  type Size,
  scaling,
  type View,
} from '../image/index.js';
import type { Random } from '../random.js';
import { drawErasePatches } from './views.js';

/** A view and what it shows. */
export interface LabelledView {
  readonly view: View;
  readonly instances: Instances;
}

/** A composition and what it shows. */
export interface LabelledComposition {
  readonly composition: Composition;
  readonly instances: Instances;
}

/** MixPL's erasing, done anew at every use of an image. */
export interface EraseOptions {
  /** Number of patches, drawn from [low, high). @defaultValue [1, 20] */
  patches: readonly [number, number];
  /** Side of a patch as a share of the image's, drawn from [low, high). @defaultValue [0, 0.1] */
  ratio: readonly [number, number];
  /** A box is dropped if at least this share of it is erased; overlaps count twice. @defaultValue 0.7 */
  threshold: number;
}

/** Erases patches and drops the boxes that they hide. */
export function eraseView(
  { view, instances }: LabelledView,
  options: EraseOptions,
  random: Random,
): LabelledView {
  const rects = drawErasePatches(view, { ...options, value: 'mean' }, random);
  return {
    view: { ...view, layer: { ...view.layer, erase: [...view.layer.erase, ...rects] } },
    instances: dropErased(instances, rects, options.threshold),
  };
}

/**
 * A cached view for another use: scaled to fit `box`, then flipped, always, as in the reference.
 * Its map is multiplied, so the image is still resampled once, from the original.
 */
export function prepareCached({ view, instances }: LabelledView, box: Size): LabelledView {
  const scale = Math.min(box.height / view.height, box.width / view.width);
  // Where the reference loses a pixel to rounding (410 / 100 * 100 is below 410) this keeps it.
  const width = Math.max(1, Math.floor(view.width * scale + 1e-6));
  const height = Math.max(1, Math.floor(view.height * scale + 1e-6));
  const change = multiply3(flipping(width), scaling(scale, scale));
  const matrix = multiply3(change, view.matrix);
  const size = { width, height };
  const { source, color, colorFill, erase } = view.layer;
  return {
    view: makeView(source, size, {
      matrix,
      color,
      colorFill,
      erase: erase.map((r) => mapRect(change, r, size)),
    }),
    // Clipped to the realised size before the flip in the reference; the flip maps that range onto itself.
    instances: mapInstances(change, instances, size),
  };
}

/** An erased rectangle of the cached view (the pipeline's; MixPL's are never cached), in whole pixels. */
function mapRect(matrix: Matrix3, rect: EraseRect, size: Size): EraseRect {
  const corners = Float32Array.of(rect.x1, rect.y1, rect.x2, rect.y2);
  const [x1, y1, x2, y2] = mapBoxes(matrix, corners, size).map(Math.round);
  return { x1: x1!, y1: y1!, x2: x2!, y2: y2!, value: rect.value };
}

function shiftInstances(instances: Instances, x: number, y: number): Instances {
  const boxes = instances.boxes.map((v, i) => v + (i % 2 ? y : x));
  // Far from the origin f32 is coarser: a hair of a box may lose its area.
  return dropSmall({ ...instances, boxes }, 0);
}

/**
 * Pseudo Mixup: both images at half weight, each at a random place of the smallest canvas that holds
 * them; the union of their boxes. Where one image lies alone it stays at half
 * contrast around the mean, as in the reference.
 * @source arXiv:2312.07006 and MixPL's code
 */
export function pseudoMixup(a: LabelledView, b: LabelledView, random: Random): LabelledComposition {
  const width = Math.max(a.view.width, b.view.width);
  const height = Math.max(a.view.height, b.view.height);
  const placed = [a, b].map(({ view, instances }) => {
    const x = random.integer(0, width - view.width + 1);
    const y = random.integer(0, height - view.height + 1);
    return {
      layer: placeLayer(view, { x, y, weight: 0.5 }),
      instances: shiftInstances(instances, x, y),
    };
  });
  return {
    composition: { width, height, layers: placed.map((p) => p.layer) },
    instances: joinInstances(placed.map((p) => p.instances)),
  };
}

/**
 * Pseudo Mosaic: four prepared tiles, each pushed against the centre of a canvas of twice the largest
 * tile rounded up to 16. Order: top left, top right, bottom left, bottom right.
 * @throws MixplError ERR_SHAPE for other than four
 * @source arXiv:2312.07006 and MixPL's code
 */
export function pseudoMosaic(tiles: readonly LabelledView[]): LabelledComposition {
  if (tiles.length !== 4)
    throw new MixplError('ERR_SHAPE', `pseudoMosaic: tiles must be 4 views, got ${tiles.length}`);
  const width = roundUp(Math.max(...tiles.map((t) => t.view.width)), 16);
  const height = roundUp(Math.max(...tiles.map((t) => t.view.height)), 16);
  const placed = tiles.map(({ view, instances }, i) => {
    const x = i % 2 === 0 ? width - view.width : width;
    const y = i < 2 ? height - view.height : height;
    return { layer: placeLayer(view, { x, y }), instances: shiftInstances(instances, x, y) };
  });
  return {
    composition: { width: 2 * width, height: 2 * height, layers: placed.map((p) => p.layer) },
    instances: joinInstances(placed.map((p) => p.instances)),
  };
}

/** Teacher boxes from the weak view to the strong one: back to the original, clipped, and forward. */
export function projectInstances(
  instances: Instances,
  weak: View,
  strong: View,
  minSize: number,
): Instances {
  const original = { width: weak.layer.source.width, height: weak.layer.source.height };
  const inOriginal = mapInstances(weak.layer.map, instances, original);
  return dropSmall(mapInstances(strong.matrix, inOriginal, strong), minSize);
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
