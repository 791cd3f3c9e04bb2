import type { Random } from '../random.js';

/** Classes of the demo, most frequent first; the tail is rare on purpose. */
export const demoClasses = ['disc', 'square', 'triangle', 'ring', 'star', 'cross'] as const;
/** Relative frequency of each class. */
const classWeights = [40, 26, 16, 10, 5, 3];

/** One object: its class index, its tight box (xyxy pixels) and its visible pixels. */
export interface SceneObject {
  label: number;
  box: [number, number, number, number];
  area: number;
}

/** A rendered image, RGB HWC, with everything in it. */
export interface Scene {
  width: number;
  height: number;
  data: Uint8Array;
  objects: SceneObject[];
}

/**
 * Draws a textured scene with 3 … 14 objects between 10 px and two thirds of the image, log-uniform in
 * size, partly overlapping. The same `random` gives the same bytes on every machine.
 */
export function drawScene(
  random: Random,
  { width, height }: { width: number; height: number },
): Scene {
  const data = drawBackground(random, width, height);
  const owner = new Int16Array(width * height).fill(-1);
  const shapes: PlacedShape[] = [];
  const count = random.integer(3, 15);
  for (let i = 0; i < count; i++) shapes.push(placeShape(random, width, height, shapes));
  // Large first, so that small objects stay visible where they overlap.
  shapes.sort((a, b) => b.radius - a.radius);
  shapes.forEach((shape, index) => {
    drawShape(shape, index, data, owner, width, height);
  });
  return { width, height, data, objects: visibleObjects(shapes, owner, width, height) };
}

interface PlacedShape {
  label: number;
  x: number;
  y: number;
  radius: number;
  angle: number;
  color: [number, number, number];
  texture: { frequency: number; phase: number; strength: number };
}

function placeShape(
  random: Random,
  width: number,
  height: number,
  placed: readonly PlacedShape[],
): PlacedShape {
  const largest = Math.min(width, height) / 3;
  let best: PlacedShape | undefined;
  let bestOverlap = Number.POSITIVE_INFINITY;
  // Of a few candidates keep the least covered one: overlaps happen, heaps do not.
  for (let attempt = 0; attempt < 4; attempt++) {
    const radius = 5 * (largest / 5) ** random.next();
    const candidate: PlacedShape = {
      label: weightedIndex(random, classWeights),
      x: random.uniform(radius * 0.6, width - radius * 0.6),
      y: random.uniform(radius * 0.6, height - radius * 0.6),
      radius,
      angle: random.uniform(0, 2 * Math.PI),
      color: [random.integer(30, 256), random.integer(30, 256), random.integer(30, 256)],
      texture: {
        frequency: random.uniform(0.1, 0.8),
        phase: random.uniform(0, 6),
        strength: random.uniform(0, 0.3),
      },
    };
    let overlap = 0;
    for (const other of placed) {
      const distance = Math.hypot(other.x - candidate.x, other.y - candidate.y);
      overlap += Math.max(0, (other.radius + radius - distance) / Math.min(other.radius, radius));
    }
    if (overlap < bestOverlap) {
      bestOverlap = overlap;
      best = candidate;
    }
  }
  return best!;
}

/** True when (x, y), in units of the radius and in the shape's own frame, is inside. */
const insideShape: readonly ((x: number, y: number) => boolean)[] = [
  (x, y) => x * x + y * y < 1,
  (x, y) => Math.max(Math.abs(x), Math.abs(y)) < 0.78,
  (x, y) => y < 0.5 && y > Math.abs(x) * Math.sqrt(3) - 1,
  (x, y) => {
    const r = x * x + y * y;
    return r < 1 && r > 0.3;
  },
  (x, y) => {
    const petal = (((Math.atan2(y, x) / (2 * Math.PI)) * 5) % 1) + 1;
    const fold = Math.abs((petal % 1) - 0.5) * 2;
    return Math.hypot(x, y) < 0.42 + 0.58 * fold;
  },
  (x, y) => {
    const a = Math.abs(x);
    const b = Math.abs(y);
    return Math.max(a, b) < 0.95 && Math.min(a, b) < 0.3;
  },
];

function drawShape(
  shape: PlacedShape,
  index: number,
  data: Uint8Array,
  owner: Int16Array,
  width: number,
  height: number,
): void {
  const inside = insideShape[shape.label]!;
  const cos = Math.cos(shape.angle) / shape.radius;
  const sin = Math.sin(shape.angle) / shape.radius;
  const { frequency, phase, strength } = shape.texture;
  const top = Math.max(0, Math.floor(shape.y - shape.radius - 1));
  const bottom = Math.min(height, Math.ceil(shape.y + shape.radius + 1));
  const left = Math.max(0, Math.floor(shape.x - shape.radius - 1));
  const right = Math.min(width, Math.ceil(shape.x + shape.radius + 1));
  for (let y = top; y < bottom; y++) {
    for (let x = left; x < right; x++) {
      // 2 × 2 samples a pixel soften the edge.
      let covered = 0;
      for (let s = 0; s < 4; s++) {
        const dx = x + 0.25 + 0.5 * (s & 1) - shape.x;
        const dy = y + 0.25 + 0.5 * (s >> 1) - shape.y;
        if (inside(dx * cos + dy * sin, dy * cos - dx * sin)) covered++;
      }
      if (covered === 0) continue;
      const at = y * width + x;
      if (covered >= 2) owner[at] = index;
      const shade = 1 - strength * (0.5 + 0.5 * Math.sin((x + y) * frequency + phase));
      for (let c = 0; c < 3; c++) {
        const value = shape.color[c]! * shade;
        data[3 * at + c] = Math.round((data[3 * at + c]! * (4 - covered) + value * covered) / 4);
      }
    }
  }
}

/** Tight boxes of what can still be seen; objects with less than a fifth visible are dropped. */
function visibleObjects(
  shapes: readonly PlacedShape[],
  owner: Int16Array,
  width: number,
  height: number,
): SceneObject[] {
  const boxes = shapes.map(() => [width, height, 0, 0] as [number, number, number, number]);
  const visible = new Array<number>(shapes.length).fill(0);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const index = owner[y * width + x]!;
      if (index < 0) continue;
      const box = boxes[index]!;
      box[0] = Math.min(box[0], x);
      box[1] = Math.min(box[1], y);
      box[2] = Math.max(box[2], x + 1);
      box[3] = Math.max(box[3], y + 1);
      visible[index]!++;
    }
  }
  const objects: SceneObject[] = [];
  shapes.forEach((shape, index) => {
    const full = Math.PI * shape.radius ** 2 * 0.5;
    if (visible[index]! < Math.max(12, full * 0.2)) return;
    objects.push({ label: shape.label, box: boxes[index]!, area: visible[index]! });
  });
  return objects;
}

/** Value noise in three octaves between two colours, with faint line clutter as distraction. */
function drawBackground(random: Random, width: number, height: number): Uint8Array {
  const data = new Uint8Array(3 * width * height);
  const low = [random.integer(0, 140), random.integer(0, 140), random.integer(0, 140)];
  const high = low.map((v) => Math.min(255, v + random.integer(20, 110)));
  const octaves = [48, 20, 8].map((cell, i) => noiseGrid(random, width, height, cell, 0.5 ** i));
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      let t = 0;
      for (const octave of octaves) t += octave(x, y);
      t /= 1.75;
      const at = 3 * (y * width + x);
      for (let c = 0; c < 3; c++) data[at + c] = Math.round(low[c]! + (high[c]! - low[c]!) * t);
    }
  }
  const lines = random.integer(0, 6);
  for (let i = 0; i < lines; i++) drawLine(random, data, width, height);
  return data;
}

function noiseGrid(
  random: Random,
  width: number,
  height: number,
  cell: number,
  amplitude: number,
): (x: number, y: number) => number {
  const columns = Math.ceil(width / cell) + 2;
  const rows = Math.ceil(height / cell) + 2;
  const values = Float64Array.from({ length: columns * rows }, () => random.next());
  return (x, y) => {
    const gx = Math.floor(x / cell);
    const gy = Math.floor(y / cell);
    const fx = smooth(x / cell - gx);
    const fy = smooth(y / cell - gy);
    const at = gy * columns + gx;
    const a = values[at]! + (values[at + 1]! - values[at]!) * fx;
    const b = values[at + columns]! + (values[at + columns + 1]! - values[at + columns]!) * fx;
    return amplitude * (a + (b - a) * fy);
  };
}

function smooth(t: number): number {
  return t * t * (3 - 2 * t);
}

function drawLine(random: Random, data: Uint8Array, width: number, height: number): void {
  let x = random.uniform(0, width);
  let y = random.uniform(0, height);
  const angle = random.uniform(0, 2 * Math.PI);
  const color = [random.integer(0, 256), random.integer(0, 256), random.integer(0, 256)];
  for (let i = random.integer(20, 150); i > 0; i--) {
    x += Math.cos(angle);
    y += Math.sin(angle);
    const px = Math.floor(x);
    const py = Math.floor(y);
    if (px < 0 || py < 0 || px >= width || py >= height) return;
    const at = 3 * (py * width + px);
    for (let c = 0; c < 3; c++) data[at + c] = (data[at + c]! + color[c]!) >> 1;
  }
}

function weightedIndex(random: Random, weights: readonly number[]): number {
  let left = random.next() * weights.reduce((sum, w) => sum + w, 0);
  for (let i = 0; i < weights.length - 1; i++) {
    left -= weights[i]!;
    if (left < 0) return i;
  }
  return weights.length - 1;
}
