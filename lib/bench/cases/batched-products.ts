/** Batched products at the sizes of Sparse R-CNN's dynamic convolutions: 100 proposals of two images. */
import { type BenchCase, expectNear, sizeOf, spread } from '../case.js';
import { RepeatedNoise } from '../data.js';
import { opCase } from '../op-case.js';

const batches = 200;
/** Rows, terms of a sum, columns of a product. */
const products: readonly [name: string, m: number, k: number, n: number][] = [
  ['dynamic.in', 49, 256, 64],
  ['dynamic.out', 49, 64, 256],
];

function batchedProduct(name: string, [m, k, n]: number[], backward: boolean): BenchCase {
  const passes = backward ? 3 : 1;
  return {
    name: `batched-matmul/${name}/${backward ? 'forward+backward' : 'forward'}`,
    shape: `${batches} of ${m}×${k} · ${k}×${n}`,
    dtypes: ['f32', 'bf16'],
    bytes: (dtype) => passes * batches * (m! * k! + k! * n! + m! * n!) * sizeOf(dtype),
    flops: passes * 2 * batches * m! * k! * n!,
    peer: { op: 'batched-matmul', batches, m: m!, k: k!, n: n!, backward },
    async prepare(context) {
      const [a, b, dy] = [1, 2, 3].map((seed) => new RepeatedNoise(1, seed));
      const relative = context.dtype === 'bf16' ? 8e-3 : 1e-4;
      /** Element i of a result of `width` columns, `height` rows: a sum of `terms`. */
      const compare = async (
        what: string,
        tensor: { read(): Promise<unknown> },
        [height, width, terms]: [number, number, number],
        term: (batch: number, row: number, column: number, j: number) => number,
      ) => {
        const got = (await tensor.read()) as Float32Array;
        const want = spread(got.length, 32).map((i) => {
          const row = Math.floor(i / width);
          let sum = 0;
          for (let j = 0; j < terms; j++)
            sum += term(Math.floor(row / height), row % height, i % width, j);
          return [i, sum] as const;
        });
        expectNear(what, got, want, relative);
      };
      const left = (i: number, row: number, column: number) => a!.at((i * m! + row) * k! + column);
      const right = (i: number, row: number, column: number) => b!.at((i * k! + row) * n! + column);
      const given = (i: number, row: number, column: number) =>
        dy!.at((i * m! + row) * n! + column);
      return opCase(
        {
          op: 'batchedMatmul',
          inputs: [a!.tensor([batches, m!, k!], context), b!.tensor([batches, k!, n!], context)],
          training: backward,
          ...(backward ? { douts: [dy!.tensor([batches, m!, n!], context)] } : {}),
          async check([y], [da, db]) {
            await compare(
              'batchedMatmul',
              y!,
              [m!, n!, k!],
              (i, r, c, j) => left(i, r, j) * right(i, j, c),
            );
            if (!backward) return;
            await compare(
              'batchedMatmul da',
              da!,
              [m!, k!, n!],
              (i, r, c, j) => given(i, r, j) * right(i, c, j),
            );
            await compare(
              'batchedMatmul db',
              db!,
              [k!, n!, m!],
              (i, r, c, j) => left(i, j, r) * given(i, j, c),
            );
          },
        },
        context,
      );
    },
  };
}

export const batchedProductCases: readonly BenchCase[] = products.flatMap(([name, ...sizes]) => [
  batchedProduct(name, sizes, false),
  batchedProduct(name, sizes, true),
]);
