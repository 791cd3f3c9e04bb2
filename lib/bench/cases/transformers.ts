/** Attention, norms and activations at the sizes of a DINO step on two images of 800 × 1344, R50 and Swin-L. */
import { native } from '../../native.js';
import { type BenchCase, expectNear, sizeOf, spread } from '../case.js';
import { numelOf, RepeatedNoise, tensorOf } from '../data.js';
import { opCase } from '../op-case.js';
import { attentionTruth } from './attention-truth.js';

interface AttentionSizes {
  name: string;
  /** Images, or windows of all images. */
  batches: number;
  rows: number;
  heads: number;
  /** First the noisy queries, in groups of so many, which see no other; the others see none of them. */
  groups?: { count: number; size: number };
  /** With a bias of the heads. */
  biased?: true;
}

const depth = 32;

function attention(sizes: AttentionSizes, backward: boolean): BenchCase {
  const { name, batches, rows, heads, groups, biased } = sizes;
  const channels = heads * depth;
  const numbers = batches * rows * channels;
  const flops = 4 * batches * rows ** 2 * channels;
  return {
    name: `attention/${name}/${backward ? 'forward+backward' : 'forward'}`,
    shape: `${batches} of ${rows} rows, ${heads} heads of ${depth}${groups ? ', masked' : ''}${biased ? ', biased' : ''}`,
    dtypes: ['f32', 'bf16'],
    // Three read, one written; backward that is read again with its gradient, and three are written.
    bytes: (dtype) => numbers * sizeOf(dtype) * (backward ? 12 : 4),
    flops: backward ? 3.5 * flops : flops, // the scores again: five products instead of two
    peer: {
      op: 'attention',
      ...{ batches, rows, heads, depth, backward, biased: biased ?? false },
      ...(groups ? { groups: [groups.count, groups.size] } : {}),
    },
    async prepare(context) {
      const f32 = { ...context, dtype: 'f32' as const };
      const [packed, values, dout, bias] = [3, 1, 1, 2].map((k, i) => new RepeatedNoise(k, i + 1));
      const noisy = groups ? groups.count * groups.size : 0;
      const hidden = (row: number, column: number) =>
        column < noisy &&
        (row >= noisy || Math.floor(row / groups!.size) !== Math.floor(column / groups!.size));
      const inputs = [
        packed!.tensor([batches, rows, 2 * channels], context),
        values!.tensor([batches, rows, channels], context),
      ];
      if (biased) inputs.push(bias!.tensor([1, heads, rows, rows], f32));
      if (groups) {
        const mask = Uint8Array.from({ length: rows ** 2 }, (_, i) =>
          Number(hidden(Math.floor(i / rows), i % rows)),
        );
        inputs.push(native.createTensor(mask, [1, rows, rows], 'u8', context.device));
      }
      return opCase(
        {
          op: 'packedAttention',
          inputs,
          options: { heads, hasValues: true, hasBias: biased ?? false, hasMask: Boolean(groups) },
          ...(backward ? { douts: [dout!.tensor([batches, rows, channels], context)] } : {}),
          async check([y], [dpacked, dvalues]) {
            const [batch, head] = [batches - 1, heads - 1];
            const at = (noise: RepeatedNoise, width: number, first: number) => {
              const start = batch * rows * width + first + head * depth;
              return (row: number, d: number) => noise.at(start + row * width + d);
            };
            const truth = attentionTruth({
              ...{ rows, depth },
              q: at(packed!, 2 * channels, 0),
              k: at(packed!, 2 * channels, channels),
              v: at(values!, channels, 0),
              dout: at(dout!, channels, 0),
              bias: (row, column) =>
                hidden(row, column)
                  ? -Infinity
                  : biased
                    ? bias!.at((head * rows + row) * rows + column)
                    : 0,
            });
            const compare = async (
              what: string,
              tensor: { read(): Promise<unknown> },
              [width, first]: [number, number],
              want: Float64Array,
              relative: number,
            ) => {
              const all = (await tensor.read()) as Float32Array;
              const start = batch * rows * width + first + head * depth;
              const got = Float32Array.from(
                want,
                (_, i) => all[start + Math.floor(i / depth) * width + (i % depth)]!,
              );
              const places = spread(want.length, 400).map((i) => [i, want[i]!] as const);
              expectNear(`attention ${what}`, got, places, relative);
            };
            const relative = context.dtype === 'bf16' ? 1e-2 : 1e-4;
            await compare('output', y!, [channels, 0], truth.out(), relative);
            if (!backward) return;
            // Products of three numbers of 8 bits.
            const slack = 2 * relative;
            await compare('dq', dpacked!, [2 * channels, 0], truth.dq(), slack);
            await compare('dk', dpacked!, [2 * channels, channels], truth.dk(), slack);
            await compare('dv', dvalues!, [channels, 0], truth.dv(), slack);
          },
        },
        context,
      );
    },
  };
}

/** Rows of tokens with what was added to them, and the inner activations of Swin-L's first stage. */
const tokens = [2, 22_223, 256];
const inner = [2, 67_200, 768];

function layerNorm(backward: boolean): BenchCase {
  const [numbers, width] = [numelOf(tokens), tokens.at(-1)!];
  return {
    name: `layer-norm/${backward ? 'forward+backward' : 'forward'}`,
    shape: `${tokens.join('×')}, of a sum`,
    dtypes: ['f32', 'bf16'],
    // Two read, one written; backward the gradient and what was normalised are read, one is written.
    bytes: (dtype) => numbers * sizeOf(dtype) * (backward ? 6 : 3),
    peer: { op: 'layer-norm', shape: tokens, backward },
    async prepare(context) {
      const [x, residual, dout] = [1, 2, 3].map((seed) => new RepeatedNoise(1, seed));
      const parameter = (value: number) =>
        tensorOf(new Float32Array(width).fill(value), [width], { ...context, dtype: 'f32' });
      const rowOf = (noises: readonly RepeatedNoise[], row: number) =>
        Float64Array.from({ length: width }, (_, c) =>
          noises.reduce((sum, noise) => sum + noise.at(row * width + c), 0),
        );
      const mean = (values: Float64Array) => values.reduce((sum, v) => sum + v, 0) / width;
      const normalised = (row: number) => {
        const values = rowOf([x!, residual!], row);
        const centre = mean(values);
        const spreadOf = Math.sqrt(mean(values.map((v) => (v - centre) ** 2)) + 1e-5);
        return { values: values.map((v) => (v - centre) / spreadOf), spreadOf };
      };
      const rows = spread(numbers / width, 40);
      const expectRows = (
        what: string,
        got: Float32Array,
        want: (row: number) => Float64Array,
        relative: number,
      ) => {
        const places = rows.flatMap((row) =>
          Array.from(want(row), (value, c) => [row * width + c, value] as const),
        );
        expectNear(what, got, places, relative);
      };
      return opCase(
        {
          op: 'layerNorm',
          inputs: [
            x!.tensor(tokens, context),
            parameter(1),
            parameter(0),
            residual!.tensor(tokens, context),
          ],
          training: backward,
          ...(backward ? { douts: [dout!.tensor(tokens, context)] } : {}),
          async check([y], [dx]) {
            const relative = context.dtype === 'bf16' ? 8e-3 : 1e-4;
            const out = (await y!.read()) as Float32Array;
            expectRows('layerNorm', out, (row) => normalised(row).values, relative);
            if (!backward) return;
            const slope = (row: number) => {
              const { values, spreadOf } = normalised(row);
              const g = rowOf([dout!], row);
              const along = mean(g.map((v, c) => v * values[c]!));
              const centre = mean(g);
              return g.map((v, c) => (v - centre - values[c]! * along) / spreadOf);
            };
            expectRows('layerNorm dx', (await dx!.read()) as Float32Array, slope, relative);
          },
        },
        context,
      );
    },
  };
}

/** The normal distribution, by a series around 0: for |x| of a few. */
function normal(x: number): number {
  let [term, sum] = [x, x];
  for (let k = 1; Math.abs(term) > 1e-17; k++) {
    term *= (-x * x) / (2 * k);
    sum += term / (2 * k + 1);
  }
  return 0.5 + sum / Math.sqrt(2 * Math.PI);
}

function gelu(backward: boolean): BenchCase {
  const numbers = numelOf(inner);
  return {
    name: `gelu/${backward ? 'forward+backward' : 'forward'}`,
    shape: inner.join('×'),
    dtypes: ['f32', 'bf16'],
    bytes: (dtype) => numbers * sizeOf(dtype) * (backward ? 5 : 2),
    peer: { op: 'gelu', shape: inner, backward },
    async prepare(context) {
      const [x, dout] = [new RepeatedNoise(4), new RepeatedNoise(1, 2)];
      return opCase(
        {
          op: 'gelu',
          inputs: [x.tensor(inner, context)],
          ...(backward ? { douts: [dout.tensor(inner, context)] } : {}),
          async check([y], [dx]) {
            const relative = context.dtype === 'bf16' ? 8e-3 : 1e-5;
            const places = (value: (v: number, i: number) => number) =>
              spread(numbers).map((i) => [i, value(x.at(i), i)] as const);
            const out = (await y!.read()) as Float32Array;
            expectNear(
              'gelu',
              out,
              places((v) => v * normal(v)),
              relative,
            );
            if (!backward) return;
            const density = (v: number) => Math.exp((-v * v) / 2) / Math.sqrt(2 * Math.PI);
            const slope = (v: number, i: number) => dout.at(i) * (normal(v) + v * density(v));
            expectNear('gelu dx', (await dx!.read()) as Float32Array, places(slope), relative);
          },
        },
        context,
      );
    },
  };
}

/** Whole windows of 12×12 over two images' maps. */
const windows = (stage: number): AttentionSizes => {
  const side = (pixels: number) => Math.ceil(Math.ceil(pixels / 2 ** (stage + 1)) / 12);
  return {
    name: `window.stage${stage}`,
    batches: 2 * side(800) * side(1344),
    ...{ rows: 144, heads: 6 * 2 ** (stage - 1), biased: true },
  };
};

const attentions: readonly AttentionSizes[] = [
  // Objects and noise of seven objects a picture.
  { name: 'decoder', batches: 2, rows: 1096, heads: 8, groups: { count: 14, size: 14 } },
  ...[1, 2, 3, 4].map(windows),
];

export const transformerCases: readonly BenchCase[] = [
  ...attentions.flatMap((sizes) => [attention(sizes, false), attention(sizes, true)]),
  ...[layerNorm(false), layerNorm(true)],
  ...[gelu(false), gelu(true)],
];
