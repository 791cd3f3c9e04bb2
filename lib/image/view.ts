import { checkKeys } from '../arguments.js';
import { MixplError } from '../errors.js';
import { identity3, invert3, type Matrix3, multiply3 } from '../geometry.js';
import { dropErased, dropSmall, mapInstances } from './boxes.js';
import type { Size } from './compose.js';
import type {
  ColorStep,
  Composition,
  DecodedImage,
  EraseRect,
  Instances,
  Layer,
  View,
} from './composition.js';

/** Pixels that a geometric operation brings in are grey. */
export const borderFill = [128, 128, 128] as const;

/** How a view differs from the image as it is. */
export interface ViewChange {
  /** Original image → view. */
  readonly matrix: Matrix3;
  readonly color?: readonly ColorStep[];
  /** The colour operations change the border, too. */
  readonly colorFill?: boolean;
  readonly erase?: readonly EraseRect[];
}

/** `source` through a map, at `size`. */
export function makeView(source: DecodedImage, { width, height }: Size, change: ViewChange): View {
  const { matrix, color = [], colorFill = false, erase = [] } = change;
  return {
    width,
    height,
    matrix,
    layer: {
      source,
      map: invert3(matrix),
      rect: [0, 0, width, height],
      weight: 1,
      fill: borderFill,
      colorFill,
      color,
      erase,
    },
  };
}

/** How an image is brought to the network's size, its ratio kept. */
export interface TestResizeOptions {
  /** The long side is at most this. */
  long: number;
  /** The short side is at most this. */
  short: number;
  /**
   * torchvision rounds sizes down and interpolates bilinearly even where it shrinks an image.
   * @defaultValue 'mmdetection': sizes rounded to the nearest, antialiased
   */
  rule?: 'mmdetection' | 'torchvision';
}

/** The paper's size for evaluation. */
export const testResize: TestResizeOptions = { long: 1333, short: 800 };

/** The view for evaluation: resized to fit, nothing else. */
export function testView(source: DecodedImage, resize: TestResizeOptions = testResize): View {
  const view = resizedView(source, testSize(source, resize));
  if (resize.rule !== 'torchvision') return view;
  return { ...view, layer: { ...view.layer, antialias: false } };
}

/** The size that an image has for evaluation. */
export function testSize(image: Size, resize: TestResizeOptions): Size {
  return resize.rule === 'torchvision'
    ? torchvisionSize(image, resize)
    : resizedSize(image, resize.short, resize.long);
}

/** The whole image at exactly `size`. */
export function resizedView(source: DecodedImage, size: Size): View {
  const matrix = scaling(size.width / source.width, size.height / source.height);
  return makeView(source, size, { matrix });
}

/** The view's layer with its top left corner at (x, y) of a larger composition. */
export function placeLayer(view: View, at: { x: number; y: number; weight?: number }): Layer {
  const { x, y, weight = 1 } = at;
  const { layer } = view;
  return {
    ...layer,
    map: multiply3(layer.map, shifting(-x, -y)),
    rect: [x, y, x + view.width, y + view.height],
    weight: layer.weight * weight,
    erase: layer.erase.map((r) => ({
      ...r,
      x1: r.x1 + x,
      y1: r.y1 + y,
      x2: r.x2 + x,
      y2: r.y2 + y,
    })),
  };
}

/**
 * A view on a larger canvas, the rest padding (the mean colour): for inputs of one fixed size.
 * @returns the composition, and the map original → composition for boxes
 * @throws MixplError ERR_SHAPE when the view does not fit
 */
export function letterbox(
  view: View,
  canvas: Size & { align?: 'top-left' | 'centre' },
): { composition: Composition; matrix: Matrix3 } {
  const { width, height, align = 'top-left' } = canvas;
  if (view.width > width || view.height > height)
    throw new MixplError(
      'ERR_SHAPE',
      `letterbox: canvas must hold the view (${view.width}x${view.height}), got ${width}x${height}`,
    );
  const x = align === 'centre' ? Math.floor((width - view.width) / 2) : 0;
  const y = align === 'centre' ? Math.floor((height - view.height) / 2) : 0;
  return {
    composition: { width, height, layers: [placeLayer(view, { x, y })] },
    matrix: multiply3(shifting(x, y), view.matrix),
  };
}

/**
 * What the view shows of the image's instances: boxes clipped to the image, mapped, clipped to the
 * view; those not above `minSize` go, and those that erased rectangles hide.
 * @param instances pixels of the original image
 * @param options.minSize pixels of the view. @defaultValue 0.01
 * @param options.eraseThreshold share of a box. @defaultValue 0.9, Soft Teacher's
 * @source the pipelines of MixPL's configs (FilterAnnotations, RandomErasing)
 */
export function viewInstances(
  view: View,
  instances: Instances,
  options: { minSize?: number; eraseThreshold?: number } = {},
): Instances {
  checkKeys('viewInstances', options, ['minSize', 'eraseThreshold']);
  const { minSize = 0.01, eraseThreshold = 0.9 } = options;
  const inside = mapInstances(identity3, instances, view.layer.source);
  const seen = dropSmall(mapInstances(view.matrix, inside, view), minSize);
  return view.layer.erase.length > 0 ? dropErased(seen, view.layer.erase, eraseThreshold) : seen;
}

/**
 * Size after resizing by min(long / longest, short / shortest), rounded half up, at least 1 pixel.
 * @source mmcv rescale_size
 */
export function resizedSize(image: Size, short: number, long: number): Size {
  const factor = Math.min(
    long / Math.max(image.width, image.height),
    short / Math.min(image.width, image.height),
  );
  return {
    width: Math.max(1, Math.floor(image.width * factor + 0.5)),
    height: Math.max(1, Math.floor(image.height * factor + 0.5)),
  };
}

/** @source torchvision GeneralizedRCNNTransform: the factor is an f32, sizes are rounded down */
function torchvisionSize(image: Size, { short, long }: TestResizeOptions): Size {
  const factor = Math.min(
    Math.fround(short / Math.min(image.width, image.height)),
    Math.fround(long / Math.max(image.width, image.height)),
  );
  return {
    width: Math.max(1, Math.floor(image.width * factor)),
    height: Math.max(1, Math.floor(image.height * factor)),
  };
}

/** The map that multiplies coordinates by `x` and `y`. */
export function scaling(x: number, y: number): Matrix3 {
  return [x, 0, 0, 0, y, 0, 0, 0, 1];
}
/** The map that mirrors an image `width` pixels wide, left to right. */
export function flipping(width: number): Matrix3 {
  return [-1, 0, width, 0, 1, 0, 0, 0, 1];
}
/** The map that moves by `x` and `y` pixels. */
export function shifting(x: number, y: number): Matrix3 {
  return [1, 0, x, 0, 1, y, 0, 0, 1];
}
