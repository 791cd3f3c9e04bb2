/** An ONNX graph in the making. */
import type { OnnxAttribute, OnnxNode, OnnxTensor } from './proto.js';

/** The name of a value. */
export type Value = string;

export class Graph {
  readonly nodes: OnnxNode[] = [];
  readonly initializers: OnnxTensor[] = [];
  readonly #known = new Map<string, Value>();
  #count = 0;

  /** Adds a node of one output. An empty input is one that is left out. */
  op(
    type: string,
    inputs: readonly Value[],
    attributes: Readonly<Record<string, OnnxAttribute>> = {},
  ): Value {
    return this.ops(type, inputs, attributes, 1)[0]!;
  }
  ops(
    type: string,
    inputs: readonly Value[],
    attributes: Readonly<Record<string, OnnxAttribute>>,
    outputs: number,
  ): Value[] {
    const names = Array.from({ length: outputs }, () => `${type.toLowerCase()}_${this.#count++}`);
    this.nodes.push({ type, inputs, outputs: names, attributes });
    return names;
  }
  /** Gives a value the name of an output. */
  name(value: Value, output: string): void {
    this.nodes.push({ type: 'Identity', inputs: [value], outputs: [output], attributes: {} });
  }

  floats(data: Float32Array | readonly number[], shape: readonly number[] = [data.length]): Value {
    const values = data instanceof Float32Array ? data : Float32Array.from(data);
    return this.#initializer('float32', shape, () => values);
  }
  /** Of f32 that are made when the file is written. */
  madeLate(shape: readonly number[], values: () => Float32Array): Value {
    return this.#initializer('float32', shape, values);
  }
  /** Of truth values. */
  flags(data: Uint8Array, shape: readonly number[]): Value {
    return this.#initializer('bool', shape, () => data);
  }
  /** Of int64. A number is a scalar, a list has one axis. */
  ints(data: number | readonly number[]): Value {
    const list = typeof data === 'number' ? [data] : data;
    const key = JSON.stringify(data);
    const known = this.#known.get(key);
    if (known) return known;
    const shape = typeof data === 'number' ? [] : [list.length];
    const name = this.#initializer('int64', shape, () => BigInt64Array.from(list, BigInt));
    this.#known.set(key, name);
    return name;
  }
  /** A scalar f32. */
  float(value: number): Value {
    const key = `f${value}`;
    const known = this.#known.get(key) ?? this.floats([value], []);
    this.#known.set(key, known);
    return known;
  }

  /** A list of equal f32. */
  filled(length: number, value: number): Value {
    const key = `${length}f${value}`;
    const known = this.#known.get(key) ?? this.floats(new Float32Array(length).fill(value));
    this.#known.set(key, known);
    return known;
  }

  reshape(value: Value, shape: readonly number[]): Value {
    return this.op('Reshape', [value, this.ints(shape)]);
  }

  #initializer(
    type: OnnxTensor['type'],
    shape: readonly number[],
    values: OnnxTensor['values'],
  ): Value {
    const name = `constant_${this.initializers.length}`;
    this.initializers.push({ name, type, shape, values });
    return name;
  }
}
