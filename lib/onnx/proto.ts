/**
 * ONNX files. Field numbers and types are those of the public schema, onnx/onnx.proto (IR version 8).
 */
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { MixplError } from '../errors.js';

/** Numbers of TensorProto.DataType. */
export const elementTypes = { float32: 1, uint8: 2, int64: 7, bool: 9 } as const;
export type ElementType = keyof typeof elementTypes;

/** Of those that initializers have. */
const elementBytes = { float32: 4, int64: 8, bool: 1 } as const;

export interface OnnxTensor {
  name: string;
  type: keyof typeof elementBytes;
  shape: readonly number[];
  /** As many as the shape says; called when they are written, so large ones need not be there before. */
  values: () => Float32Array | BigInt64Array | Uint8Array;
}

/** Whole numbers are INT, or INTS; give reals as `{ float }`. */
export type OnnxAttribute = number | readonly number[] | string | { float: number };

export interface OnnxNode {
  type: string;
  inputs: readonly string[];
  outputs: readonly string[];
  attributes: Readonly<Record<string, OnnxAttribute>>;
}

/** An input or output; a text is the name of a size that is not known before. */
export interface OnnxValue {
  name: string;
  type: ElementType;
  shape: readonly (number | string)[];
}

export interface OnnxModel {
  name: string;
  producerVersion: string;
  opset: number;
  nodes: readonly OnnxNode[];
  initializers: readonly OnnxTensor[];
  inputs: readonly OnnxValue[];
  outputs: readonly OnnxValue[];
  /** Shown by viewers and runtimes. */
  metadata: Readonly<Record<string, string>>;
}

const irVersion = 8;
/** Of a protocol buffer. */
const largestFile = 2 ** 31 - 1;

type Fill = (w: BinaryWriter) => void;
const message = (w: BinaryWriter, field: number, fill: Fill): void => {
  w.tag(field, WireType.LengthDelimited).fork();
  fill(w);
  w.join();
};
const text = (w: BinaryWriter, field: number, value: string): void => {
  w.tag(field, WireType.LengthDelimited).string(value);
};
const whole = (w: BinaryWriter, field: number, value: number): void => {
  w.tag(field, WireType.Varint).int64(value);
};

const attributeTypes = { float: 1, int: 2, string: 3, ints: 7 } as const;

function writeAttribute(w: BinaryWriter, name: string, value: OnnxAttribute): void {
  text(w, 1, name);
  let type: keyof typeof attributeTypes;
  if (typeof value === 'number') {
    type = 'int';
    whole(w, 3, value);
  } else if (typeof value === 'string') {
    type = 'string';
    text(w, 4, value);
  } else if ('float' in value) {
    type = 'float';
    w.tag(2, WireType.Bit32).float(value.float);
  } else {
    type = 'ints';
    for (const v of value) whole(w, 8, v);
  }
  whole(w, 20, attributeTypes[type]);
}

function writeNode(w: BinaryWriter, node: OnnxNode): void {
  for (const input of node.inputs) text(w, 1, input);
  for (const output of node.outputs) text(w, 2, output);
  text(w, 3, node.outputs[0]!);
  text(w, 4, node.type);
  for (const [name, value] of Object.entries(node.attributes))
    message(w, 5, (a) => writeAttribute(a, name, value));
}

function writeValue(w: BinaryWriter, { name, type, shape }: OnnxValue): void {
  text(w, 1, name);
  message(w, 2, (t) =>
    message(t, 1, (tensor) => {
      whole(tensor, 1, elementTypes[type]);
      message(tensor, 2, (dims) => {
        for (const size of shape)
          message(dims, 1, (dim) =>
            typeof size === 'number' ? whole(dim, 1, size) : text(dim, 2, size),
          );
      });
    }),
  );
}

/** Tag and length of a field that is written behind them. */
function opening(field: number, length: number): Uint8Array {
  return new BinaryWriter().tag(field, WireType.LengthDelimited).int64(length).finish();
}

/** Bytes in order, and how many, which is known before there are any. */
interface Pieces {
  bytes: number;
  [Symbol.iterator](): Iterator<Uint8Array>;
}

function joined(parts: readonly (Uint8Array | Pieces)[]): Pieces {
  const sizes = parts.map((part) => (part instanceof Uint8Array ? part.length : part.bytes));
  return {
    bytes: sizes.reduce((a, b) => a + b, 0),
    *[Symbol.iterator]() {
      for (const part of parts) {
        if (part instanceof Uint8Array) yield part;
        else yield* part;
      }
    },
  };
}

/** A field of a message. */
const enclosed = (field: number, content: Pieces): Pieces =>
  joined([opening(field, content.bytes), content]);

function tensorPieces({ name, type, shape, values }: OnnxTensor): Pieces {
  const w = new BinaryWriter();
  for (const size of shape) whole(w, 1, size);
  whole(w, 2, elementTypes[type]);
  text(w, 8, name);
  const bytes = shape.reduce((a, b) => a * b, elementBytes[type]);
  const numbers: Pieces = {
    bytes,
    *[Symbol.iterator]() {
      const { buffer, byteOffset, byteLength } = values();
      if (byteLength !== bytes)
        throw new MixplError(
          'ERR_INTERNAL',
          `onnx: ${name} must have ${bytes} bytes for [${shape}], got ${byteLength}`,
        );
      yield new Uint8Array(buffer, byteOffset, byteLength);
    },
  };
  return joined([w.finish(), enclosed(9, numbers)]);
}

/**
 * A model's file. Numbers of initializers are made one tensor after the other.
 * @throws MixplError ERR_RANGE for one that would be too large, before there are any
 */
export function modelPieces(model: OnnxModel): Pieces {
  const w = new BinaryWriter();
  for (const node of model.nodes) message(w, 1, (n) => writeNode(n, node));
  text(w, 2, model.name);
  for (const input of model.inputs) message(w, 11, (v) => writeValue(v, input));
  for (const output of model.outputs) message(w, 12, (v) => writeValue(v, output));
  const tensors = model.initializers.map((tensor) => enclosed(5, tensorPieces(tensor)));
  const head = new BinaryWriter();
  whole(head, 1, irVersion);
  text(head, 2, 'mixpl');
  text(head, 3, model.producerVersion);
  message(head, 8, (opset) => {
    text(opset, 1, '');
    whole(opset, 2, model.opset);
  });
  for (const [key, value] of Object.entries(model.metadata))
    message(head, 14, (entry) => {
      text(entry, 1, key);
      text(entry, 2, value);
    });
  const file = joined([head.finish(), enclosed(7, joined([w.finish(), ...tensors]))]);
  if (file.bytes <= largestFile) return file;
  throw new MixplError(
    'ERR_RANGE',
    `onnx: a file must be at most ${largestFile} bytes (the format's limit), got ${file.bytes}`,
  );
}
