/** From a dense head's outputs to detections, as native/detect/dense_post_process.h says it. */
import { MixplError } from '../errors.js';
import type { NativeTraceStep as TraceStep } from '../native.js';
import {
  type Candidates,
  clip,
  decode,
  type Level,
  leastSide,
  levelsOf,
  numelOf,
  type PictureSize,
} from './boxes.js';
import { best, suppress } from './choice.js';
import type { Graph, Value } from './graph.js';
import type { Tensors } from './network.js';

const rules = ['classes', 'product', 'geometricMean', 'probabilities'] as const;
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
  const clipped = clip(graph, joined('boxes'), size);
  let scores = joined('scores');
  if (minSize! >= 0) {
    const isLarge = graph.op('Greater', [leastSide(graph, clipped), graph.float(minSize!)]);
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
