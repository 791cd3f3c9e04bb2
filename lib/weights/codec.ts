/** How one tensor of ours stands in a file of another layout. */
import { type AxisOrder, fromOhwi, shapeIn, toOhwi } from './axes.js';

export interface Codec {
  /** In the file. */
  shape: readonly number[];
  /** Other shapes that `toOwn` takes, too. */
  fits?(stored: readonly number[]): boolean;
  /** Neither changes what it is given, which may be what it gives. */
  toOwn(stored: Float32Array): Float32Array | Promise<Float32Array>;
  fromOwn(own: Float32Array): Float32Array | Promise<Float32Array>;
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

/**
 * A number for each distance in a square window and head, [(2 w - 1)^2, M]: of windows of another size it
 * is resized as an image of distances.
 * @source torch.nn.functional.interpolate, bicubic, without aligned corners, as mmdetection does
 */
export function resizedTable(shape: readonly number[]): Codec {
  const [rows, heads] = shape as [number, number];
  const side = Math.sqrt(rows);
  return {
    shape,
    fits: ([count, ...rest]) =>
      rest.length === 1 && rest[0] === heads && count! > 0 && Number.isInteger(Math.sqrt(count!)),
    toOwn: (stored) => {
      const from = Math.sqrt(stored.length / heads);
      if (from === side) return stored;
      const taps = cubicTaps(from, side);
      const out = new Float32Array(rows * heads);
      for (let i = 0; i < out.length; i++) {
        const [head, x] = [i % heads, Math.floor(i / heads) % side];
        let sum = 0;
        for (const down of taps[Math.floor(i / heads / side)]!)
          for (const right of taps[x]!)
            sum += down.weight * right.weight * stored[(down.at * from + right.at) * heads + head]!;
        out[i] = sum;
      }
      return out;
    },
    fromOwn: (own) => own,
  };
}

/** Keys 1981 with a = -0.75: what each of `to` places takes of `from` ones; those beyond the end count as it. */
function cubicTaps(from: number, to: number): { at: number; weight: number }[][] {
  const a = -0.75;
  const kernel = (x: number) =>
    x <= 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return Array.from({ length: to }, (_, i) => {
    const place = ((i + 0.5) * from) / to - 0.5;
    const first = Math.floor(place) - 1;
    return Array.from({ length: 4 }, (_, k) => ({
      at: Math.min(Math.max(first + k, 0), from - 1),
      weight: kernel(Math.abs(place - first - k)),
    }));
  });
}
