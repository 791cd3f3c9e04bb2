/** Steps of transformers. */
import { MixplError } from '../errors.js';
import type { NativeTraceStep as TraceStep } from '../native.js';
import type { Graph, Value } from './graph.js';
import type { Tensors } from './network.js';

/** [N, H, W, C] with zeros below and to the right, up to multiples. */
function padded(graph: Graph, map: Value, [, h, w]: readonly number[], multiple: number): Value {
  const rest = (side: number) => (multiple - (side % multiple)) % multiple;
  const [down, right] = [rest(h!), rest(w!)];
  if (!down && !right) return map;
  return graph.op('Pad', [map, graph.ints([0, 0, 0, 0, 0, down, right, 0])]);
}

/** The axes of [N, R, a, S, b, C] as [N, R, S, a, b, C], and back. */
const swapped = { perm: [0, 1, 3, 2, 4, 5] };

const patches = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const [x, y] = [step.inputs[0]!, step.outputs[0]!];
  const size = step.numbers.size!;
  const [n, rows, columns, channels] = t.shape(y) as [number, number, number, number];
  const map = padded(graph, t.get(x, 'nhwc'), t.shape(x), size);
  const cut = graph.reshape(map, [n, rows, size, columns, size, channels / size / size]);
  t.set(
    y,
    graph.reshape(graph.op('Transpose', [cut], swapped), [n, rows, columns, channels]),
    'nhwc',
  );
};

const layerNorm = (t: Tensors, step: TraceStep): void => {
  const [x, gamma, beta, residual] = step.inputs as unknown as [number, number, number, number];
  const { graph } = t;
  const last = { axes: [-1], keepdims: 1 };
  let sum = t.get(x, 'nhwc');
  if (residual >= 0) sum = graph.op('Add', [sum, t.get(residual, 'nhwc')]);
  const off = graph.op('Sub', [sum, graph.op('ReduceMean', [sum], last)]);
  const variance = graph.op('ReduceMean', [graph.op('Mul', [off, off])], last);
  const deviation = graph.op('Sqrt', [graph.op('Add', [variance, graph.float(step.numbers.eps!)])]);
  const row = (id: number) => t.weight(id, (values) => graph.floats(values));
  const scaled = graph.op('Mul', [graph.op('Div', [off, deviation]), row(gamma)]);
  t.set(step.outputs[0]!, graph.op('Add', [scaled, row(beta)]), 'nhwc');
};

/** [N, H, W, C] moved up and to the left by so many cells; what leaves comes in at the other side. */
function rolled(graph: Graph, map: Value, [h, w]: readonly [number, number], by: number): Value {
  let out = map;
  for (const [axis, side] of [
    [1, h],
    [2, w],
  ] as const) {
    const first = ((by % side) + side) % side;
    if (first === 0) continue;
    const part = (from: number, to: number) =>
      graph.op('Slice', [out, graph.ints([from]), graph.ints([to]), graph.ints([axis])]);
    out = graph.op('Concat', [part(first, side), part(0, first)], { axis });
  }
  return out;
}

const windowPartition = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const x = step.inputs[0]!;
  const { size, shift } = step.numbers as { size: number; shift: number };
  const [n, h, w, c] = t.shape(x) as [number, number, number, number];
  const [rows, columns] = [Math.ceil(h / size), Math.ceil(w / size)];
  const map = padded(graph, t.get(x, 'nhwc'), [n, h, w, c], size);
  const moved = rolled(graph, map, [rows * size, columns * size], shift);
  const cut = graph.reshape(moved, [n, rows, size, columns, size, c]);
  const windows = graph.op('Transpose', [cut], swapped);
  t.set(step.outputs[0]!, graph.reshape(windows, [n * rows * columns, size * size, c]), 'nhwc');
};

const windowMerge = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const [windows, residual] = step.inputs as unknown as [number, number];
  const { size, shift } = step.numbers as { size: number; shift: number };
  const [n, h, w, c] = t.shape(step.outputs[0]!) as [number, number, number, number];
  const [rows, columns] = [Math.ceil(h / size), Math.ceil(w / size)];
  const cut = graph.reshape(t.get(windows, 'nhwc'), [n, rows, columns, size, size, c]);
  const whole = graph.reshape(graph.op('Transpose', [cut], swapped), [
    ...[n, rows * size, columns * size, c],
  ]);
  const moved = rolled(graph, whole, [rows * size, columns * size], -shift);
  const bounds = [graph.ints([0, 0]), graph.ints([h, w]), graph.ints([1, 2])];
  let y = graph.op('Slice', [moved, ...bounds]);
  if (residual >= 0) y = graph.op('Add', [t.get(residual, 'nhwc'), y]);
  t.set(step.outputs[0]!, y, 'nhwc');
};

/** A score that leaves nothing of its key, and no NaN where a query sees no key at all. */
const unseen = -3e38;

const attention = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const { heads, depth, valueDepth, scale } = step.numbers as Record<string, number>;
  const operand = (i: number, columns: number, perm: number[]) => {
    const id = step.inputs[i]!;
    const [n, rows, all] = t.shape(id) as [number, number, number];
    const first = step.numbers[`column${i}`]!;
    let part = t.get(id, 'nhwc');
    if (columns !== all)
      part = graph.op('Slice', [
        ...[part, graph.ints([first]), graph.ints([first + columns]), graph.ints([2])],
      ]);
    const split = graph.reshape(part, [n, rows, heads!, columns / heads!]);
    return graph.op('Transpose', [split], { perm });
  };
  const q = operand(0, heads! * depth!, [0, 2, 1, 3]);
  const k = operand(1, heads! * depth!, [0, 2, 3, 1]);
  const v = operand(2, heads! * valueDepth!, [0, 2, 1, 3]);
  const [n, queries] = t.shape(step.outputs[0]!) as [number, number];
  let scores = graph.op('MatMul', [graph.op('Mul', [q, graph.float(scale!)]), k]);
  const [bias, mask] = [step.inputs[3]!, step.inputs[4]!];
  if (bias >= 0) scores = graph.op('Add', [scores, repeated(t, bias, n)]);
  if (mask >= 0) {
    const [images, rows, keys] = t.shape(mask) as [number, number, number];
    const isHidden = t.weight(mask, (values) =>
      graph.flags(repeatedFlags(values, n / images), [n, 1, rows, keys]),
    );
    scores = graph.op('Where', [isHidden, graph.float(unseen), scores]);
  }
  const seen = graph.op('MatMul', [graph.op('Softmax', [scores], { axis: -1 }), v]);
  const joined = graph.op('Transpose', [seen], { perm: [0, 2, 1, 3] });
  t.set(step.outputs[0]!, graph.reshape(joined, [n, queries, heads! * valueDepth!]), 'nhwc');
};

/** Whether each number is not 0, so many times one after the other. */
function repeatedFlags(values: Float32Array, times: number): Uint8Array {
  const out = new Uint8Array(values.length * times);
  for (let i = 0; i < out.length; i++) out[i] = Number(values[i % values.length] !== 0);
  return out;
}

/** A bias [B, M, Q, K] for n images, of which it has one or all. */
function repeated(t: Tensors, bias: number, n: number): Value {
  const [images] = t.shape(bias) as [number];
  if (images === 1 || images === n) return t.get(bias, 'nhwc');
  throw new MixplError(
    'ERR_CONFIG',
    `onnx: attention must have a bias for 1 or ${n} images, got ${images}`,
  );
}

const gelu = (t: Tensors, step: TraceStep): void => {
  const { graph } = t;
  const x = t.get(step.inputs[0]!, 'nhwc');
  const erf = graph.op('Erf', [graph.op('Div', [x, graph.float(Math.SQRT2)])]);
  const share = graph.op('Add', [erf, graph.float(1)]);
  const y = graph.op('Mul', [graph.op('Mul', [x, share]), graph.float(0.5)]);
  t.set(step.outputs[0]!, y, 'nhwc');
};

const add = (t: Tensors, step: TraceStep): void => {
  const [a, b] = Array.from(step.inputs, (input) => t.get(input, 'nhwc')) as [Value, Value];
  t.set(step.outputs[0]!, t.graph.op('Add', [a, b]), 'nhwc');
};

export const transformerSteps = {
  ...{ patches, layerNorm, windowPartition, windowMerge, attention, gelu, add },
};
