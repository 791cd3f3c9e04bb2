import { identity3, invert3, type Matrix3, multiply3 } from '../geometry.js';
import {
  borderFill,
  type ColorStep,
  type DecodedImage,
  type EraseRect,
  flipping,
  resizedSize,
  scaling,
  shifting,
  type View,
} from '../image/index.js';
import type { Random } from '../random.js';

/** Resize keeping the ratio: long side at most `long`, short side drawn from [low, high]. */
export interface ResizeOptions {
  long: number;
  short: readonly [low: number, high: number];
}

/** The nine colour operations of the reference; 'identity' leaves the picture as it is. */
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
export type ColorChoice = (typeof colorSpace)[number];

export const geometricSpace = [
  'rotate',
  'shear-x',
  'shear-y',
  'translate-x',
  'translate-y',
] as const;
export type GeometricChoice = (typeof geometricSpace)[number];

/** Soft Teacher's erasing in the pipeline, before normalisation. */
export interface PipelineEraseOptions {
  /** Number of patches, drawn from [low, high). */
  patches: readonly [number, number];
  /** Side of a patch as a share of the picture's, drawn from [low, high). */
  ratio: readonly [number, number];
  /** 8-bit value of the patches. */
  value: number;
}

/** How one kind of view is drawn. Defaults and tables: reference-facts, section 3. */
export interface ViewOptions {
  resize: ResizeOptions;
  /** Probability of a horizontal flip. */
  flip: number;
  /** One of these is applied; empty: none. */
  color: readonly ColorChoice[];
  /** One of these is applied; empty: none. */
  geometric: readonly GeometricChoice[];
  /** Largest rotation and shear in degrees, largest shift as a share of the side. */
  rotate: number;
  shear: number;
  translate: number;
  erase: PipelineEraseOptions | null;
}

/** [low, high] of the magnitude of each colour operation, drawn uniformly and rounded to 0.1. */
const colorMagnitudes: Record<ColorChoice, readonly [number, number]> = {
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

/** Draws a view of `source`: resize, flip, then colour and geometric operation in random order. */
export function drawView(source: DecodedImage, options: ViewOptions, random: Random): View {
  const size = resizedSize(
    source,
    random.integer(options.resize.short[0], options.resize.short[1] + 1),
    options.resize.long,
  );
  let matrix: Matrix3 = scaling(size.width / source.width, size.height / source.height);
  if (options.flip > 0 && random.next() < options.flip)
    matrix = multiply3(flipping(size.width), matrix);

  const color = options.color.length ? drawColor(options.color, random) : [];
  const warp = options.geometric.length ? drawGeometric(options, size, random) : identity3;
  // The order of the two changes one thing here: whether the colour operation sees the grey border.
  const colorLast = options.geometric.length > 0 && random.next() < 0.5;
  matrix = multiply3(warp, matrix);
  const view: View = {
    ...size,
    matrix,
    layer: {
      source,
      map: invert3(matrix),
      rect: [0, 0, size.width, size.height],
      weight: 1,
      fill: borderFill,
      colorFill: colorLast,
      color,
      erase: [],
    },
  };
  if (!options.erase) return view;
  const rects = drawErasePatches(size, options.erase, random);
  return { ...view, layer: { ...view.layer, erase: rects } };
}

function drawColor(choices: readonly ColorChoice[], random: Random): ColorStep[] {
  const op = choices[random.integer(0, choices.length)]!;
  const magnitude = drawMagnitude(colorMagnitudes[op], random);
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
function drawGeometric(
  options: ViewOptions,
  size: { width: number; height: number },
  random: Random,
): Matrix3 {
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

/** Random square-ratio patches inside `size`; empty ones are left out. */
export function drawErasePatches(
  size: { width: number; height: number },
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
