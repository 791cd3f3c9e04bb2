import { invert3, type Matrix3 } from '../geometry.js';
import type { DecodedImage, View } from './composition.js';

/** Pixels that a geometric operation brings in are grey. */
export const borderFill = [128, 128, 128] as const;

/** The view for evaluation: resized to fit `long` × `short`, nothing else. */
export function testView(source: DecodedImage, resize: { long: number; short: number }): View {
  const size = resizedSize(source, resize.short, resize.long);
  const matrix = scaling(size.width / source.width, size.height / source.height);
  return {
    ...size,
    matrix,
    layer: {
      source,
      map: invert3(matrix),
      rect: [0, 0, size.width, size.height],
      weight: 1,
      fill: borderFill,
      colorFill: false,
      color: [],
      erase: [],
    },
  };
}

/** Size after the resize rule of reference-facts 3.2: factor = min(long / longest, short / shortest). */
export function resizedSize(
  image: { width: number; height: number },
  short: number,
  long: number,
): { width: number; height: number } {
  const factor = Math.min(
    long / Math.max(image.width, image.height),
    short / Math.min(image.width, image.height),
  );
  return {
    width: Math.max(1, Math.floor(image.width * factor + 0.5)),
    height: Math.max(1, Math.floor(image.height * factor + 0.5)),
  };
}

export function scaling(x: number, y: number): Matrix3 {
  return [x, 0, 0, 0, y, 0, 0, 0, 1];
}
export function flipping(width: number): Matrix3 {
  return [-1, 0, width, 0, 1, 0, 0, 0, 1];
}
export function shifting(x: number, y: number): Matrix3 {
  return [1, 0, x, 0, 1, y, 0, 0, 1];
}
