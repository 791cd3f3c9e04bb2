import { describe, expect, test } from 'vitest';
import { type DType, type NativeTensor, native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { type NdArray, ndarray, numel } from '../../oracle/array.js';
import { type Tolerance, tolerances } from '../tolerances.js';

/** One call of an op: named inputs (in the op's order), options, mode. */
export interface OpCase {
  name: string;
  inputs: Record<string, NdArray>;
  options?: Record<string, unknown>;
  training?: boolean;
  /** The bits may depend on the number of threads (never on the run). */
  dependsOnThreads?: boolean;
}

export interface OpSpec {
  /** The slow truth in float64. `base` holds the unperturbed inputs during a gradient check. */
  oracle: (
    inputs: Record<string, NdArray>,
    options: Record<string, never>,
    context: { training: boolean; base: Record<string, NdArray> },
  ) => NdArray;
  cases: (random: Random) => OpCase[];
  /** Inputs with a gradient. */
  differentiable: readonly string[];
  /** Inputs that may be bf16; empty for ops that are f32 only. */
  activations: readonly string[];
  /** f32 inputs that the op itself rounds to bf16 when it computes in it (weights). */
  casts?: readonly string[];
  /** Inputs of type i32. */
  integers?: readonly string[];
  /** Inputs of type u8: masks. */
  bytes?: readonly string[];
  /** Of a bf16 output that is not exact but for its own rounding; the spec says why. */
  bf16Output?: Tolerance;
  /** Inputs whose gradient is made, in bf16, of results that were rounded on the way. */
  roundedGradients?: readonly string[];
  /** The output is a sum (a loss): f32 whatever the inputs are. */
  loss?: boolean;
  /** The output is f32 whatever the inputs are. */
  f32Output?: boolean;
}

/** MIXPL_TEST_SEED overrides the seed of every generated case. */
export const testSeed = Number(process.env.MIXPL_TEST_SEED ?? 20231122);

const gpu = native.devices().find((device) => device.usable && device.id !== 'cpu');
/**
 * Where ops run in tests: the CPU, and the first usable GPU, emulated ones included. MIXPL_TEST_DEVICE
 * names one instead, which then is where single tests run too.
 */
export const testDevices: readonly string[] = process.env.MIXPL_TEST_DEVICE
  ? [native.resolveDevice(process.env.MIXPL_TEST_DEVICE)]
  : ['cpu', ...(gpu ? [gpu.id] : [])];

/** Appended to the name of a test that runs once per device. */
export const onDevice = (device: string) => (device === 'cpu' ? '' : `, ${device}`);

export const normals = (random: Random, shape: readonly number[], scale = 1): NdArray =>
  ndarray(
    shape,
    Array.from({ length: numel(shape) }, () => Math.fround(scale * random.normal())),
  );
export const uniforms = (random: Random, shape: readonly number[], low = 0, high = 1): NdArray =>
  ndarray(
    shape,
    Array.from({ length: numel(shape) }, () => Math.fround(random.uniform(low, high))),
  );

/** The nearest bf16, ties to even, as a number. */
export function toBf16(x: number): number {
  const word = new Uint32Array(new Float32Array([x]).buffer)[0]!;
  const rounded = Number.isNaN(x) ? word : (word + 0x7fff + ((word >>> 16) & 1)) & 0xffff0000;
  return new Float32Array(new Uint32Array([rounded]).buffer)[0]!;
}

export function tensor(
  array: NdArray,
  dtype: DType = 'f32',
  device: string = testDevices[0]!,
): NativeTensor {
  if (dtype === 'i32')
    return native.createTensor(Int32Array.from(array.data), array.shape, dtype, device);
  if (dtype === 'u8')
    return native.createTensor(Uint8Array.from(array.data), array.shape, dtype, device);
  const values = Float32Array.from(array.data);
  if (dtype === 'f32') return native.createTensor(values, array.shape, dtype, device);
  const words = new Uint32Array(Float32Array.from(values, toBf16).buffer);
  return native.createTensor(
    Uint16Array.from(words, (w) => w >>> 16),
    array.shape,
    'bf16',
    device,
  );
}

export interface OpResult {
  output: Float32Array;
  shape: number[];
  dtype: DType;
  outputs: Float32Array[];
  gradients: Record<string, Float32Array | null>;
}

export interface RunOptions {
  dtype?: 'f32' | 'bf16';
  spec: Pick<OpSpec, 'activations' | 'integers' | 'bytes'>;
  /** Gradient of the (first) output; without it none is computed. */
  dout?: NdArray;
  /** @defaultValue 'cpu', or MIXPL_TEST_DEVICE */
  device?: string;
}

/** Runs a native op on arrays; activations (and dout, unless the output is f32) take `dtype`. */
export async function runOp(name: string, call: OpCase, run: RunOptions): Promise<OpResult> {
  const dtype = run.dtype ?? 'f32';
  const device = run.device ?? testDevices[0]!;
  const names = Object.keys(call.inputs);
  const typeOf = (input: string): DType => {
    if (run.spec.integers?.includes(input)) return 'i32';
    if (run.spec.bytes?.includes(input)) return 'u8';
    return run.spec.activations.includes(input) ? dtype : 'f32';
  };
  const inputs = names.map((input) => tensor(call.inputs[input]!, typeOf(input), device));
  const options = JSON.stringify(call.options ?? {});
  const mode = { compute: dtype, training: call.training ?? false, device };
  const forward = await native.runOp(name, inputs, options, mode);
  const first = forward.outputs[0]!;
  const outputs = (await Promise.all(forward.outputs.map((t) => t.read()))) as Float32Array[];
  const gradients: OpResult['gradients'] = {};
  if (run.dout) {
    const douts = [
      tensor(run.dout, first.dtype, device),
      ...forward.outputs.slice(1).map(() => null),
    ];
    const backward = await native.runOp(name, inputs, options, { ...mode, douts });
    for (const [i, input] of names.entries())
      gradients[input] = ((await backward.gradients[i]?.read()) as Float32Array) ?? null;
    expect(await backward.outputs[0]!.read(), 'the same output with a tape').toEqual(outputs[0]);
  }
  return { output: outputs[0]!, shape: first.shape, dtype: first.dtype, outputs, gradients };
}

export function expectClose(
  got: ArrayLike<number>,
  want: ArrayLike<number>,
  { relative, absolute }: Tolerance,
  what: string,
): void {
  expect(got.length, `${what}: length`).toBe(want.length);
  let largest = 0;
  for (let i = 0; i < want.length; i++) largest = Math.max(largest, Math.abs(want[i]!));
  let worst = 0;
  let message = '';
  for (let i = 0; i < want.length; i++) {
    const limit = relative * Math.abs(want[i]!) + absolute * largest;
    const error = Math.abs(got[i]! - want[i]!);
    const excess = error <= limit ? 0 : limit > 0 ? error / limit : Number.POSITIVE_INFINITY;
    if (excess > worst || Number.isNaN(error)) {
      worst = Number.isNaN(error) ? Number.POSITIVE_INFINITY : excess;
      message = `${what}[${i}]: got ${got[i]}, want ${want[i]}, ${excess.toFixed(1)} times the tolerance`;
    }
  }
  expect(worst, message).toBe(0);
}

/**
 * Declares the tests that every op has: forward against the float64 oracle in f32 and bf16, gradient
 * against central differences of the oracle, repeatability for runs and thread counts.
 */
export function testOp(name: string, spec: OpSpec): void {
  const cases = spec.cases(new Random(testSeed).fork(name));
  const dtypes = spec.activations.length ? (['f32', 'bf16'] as const) : (['f32'] as const);

  describe(`${name} (seed ${testSeed})`, () => {
    for (const original of cases)
      for (const dtype of dtypes)
        for (const device of testDevices)
          test(`${original.name}, ${dtype}${onDevice(device)}`, async () => {
            const call =
              dtype === 'bf16'
                ? rounded(original, [...spec.activations, ...(spec.casts ?? [])])
                : original;
            await check(name, spec, call, dtype, device);
          });
  });
}

export function rounded(call: OpCase, names: readonly string[]): OpCase {
  const inputs = { ...call.inputs };
  for (const name of names)
    if (inputs[name]) inputs[name] = ndarray(inputs[name].shape, inputs[name].data.map(toBf16));
  return { ...call, inputs };
}

async function check(
  name: string,
  spec: OpSpec,
  call: OpCase,
  dtype: 'f32' | 'bf16',
  device: string,
) {
  const random = new Random(testSeed).fork(name, call.name, dtype);
  const options = (call.options ?? {}) as Record<string, never>;
  const context = { training: call.training ?? false, base: call.inputs };
  const want = spec.oracle(call.inputs, options, context);
  const outputType = spec.loss || spec.f32Output ? 'f32' : dtype;
  // A loss gets a gradient other than 1, as a normaliser would give it.
  const dout = spec.loss ? ndarray([], [0.375]) : normals(random, want.shape);
  if (outputType === 'bf16') dout.data.set(dout.data.map(toBf16));
  const got = await runOp(name, call, { dtype, spec, dout, device });
  expect(got.shape).toEqual([...want.shape]);
  expect(got.dtype).toBe(outputType);
  const tolerance =
    (outputType === 'bf16' && spec.bf16Output) || tolerances[spec.loss ? 'sum' : outputType];
  expectClose(got.output, want.data, tolerance, 'output');

  for (const input of spec.differentiable) {
    if (!call.inputs[input]) continue;
    const gradient = got.gradients[input];
    expect(gradient, `gradient of ${input}`).toBeTruthy();
    checkGradient(spec, call, input, gradient!, dout, random, dtype);
  }
  for (const [input, gradient] of Object.entries(got.gradients))
    if (!spec.differentiable.includes(input)) expect(gradient, `gradient of ${input}`).toBeNull();

  const run = () => runOp(name, call, { dtype, spec, dout, device });
  expect(await run(), 'the same bits on a second run').toEqual(got);
  if (device !== 'cpu') {
    await otherwiseEmulated(async () =>
      expect(await run(), 'the same bits in another order, from other garbage').toEqual(got),
    );
  } else if (!call.dependsOnThreads) {
    native.setNumThreads(3);
    const threaded = await run().finally(() => native.setNumThreads(1));
    expect(threaded, 'the same bits with three threads').toEqual(got);
  }
}

/**
 * Under emulation runs `body` with blocks and threads in another order and other values in fresh memory:
 * a result that changes depends on what a GPU does not promise.
 */
export async function otherwiseEmulated(body: () => Promise<void>): Promise<void> {
  if (!native.setEmulation) return;
  native.setEmulation(testSeed, 0x5a);
  await body().finally(() => native.setEmulation?.(0, 0xff));
}

// <gradient, u> against (L(x + h u) - L(x - h u)) / 2h with L = <dout, oracle>, u random.
function checkGradient(
  spec: OpSpec,
  call: OpCase,
  input: string,
  gradient: Float32Array,
  dout: NdArray,
  random: Random,
  dtype: 'f32' | 'bf16',
): void {
  const options = (call.options ?? {}) as Record<string, never>;
  const context = { training: call.training ?? false, base: call.inputs };
  const x = call.inputs[input]!;
  expect(gradient.length).toBe(x.data.length);
  const inBf16 = dtype === 'bf16' && spec.activations.includes(input);
  const { relative } =
    dtype === 'bf16' && spec.roundedGradients?.includes(input)
      ? tolerances.gradientRounded
      : inBf16
        ? tolerances.gradientBf16
        : tolerances.gradient;
  const size = Math.hypot(...Array.from(x.data).slice(0, 4096)) / Math.sqrt(x.data.length || 1);
  const h = 1e-6 * Math.max(1, size);
  const objective = (direction: Float64Array, step: number) => {
    const moved = ndarray(
      x.shape,
      x.data.map((v, i) => v + step * direction[i]!),
    );
    const y = spec.oracle({ ...call.inputs, [input]: moved }, options, context);
    return y.data.reduce((sum, v, i) => sum + v * dout.data[i]!, 0);
  };
  const norm = Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0));
  for (let trial = 0; trial < 3; trial++) {
    const direction = Float64Array.from(x.data, () => random.normal());
    const numeric = (objective(direction, h) - objective(direction, -h)) / (2 * h);
    const ours = gradient.reduce((sum, g, i) => sum + g * direction[i]!, 0);
    const limit = relative * Math.max(Math.abs(numeric), norm) + 1e-9;
    expect(
      Math.abs(ours - numeric),
      `gradient of ${input} along direction ${trial}: ours ${ours}, numeric ${numeric}`,
    ).toBeLessThanOrEqual(limit);
  }
}
