import { abortable, checkSignal } from '../abort.js';
import { checkKeys } from '../arguments.js';
import { MixplError } from '../errors.js';
import { type DType, type NativeTensor, native, optionsJson } from '../native.js';

/** Numbers with a shape; `stride` (in elements, row-major when absent) and `offset` are honoured. */
export interface NdArrayLike<T> {
  readonly data: T;
  readonly shape: readonly number[];
  readonly stride?: readonly number[];
  readonly offset?: number;
}

/** What kernels return: row-major; fits `ndarray(data, shape, stride, offset)`. */
export interface NdArray<T> {
  data: T;
  shape: number[];
  stride: number[];
  offset: number;
}

/** A typed array, read row-major, or an array of the `ndarray` package (views included). */
export type ArrayInput<T> = T | NdArrayLike<T>;

/** Options that every kernel takes. */
export interface KernelOptions {
  /** Aborting rejects with the signal's reason; work already handed over ends in the background. */
  signal?: AbortSignal;
  /** Where it runs: 'cpu', 'cuda', 'cuda:1' or 'auto'; arguments are copied there. @defaultValue 'cpu' */
  device?: string;
}

const arrayTypes = {
  f32: { type: Float32Array, name: 'a Float32Array' },
  i32: { type: Int32Array, name: 'an Int32Array' },
  u8: { type: Uint8Array, name: 'a Uint8Array' },
} as const;
type ArrayDType = keyof typeof arrayTypes & DType;
type ArrayOf<D extends ArrayDType> = { f32: Float32Array; i32: Int32Array; u8: Uint8Array }[D];

/** A row-major copy-free (where possible) reading of an argument. */
export interface Contiguous<D extends ArrayDType> {
  data: ArrayOf<D>;
  shape: number[];
  dtype: D;
}

/** Sizes by axis; null takes any size. Absent: any shape. */
export interface ArraySpec<D extends ArrayDType> {
  dtype: D;
  shape?: readonly (number | null)[];
  /** Names the axes in messages, e.g. "B, 4". */
  axes?: string;
}

/**
 * Checks an argument and reads it row-major. A typed array gets the wanted shape, its one open
 * axis filled in from the length.
 * @throws MixplError ERR_DTYPE, ERR_SHAPE
 */
export function readArray<D extends ArrayDType>(
  op: string,
  name: string,
  input: ArrayInput<ArrayOf<D>>,
  spec: ArraySpec<D>,
): Contiguous<D> {
  const { type, name: typeName } = arrayTypes[spec.dtype];
  const wanted = () => `[${spec.axes ?? spec.shape?.map((s) => s ?? '*').join(', ')}]`;
  if (input instanceof type) {
    const flat = input as ArrayOf<D>;
    return {
      data: flat,
      shape: shapeOfFlat(op, name, flat.length, spec, wanted),
      dtype: spec.dtype,
    };
  }
  const array = input as Partial<NdArrayLike<ArrayOf<D>>> | null | undefined;
  if (!(array?.data instanceof type) || !Array.isArray(array.shape))
    throw new MixplError(
      'ERR_DTYPE',
      `${op}: ${name} must be ${typeName} or an ndarray over one, got ${describe(input)}`,
    );
  const shape = [...array.shape] as number[];
  const { shape: sizes } = spec;
  if (
    !shape.every((s) => Number.isInteger(s) && s >= 0) ||
    (sizes && (shape.length !== sizes.length || sizes.some((s, i) => s !== null && s !== shape[i])))
  )
    throw new MixplError(
      'ERR_SHAPE',
      `${op}: ${name} must be ${sizes ? wanted() : 'an array of sizes >= 0'}, got [${shape.join(', ')}]`,
    );
  const data = gather(op, name, array as NdArrayLike<ArrayOf<D>>, shape);
  return { data, shape, dtype: spec.dtype };
}

function shapeOfFlat<D extends ArrayDType>(
  op: string,
  name: string,
  length: number,
  spec: ArraySpec<D>,
  wanted: () => string,
): number[] {
  if (!spec.shape) return [length];
  const known = spec.shape.reduce<number>((n, s) => n * (s ?? 1), 1);
  const open = spec.shape.includes(null);
  const filled = open ? (known === 0 ? 1 : length / known) : 1;
  if (!Number.isInteger(filled) || filled * known !== length)
    throw new MixplError('ERR_SHAPE', `${op}: ${name} must be ${wanted()}, got ${length} numbers`);
  return spec.shape.map((s) => s ?? filled);
}

/** The elements in row-major order: a view where they lie so, else a copy. */
function gather<T extends Float32Array | Int32Array | Uint8Array>(
  op: string,
  name: string,
  array: NdArrayLike<T>,
  shape: readonly number[],
): T {
  const { data, offset = 0 } = array;
  const plain = rowMajor(shape);
  const stride = array.stride ?? plain;
  const count = shape.reduce((n, s) => n * s, 1);
  if (stride.length !== shape.length || ![offset, ...stride].every(Number.isInteger))
    throw new MixplError(
      'ERR_SHAPE',
      `${op}: ${name}.stride must hold ${shape.length} integers (one per axis), got [${stride.join(', ')}]`,
    );
  if (count === 0) return data.subarray(0, 0) as T;
  let low = offset;
  let high = offset;
  shape.forEach((size, axis) => {
    const reach = (size - 1) * stride[axis]!;
    if (reach < 0) low += reach;
    else high += reach;
  });
  if (low < 0 || high >= data.length)
    throw new MixplError(
      'ERR_SHAPE',
      `${op}: ${name} must lie inside its data (${data.length} numbers), got elements ${low} … ${high}`,
    );
  // An axis of size 1 may have any stride.
  if (shape.every((size, axis) => size === 1 || stride[axis] === plain[axis]))
    return data.subarray(offset, offset + count) as T;
  const out = roomFor(op, name, data, count);
  const index = new Array<number>(shape.length).fill(0);
  let from = offset;
  for (let to = 0; to < count; to++) {
    out[to] = data[from]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += stride[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      from -= shape[axis]! * stride[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}

/** Strides of 0 make much of few numbers. @throws MixplError ERR_OUT_OF_MEMORY */
function roomFor<T>(op: string, name: string, data: T, count: number): T {
  try {
    return new ((data as object).constructor as new (n: number) => T)(count);
  } catch (cause) {
    throw new MixplError('ERR_OUT_OF_MEMORY', `${op}: ${name} has no room for ${count} numbers`, {
      cause,
    });
  }
}

function rowMajor(shape: readonly number[]): number[] {
  const stride = new Array<number>(shape.length);
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    stride[axis] = step;
    step *= shape[axis]!;
  }
  return stride;
}

export function ndarrayOf<T>(data: T, shape: number[]): NdArray<T> {
  return { data, shape, stride: rowMajor(shape), offset: 0 };
}

function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value !== 'object') return typeof value;
  const data = (value as { data?: unknown }).data;
  const name = (object: unknown) => (object as object).constructor?.name ?? 'an object';
  return data !== null && typeof data === 'object' ? `an ndarray over ${name(data)}` : name(value);
}

/** @throws MixplError ERR_CONFIG naming the nearest known option */
export function checkOptions(op: string, options: object, keys: readonly string[]): void {
  checkKeys(op, options, [...keys, 'signal', 'device']);
}

/** Infinity may not reach JSON, where it would become null. @throws MixplError ERR_RANGE */
export function checkNumber(
  op: string,
  name: string,
  value: number,
  { low = Number.NEGATIVE_INFINITY, high = Number.POSITIVE_INFINITY, integer = false } = {},
): number {
  const fits = Number.isFinite(value) && value >= low && value <= high;
  if (fits && (!integer || Number.isInteger(value))) return value;
  const kind = integer ? 'an integer' : 'a number';
  const range =
    low > Number.NEGATIVE_INFINITY && high < Number.POSITIVE_INFINITY
      ? ` in [${low}, ${high}]`
      : low > Number.NEGATIVE_INFINITY
        ? ` >= ${low}`
        : '';
  throw new MixplError(
    'ERR_RANGE',
    `${op}: ${name} must be ${kind}${range}, got ${typeof value === 'number' ? value : describe(value)}`,
  );
}

/** @throws MixplError ERR_RANGE */
export function checkNumbers(
  op: string,
  name: string,
  values: readonly number[],
  length?: number,
): readonly number[] {
  if (!Array.isArray(values) || (length !== undefined && values.length !== length))
    throw new MixplError(
      'ERR_RANGE',
      `${op}: ${name} must hold ${length ?? 'some'} numbers, got ${Array.isArray(values) ? values.length : describe(values)}`,
    );
  for (const value of values) checkNumber(op, name, value);
  return values;
}

/**
 * Runs a native op on copies of the arguments.
 * @param gradient asks for the gradients of the floating inputs for an output gradient of 1
 */
export async function runKernel(
  op: string,
  inputs: readonly Contiguous<ArrayDType>[],
  options: Record<string, unknown>,
  { signal, device = 'cpu', gradient = false }: KernelOptions & { gradient?: boolean } = {},
): Promise<{ outputs: NativeTensor[]; gradients: (NativeTensor | null)[] }> {
  checkSignal(op, signal);
  signal?.throwIfAborted();
  const tensors = inputs.map(({ data, shape, dtype }) =>
    native.createTensor(data, shape, dtype, device),
  );
  const one = gradient ? native.createTensor(Float32Array.of(1), [], 'f32', device) : null;
  const mode = { device, ...(one ? { douts: [one] } : {}) };
  const job = native.runOp(op, tensors, optionsJson(op, options), mode);
  // The job holds on to what it needs.
  for (const tensor of tensors) tensor.dispose();
  one?.dispose();
  return abortable(signal, job, {
    late: ({ outputs, gradients }) => {
      for (const tensor of [...outputs, ...gradients]) tensor?.dispose();
    },
  });
}

/** Reads a result and lets go of it. */
export async function take<T extends Float32Array | Int32Array>(
  tensor: NativeTensor,
): Promise<NdArray<T>> {
  const { shape } = tensor;
  const data = (await tensor.read()) as T;
  tensor.dispose();
  return ndarrayOf(data, shape);
}
