/** Steps of a trace as ONNX nodes: one entry an operation. */
import { MixplError } from '../errors.js';
import type { NativeTrace, NativeTraceStep as TraceStep } from '../native.js';
import type { Graph, Value } from './graph.js';
import { querySteps } from './queries.js';
import { taskAlignedSteps } from './task-aligned.js';
import { transformerSteps } from './transformer.js';

/** Ours are [N, H, W, C]; convolutions of ONNX take [N, C, H, W]. Maps stay as they were made. */
type Layout = 'nhwc' | 'nchw';

/** The tensors of a trace as values of a graph. */
export class Tensors {
  readonly graph: Graph;
  readonly #trace: NativeTrace;
  readonly #values = new Map<number, Partial<Record<Layout, Value>>>();
  readonly #weights = new Map<number, Value>();
  readonly #constants = new Map<number, Float32Array>();

  constructor(graph: Graph, trace: NativeTrace) {
    this.graph = graph;
    this.#trace = trace;
  }

  shape(id: number): readonly number[] {
    return this.#trace.shapes[id]!;
  }
  /** A constant, or undefined. */
  known(id: number): Float32Array | undefined {
    return this.#trace.constants[id] ?? this.#constants.get(id);
  }
  /** Makes one of what a step does to constants. */
  setConstant(id: number, values: Float32Array): void {
    this.#constants.set(id, values);
  }
  /** @throws MixplError ERR_INTERNAL when it is none */
  constant(id: number): Float32Array {
    const values = this.known(id);
    if (!values) throw new MixplError('ERR_INTERNAL', `onnx: tensor ${id} must be a constant`);
    return values;
  }
  /** A constant as a step takes it, once for all that share it. */
  weight(id: number, make: (values: Float32Array) => Value): Value {
    const value = this.#weights.get(id) ?? make(this.constant(id));
    this.#weights.set(id, value);
    return value;
  }
  /** How a tensor is at hand already: for steps that take numbers one by one. */
  layout(id: number): Layout {
    const known = this.#values.get(id);
    return known?.nchw && !known.nhwc ? 'nchw' : 'nhwc';
  }
  set(id: number, value: Value, layout: Layout): void {
    this.#values.set(id, { [layout]: value });
  }
  /** Maps of four axes are transposed where they must be, once. */
  get(id: number, layout: Layout): Value {
    let layouts = this.#values.get(id);
    if (!layouts) {
      layouts = { nhwc: this.graph.floats(this.constant(id), this.shape(id)) };
      this.#values.set(id, layouts);
    }
    const known = layouts[layout];
    if (known) return known;
    const other = layouts[layout === 'nhwc' ? 'nchw' : 'nhwc']!;
    const perm = layout === 'nchw' ? [0, 3, 1, 2] : [0, 2, 3, 1];
    const value = this.graph.op('Transpose', [other], { perm });
    layouts[layout] = value;
    return value;
  }
}

type Build = (t: Tensors, step: TraceStep) => void;

/** [K, R, S, C] as [K, C, R, S]. */
function filtersOf(values: Float32Array, [k, r, s, c]: readonly number[]): Float32Array {
  const [K, R, S, C] = [k!, r!, s!, c!];
  const out = new Float32Array(values.length);
  for (let f = 0; f < K; f++)
    for (let i = 0; i < R * S; i++)
      for (let ch = 0; ch < C; ch++)
        out[(f * C + ch) * R * S + i] = values[(f * R * S + i) * C + ch]!;
  return out;
}

/** Adds a residual, if there is one, and takes the ReLU, if it is asked for. */
function finish(t: Tensors, step: TraceStep, value: Value, residual: number): void {
  const { graph } = t;
  let y = value;
  if (residual >= 0) y = graph.op('Add', [y, t.get(residual, 'nchw')]);
  if (step.numbers.relu) y = graph.op('Relu', [y]);
  t.set(step.outputs[0]!, y, 'nchw');
}

const conv2d: Build = (t, step) => {
  const [x, weight, bias, residual] = step.inputs as unknown as [number, number, number, number];
  const { stride, padding, dilation, groups } = step.numbers as Record<string, number>;
  const [k, r, s, c] = t.shape(weight) as [number, number, number, number];
  const filters = t.weight(weight, (values) =>
    t.graph.madeLate([k, c, r, s], () => filtersOf(values, [k, r, s, c])),
  );
  const inputs = [t.get(x, 'nchw'), filters];
  if (bias >= 0) inputs.push(t.weight(bias, (values) => t.graph.floats(values)));
  const y = t.graph.op('Conv', inputs, {
    kernel_shape: [r, s],
    strides: [stride!, stride!],
    pads: [padding!, padding!, padding!, padding!],
    dilations: [dilation!, dilation!],
    group: groups!,
  });
  finish(t, step, y, residual);
};

const maxPool2d: Build = (t, step) => {
  const { kernel, stride, padding } = step.numbers as Record<string, number>;
  const y = t.graph.op('MaxPool', [t.get(step.inputs[0]!, 'nchw')], {
    kernel_shape: [kernel!, kernel!],
    strides: [stride!, stride!],
    pads: [padding!, padding!, padding!, padding!],
  });
  t.set(step.outputs[0]!, y, 'nchw');
};

/** Rows and columns by number: what Resize makes of sizes that are no multiples differs by rounding. */
const upsampleAdd: Build = (t, step) => {
  const [lateral, top] = step.inputs as unknown as [number, number];
  let y = t.get(top, 'nchw');
  for (const [axis, own] of [
    [2, 1],
    [3, 2],
  ] as const) {
    const [to, from] = [t.shape(lateral)[own]!, t.shape(top)[own]!];
    if (to === from) continue;
    const rows = Array.from({ length: to }, (_, i) => Math.floor((i * from) / to));
    y = t.graph.op('Gather', [y, t.graph.ints(rows)], { axis });
  }
  t.set(step.outputs[0]!, t.graph.op('Add', [t.get(lateral, 'nchw'), y]), 'nchw');
};

const relu: Build = (t, step) => {
  const layout = t.layout(step.inputs[0]!);
  t.set(step.outputs[0]!, t.graph.op('Relu', [t.get(step.inputs[0]!, layout)]), layout);
};

const groupNorm: Build = (t, step) => {
  const [x, gamma, beta, residual] = step.inputs as unknown as [number, number, number, number];
  const { graph } = t;
  const { groups, eps } = step.numbers as Record<string, number>;
  const [n, h, w, c] = t.shape(x) as [number, number, number, number];
  const flat = graph.reshape(t.get(x, 'nchw'), [n, groups!, -1]);
  const normed = graph.op(
    'InstanceNormalization',
    [flat, graph.filled(groups!, 1), graph.filled(groups!, 0)],
    {
      epsilon: { float: eps! },
    },
  );
  const maps = graph.reshape(normed, [n, c, h, w]);
  const column = (values: Float32Array) => graph.floats(values, [c, 1, 1]);
  const scaled = graph.op('Mul', [maps, t.weight(gamma, column)]);
  finish(t, step, graph.op('Add', [scaled, t.weight(beta, column)]), residual);
};

const learnedScale: Build = (t, step) => {
  const [x, scale] = step.inputs as unknown as [number, number];
  const y = t.graph.op('Mul', [t.get(x, 'nchw'), t.graph.float(t.constant(scale)[0]!)]);
  t.set(step.outputs[0]!, y, 'nchw');
};

/** [K, C] as [C, K]. */
function turned(values: Float32Array, [k, c]: readonly [number, number]): Float32Array {
  const out = new Float32Array(values.length);
  for (let i = 0; i < k; i++) for (let j = 0; j < c; j++) out[j * k + i] = values[i * c + j]!;
  return out;
}

/** The last axis times a matrix [K, C]. */
const linear: Build = (t, step) => {
  const [x, weight, bias] = step.inputs as unknown as [number, number, number];
  const { graph } = t;
  const [k, c] = t.shape(weight) as [number, number];
  const matrix = t.weight(weight, (values) => graph.madeLate([c, k], () => turned(values, [k, c])));
  let y = graph.op('MatMul', [t.get(x, 'nhwc'), matrix]);
  if (bias >= 0) y = graph.op('Add', [y, t.weight(bias, (values) => graph.floats(values))]);
  if (step.numbers.relu) y = graph.op('Relu', [y]);
  t.set(step.outputs[0]!, y, 'nhwc');
};

/** The first axis may have any number of rows. */
const reshape: Build = (t, step) => {
  const [from, to] = [step.inputs[0]!, step.outputs[0]!];
  const known = t.known(from);
  if (known) {
    t.setConstant(to, known);
    return;
  }
  const [rows, ...rest] = t.shape(to);
  const first = rows === t.shape(from)[0] ? 0 : rows!;
  t.set(to, t.graph.reshape(t.get(from, 'nhwc'), [first, ...rest]), 'nhwc');
};

const builders: Readonly<Record<string, Build>> = {
  conv2d,
  maxPool2d,
  upsampleAdd,
  relu,
  groupNorm,
  learnedScale,
  linear,
  reshape,
  ...querySteps,
  ...taskAlignedSteps,
  ...transformerSteps,
};

/**
 * Adds the nodes of a step.
 * @throws MixplError ERR_CONFIG for one that has no form in ONNX here
 */
export function buildStep(tensors: Tensors, step: TraceStep): void {
  const build = builders[step.op];
  if (!build)
    throw new MixplError(
      'ERR_CONFIG',
      `onnx: the detector must be made of ${Object.keys(builders).join(', ')}, got '${step.op}'`,
    );
  build(tensors, step);
}
