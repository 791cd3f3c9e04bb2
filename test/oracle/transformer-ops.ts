import { type NdArray, ndarray } from './array.js';

/** a + b, where b has the last axes of a. */
export const addLoop = ({ a, b }: Record<string, NdArray>): NdArray =>
  ndarray(
    a!.shape,
    a!.data.map((v, i) => v + b!.data[i % b!.data.length]!),
  );

/** Ba et al. 2016, over the last axis of x (+ residual). */
export function layerNormLoop(
  { x, gamma, beta, residual }: Record<string, NdArray>,
  options: { eps?: number } = {},
): NdArray {
  const { eps = 1e-5 } = options;
  const channels = x!.shape.at(-1)!;
  const out = new Float64Array(x!.data.length);
  for (let first = 0; first < out.length; first += channels) {
    const row = Array.from(
      x!.data.subarray(first, first + channels),
      (v, c) => v + (residual?.data[first + c] ?? 0),
    );
    const mean = row.reduce((sum, v) => sum + v, 0) / channels;
    const variance = row.reduce((sum, v) => sum + (v - mean) ** 2, 0) / channels;
    row.forEach((v, c) => {
      out[first + c] = ((v - mean) / Math.sqrt(variance + eps)) * gamma!.data[c]! + beta!.data[c]!;
    });
  }
  return ndarray(x!.shape, out);
}

const density = (x: number) => Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);

/** P(X > x) of the normal distribution for x >= 0: a series, for large x a continued fraction. */
function upperTail(x: number): number {
  if (x < 3) {
    let term = x;
    let sum = x;
    for (let n = 1; n < 60; n++) sum += term *= (x * x) / (2 * n + 1);
    return 0.5 - density(x) * sum;
  }
  let fraction = x;
  for (let n = 100; n > 0; n--) fraction = x + n / fraction;
  return density(x) / fraction;
}

/** Hendrycks and Gimpel 2016: x Phi(x). */
export const geluLoop = ({ x }: Record<string, NdArray>): NdArray =>
  ndarray(
    x!.shape,
    x!.data.map((v) => (v < 0 ? v * upperTail(-v) : v * (1 - upperTail(v)))),
  );

/** Block `counter` of Philox4x32-10 (Salmon et al. 2011, section 3.3), seeds and streams of 64 bits. */
export function philoxBlock(seed: number, stream: number, counter: number): number[] {
  const low = (v: bigint) => v & 0xffffffffn;
  const words = (v: number) => {
    const bits = BigInt.asUintN(64, BigInt(v));
    return [low(bits), bits >> 32n] as [bigint, bigint];
  };
  let c = [...words(counter), ...words(stream)] as [bigint, bigint, bigint, bigint];
  let [k0, k1] = words(seed);
  for (let round = 0; round < 10; round++) {
    const p0 = 0xd2511f53n * c[0];
    const p1 = 0xcd9e8d57n * c[2];
    c = [(p1 >> 32n) ^ c[1] ^ k0, low(p1), (p0 >> 32n) ^ c[3] ^ k1, low(p0)];
    k0 = low(k0 + 0x9e3779b9n);
    k1 = low(k1 + 0xbb67ae85n);
  }
  return c.map(Number);
}

export interface DropoutOptions {
  p?: number;
  seed?: number;
  stream?: number;
}

/** Number i of x is dropped where word floor(i / run) of the stream is below p 2^32. */
function dropped(x: NdArray, options: DropoutOptions, run: number): NdArray {
  const { seed = 0, stream = 0 } = options;
  const p = Math.fround(options.p ?? 0.5);
  const draws = Array.from({ length: Math.ceil(x.data.length / run) }, (_, i) =>
    i % 4 === 0 ? philoxBlock(seed, stream, i / 4) : [],
  ).flat();
  return ndarray(
    x.shape,
    x.data.map((v, i) => (draws[Math.floor(i / run)]! < p * 2 ** 32 ? 0 : v / (1 - p))),
  );
}

export const dropoutLoop = ({ x }: Record<string, NdArray>, options: DropoutOptions = {}) =>
  dropped(x!, options, 1);

/** The same for whole samples of the first axis. */
export const dropPathLoop = ({ x }: Record<string, NdArray>, options: DropoutOptions = {}) =>
  dropped(x!, options, x!.shape[0] ? x!.data.length / x!.shape[0] : 1);
