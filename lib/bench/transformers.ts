/** Layers of the transformers of DETR's family, as lib/detector/options.ts has them by default. */
import { type FeatureMap, placesOf, type Walk } from './layers.js';

export interface QueryShape {
  classes: number;
  training: boolean;
  /** Of DINO's denoising, in training. */
  noisy?: number;
}

const [c, heads, points, layers] = [256, 8, 4, 6];

/** 1×1 filters for maps of the backbone, 3×3 of stride 2 for a level beyond. @returns sizes of the levels */
function channelMapper(walk: Walk, stages: readonly FeatureMap[], count: number): number[] {
  const level = (from: FeatureMap, kernel: 1 | 3, stride: 1 | 2) => {
    const map = walk.conv(from, c, kernel, { stride, relu: false });
    walk.move(c * placesOf(map), c * placesOf(map)); // GroupNorm
    return map;
  };
  const maps = stages.map((stage) => level(stage, 1, 1));
  for (let from = stages.at(-1)!; maps.length < count; from = maps.at(-1)!)
    maps.push(level(from, 3, 2));
  return maps.map(placesOf);
}

function feedForward(walk: Walk, rows: number, hidden: number): void {
  walk.linear(rows, c, hidden, { relu: true });
  walk.linear(rows, hidden, c);
  walk.norm(rows * c, { residual: true });
}

/** Positions count in queries and keys, not in values: two products. */
function selfAttention(walk: Walk, rows: number): void {
  walk.linear(rows, c, 2 * c);
  walk.linear(rows, c, c);
  walk.attention(rows, rows, c);
  walk.linear(rows, c, c);
  walk.norm(rows * c, { residual: true });
}

/** Values are counted once: the corners that samples share are in a cache. */
function deformableAttention(walk: Walk, rows: number, maps: readonly number[]): void {
  const tokens = sum(maps);
  const samples = heads * maps.length * points;
  walk.linear(tokens, c, c);
  walk.linear(rows, c, 2 * samples);
  walk.linear(rows, c, samples);
  walk.sample(tokens * c + 3 * samples * rows, rows * c);
  walk.linear(rows, c, c);
  walk.norm(rows * c, { residual: true });
}

/** Hidden layers, then `outputs`. */
function mlp(
  walk: Walk,
  rows: number,
  { inputs = c, hidden = 1, outputs = c, shared = false } = {},
): void {
  for (let i = 0; i < hidden; i++)
    walk.linear(rows, i === 0 ? inputs : c, c, { relu: true, shared });
  walk.linear(rows, c, outputs, { shared });
}

const boxes = (walk: Walk, rows: number, shared = false) =>
  mlp(walk, rows, { hidden: 2, outputs: 4, shared });

const sum = (sizes: readonly number[]) => sizes.reduce((total, size) => total + size, 0);

/** Focal loss of all queries of a layer; that of boxes is nothing beside it. */
const losses = (walk: Walk, rows: number, { classes, training }: QueryShape) => {
  if (training) walk.move(rows * classes, 0);
};

/** Maps to memory, and what every token proposes. */
function proposingEncoder(
  walk: Walk,
  stages: readonly FeatureMap[],
  { levels, hidden, classes }: { levels: number; hidden: number; classes: number },
): number[] {
  const maps = channelMapper(walk, stages, levels);
  const tokens = sum(maps);
  walk.table(levels * c); // of the levels' positions
  for (let i = 0; i < layers; i++) {
    deformableAttention(walk, tokens, maps);
    feedForward(walk, tokens, hidden);
  }
  walk.linear(tokens, c, c);
  walk.norm(tokens * c);
  walk.linear(tokens, c, classes);
  boxes(walk, tokens);
  return maps;
}

export function dino(
  walk: Walk,
  stages: readonly FeatureMap[],
  { levels, ...shape }: QueryShape & { levels: number },
): void {
  const { classes, training } = shape;
  const queries = 900;
  const maps = proposingEncoder(walk, stages, { levels, hidden: 2048, classes });
  walk.table(queries * c + classes * c);
  losses(walk, queries, shape);
  const rows = queries + (training ? (shape.noisy ?? 0) : 0);
  for (let i = 0; i < layers; i++) {
    const last = i === layers - 1;
    const shared = i > 0;
    mlp(walk, rows, { inputs: 2 * c, shared }); // of the coordinates
    selfAttention(walk, rows);
    deformableAttention(walk, rows, maps);
    feedForward(walk, rows, 2048);
    if (!last) boxes(walk, rows);
    if (!training && !last) continue;
    walk.norm(rows * c);
    walk.linear(rows, c, classes);
    boxes(walk, rows, !last); // the last moves no references
    losses(walk, rows, shape);
  }
}

/** Two stages, boxes refined. */
export function deformableDetr(walk: Walk, stages: readonly FeatureMap[], shape: QueryShape): void {
  const { classes, training } = shape;
  const rows = 300;
  const maps = proposingEncoder(walk, stages, { levels: 4, hidden: 1024, classes });
  losses(walk, sum(maps), shape);
  walk.linear(rows, 2 * c, 2 * c);
  walk.norm(rows * 2 * c);
  for (let i = 0; i < layers; i++) {
    selfAttention(walk, rows);
    deformableAttention(walk, rows, maps);
    feedForward(walk, rows, 1024);
    boxes(walk, rows);
    if (!training && i < layers - 1) continue;
    walk.linear(rows, c, classes);
    losses(walk, rows, shape);
  }
}

/** Attention to C5 alone, whose keys and queries have content and position side by side. */
export function dabDetr(walk: Walk, c5: FeatureMap, shape: QueryShape): void {
  const { classes, training } = shape;
  const [rows, tokens] = [300, placesOf(c5)];
  walk.conv(c5, c, 1, { relu: false });
  for (let i = 0; i < layers; i++) {
    mlp(walk, tokens, { shared: i > 0 }); // how far positions count
    selfAttention(walk, tokens);
    feedForward(walk, tokens, 2048);
  }
  walk.table(rows * 4);
  for (let i = 0; i < layers; i++) {
    const [first, last] = [i === 0, i === layers - 1];
    const shared = !first;
    mlp(walk, rows, { inputs: 2 * c, shared }); // of the coordinates
    mlp(walk, rows, { outputs: 2, shared }); // of width and height
    if (!first) mlp(walk, rows, { shared: i > 1 }); // how far they count
    for (let k = 0; k < 5; k++) walk.linear(rows, c, c); // content and position of q and k, v
    walk.attention(rows, rows, c);
    walk.linear(rows, c, c);
    walk.norm(rows * c, { residual: true });
    for (let k = 0; k < (first ? 3 : 2); k++) walk.linear(rows, c, c); // q: content, encoding, position
    for (let k = 0; k < 3; k++) walk.linear(tokens, c, c); // k: content, position; v
    walk.attention(rows, tokens, 2 * c, { valueChannels: c });
    walk.linear(rows, c, c);
    walk.norm(rows * c, { residual: true });
    feedForward(walk, rows, 2048);
    if (!last) boxes(walk, rows, shared);
    if (!training && !last) continue;
    walk.norm(rows * c);
    walk.linear(rows, c, classes, { shared });
    boxes(walk, rows, true);
    losses(walk, rows, shape);
  }
}
