/** How one tensor of ours stands in a file of another layout. */
import { type AxisOrder, fromOhwi, shapeIn, toOhwi } from './axes.js';

export interface Codec {
  /** In the file. */
  shape: readonly number[];
  toOwn(stored: Float32Array): Float32Array;
  fromOwn(own: Float32Array): Float32Array;
}

/** Convolution weights in another order of axes; everything else as it is. */
export function axisCodec(axes: AxisOrder, shape: readonly number[]): Codec {
  return {
    shape: shapeIn(axes, shape),
    toOwn: (stored) => toOhwi(stored, axes, shape),
    fromOwn: (own) => fromOhwi(own, axes, shape),
  };
}

/**
 * The weight of a layer over the flattened features of a region: ours has the channels last.
 * @param shape [K, bins * bins * C]
 */
export function pooledCodec(axes: AxisOrder, shape: readonly number[], bins: number): Codec {
  const [k, pooled] = shape as [number, number];
  return { ...axisCodec(axes, [k, bins, bins, pooled / bins ** 2]), shape };
}

/** Rows of the first axis in another place: the file has the last of ours first. */
export function lastRowFirst(shape: readonly number[]): Codec {
  const row = shape.slice(1).reduce((a, b) => a * b, 1);
  const turned = (values: Float32Array, by: number) => {
    const out = new Float32Array(values.length);
    out.set(values.subarray(by));
    out.set(values.subarray(0, by), values.length - by);
    return out;
  };
  return {
    shape,
    toOwn: (stored) => turned(stored, row),
    fromOwn: (own) => turned(own, own.length - row),
  };
}

/** The file has `count` rows before ours; written as zeros. */
export function rowsBefore(shape: readonly number[], count: number): Codec {
  const [rows, ...rest] = shape as [number, ...number[]];
  const skipped = count * rest.reduce((a, b) => a * b, 1);
  return {
    shape: [rows + count, ...rest],
    toOwn: (stored) => stored.slice(skipped),
    fromOwn: (own) => {
      const out = new Float32Array(own.length + skipped);
      out.set(own, skipped);
      return out;
    },
  };
}
