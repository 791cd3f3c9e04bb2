/** Which of many boxes are detections. */
import type { Candidates } from './boxes.js';
import type { Graph, Value } from './graph.js';

/** Numbers [S] of those that no better box of their class overlaps by more. */
export function suppress(
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

/** Of those that are kept the `most` of highest score, best first. */
export function best(
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
