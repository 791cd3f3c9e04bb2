/**
 * The slow truth of compose, in float64, pixel by pixel, written from the contract in
 * native/image/compose/compose.h: every pixel looks at every source pixel.
 */
import type { ColorStep, Composition, DecodedImage, Layer } from '../../lib/image/composition.js';

type Rgb = [number, number, number];

/** Values of the layer over its rectangle before erasing, 8-bit units, and which show the source. */
interface LayerPixels {
  width: number;
  height: number;
  values: Rgb[];
  inside: boolean[];
}

/** [height, width, 3] of one composition, before padding. */
export function composeLoop(
  composition: Composition,
  options: { mean: Rgb; std: Rgb; channelOrder: 'rgb' | 'bgr' },
): Float64Array {
  const { width, height } = composition;
  const out = new Float64Array(width * height * 3);
  for (const layer of composition.layers) {
    const pixels = colored(layer, resampled(layer));
    const [x1, y1] = layer.rect;
    for (let y = 0; y < pixels.height; y++)
      for (let x = 0; x < pixels.width; x++) {
        let value: Rgb | null = pixels.values[y * pixels.width + x]!;
        for (const e of layer.erase) {
          if (x + x1 < e.x1 || x + x1 >= e.x2 || y + y1 < e.y1 || y + y1 >= e.y2) continue;
          value = e.value === 'mean' ? null : [e.value, e.value, e.value];
        }
        if (!value) continue;
        for (let c = 0; c < 3; c++) {
          const v = value[options.channelOrder === 'bgr' ? 2 - c : c]!;
          out[((y + y1) * width + x + x1) * 3 + c]! +=
            (layer.weight * (v - options.mean[c]!)) / options.std[c]!;
        }
      }
  }
  return out;
}

function resampled(layer: Layer): LayerPixels {
  const [x1, y1, x2, y2] = layer.rect;
  const { source, map } = layer;
  const aligned = map[1] === 0 && map[3] === 0 && map[6] === 0 && map[7] === 0;
  const samples = aligned || layer.antialias === false ? 1 : samplesPerAxis(layer);
  const reach = (scale: number, size: number) =>
    aligned && layer.antialias !== false ? reachOf(scale, size) : 1;
  const pixels: LayerPixels = { width: x2 - x1, height: y2 - y1, values: [], inside: [] };
  for (let y = y1; y < y2; y++)
    for (let x = x1; x < x2; x++) {
      const sum: Rgb = [0, 0, 0];
      let hits = 0;
      for (let s = 0; s < samples * samples; s++) {
        const [u, v] = through(
          map,
          x + ((s % samples) + 0.5) / samples,
          y + (Math.floor(s / samples) + 0.5) / samples,
        );
        const on = u >= 0 && v >= 0 && u <= source.width && v <= source.height;
        if (on) hits++;
        const value = !on
          ? layer.fill
          : filtered(source, u, v, {
              x: reach(map[0] / map[8], source.width),
              y: reach(map[4] / map[8], source.height),
            });
        for (let c = 0; c < 3; c++) sum[c]! += value[c]! / samples ** 2;
      }
      pixels.values.push(sum);
      pixels.inside.push(hits > 0);
    }
  return pixels;
}

function through(m: Layer['map'], x: number, y: number): [number, number] {
  const z = m[6] * x + m[7] * y + m[8];
  return [(m[0] * x + m[1] * y + m[2]) / z, (m[3] * x + m[4] * y + m[5]) / z];
}

/** Source pixels that one step right or down moves by, at the rectangle's centre; numerically. */
function samplesPerAxis(layer: Layer): number {
  const [x1, y1, x2, y2] = layer.rect;
  const x = (x1 + x2) / 2;
  const y = (y1 + y2) / 2;
  const h = 1e-4;
  const rate = (dx: number, dy: number) => {
    const [u0, v0] = through(layer.map, x - h * dx, y - h * dy);
    const [u1, v1] = through(layer.map, x + h * dx, y + h * dy);
    return Math.hypot(u1 - u0, v1 - v0) / (2 * h);
  };
  const shrinkage = Math.max(rate(1, 0), rate(0, 1));
  return Math.min(16, Math.max(1, Math.ceil(shrinkage - 0.25)));
}

/** Half width of the filter: the pixel's footprint, from one source pixel to the whole source. */
function reachOf(scale: number, size: number): number {
  return Math.max(1, Math.min(Math.abs(scale), size));
}

/** Triangle-weighted mean of the source around (u, v), edge pixels repeated outwards. */
function filtered(
  source: DecodedImage,
  u: number,
  v: number,
  reach: { x: number; y: number },
): Rgb {
  const sum: Rgb = [0, 0, 0];
  let total = 0;
  for (let j = Math.floor(v - reach.y) - 1; j <= v + reach.y + 1; j++)
    for (let i = Math.floor(u - reach.x) - 1; i <= u + reach.x + 1; i++) {
      const wx = Math.max(0, 1 - Math.abs(i + 0.5 - u) / reach.x);
      const wy = Math.max(0, 1 - Math.abs(j + 0.5 - v) / reach.y);
      const x = Math.min(Math.max(i, 0), source.width - 1);
      const y = Math.min(Math.max(j, 0), source.height - 1);
      for (let c = 0; c < 3; c++) sum[c]! += wx * wy * source.data[(y * source.width + x) * 3 + c]!;
      total += wx * wy;
    }
  return [sum[0] / total, sum[1] / total, sum[2] / total];
}

function colored(layer: Layer, pixels: LayerPixels): LayerPixels {
  let current = pixels;
  if (layer.color.length > 0)
    current = { ...pixels, values: pixels.values.map((v) => v.map(roundToByte) as Rgb) };
  for (const step of layer.color) {
    const changed = colorLoop(current, step, layer.source);
    current = {
      ...current,
      values: current.values.map((v, i) =>
        layer.colorFill || current.inside[i] ? changed[i]! : v,
      ),
    };
  }
  return current;
}

/** OpenCV rounds to even; numpy's astype cuts off. */
function roundToByte(v: number): number {
  const floor = Math.floor(v);
  const rounded = v - floor === 0.5 ? floor + (floor % 2) : Math.round(v);
  return Math.min(255, Math.max(0, rounded));
}
function cutToByte(v: number): number {
  return Math.floor(Math.min(255, Math.max(0, v)));
}
/** f32 like cv2.addWeighted on float images. */
function blend(value: number, degenerate: number, m: number): number {
  const f = Math.fround;
  return f(f(value * f(m)) + f(degenerate * f(1 - m)));
}
function grey([r, g, b]: readonly number[]): number {
  return Math.floor((9798 * r! + 19235 * g! + 3735 * b! + 16384) / 32768);
}

/** One operation of mmcv's photometric module, statistics from the whole source. */
function colorLoop(
  { width, height, values }: LayerPixels,
  { op, magnitude: m }: ColorStep,
  source: DecodedImage,
): Rgb[] {
  const each = (f: (v: number, c: number) => number) =>
    values.map((rgb) => rgb.map((v, c) => f(v, c)) as Rgb);
  const channel = (c: number) => source.data.filter((_, i) => i % 3 === c);
  switch (op) {
    case 'auto-contrast': {
      const range = [0, 1, 2].map((c) => {
        const all = channel(c);
        return [all.reduce((a, b) => Math.min(a, b)), all.reduce((a, b) => Math.max(a, b))];
      });
      return each((v, c) => {
        const [low, high] = range[c] as [number, number];
        const scale = 255 / (high - low);
        return low === high ? v : cutToByte(v * scale + -low * scale);
      });
    }
    case 'equalize': {
      const tables = [0, 1, 2].map((c) => {
        const counts = new Array<number>(256).fill(0);
        for (const v of channel(c)) counts[v]!++;
        const used = counts.filter((n) => n > 0);
        const step = Math.floor((source.width * source.height - used.at(-1)!) / 255);
        if (step === 0) return counts.map((_, v) => v);
        let before = 0;
        return counts.map((n) => {
          const value = Math.min(255, Math.floor((before + Math.floor(step / 2)) / step));
          before += n;
          return value;
        });
      });
      return each((v, c) => tables[c]![v]!);
    }
    case 'posterize': {
      const unit = 2 ** (8 - Math.ceil(m));
      return each((v) => Math.floor(v / unit) * unit);
    }
    case 'solarize':
      return each((v) => (v < m ? v : 255 - v));
    case 'brightness':
      return each((v) => cutToByte(blend(v, 0, m)));
    case 'contrast': {
      let sum = 0;
      for (let i = 0; i < source.data.length; i += 3)
        sum += grey([source.data[i]!, source.data[i + 1]!, source.data[i + 2]!]);
      const mean = roundToByte(sum / (source.width * source.height));
      return each((v) => cutToByte(blend(v, mean, m)));
    }
    case 'color':
      return values.map((rgb) => rgb.map((v) => roundToByte(blend(v, grey(rgb), m))) as Rgb);
    case 'sharpness': {
      const mirror = (k: number, n: number) =>
        n === 1 ? 0 : k < 0 ? -k : k >= n ? 2 * n - 2 - k : k;
      return values.map((rgb, i) => {
        const x = i % width;
        const y = Math.floor(i / width);
        return rgb.map((v, c) => {
          let sum = 4 * v;
          for (let dy = -1; dy <= 1; dy++)
            for (let dx = -1; dx <= 1; dx++)
              sum += values[mirror(y + dy, height) * width + mirror(x + dx, width)]![c]!;
          return cutToByte(blend(v, roundToByte(sum / 13), m));
        }) as Rgb;
      });
    }
  }
}
