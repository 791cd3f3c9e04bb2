/** Steps of detectors with queries, and what they detect. One image: sequences are [1, T, C]. */
import type { NativeTraceStep as TraceStep } from '../native.js';
import { type Candidates, clip, type PictureSize, placesOf } from './boxes.js';
import type { Graph, Value } from './graph.js';
import type { Tensors } from './network.js';

const plain = 'nhwc';

const concatTokens = (t: Tensors, step: TraceStep): void => {
  const parts = Array.from(step.inputs, (part) =>
    t.graph.reshape(t.get(part, plain), [1, -1, t.shape(part).at(-1)!]),
  );
  t.set(step.outputs[0]!, t.graph.op('Concat', parts, { axis: 1 }), plain);
};

const takeTokens = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const first = step.numbers.first!;
  const end = first + t.shape(step.outputs[0]!)[1]!;
  const bounds = [graph.ints([first]), graph.ints([end]), graph.ints([1])];
  t.set(step.outputs[0]!, graph.op('Slice', [t.get(step.inputs[0]!, plain), ...bounds]), plain);
};

const maskTokens = (t: Tensors, step: TraceStep): void => {
  const [x, mask] = step.inputs as unknown as [number, number];
  const isMasked = t.weight(mask, (values) =>
    t.graph.flags(
      Uint8Array.from(values, (m) => Number(m !== 0)),
      [...t.shape(mask), 1],
    ),
  );
  const y = t.graph.op('Where', [isMasked, t.graph.float(0), t.get(x, plain)]);
  t.set(step.outputs[0]!, y, plain);
};

const bestTokens = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const logits = t.get(step.inputs[0]!, plain);
  const [count] = t.shape(step.outputs[0]!) as [number];
  const by = step.numbers.by!;
  const scores =
    by < 0
      ? graph.op('ReduceMax', [logits], { axes: [2], keepdims: 0 })
      : graph.op('Gather', [logits, graph.ints(by)], { axis: 2 });
  const [, rows] = graph.ops('TopK', [scores, graph.ints([count])], { axis: 1 }, 2) as [
    Value,
    Value,
  ];
  t.set(step.outputs[0]!, graph.reshape(rows, [count]), plain);
};

const gatherRows = (t: Tensors, step: TraceStep): void => {
  const [x, rows] = step.inputs as unknown as [number, number];
  const columns = t.shape(step.outputs[0]!)[1]!;
  const all = t.graph.reshape(t.get(x, plain), [-1, columns]);
  t.set(step.outputs[0]!, t.graph.op('Gather', [all, t.get(rows, plain)], { axis: 0 }), plain);
};

/** sigmoid(deltas + inverse sigmoid of the references), of which there may be x and y alone. */
const refinedBoxes = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const [deltas, references] = step.inputs as unknown as [number, number];
  const eps = step.numbers.eps!;
  let moved = t.get(references, plain);
  if (eps > 0) {
    const [one, least] = [graph.float(1), graph.float(eps)];
    const share = graph.op('Clip', [moved, graph.float(0), one]);
    const above = graph.op('Max', [share, least]);
    const below = graph.op('Max', [graph.op('Sub', [one, share]), least]);
    moved = graph.op('Log', [graph.op('Div', [above, below])]);
  }
  const [, queries, numbers] = t.shape(references) as [number, number, number];
  if (numbers === 2) {
    const zeros = graph.floats(new Float32Array(2 * queries), [1, queries, 2]);
    moved = graph.op('Concat', [moved, zeros], { axis: 2 });
  }
  const boxes = graph.op('Sigmoid', [graph.op('Add', [t.get(deltas, plain), moved])]);
  t.set(step.outputs[0]!, boxes, plain);
};

/** Sines and cosines of each number of a box, at many wavelengths. */
const coordinateEncoding = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const [boxes, ratios] = step.inputs as unknown as [number, number];
  const { each, xFirst } = step.numbers as { each: number; xFirst: number };
  const [, queries, numbers] = t.shape(boxes) as [number, number, number];
  let values = t.get(boxes, plain);
  if (ratios >= 0) {
    const [x, y] = t.constant(ratios) as unknown as [number, number];
    values = graph.op('Mul', [values, graph.floats([x, y, x, y].slice(0, numbers))]);
  }
  if (!xFirst)
    values = graph.op('Gather', [values, graph.ints([1, 0, 2, 3].slice(0, numbers))], { axis: 2 });
  const pairs = each / 2;
  const frequencies = Float32Array.from(
    { length: pairs },
    (_, m) => 2 * Math.PI * 10_000 ** (-m / pairs),
  );
  const column = graph.reshape(values, [1, queries, numbers, 1]);
  const angles = graph.op('Mul', [column, graph.floats(frequencies)]);
  const both = ['Sin', 'Cos'].map((wave) =>
    graph.reshape(graph.op(wave, [angles]), [1, queries, numbers, pairs, 1]),
  );
  const woven = graph.op('Concat', both, { axis: 4 });
  t.set(step.outputs[0]!, graph.reshape(woven, [1, queries, numbers * each]), plain);
};

/** A level's references in shares of its map: places [1, Q, 1, 2], and sides or null. */
function referencesOf(
  t: Tensors,
  step: TraceStep,
  level: number,
): { places: Value; sides: Value | null } {
  const { graph } = t;
  const [references, ratios] = [step.inputs[3]!, step.inputs[4]!];
  const [, queries, numbers] = t.shape(references) as [number, number, number];
  const ratio = graph.floats(t.constant(ratios).slice(2 * level, 2 * level + 2));
  const part = (first: number) => {
    const bounds = [graph.ints([first]), graph.ints([first + 2]), graph.ints([2])];
    const two = graph.op('Slice', [t.get(references, plain), ...bounds]);
    return graph.reshape(graph.op('Mul', [two, ratio]), [1, queries, 1, 2]);
  };
  return { places: part(0), sides: numbers === 4 ? part(2) : null };
}

/** Samples of each level's map, weighted by a softmax over all of them. */
const deformableAttention = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const [value, offsets, logits] = step.inputs as unknown as [number, number, number];
  const { heads, levels } = step.numbers as { heads: number; levels: number };
  const [, queries, columns] = t.shape(step.outputs[0]!) as [number, number, number];
  const depth = columns / heads;
  const points = t.shape(logits)[2]! / heads / levels;
  // [M, Q, L, P, 2] and [M, Q, L P]
  const moves = graph.op(
    'Transpose',
    [graph.reshape(t.get(offsets, plain), [queries, heads, levels, points, 2])],
    { perm: [1, 0, 2, 3, 4] },
  );
  const shares = graph.op(
    'Softmax',
    [
      graph.op(
        'Transpose',
        [graph.reshape(t.get(logits, plain), [queries, heads, levels * points])],
        { perm: [1, 0, 2] },
      ),
    ],
    { axis: -1 },
  );
  let sum: Value | null = null;
  let first = 0;
  for (let l = 0; l < levels; l++) {
    const [h, w] = [step.numbers[`height${l}`]!, step.numbers[`width${l}`]!];
    const slice = (x: Value, from: number, to: number, axis: number) =>
      graph.op('Slice', [x, graph.ints([from]), graph.ints([to]), graph.ints([axis])]);
    const cells = slice(t.get(value, plain), first, first + h * w, 1);
    first += h * w;
    const maps = graph.op('Transpose', [graph.reshape(cells, [h, w, heads, depth])], {
      perm: [2, 3, 0, 1],
    });
    const { places, sides } = referencesOf(t, step, l);
    const own = graph.reshape(slice(moves, l, l + 1, 2), [heads, queries, points, 2]);
    const away = sides
      ? graph.op('Mul', [graph.op('Mul', [own, sides]), graph.float(0.5 / points)])
      : graph.op('Mul', [own, graph.floats([1 / w, 1 / h])]);
    const at = graph.op('Add', [places, away]);
    const grid = graph.op('Sub', [graph.op('Mul', [at, graph.float(2)]), graph.float(1)]);
    const samples = graph.op('GridSample', [maps, grid], {
      mode: 'bilinear',
      padding_mode: 'zeros',
      align_corners: 0,
    }); // [M, D, Q, P]
    const weights = graph.reshape(slice(shares, l * points, (l + 1) * points, 2), [
      ...[heads, 1, queries, points],
    ]);
    const seen = graph.op('ReduceSum', [graph.op('Mul', [samples, weights]), graph.ints([3])], {
      keepdims: 0,
    });
    sum = sum === null ? seen : graph.op('Add', [sum, seen]);
  }
  const joined = graph.op('Transpose', [sum!], { perm: [2, 0, 1] });
  t.set(step.outputs[0]!, graph.reshape(joined, [1, queries, columns]), plain);
};

/** DAB-DETR's: the encoding of a centre, scaled by content, drawn out by how sides compare. */
const modulatedEncoding = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const [encoding, sizes, boxes, scale] = step.inputs as unknown as [
    number,
    number,
    number,
    number,
  ];
  const [, queries, channels] = t.shape(step.outputs[0]!) as [number, number, number];
  const part = (x: number, from: number, to: number) => {
    const bounds = [graph.ints([from]), graph.ints([to]), graph.ints([2])];
    return graph.op('Slice', [t.get(x, plain), ...bounds]);
  };
  let y = part(encoding, 0, channels);
  if (scale >= 0) y = graph.op('Mul', [y, t.get(scale, plain)]);
  const shares = graph.op('Div', [graph.op('Sigmoid', [t.get(sizes, plain)]), part(boxes, 2, 4)]);
  // The first half of the channels is y's.
  const turned = graph.op('Gather', [shares, graph.ints([1, 0])], { axis: 2 });
  const each = graph.op('Expand', [
    graph.reshape(turned, [1, queries, 2, 1]),
    graph.ints([1, queries, 2, channels / 2]),
  ]);
  t.set(step.outputs[0]!, graph.op('Mul', [y, graph.reshape(each, [1, queries, channels])]), plain);
};

const addProduct = (t: Tensors, step: TraceStep): void => {
  const [x, a, b] = Array.from(step.inputs, (input) => t.get(input, plain)) as [
    Value,
    Value,
    Value,
  ];
  t.set(step.outputs[0]!, t.graph.op('Add', [x, t.graph.op('Mul', [a, b])]), plain);
};

const prelu = (t: Tensors, step: TraceStep): void => {
  const [x, slope] = step.inputs as unknown as [number, number];
  const y = t.graph.op('PRelu', [t.get(x, plain), t.weight(slope, (v) => t.graph.floats(v))]);
  t.set(step.outputs[0]!, y, plain);
};

const batchedMatmul = (t: Tensors, step: TraceStep): void => {
  const [a, b] = Array.from(step.inputs, (input) => t.get(input, plain)) as [Value, Value];
  t.set(step.outputs[0]!, t.graph.op('MatMul', [a, b]), plain);
};

/** Boxes (cx, cy, w, h) that deltas make of others. */
const centersFromDeltas = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const [deltas, references] = step.inputs as unknown as [number, number];
  const four = (name: string) =>
    graph.floats([0, 1, 2, 3].map((i) => step.numbers[`${name}${i}.`]!));
  const scaled = graph.op('Add', [
    graph.op('Mul', [t.get(deltas, plain), four('std')]),
    four('mean'),
  ]);
  const part = (x: Value, from: number) =>
    graph.op('Slice', [x, graph.ints([from]), graph.ints([from + 2]), graph.ints([2])]);
  const own = t.get(references, plain);
  const sides = part(own, 2);
  const centre = graph.op('Add', [part(own, 0), graph.op('Mul', [part(scaled, 0), sides])]);
  const limit = step.numbers.limit!;
  const growth = graph.op('Clip', [part(scaled, 2), graph.float(-limit), graph.float(limit)]);
  const size = graph.op('Mul', [sides, graph.op('Exp', [growth])]);
  t.set(step.outputs[0]!, graph.op('Concat', [centre, size], { axis: 2 }), plain);
};

export const querySteps = {
  ...{ concatTokens, takeTokens, maskTokens, bestTokens, gatherRows, refinedBoxes },
  ...{ coordinateEncoding, deformableAttention, modulatedEncoding, addProduct, prelu },
  ...{ batchedMatmul, centersFromDeltas },
};

/** Corners of the queries' boxes, which are not clipped. */
export function buildQueryRegions(t: Tensors, step: TraceStep, size: PictureSize): void {
  const rows = t.graph.reshape(t.get(step.inputs[0]!, plain), [-1, 4]);
  t.set(step.outputs[0]!, cornersOf(t.graph, rows, size), plain);
}

/** As detect_queries() in native/detect/queries.h: the best pairs of query and class, without suppression. */
export function buildQueryDetections(
  t: Tensors,
  step: TraceStep,
  { size, firstLabel }: { size: PictureSize; firstLabel: number },
): Candidates {
  const { graph } = t;
  const [logits, boxes] = step.inputs as unknown as [number, number];
  const classes = t.shape(logits)[2]!;
  const flat = graph.reshape(t.get(logits, plain), [-1]);
  const k = graph.ints([step.numbers.most!]);
  const [best, pairs] = graph.ops('TopK', [flat, k], { axis: 0 }, 2) as [Value, Value];
  const each = graph.ints(classes);
  const rows = graph.reshape(t.get(boxes, plain), [-1, 4]);
  const own = graph.op('Gather', [rows, graph.op('Div', [pairs, each])], { axis: 0 });
  const corners = clip(graph, cornersOf(graph, own, size), size);
  const { sizes } = placesOf(graph, corners);
  const least = graph.op('ReduceMin', [sizes], { axes: [1], keepdims: 0 });
  const hasArea = graph.op('Greater', [least, graph.float(0)]);
  const kept = graph.reshape(graph.op('NonZero', [hasArea]), [-1]);
  const of = (value: Value) => graph.op('Gather', [value, kept], { axis: 0 });
  const labels = of(graph.op('Mod', [pairs, each]));
  return {
    boxes: of(corners),
    scores: of(graph.op('Sigmoid', [best])),
    labels: firstLabel ? graph.op('Add', [labels, graph.ints(firstLabel)]) : labels,
  };
}

/** Corners in pixels of (cx, cy, w, h) in shares of the image, [M, 4]. */
function cornersOf(graph: Graph, boxes: Value, { height, width }: PictureSize): Value {
  const pixels = graph.op('Mul', [boxes, graph.floats([width, height, width, height])]);
  const part = (first: number) =>
    graph.op('Slice', [pixels, graph.ints([first]), graph.ints([first + 2]), graph.ints([1])]);
  const half = graph.op('Mul', [part(2), graph.float(0.5)]);
  const centre = part(0);
  return graph.op('Concat', [graph.op('Sub', [centre, half]), graph.op('Add', [centre, half])], {
    axis: 1,
  });
}
