import { checkKeys } from '../arguments.js';
import { didYouMean, MixplError } from '../errors.js';
import { identity3, type Matrix3, multiply3 } from '../geometry.js';
import {
  type ColorStep,
  type DecodedImage,
  type EraseRect,
  flipping,
  makeView,
  resizedSize,
  type Size,
  scaling,
  shifting,
  type View,
} from '../image/index.js';
import type { Random } from '../random.js';

/** Resize keeping the ratio: long side at most `long`, short side drawn from [low, high]. */
export interface RatioResize {
  long: number;
  short: readonly [low: number, high: number];
}
/**
 * With a Size every image gets exactly this size, whatever its ratio: all batches have one shape,
 * which suits small data sets of similar images.
 */
export type ResizeOptions = RatioResize | Size;

/** The nine colour operations of the reference; 'identity' leaves the image as it is. */
export const colorSpace = [
  'identity',
  'auto-contrast',
  'equalize',
  'sharpness',
  'posterize',
  'solarize',
  'color',
  'contrast',
  'brightness',
] as const;
/** One of colorSpace. */
export type ColorChoice = (typeof colorSpace)[number];

/** The geometric operations of the strong view, one of which is drawn. */
export const geometricSpace = [
  'rotate',
  'shear-x',
  'shear-y',
  'translate-x',
  'translate-y',
] as const;
/** One of geometricSpace. */
export type GeometricChoice = (typeof geometricSpace)[number];

/** Soft Teacher's erasing in the pipeline, before normalisation. */
export interface PipelineEraseOptions {
  /** Number of patches, drawn from [low, high). */
  patches: readonly [number, number];
  /** Side of a patch as a share of the image's, drawn from [low, high). */
  ratio: readonly [number, number];
  /** 8-bit value of the patches. */
  value: number;
}

/** How one kind of view is drawn: weakDefaults, labelledDefaults, strongDefaults. */
export interface ViewOptions {
  resize: ResizeOptions;
  /** Probability of a horizontal flip. */
  flip: number;
  /** Operations, of which one is applied; empty: none. */
  color: readonly ColorChoice[];
  /** [low, high] of an operation's magnitude where it is not the reference's (colorMagnitudes). */
  colorMagnitudes?: Partial<Record<ColorChoice, readonly [number, number]>>;
  /** Operations, of which one is applied; empty: none. */
  geometric: readonly GeometricChoice[];
  /** Largest rotation in degrees. */
  rotate: number;
  /** Largest shear angle in degrees. */
  shear: number;
  /** Largest shift as a share of the side. */
  translate: number;
  /** Erasing before normalisation; null: none. */
  erase: PipelineEraseOptions | null;
}

/** [low, high] of the magnitude of each colour operation, drawn uniformly and rounded to 0.1. */
export const colorMagnitudes: Record<ColorChoice, readonly [number, number]> = {
  identity: [0.1, 1.9],
  'auto-contrast': [0.1, 1.9],
  equalize: [0.1, 1.9],
  sharpness: [0.1, 1.9],
  posterize: [0, 4],
  solarize: [0, 256],
  color: [0.1, 1.9],
  contrast: [0.1, 1.9],
  brightness: [0.1, 1.9],
};

/** The paper's views, as in MixPL's configs: for the teacher, … */
export const weakDefaults: ViewOptions = {
  resize: { long: 1333, short: [400, 1200] },
  flip: 0.5,
  color: [],
  geometric: [],
  rotate: 30,
  shear: 30,
  translate: 0.1,
  erase: null,
};
/** … for the student with annotations, … */
export const labelledDefaults: ViewOptions = { ...weakDefaults, color: colorSpace };
/** … and for the student with the teacher's boxes. */
export const strongDefaults: ViewOptions = { ...labelledDefaults, geometric: geometricSpace };
/** Soft Teacher's pipeline erasing, off in MixPL. */
export const softTeacherErase: PipelineEraseOptions = {
  patches: [1, 6],
  ratio: [0, 0.2],
  value: 128,
};

/**
 * A view for supervised learning: random resize, flip, one colour operation.
 * @throws MixplError ERR_CONFIG like weakView and strongView: see viewOptions
 */
export function labelledView(
  source: DecodedImage,
  random: Random,
  options: Partial<ViewOptions> = {},
): View {
  return drawView(source, viewOptions(labelledDefaults, options), random);
}

/** A view for the teacher: random resize and flip. */
export function weakView(
  source: DecodedImage,
  random: Random,
  options: Partial<ViewOptions> = {},
): View {
  return drawView(source, viewOptions(weakDefaults, options), random);
}

/** A view for the student: random resize, flip, one colour and one geometric operation. */
export function strongView(
  source: DecodedImage,
  random: Random,
  options: Partial<ViewOptions> = {},
): View {
  return drawView(source, viewOptions(strongDefaults, options), random);
}

/**
 * `defaults` with `options` over them, checked.
 * @throws MixplError ERR_CONFIG on an unknown key or operation, or a value out of range
 */
export function viewOptions(
  defaults: ViewOptions,
  options: Partial<ViewOptions> = {},
): ViewOptions {
  checkKeys('view', options, [...Object.keys(weakDefaults), 'colorMagnitudes']);
  const all = { ...defaults, ...options };
  oneOf('colour operation', all.color, colorSpace);
  oneOf('colour operation', Object.keys(all.colorMagnitudes ?? {}), colorSpace);
  oneOf('geometric operation', all.geometric, geometricSpace);
  const { resize } = all;
  const mostPixels = 1 << 15;
  if ('long' in resize) {
    inRange('resize.long', resize.long, 1, mostPixels);
    inRange('resize.short[0]', resize.short[0], 1, mostPixels);
    inRange('resize.short[1]', resize.short[1], resize.short[0], mostPixels);
  } else {
    inRange('resize.width', resize.width, 1, mostPixels);
    inRange('resize.height', resize.height, 1, mostPixels);
  }
  inRange('flip', all.flip, 0, 1);
  inRange('rotate', all.rotate, 0, 180);
  inRange('shear', all.shear, 0, 80);
  inRange('translate', all.translate, 0, 1);
  if (all.erase) {
    const { patches, ratio, value } = all.erase;
    inRange('erase.patches[0]', patches[0], 0, 10_000);
    inRange('erase.patches[1]', patches[1], patches[0], 10_000);
    inRange('erase.ratio[0]', ratio[0], 0, 1);
    inRange('erase.ratio[1]', ratio[1], ratio[0], 1);
    inRange('erase.value', value, 0, 255);
  }
  return all;
}

function oneOf(what: string, names: readonly string[], known: readonly string[]): void {
  for (const name of names) {
    if (known.includes(name)) continue;
    throw new MixplError(
      'ERR_CONFIG',
      `view: ${what} must be one of ${known.join(', ')}, got '${name}'${didYouMean(name, known)}`,
    );
  }
}

function inRange(name: string, value: number, low: number, high: number): void {
  if (!(value >= low && value <= high))
    throw new MixplError('ERR_CONFIG', `view: ${name} must be in [${low}, ${high}], got ${value}`);
}

/**
 * Draws a view of `source`: resize, flip, colour and geometric operation in random order, erasing.
 * The same state of the generator gives the same view.
 */
export function drawView(source: DecodedImage, options: ViewOptions, random: Random): View {
  const size = drawSize(source, options.resize, random);
  let matrix: Matrix3 = scaling(size.width / source.width, size.height / source.height);
  if (options.flip > 0 && random.next() < options.flip)
    matrix = multiply3(flipping(size.width), matrix);

  const color = options.color.length ? drawColor(options, random) : [];
  const warp = options.geometric.length ? drawGeometric(options, size, random) : identity3;
  // The order of the two changes one thing here: whether the colour operation sees the grey border.
  const colorFill = options.geometric.length > 0 && random.next() < 0.5;
  const erase = options.erase ? drawErasePatches(size, options.erase, random) : [];
  return makeView(source, size, { matrix: multiply3(warp, matrix), color, colorFill, erase });
}

function drawSize(source: Size, resize: ResizeOptions, random: Random): Size {
  if (!('long' in resize)) return { width: resize.width, height: resize.height };
  const short = random.integer(resize.short[0], resize.short[1] + 1);
  return resizedSize(source, short, resize.long);
}

function drawColor(options: ViewOptions, random: Random): ColorStep[] {
  const op = options.color[random.integer(0, options.color.length)]!;
  const magnitude = drawMagnitude(options.colorMagnitudes?.[op] ?? colorMagnitudes[op], random);
  return op === 'identity' ? [] : [{ op, magnitude }];
}

function drawMagnitude([low, high]: readonly [number, number], random: Random): number {
  return Math.round(random.uniform(low, high) * 10) / 10;
}

/**
 * One geometric operation as a map of points. OpenCV warps about pixel centres, whose continuous
 * coordinates are half a pixel larger: turned here about the true centre, sheared from the centre of
 * the first pixel. Boxes take the same map, where the reference's differ from its pixels by that half.
 */
function drawGeometric(options: ViewOptions, size: Size, random: Random): Matrix3 {
  const op = options.geometric[random.integer(0, options.geometric.length)]!;
  const limit =
    op === 'rotate' ? options.rotate : op.startsWith('shear') ? options.shear : options.translate;
  const magnitude = drawMagnitude([0, limit], random);
  const sign = random.next() > 0.5 ? -1 : 1;
  switch (op) {
    case 'rotate': {
      const angle = (sign * magnitude * Math.PI) / 180;
      const cos = Math.cos(angle);
      const sin = Math.sin(angle);
      const turn: Matrix3 = [cos, -sin, 0, sin, cos, 0, 0, 0, 1];
      const centre = shifting(size.width / 2, size.height / 2);
      return multiply3(centre, multiply3(turn, shifting(-size.width / 2, -size.height / 2)));
    }
    case 'shear-x': {
      const t = sign * Math.tan((magnitude * Math.PI) / 180);
      return [1, t, -0.5 * t, 0, 1, 0, 0, 0, 1];
    }
    case 'shear-y': {
      const t = sign * Math.tan((magnitude * Math.PI) / 180);
      return [1, 0, 0, t, 1, -0.5 * t, 0, 0, 1];
    }
    case 'translate-x':
      return shifting(Math.trunc(size.width * sign * magnitude), 0);
    case 'translate-y':
      return shifting(0, Math.trunc(size.height * sign * magnitude));
  }
}

/** Random patches inside `size`, of its ratio; empty ones are left out. */
export function drawErasePatches(
  size: Size,
  options: {
    patches: readonly [number, number];
    ratio: readonly [number, number];
    value: number | 'mean';
  },
  random: Random,
): EraseRect[] {
  const rects: EraseRect[] = [];
  const count = random.integer(options.patches[0], options.patches[1]);
  for (let i = 0; i < count; i++) {
    const ratio = random.uniform(options.ratio[0], options.ratio[1]);
    const height = Math.floor(size.height * ratio);
    const width = Math.floor(size.width * ratio);
    const x = random.integer(0, Math.max(1, size.width - width));
    const y = random.integer(0, Math.max(1, size.height - height));
    if (width > 0 && height > 0)
      rects.push({ x1: x, y1: y, x2: x + width, y2: y + height, value: options.value });
  }
  return rects;
}
