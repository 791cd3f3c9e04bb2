/** Deformable attention at the sizes of a DINO step on an image of 800 × 1344. */
import { type BenchCase, expectNear, sizeOf } from '../case.js';
import { noise, RepeatedNoise, tensorOf } from '../data.js';
import { opCase } from '../op-case.js';

const maps = [100, 168, 50, 84, 25, 42, 13, 21] as const;
const [heads, depth, points] = [8, 32, 4];
const channels = heads * depth;
const samples = heads * 4 * points; // of a query
const levels = [0, 2, 4, 6].map((l) => [maps[l]!, maps[l + 1]!] as const);
const cells = levels.reduce((sum, [h, w]) => sum + h * w, 0);
const images = 2;

/** Centres of all cells, as shares of the image. */
function centres(): number[] {
  const out: number[] = [];
  for (const [h, w] of levels)
    for (let y = 0; y < h; y++) for (let x = 0; x < w; x++) out.push((x + 0.5) / w, (y + 0.5) / h);
  return out;
}

function attention(part: 'encoder' | 'decoder', backward: boolean): BenchCase {
  const queries = part === 'encoder' ? cells : 1100;
  const coordinates = part === 'encoder' ? 2 : 4;
  const own = images * queries;
  return {
    name: `deformable-attention-${part}/${backward ? 'forward+backward' : 'forward'}`,
    shape: `${images} × ${queries} queries, ${cells} cells, ${heads} heads of ${depth}`,
    dtypes: ['f32', 'bf16'],
    // Values, offsets, logits and the output once; backward these again, and their gradients.
    bytes: (dtype) =>
      (images * cells * channels + own * (3 * samples + channels)) *
      sizeOf(dtype) *
      (backward ? 3 : 1),
    // By grid_sample, a level after the other: PyTorch has no kernel of its own.
    peer: {
      op: 'deformable-attention',
      ...{ images, queries, heads, depth, points, coordinates, maps, backward },
    },
    async prepare(context) {
      const plain = { ...context, dtype: 'f32' as const };
      const sides = noise(4 * own, 0.25).map((v) => v + 0.5);
      const references =
        part === 'encoder' ? Float32Array.from([...centres(), ...centres()]) : sides;
      const ones = (shape: number[]) =>
        tensorOf(new Float32Array(shape.reduce((n, s) => n * s, 1)).fill(1), shape, context);
      const shape = [images, queries, channels];
      return opCase(
        {
          op: 'deformableAttention',
          inputs: [
            ones([images, cells, channels]),
            new RepeatedNoise(4).tensor([images, queries, 2 * samples], context),
            new RepeatedNoise(2, 3).tensor([images, queries, samples], context),
            tensorOf(references, [images, queries, coordinates], plain),
            tensorOf(new Float32Array(images * 8).fill(1), [images, 4, 2], plain),
          ],
          options: { maps: [...maps], heads },
          ...(backward ? { douts: [ones(shape)] } : {}),
          async check([y], [dvalue, , dlogits]) {
            const out = (await y!.read()) as Float32Array;
            // Where all samples are inside, ones give a one, and no weight is better than another.
            const query = part === 'encoder' ? 50 * 168 + 84 : 7;
            const relative = context.dtype === 'bf16' ? 1e-2 : 1e-4;
            const middle = [0, 100, 255].map((c) => [query * channels + c, 1] as const);
            if (part === 'encoder') expectNear('deformableAttention', out, middle, relative);
            if (!backward) return;
            // What the cells get is what the queries read.
            const sum = (values: Float32Array) => values.reduce((total, v) => total + v, 0);
            const given = sum((await dvalue!.read()) as Float32Array);
            expectNear('deformableAttention dvalue', [given / sum(out)], [[0, 1]], relative);
            const slopes = (await dlogits!.read()) as Float32Array;
            const worst = slopes
              .subarray(query * samples, (query + 1) * samples)
              .reduce((most, v) => Math.max(most, Math.abs(v)), 0);
            if (part === 'encoder')
              expectNear('deformableAttention dlogits', [1 + worst], [[0, 1]], relative);
          },
        },
        context,
      );
    },
  };
}

export const deformableAttentionCases: readonly BenchCase[] = [
  attention('encoder', false),
  attention('encoder', true),
  attention('decoder', false),
  attention('decoder', true),
];
