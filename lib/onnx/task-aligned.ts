/** Steps of the task-aligned head (TOOD) alone. */
import type { NativeTraceStep as TraceStep } from '../native.js';
import { halves } from './boxes.js';
import type { Tensors } from './network.js';

const concatChannels = (t: Tensors, step: TraceStep): void => {
  const layout = t.layout(step.inputs[0]!);
  const parts = Array.from(step.inputs, (part) => t.get(part, layout));
  const axis = layout === 'nchw' ? 1 : -1;
  t.set(step.outputs[0]!, t.graph.op('Concat', parts, { axis }), layout);
};

const globalAveragePool = (t: Tensors, step: TraceStep): void => {
  const y = t.graph.op('GlobalAveragePool', [t.get(step.inputs[0]!, 'nchw')]);
  t.set(step.outputs[0]!, y, 'nchw');
};

/** A 1x1 convolution of maps side by side, each weighted by a number. */
const layerWeightedConv = (t: Tensors, step: TraceStep): void => {
  const [x, weight, attention] = step.inputs as unknown as [number, number, number];
  const { graph } = t;
  const [k, , , channels] = t.shape(weight) as [number, number, number, number];
  const maps = t.shape(attention).at(-1)!;
  const column = graph.reshape(t.get(attention, 'nhwc'), [1, maps, 1]);
  const each = graph.op('Expand', [column, graph.ints([1, maps, channels / maps])]);
  const weighted = graph.op('Mul', [t.get(x, 'nchw'), graph.reshape(each, [1, channels, 1, 1])]);
  const filters = t.weight(weight, (values) => graph.floats(values, [k, channels, 1, 1]));
  t.set(step.outputs[0]!, graph.op('Conv', [weighted, filters]), 'nchw');
};

const sigmoid = (t: Tensors, step: TraceStep): void => {
  const layout = t.layout(step.inputs[0]!);
  t.set(step.outputs[0]!, t.graph.op('Sigmoid', [t.get(step.inputs[0]!, layout)]), layout);
};

const sigmoidGeometricMean = (t: Tensors, step: TraceStep): void => {
  const [x, y] = Array.from(step.inputs, (input) =>
    t.graph.op('Sigmoid', [t.get(input, 'nchw')]),
  ) as [string, string];
  t.set(step.outputs[0]!, t.graph.op('Sqrt', [t.graph.op('Mul', [x, y])]), 'nchw');
};

const scaledExp = (t: Tensors, step: TraceStep): void => {
  const [x, scale] = step.inputs as unknown as [number, number];
  const power = t.graph.op('Exp', [t.get(x, 'nchw')]);
  const y = t.graph.op('Mul', [power, t.graph.float(t.constant(scale)[0]!)]);
  t.set(step.outputs[0]!, y, 'nchw');
};

/** Boxes from distances of the cells' points, in cells. */
const gridBoxes = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const sides = step.inputs[0]!;
  const [, h, w] = t.shape(sides) as [number, number, number];
  const offset = step.numbers.offset!;
  const points = new Float32Array(4 * h * w);
  for (let side = 0; side < 4; side++)
    for (let i = 0; i < h * w; i++)
      points[side * h * w + i] = (side % 2 ? Math.floor(i / w) : i % w) + offset;
  const signs = graph.floats([-1, -1, 1, 1], [4, 1, 1]);
  const moved = graph.op('Mul', [t.get(sides, 'nchw'), signs]);
  const boxes = graph.op('Add', [moved, graph.floats(points, [1, 4, h, w])]);
  t.set(step.outputs[0]!, boxes, 'nchw');
};

/** Every channel read at places of its own, (dy, dx) from each cell. */
const deformSampling = (t: Tensors, step: TraceStep): void => {
  const [values, offsets] = step.inputs as unknown as [number, number];
  const { graph } = t;
  const [, h, w, channels] = t.shape(values) as [number, number, number, number];
  // GridSample counts from -1 to 1 between the outer edges of a map.
  const cells = new Float32Array(2 * h * w);
  for (let i = 0; i < h * w; i++) {
    cells[2 * i] = i % w;
    cells[2 * i + 1] = Math.floor(i / w);
  }
  const places = graph.floats(cells, [1, h, w, 2]);
  const scale = graph.floats([2 / w, 2 / h]);
  const shift = graph.floats([1 / w - 1, 1 / h - 1]);
  const sampled = Array.from({ length: channels }, (_, c) => {
    const own = graph.op('Gather', [t.get(offsets, 'nhwc'), graph.ints([2 * c + 1, 2 * c])], {
      axis: 3,
    });
    const at = graph.op('Mul', [graph.op('Add', [places, own]), scale]);
    const map = graph.op('Gather', [t.get(values, 'nchw'), graph.ints([c])], { axis: 1 });
    return graph.op('GridSample', [map, graph.op('Add', [at, shift])], {
      mode: 'bilinear',
      padding_mode: 'zeros',
      align_corners: 0,
    });
  });
  t.set(step.outputs[0]!, graph.op('Concat', sampled, { axis: 1 }), 'nchw');
};

/** The box, or the fallback of one that is inverted; [B, 4]. */
const validBoxes = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const [boxes, fallback] = Array.from(step.inputs, (input) =>
    graph.reshape(t.get(input, 'nhwc'), [-1, 4]),
  ) as [string, string];
  const [low, high] = halves(graph, boxes);
  const sides = graph.op('Sub', [high, low]);
  const least = graph.op('ReduceMin', [sides], { axes: [1], keepdims: 1 });
  const isInverted = graph.op('Less', [least, graph.float(0)]);
  t.set(step.outputs[0]!, graph.op('Where', [isInverted, fallback, boxes]), 'nhwc');
};

export const taskAlignedSteps = {
  ...{ concatChannels, globalAveragePool, layerWeightedConv, sigmoid, sigmoidGeometricMean },
  ...{ scaledExp, gridBoxes, deformSampling, validBoxes },
};
