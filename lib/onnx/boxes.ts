/** Boxes in a graph: decoding as native/detect/box_decoder.h says it, clipping, suppression, the best. */
import type { NativeTraceStep as TraceStep } from '../native.js';
import type { Graph, Value } from './graph.js';
import type { Tensors } from './network.js';

/** Pixels of the input. */
export interface PictureSize {
  height: number;
  width: number;
}

/** Candidates of one level, or of all: boxes [M, 4], scores [M], labels [M]. */
export interface Candidates {
  boxes: Value;
  scores: Value;
  labels: Value;
}

/** What a step says of a level; as BoxDecoder. */
export interface Level {
  logits: number;
  quality: number;
  values: number;
  anchors: number;
  bins: number;
  number(name: string): number;
}

const codings = ['deltas', 'sides', 'corners', 'distributions'] as const;
const tensorsOfLevel = 5;

export function levelsOf({ inputs, numbers }: TraceStep): Level[] {
  return Array.from({ length: inputs.length / tensorsOfLevel }, (_, l) => {
    const [logits, quality, values, anchors, bins] = inputs.subarray(
      tensorsOfLevel * l,
    ) as unknown as [number, number, number, number, number];
    return { logits, quality, values, anchors, bins, number: (name) => numbers[`${name}${l}`]! };
  });
}

export const numelOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Boxes [M, 4] of the anchors or points whose numbers are given. */
export function decode(t: Tensors, level: Level, picked: Value): Value {
  const { graph } = t;
  const coding = codings[level.number('coding')]!;
  const each = coding === 'distributions' ? 4 * numelOf(t.shape(level.bins)) : 4;
  const count = numelOf(t.shape(level.values)) / each;
  const rows = graph.reshape(t.get(level.values, 'nhwc'), [count, each]);
  const values = graph.op('Gather', [rows, picked], { axis: 0 });
  const scaled = (v: Value) => graph.op('Mul', [v, graph.float(level.number('unit'))]);
  if (coding === 'corners') return scaled(values);
  if (coding === 'deltas') {
    const { centres, sizes } = anchorsOf(t.constant(level.anchors));
    const pick = (data: Float32Array) =>
      graph.op('Gather', [graph.floats(data, [count, 2]), picked], { axis: 0 });
    return againstBoxes(
      graph,
      { centres: pick(centres), sizes: pick(sizes) },
      values,
      level.number,
    );
  }
  let sides = scaled(values);
  if (coding === 'distributions') {
    const bins = t.constant(level.bins);
    const shares = graph.op('Softmax', [graph.reshape(values, [-1, 4, bins.length])], { axis: -1 });
    sides = scaled(graph.op('MatMul', [shares, graph.floats(bins)]));
  }
  const points = graph.op('Gather', [graph.floats(pointsOf(t, level, count), [count, 2]), picked], {
    axis: 0,
  });
  const [low, high] = halves(graph, sides);
  return graph.op('Concat', [graph.op('Sub', [points, low]), graph.op('Add', [points, high])], {
    axis: 1,
  });
}

/** x and y of each point: centres of anchors, or cells of a grid, row by row. */
function pointsOf(t: Tensors, level: Level, count: number): Float32Array {
  const points = new Float32Array(2 * count);
  if (level.anchors >= 0) return anchorsOf(t.constant(level.anchors)).centres;
  const [width, offset] = [level.number('width'), level.number('offset')];
  for (let i = 0; i < count; i++) {
    points[2 * i] = ((i % width) + offset) * level.number('strideX');
    points[2 * i + 1] = (Math.floor(i / width) + offset) * level.number('strideY');
  }
  return points;
}

/** Columns 0 and 1, and 2 and 3, of [M, 4]. */
export function halves(graph: Graph, value: Value): [Value, Value] {
  const part = (first: number) =>
    graph.op('Slice', [value, graph.ints([first]), graph.ints([first + 2]), graph.ints([1])]);
  return [part(0), part(2)];
}

/** Centres and sides, [M, 2] each. */
function anchorsOf(boxes: Float32Array): { centres: Float32Array; sizes: Float32Array } {
  const centres = new Float32Array(boxes.length / 2);
  const sizes = new Float32Array(boxes.length / 2);
  for (let i = 0; i < boxes.length / 4; i++)
    for (let k = 0; k < 2; k++) {
      const [low, high] = [boxes[4 * i + k]!, boxes[4 * i + 2 + k]!];
      centres[2 * i + k] = Math.fround(low + high) * 0.5;
      sizes[2 * i + k] = high - low;
    }
  return { centres, sizes };
}

/** Of boxes [M, 4] that are computed: centres and sides, [M, 2] each. */
export function placesOf(graph: Graph, boxes: Value): { centres: Value; sizes: Value } {
  const [low, high] = halves(graph, boxes);
  return {
    centres: graph.op('Mul', [graph.op('Add', [low, high]), graph.float(0.5)]),
    sizes: graph.op('Sub', [high, low]),
  };
}

/** Boxes [M, 4] that deltas [M, 4] make of others; `number` says the coder's. */
export function againstBoxes(
  graph: Graph,
  { centres, sizes }: { centres: Value; sizes: Value },
  deltas: Value,
  number: (name: string) => number,
): Value {
  const four = (name: string) => graph.floats([0, 1, 2, 3].map((i) => number(`${name}${i}.`)));
  const scaled = graph.op('Add', [graph.op('Mul', [deltas, four('std')]), four('mean')]);
  const [shift, growth] = halves(graph, scaled);
  const limit = number('limit');
  const lowest = number('bothSides') ? graph.float(-limit) : '';
  const centre = graph.op('Add', [centres, graph.op('Mul', [shift, sizes])]);
  const grown = graph.op('Exp', [graph.op('Clip', [growth, lowest, graph.float(limit)])]);
  const half = graph.op('Mul', [graph.op('Mul', [sizes, grown]), graph.float(0.5)]);
  return graph.op('Concat', [graph.op('Sub', [centre, half]), graph.op('Add', [centre, half])], {
    axis: 1,
  });
}

export function clip(graph: Graph, boxes: Value, { height, width }: PictureSize): Value {
  return graph.op('Min', [
    graph.op('Max', [boxes, graph.float(0)]),
    graph.floats([width, height, width, height]),
  ]);
}

/** The shorter side of boxes [M, 4]. */
export function leastSide(graph: Graph, boxes: Value): Value {
  const { sizes } = placesOf(graph, boxes);
  return graph.op('ReduceMin', [sizes], { axes: [1], keepdims: 0 });
}
