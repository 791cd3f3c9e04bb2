import type { Matrix3 } from '../geometry.js';

/** A decoded image: RGB, HWC, 8 bits, EXIF orientation applied. */
export interface DecodedImage {
  /** [3 width height]. */
  readonly data: Uint8Array;
  readonly width: number;
  readonly height: number;
}

/** The colour operations of the strong view (mmcv's definitions). Names as in native/image/compose. */
export const colorOps = [
  'auto-contrast',
  'equalize',
  'sharpness',
  'posterize',
  'solarize',
  'color',
  'contrast',
  'brightness',
] as const;
/** One of colorOps. */
export type ColorOpName = (typeof colorOps)[number];

/** A colour operation of a layer. */
export interface ColorStep {
  readonly op: ColorOpName;
  /** In the range of colorMagnitudes; ignored by auto-contrast and equalize. */
  readonly magnitude: number;
}

/** An erased rectangle, integer pixels of the composition. */
export interface EraseRect {
  readonly x1: number;
  readonly y1: number;
  readonly x2: number;
  readonly y2: number;
  /** 8-bit units; 'mean': the layer contributes nothing there, which is the mean colour. */
  readonly value: number | 'mean';
}

/** One image as part of a network input. */
export interface Layer {
  readonly source: DecodedImage;
  /** Composition → source, continuous pixel coordinates. */
  readonly map: Matrix3;
  /** Where the layer lies: [x1, y1, x2, y2], integer pixels of the composition. */
  readonly rect: readonly [number, number, number, number];
  /** Factor in the sum; 0.5 for each image of a mixup. */
  readonly weight: number;
  /** 8-bit RGB inside the rectangle but outside the source. */
  readonly fill: readonly [number, number, number];
  /** The colour operations change the fill too (they came after the geometric ones). */
  readonly colorFill: boolean;
  /** Averages where the layer shrinks; false: bilinear all the same. @defaultValue true */
  readonly antialias?: boolean;
  /** In this order. */
  readonly color: readonly ColorStep[];
  readonly erase: readonly EraseRect[];
}

/** A network input: the weighted sum of its layers. */
export interface Composition {
  readonly width: number;
  readonly height: number;
  readonly layers: readonly Layer[];
}

/** One image seen through one map: a composition of a single layer that covers it. */
export interface View {
  readonly width: number;
  readonly height: number;
  /** Original image → view, for boxes; the layer's map is its inverse. */
  readonly matrix: Matrix3;
  readonly layer: Layer;
}

/** Boxes that belong to a composition. */
export interface Instances {
  /** [4 n] xyxy, pixels of the composition. */
  readonly boxes: Float32Array;
  /** [n], 0 … K-1. */
  readonly labels: Int32Array;
  /** [n]; 1 for annotations. */
  readonly scores: Float32Array;
}

/** No boxes. */
export const noInstances: Instances = {
  boxes: new Float32Array(0),
  labels: new Int32Array(0),
  scores: new Float32Array(0),
};

/** The view as a composition. */
export function compositionOf(view: View): Composition {
  return { width: view.width, height: view.height, layers: [view.layer] };
}
