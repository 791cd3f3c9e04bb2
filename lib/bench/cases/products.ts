/** Matrix products of two-stage heads and transformers, forward and with their gradients. */
import type { BenchCase, BenchContext } from '../case.js';
import { expectNear, sizeOf, spread } from '../case.js';
import { RepeatedNoise } from '../data.js';
import { opCase } from '../op-case.js';

/** Rows, inputs, outputs. */
const products: readonly [name: string, m: number, k: number, n: number][] = [
  ['roi.fc1', 512, 12544, 1024],
  ['roi.fc2', 512, 1024, 1024],
  ['encoder.value', 22223, 256, 256],
  ['encoder.ffn1', 22223, 256, 2048],
  ['encoder.ffn2', 22223, 2048, 256],
];

export const productCases: readonly BenchCase[] = products.flatMap(([name, m, k, n]) =>
  (['forward', 'forward+backward'] as const).map((pass): BenchCase => {
    const training = pass === 'forward+backward';
    const passes = training ? 2 : 1;
    return {
      name: `linear/${name}/${pass}`,
      shape: `${m}×${k} · ${k}×${n}`,
      dtypes: ['f32', 'bf16'],
      bytes: (dtype) => passes * ((m * k + m * n) * sizeOf(dtype) + k * n * 4),
      flops: (training ? 3 : 1) * 2 * m * k * n,
      peer: { op: 'linear', m, k, n, backward: training },
      prepare: (context) => prepare([m, k, n], context, training),
    };
  }),
);

async function prepare(
  [m, k, n]: readonly [number, number, number],
  context: BenchContext,
  training: boolean,
) {
  const x = new RepeatedNoise(1, 1);
  const weight = new RepeatedNoise(1 / Math.sqrt(k), 2);
  const dy = new RepeatedNoise(1 / Math.sqrt(m), 3);
  const sum = (count: number, term: (i: number) => number) => {
    let total = 0;
    for (let i = 0; i < count; i++) total += term(i);
    return total;
  };
  /** Of row i / width and column i % width of a result. */
  const compare = async (
    what: string,
    tensor: { read(): Promise<unknown> },
    width: number,
    value: (row: number, column: number) => number,
    relative: number,
  ) => {
    const got = (await tensor.read()) as Float32Array;
    const want = spread(got.length, 32).map(
      (i) => [i, value(Math.floor(i / width), i % width)] as const,
    );
    expectNear(what, got, want, relative);
  };
  // Rounding of the results; that of sums is far below it.
  const relative = context.dtype === 'bf16' ? 8e-3 : 1e-4;
  return opCase(
    {
      op: 'linear',
      inputs: [x.tensor([m, k], context), weight.tensor([n, k], { ...context, dtype: 'f32' })],
      training,
      ...(training ? { douts: [dy.tensor([m, n], context)] } : {}),
      async check([y], [dx, dweight]) {
        const product = (row: number, column: number) =>
          sum(k, (j) => x.at(row * k + j) * weight.at(column * k + j));
        await compare('linear', y!, n, product, relative);
        if (!training) return;
        const ofX = (row: number, column: number) =>
          sum(n, (j) => dy.at(row * n + j) * weight.at(j * k + column));
        await compare('linear dx', dx!, k, ofX, relative);
        const ofWeight = (row: number, column: number) =>
          sum(m, (j) => dy.at(j * n + row) * x.at(j * k + column));
        await compare('linear dweight', dweight!, k, ofWeight, 1e-4);
      },
    },
    context,
  );
}
