import { expect } from 'vitest';
import { type DType, type NativeTensor, native, type RunOpMode } from '../../../lib/native.js';

export type Input = { shape: number[] } & (
  | { f32: ArrayLike<number> }
  | { i32: ArrayLike<number> }
  | { u8: ArrayLike<number> }
  | { bf16: ArrayLike<number> }
);

/** f32 with the shape [n, width]; width 0: [n]. */
export function f32(values: readonly number[] | Float32Array, width = 0): Input {
  return { f32: values, shape: width ? [values.length / width, width] : [values.length] };
}
export function i32(values: readonly number[]): Input {
  return { i32: values, shape: [values.length] };
}
export function boxes(list: readonly (readonly number[])[]): Input {
  return { f32: list.flat(), shape: [list.length, 4] };
}

const gpu = native.devices().find((device) => device.usable && device.id !== 'cpu');
/** The CPU and the first usable GPU, emulated ones included; MIXPL_TEST_DEVICE names one instead. */
const devices: readonly string[] = process.env.MIXPL_TEST_DEVICE
  ? [native.resolveDevice(process.env.MIXPL_TEST_DEVICE)]
  : ['cpu', ...(gpu ? [gpu.id] : [])];

/** Numbers of CPU threads to try: one where ops run on an emulated GPU, slowly and without them. */
export function threadCounts(...counts: number[]): number[] {
  return native.setEmulation ? counts.slice(0, 1) : counts;
}

interface Output {
  data: number[];
  shape: number[];
  dtype: DType;
}

/**
 * Runs a native op and reads its outputs as plain numbers; on every device, which must agree: whole
 * numbers exactly, others but for the last digits of a logarithm or a power.
 */
export async function run(
  op: string,
  inputs: readonly Input[],
  options: object = {},
  mode: RunOpMode = {},
): Promise<Output[]> {
  const [first, ...others] = devices;
  const outputs = await runOn(first!, op, inputs, options, mode);
  for (const device of others) expectSame(await runOn(device, op, inputs, options, mode), outputs);
  return outputs;
}

async function runOn(
  device: string,
  op: string,
  inputs: readonly Input[],
  options: object,
  mode: RunOpMode,
): Promise<Output[]> {
  const tensors = inputs.map((input) => toTensor(input, device));
  const { outputs } = await native.runOp(op, tensors, JSON.stringify(options), { device, ...mode });
  const results = await Promise.all(
    outputs.map(async (t) => ({
      data: Array.from(await t.read()),
      shape: t.shape,
      dtype: t.dtype,
    })),
  );
  for (const tensor of [...tensors, ...outputs]) tensor.dispose();
  return results;
}

function expectSame(got: readonly Output[], want: readonly Output[]): void {
  expect(got.map(({ shape }) => shape)).toEqual(want.map(({ shape }) => shape));
  for (const [i, { data, dtype }] of got.entries())
    for (const [k, value] of data.entries()) {
      const other = want[i]!.data[k]!;
      const room = dtype === 'f32' ? 1e-5 * Math.max(1, Math.abs(other)) : 0;
      if (!Object.is(value, other) && !(Math.abs(value - other) <= room))
        expect.fail(`output ${i} at ${k} is ${value} on the GPU, ${other} on the CPU`);
    }
}

/** The first output's numbers. */
export async function numbers(...args: Parameters<typeof run>): Promise<number[]> {
  return (await run(...args))[0]!.data;
}

function toTensor(input: Input, device: string): NativeTensor {
  const { shape } = input;
  if ('f32' in input)
    return native.createTensor(Float32Array.from(input.f32), shape, 'f32', device);
  if ('i32' in input) return native.createTensor(Int32Array.from(input.i32), shape, 'i32', device);
  if ('u8' in input) return native.createTensor(Uint8Array.from(input.u8), shape, 'u8', device);
  return native.createTensor(Uint16Array.from(input.bf16, bf16Bits), shape, 'bf16', device);
}

const word = new DataView(new ArrayBuffer(4));
/** Upper half of the f32 nearest to x, to even on ties. */
function bf16Bits(x: number): number {
  word.setFloat32(0, x);
  const bits = word.getUint32(0);
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}
/** What bf16 keeps of x. */
export function toBf16(x: number): number {
  word.setUint32(0, (bf16Bits(x) << 16) >>> 0);
  return word.getFloat32(0);
}

/** Largest |a - b| / max(|b|, floor). */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>, floor = 1): number {
  if (a.length !== b.length) return Number.POSITIVE_INFINITY;
  let worst = 0;
  for (let i = 0; i < a.length; i++) {
    const error = Math.abs(a[i]! - b[i]!) / Math.max(Math.abs(b[i]!), floor);
    if (Number.isNaN(error)) return Number.POSITIVE_INFINITY;
    worst = Math.max(worst, error);
  }
  return worst;
}
