/** From a dense head's outputs to detections, as native/detect/dense_post_process.h says it. */
import { MixplError } from '../errors.js';
import type { NativeTraceStep as TraceStep } from '../native.js';
import type { Graph, Value } from './graph.js';
import type { Tensors } from './network.js';

/** Pixels of the input. */
interface PictureSize {
  height: number;
  width: number;
}

/** What a step says of a level; as BoxDecoder. */
interface Level {
  logits: number;
  quality: number;
  values: number;
  anchors: number;
  bins: number;
  number(name: string): number;
}

/** Candidates of one level, or of all: boxes [M, 4], scores [M], labels [M]. */
interface Candidates {
  boxes: Value;
  scores: Value;
  labels: Value;
}

const rules = ['classes', 'product', 'geometricMean', 'probabilities'] as const;
const codings = ['deltas', 'sides', 'corners', 'distributions'] as const;
const tensorsOfLevel = 5;

function levelsOf({ inputs, numbers }: TraceStep): Level[] {
  return Array.from({ length: inputs.length / tensorsOfLevel }, (_, l) => {
    const [logits, quality, values, anchors, bins] = inputs.subarray(
      tensorsOfLevel * l,
    ) as unknown as [number, number, number, number, number];
    return { logits, quality, values, anchors, bins, number: (name) => numbers[`${name}${l}`]! };
  });
}

const numelOf = (shape: readonly number[]): number => shape.reduce((a, b) => a * b, 1);

/** Boxes [M, 4] of the anchors or points whose numbers are given. */
function decode(t: Tensors, level: Level, picked: Value): Value {
  const { graph } = t;
  const coding = codings[level.number('coding')]!;
  const each = coding === 'distributions' ? 4 * numelOf(t.shape(level.bins)) : 4;
  const count = numelOf(t.shape(level.values)) / each;
  const rows = graph.reshape(t.get(level.values, 'nhwc'), [count, each]);
  const values = graph.op('Gather', [rows, picked], { axis: 0 });
  const scaled = (v: Value) => graph.op('Mul', [v, graph.float(level.number('unit'))]);
  if (coding === 'corners') return scaled(values);
  if (coding === 'deltas') return decodeDeltas(t, level, { values, picked });
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

/** Columns 0 and 1, and 2 and 3, of [M, 4]. */
function halves(graph: Graph, value: Value): [Value, Value] {
  const part = (first: number) =>
    graph.op('Slice', [value, graph.ints([first]), graph.ints([first + 2]), graph.ints([1])]);
  return [part(0), part(2)];
}

/** x and y of each point: centres of anchors, or cells of a grid, row by row. */
function pointsOf(t: Tensors, level: Level, count: number): Float32Array {
  const points = new Float32Array(2 * count);
  if (level.anchors >= 0) {
    const a = t.constant(level.anchors);
    for (let i = 0; i < count; i++)
      for (let k = 0; k < 2; k++)
        points[2 * i + k] = Math.fround(a[4 * i + k]! + a[4 * i + 2 + k]!) * 0.5;
    return points;
  }
  const [width, offset] = [level.number('width'), level.number('offset')];
  for (let i = 0; i < count; i++) {
    points[2 * i] = ((i % width) + offset) * level.number('strideX');
    points[2 * i + 1] = (Math.floor(i / width) + offset) * level.number('strideY');
  }
  return points;
}

function decodeDeltas(t: Tensors, level: Level, of: { values: Value; picked: Value }): Value {
  const { graph } = t;
  const anchors = t.constant(level.anchors);
  const count = anchors.length / 4;
  const centres = new Float32Array(2 * count);
  const sizes = new Float32Array(2 * count);
  for (let i = 0; i < count; i++)
    for (let k = 0; k < 2; k++) {
      const [low, high] = [anchors[4 * i + k]!, anchors[4 * i + 2 + k]!];
      centres[2 * i + k] = Math.fround(low + high) * 0.5;
      sizes[2 * i + k] = high - low;
    }
  const ofAnchors = (data: Float32Array) =>
    graph.op('Gather', [graph.floats(data, [count, 2]), of.picked], { axis: 0 });
  const four = (name: string) =>
    graph.floats([0, 1, 2, 3].map((i) => level.number(`${name}${i}.`)));
  const deltas = graph.op('Add', [graph.op('Mul', [of.values, four('std')]), four('mean')]);
  const [shift, growth] = halves(graph, deltas);
  const limit = level.number('limit');
  const lowest = level.number('bothSides') ? graph.float(-limit) : '';
  const size = ofAnchors(sizes);
  const centre = graph.op('Add', [ofAnchors(centres), graph.op('Mul', [shift, size])]);
  const grown = graph.op('Exp', [graph.op('Clip', [growth, lowest, graph.float(limit)])]);
  const half = graph.op('Mul', [graph.op('Mul', [size, grown]), graph.float(0.5)]);
  return graph.op('Concat', [graph.op('Sub', [centre, half]), graph.op('Add', [centre, half])], {
    axis: 1,
  });
}

/** The best of a level; scores of those at or below the threshold are 0. */
function shortlist(t: Tensors, level: Level, step: TraceStep): Candidates {
  const { graph } = t;
  const { classes, nmsPre, scoreThr, scoreRule, perAnchor } = step.numbers as Record<
    string,
    number
  >;
  const rule = rules[scoreRule!]!;
  const count = numelOf(t.shape(level.logits)) / classes!;
  const logits = graph.reshape(t.get(level.logits, 'nhwc'), [count, classes!]);
  const quality = () =>
    graph.op('Sigmoid', [graph.reshape(t.get(level.quality, 'nhwc'), [count, 1])]);
  // Sigmoids keep the order: only those of the best are needed.
  const isLate = rule === 'classes' || rule === 'product';
  const ranking =
    rule === 'geometricMean'
      ? graph.op('Sqrt', [graph.op('Mul', [graph.op('Sigmoid', [logits]), quality()])])
      : logits;
  const best = perAnchor
    ? bestAnchors(graph, ranking, { count, classes: classes!, most: nmsPre! })
    : bestPairs(graph, ranking, { count, classes: classes!, most: nmsPre! });
  const deciding = isLate ? graph.op('Sigmoid', [best.values]) : best.values;
  let carried = deciding;
  if (rule === 'product') {
    const ofAnchors = graph.op('Gather', [graph.reshape(quality(), [count]), best.anchors]);
    carried = graph.op('Mul', [deciding, ofAnchors]);
  }
  const isAbove = graph.op('Greater', [deciding, graph.float(scoreThr!)]);
  return {
    boxes: decode(t, level, best.anchors),
    scores: graph.op('Where', [isAbove, carried, graph.float(0)]),
    labels: best.labels,
  };
}

interface Pairs {
  /** [M] each. */
  values: Value;
  anchors: Value;
  labels: Value;
}
interface Table {
  /** Rows. */
  count: number;
  classes: number;
  most: number;
}

function bestPairs(graph: Graph, ranking: Value, { count, classes, most }: Table): Pairs {
  const k = Math.min(most, count * classes);
  const flat = graph.reshape(ranking, [count * classes]);
  const [values, pairs] = graph.ops('TopK', [flat, graph.ints([k])], { axis: 0 }, 2) as [
    Value,
    Value,
  ];
  const each = graph.ints(classes);
  return {
    values,
    anchors: graph.op('Div', [pairs, each]),
    labels: graph.op('Mod', [pairs, each]),
  };
}

/** All classes of the anchors whose best class is best. */
function bestAnchors(graph: Graph, ranking: Value, { count, classes, most }: Table): Pairs {
  const k = Math.min(most, count);
  const best = graph.op('ReduceMax', [ranking], { axes: [1], keepdims: 0 });
  const [, anchors] = graph.ops('TopK', [best, graph.ints([k])], { axis: 0 }, 2) as [Value, Value];
  const rows = graph.op('Gather', [ranking, anchors], { axis: 0 });
  const column = graph.op('Unsqueeze', [anchors, graph.ints([1])]);
  return {
    values: graph.reshape(rows, [k * classes]),
    anchors: graph.reshape(graph.op('Expand', [column, graph.ints([k, classes])]), [k * classes]),
    labels: graph.ints(Array.from({ length: k * classes }, (_, i) => i % classes)),
  };
}

/**
 * Adds what follows a dense head: the best of each level, decoded and clipped, suppression by class, and
 * the best of all.
 * @param firstLabel what labels count from
 */
export function buildDetections(
  t: Tensors,
  step: TraceStep,
  { size, firstLabel }: { size: PictureSize; firstLabel: number },
): Candidates {
  const { graph } = t;
  const { classes, minSize, nmsIou, maxPerImage, vote } = step.numbers as Record<string, number>;
  if (vote)
    throw new MixplError(
      'ERR_CONFIG',
      'onnx: test.scoreVoting must be false (ONNX has no form for it), got true',
    );
  const levels = levelsOf(step).map((level) => shortlist(t, level, step));
  const joined = (name: keyof Candidates) =>
    graph.op(
      'Concat',
      levels.map((level) => level[name]),
      { axis: 0 },
    );
  const { height, width } = size;
  const clipped = graph.op('Min', [
    graph.op('Max', [joined('boxes'), graph.float(0)]),
    graph.floats([width, height, width, height]),
  ]);
  let scores = joined('scores');
  if (minSize! >= 0) {
    const [low, high] = halves(graph, clipped);
    const sides = graph.op('Sub', [high, low]);
    const least = graph.op('ReduceMin', [sides], { axes: [1], keepdims: 0 });
    const isLarge = graph.op('Greater', [least, graph.float(minSize!)]);
    scores = graph.op('Where', [isLarge, scores, graph.float(0)]);
  }
  const labels = joined('labels');
  const kept = suppress(
    graph,
    { boxes: clipped, scores, labels },
    { classes: classes!, iou: nmsIou! },
  );
  return best(graph, { boxes: clipped, scores, labels }, { kept, most: maxPerImage!, firstLabel });
}

/** Numbers [S] of those that no better box of their class overlaps by more. */
function suppress(
  graph: Graph,
  { boxes, scores, labels }: Candidates,
  { classes, iou }: { classes: number; iou: number },
): Value {
  const all = graph.floats(
    Float32Array.from({ length: classes }, (_, c) => c),
    [classes, 1],
  );
  const own = graph.op('Cast', [labels], { to: 1 });
  const isOfClass = graph.op('Equal', [graph.op('Unsqueeze', [own, graph.ints([0])]), all]);
  const byClass = graph.op('Where', [isOfClass, scores, graph.float(0)]); // [K, M]
  const batch = graph.ints([0]);
  const picked = graph.op('NonMaxSuppression', [
    graph.op('Unsqueeze', [boxes, batch]),
    graph.op('Unsqueeze', [byClass, batch]),
    graph.ints([2 ** 31 - 1]),
    graph.floats([iou]),
    graph.floats([0]),
  ]);
  // [S, (batch, class, box)]
  return graph.op('Gather', [picked, graph.ints(2)], { axis: 1 });
}

function best(
  graph: Graph,
  all: Candidates,
  { kept, most, firstLabel }: { kept: Value; most: number; firstLabel: number },
): Candidates {
  const scores = graph.op('Gather', [all.scores, kept]);
  const k = graph.op('Min', [graph.op('Shape', [kept]), graph.ints([most])]);
  const [top, places] = graph.ops('TopK', [scores, k], { axis: 0 }, 2) as [Value, Value];
  const chosen = graph.op('Gather', [kept, places]);
  const labels = graph.op('Gather', [all.labels, chosen]);
  return {
    boxes: graph.op('Gather', [all.boxes, chosen], { axis: 0 }),
    scores: top,
    labels: firstLabel ? graph.op('Add', [labels, graph.ints(firstLabel)]) : labels,
  };
}
