/** Detectors of two stages: proposals, features of regions, and what heads say of them. */
import type { NativeTraceStep as TraceStep } from '../native.js';
import {
  againstBoxes,
  type Candidates,
  clip,
  decode,
  leastSide,
  levelsOf,
  numelOf,
  type PictureSize,
  placesOf,
} from './boxes.js';
import { best, suppress } from './choice.js';
import type { Graph, Value } from './graph.js';
import type { Tensors } from './network.js';

type Numbers = Record<string, number>;

/** As native/detect/proposals.h: the best of each level, suppressed level by level, and the best of all. */
export function buildProposals(t: Tensors, step: TraceStep, size: PictureSize): void {
  const { graph } = t;
  const { nmsPre, maxPerImage, scoreThr, nmsIou, minSize, mayEqualSize } = step.numbers as Numbers;
  const levels = levelsOf(step);
  const candidates = levels.map((level, l): Candidates => {
    const count = numelOf(t.shape(level.logits));
    const k = Math.min(nmsPre!, count);
    const flat = graph.reshape(t.get(level.logits, 'nhwc'), [count]);
    const [logits, picked] = graph.ops('TopK', [flat, graph.ints([k])], { axis: 0 }, 2) as [
      Value,
      Value,
    ];
    const boxes = clip(graph, decode(t, level, picked), size);
    const scores = graph.op('Sigmoid', [logits]);
    const isLarge = graph.op(mayEqualSize ? 'GreaterOrEqual' : 'Greater', [
      leastSide(graph, boxes),
      graph.float(minSize!),
    ]);
    const isHigh = graph.op('GreaterOrEqual', [scores, graph.float(scoreThr!)]);
    const isTaken = graph.op('And', [isLarge, isHigh]);
    return {
      boxes,
      scores: graph.op('Where', [isTaken, scores, graph.float(0)]),
      labels: graph.ints(new Array<number>(k).fill(l)),
    };
  });
  const joined = (name: keyof Candidates) =>
    graph.op(
      'Concat',
      candidates.map((level) => level[name]),
      { axis: 0 },
    );
  const all = { boxes: joined('boxes'), scores: joined('scores'), labels: joined('labels') };
  const kept = suppress(graph, all, { classes: levels.length, iou: nmsIou! });
  const chosen = best(graph, all, { kept, most: maxPerImage!, firstLabel: 0 });
  t.set(step.outputs[0]!, chosen.boxes, 'nhwc');
}

/** Where [R] the number of a region's level is at least `level`, see RegionLevels in native/detect/regions.h. */
function isAtLeast(graph: Graph, side: Value, level: number, torchvision: boolean): Value {
  if (torchvision) {
    const least = 224 * 2 ** (level - 2 - 1e-6);
    return graph.op('GreaterOrEqual', [side, graph.float(least)]);
  }
  const share = graph.op('Add', [graph.op('Div', [side, graph.float(56)]), graph.float(1e-6)]);
  return graph.op('GreaterOrEqual', [share, graph.float(2 ** level)]);
}

/** RoIAlign of every region on its level, in the order of the regions. */
export function buildRegionFeatures(t: Tensors, step: TraceStep): void {
  const { graph } = t;
  const { size, samplingRatio, aligned, torchvision } = step.numbers as Numbers;
  const levels = [...step.inputs.subarray(0, -1)];
  const boxes = t.get(step.inputs.at(-1)!, 'nhwc');
  const { sizes } = placesOf(graph, boxes);
  const side = graph.op('Sqrt', [graph.op('ReduceProd', [sizes], { axes: [1], keepdims: 0 })]);
  const above = levels.slice(1).map((_, l) => isAtLeast(graph, side, l + 1, Boolean(torchvision)));
  const numbers: Value[] = [];
  const features: Value[] = [];
  for (const [l, level] of levels.entries()) {
    let isHere = above[l] === undefined ? above[l - 1]! : graph.op('Not', [above[l]!]);
    if (l > 0 && above[l] !== undefined) isHere = graph.op('And', [above[l - 1]!, isHere]);
    const own = graph.reshape(graph.op('NonZero', [isHere]), [-1]);
    const image = graph.op('Mul', [own, graph.ints(0)]);
    const aligning = graph.op(
      'RoiAlign',
      [t.get(level, 'nchw'), graph.op('Gather', [boxes, own], { axis: 0 }), image],
      {
        coordinate_transformation_mode: aligned ? 'half_pixel' : 'output_half_pixel',
        mode: 'avg',
        output_height: size!,
        output_width: size!,
        sampling_ratio: samplingRatio!,
        spatial_scale: { float: step.numbers[`scale${l}`]! },
      },
    );
    numbers.push(own);
    features.push(aligning);
  }
  // Back into the order of the regions.
  const rows = graph.op('Concat', numbers, { axis: 0 });
  const [, order] = graph.ops(
    'TopK',
    [rows, graph.op('Shape', [rows])],
    { axis: 0, largest: 0 },
    2,
  ) as [Value, Value];
  const joined = graph.op('Concat', features, { axis: 0 });
  t.set(step.outputs[0]!, graph.op('Gather', [joined, order], { axis: 0 }), 'nchw');
}

/** Regions as a class-agnostic head corrects them. */
export function buildRefinement(t: Tensors, step: TraceStep, size: PictureSize): void {
  const { graph } = t;
  const [regions, deltas] = step.inputs as unknown as [number, number];
  const boxes = againstBoxes(
    graph,
    placesOf(graph, t.get(regions, 'nhwc')),
    t.get(deltas, 'nhwc'),
    (name) => step.numbers[name]!,
  );
  t.set(step.outputs[0]!, clip(graph, boxes, size), 'nhwc');
}

/** As native/detect/region_detections.h: pairs of region and class above the threshold, suppressed by class. */
export function buildRegionDetections(
  t: Tensors,
  step: TraceStep,
  { size, firstLabel }: { size: PictureSize; firstLabel: number },
): Candidates {
  const { graph } = t;
  const { scoreThr, nmsIou, maxPerImage, minSize } = step.numbers as Numbers;
  const [regions, deltas, ...stages] = step.inputs as unknown as number[];
  const classes = t.shape(stages[0]!)[1]! - 1;
  let logits = t.get(stages[0]!, 'nhwc');
  for (const stage of stages.slice(1)) logits = graph.op('Add', [logits, t.get(stage, 'nhwc')]);
  if (stages.length > 1) logits = graph.op('Div', [logits, graph.float(stages.length)]);
  const shares = graph.op('Softmax', [logits], { axis: -1 });
  // Without the background, which is the last.
  const ofClasses = graph.op('Slice', [
    ...[shares, graph.ints([0]), graph.ints([classes]), graph.ints([1])],
  ]);
  const isAbove = graph.op('Greater', [ofClasses, graph.float(scoreThr!)]);
  const pairs = graph.op('Transpose', [graph.op('NonZero', [isAbove])], { perm: [1, 0] }); // [K, 2]
  const column = (i: number) => graph.op('Gather', [pairs, graph.ints(i)], { axis: 1 });
  const [rows, labels] = [column(0), column(1)];
  const of = (value: Value) => graph.op('Gather', [value, rows], { axis: 0 });
  const each = t.shape(deltas!)[1]! / 4;
  const moves =
    each === 1
      ? of(t.get(deltas!, 'nhwc'))
      : graph.op('GatherND', [graph.reshape(t.get(deltas!, 'nhwc'), [-1, each, 4]), pairs]);
  const places = placesOf(graph, of(t.get(regions!, 'nhwc')));
  const boxes = clip(
    graph,
    againstBoxes(graph, places, moves, (name) => step.numbers[name]!),
    size,
  );
  let scores = graph.op('GatherND', [ofClasses, pairs]);
  if (minSize! >= 0) {
    const isLarge = graph.op('GreaterOrEqual', [leastSide(graph, boxes), graph.float(minSize!)]);
    scores = graph.op('Where', [isLarge, scores, graph.float(0)]);
  }
  const all = { boxes, scores, labels };
  const kept = suppress(graph, all, { classes, iou: nmsIou! });
  return best(graph, all, { kept, most: maxPerImage!, firstLabel });
}
