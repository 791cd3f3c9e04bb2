/** Norms, pools and element-wise ops on the maps of an 800 × 1344 step. */
import type { BenchCase } from '../case.js';
import { expectNear, sizeOf, spread } from '../case.js';
import { numelOf, RepeatedNoise, tensorOf } from '../data.js';
import { opCase } from '../op-case.js';

const map = [2, 100, 168, 256];
const numel = numelOf(map);

function norm(op: 'groupNorm' | 'batchNorm', backward: boolean): BenchCase {
  const name = op === 'groupNorm' ? 'group-norm' : 'batch-norm';
  const groups = op === 'groupNorm' ? 32 : 256;
  const per = 256 / groups;
  return {
    name: `${name}/${backward ? 'forward+backward' : 'forward'}`,
    shape: map.join('×'),
    dtypes: ['f32', 'bf16'],
    // Forward reads twice (statistics need all of a group) and writes; backward twice two, and writes.
    bytes: (dtype) => numel * sizeOf(dtype) * (backward ? 8 : 3),
    peer: { op: name, backward },
    async prepare(context) {
      const parameter = (value: number) =>
        tensorOf(new Float32Array(256).fill(value), [256], { ...context, dtype: 'f32' });
      const values = new RepeatedNoise(1);
      const inputs = [values.tensor(map, context), parameter(1), parameter(0)];
      if (op === 'batchNorm') inputs.push(parameter(0), parameter(1));
      const dout = backward ? [new RepeatedNoise(1, 9).tensor(map, context)] : [];
      return opCase(
        {
          op,
          inputs,
          options: op === 'groupNorm' ? { groups } : {},
          training: true,
          ...(backward ? { douts: op === 'batchNorm' ? [...dout, null, null] : dout } : {}),
          async check([y]) {
            const out = (await y!.read()) as Float32Array;
            const images = op === 'groupNorm' ? 1 : 2; // statistics of one image, or of all
            const last = (images * numel) / 2;
            let [sum, square, count] = [0, 0, 0];
            for (let i = 0; i < last; i += 256)
              for (let c = 0; c < per; c++, count++) {
                sum += values.at(i + c);
                square += values.at(i + c) ** 2;
              }
            const mean = sum / count;
            const deviation = Math.sqrt(square / count - mean ** 2 + 1e-5);
            const places = spread(last / 256, 50).map((i) => i * 256);
            expectNear(
              op,
              out,
              places.map((i) => [i, (values.at(i) - mean) / deviation] as const),
              context.dtype === 'bf16' ? 8e-3 : 1e-4,
            );
          },
        },
        context,
      );
    },
  };
}

const relu: BenchCase = {
  name: 'relu',
  shape: map.join('×'),
  dtypes: ['f32', 'bf16'],
  bytes: (dtype) => 2 * numel * sizeOf(dtype),
  peer: { op: 'relu' },
  async prepare(context) {
    const values = new RepeatedNoise(1);
    return opCase(
      {
        op: 'relu',
        inputs: [values.tensor(map, context)],
        async check([y]) {
          const out = (await y!.read()) as Float32Array;
          expectNear(
            'relu',
            out,
            spread(numel).map((i) => [i, Math.max(0, values.at(i))] as const),
            0,
          );
        },
      },
      context,
    );
  },
};

const upsampleAdd: BenchCase = {
  name: 'upsample-add',
  shape: `${map.join('×')} + 2×50×84×256`,
  dtypes: ['f32', 'bf16'],
  bytes: (dtype) => 2.25 * numel * sizeOf(dtype),
  peer: { op: 'upsample-add' },
  async prepare(context) {
    const [x, top] = [new RepeatedNoise(1), new RepeatedNoise(1, 2)];
    return opCase(
      {
        op: 'upsampleAdd',
        inputs: [x.tensor(map, context), top.tensor([2, 50, 84, 256], context)],
        async check([y]) {
          const out = (await y!.read()) as Float32Array;
          const want = spread(numel).map((i) => {
            const [channel, column] = [i % 256, Math.floor(i / 256) % 168];
            const row = Math.floor(i / 256 / 168); // of both images in a row
            return [
              i,
              x.at(i) + top.at(((row >> 1) * 84 + (column >> 1)) * 256 + channel),
            ] as const;
          });
          expectNear('upsampleAdd', out, want, context.dtype === 'bf16' ? 8e-3 : 1e-6);
        },
      },
      context,
    );
  },
};

const poolShape = { from: [2, 400, 672, 64], to: [2, 200, 336, 64] };

/** Places of x that window (p, q) of image n sees, in the order in which the first largest wins. */
function windowOf(n: number, p: number, q: number, channel: number): number[] {
  const places: number[] = [];
  for (let row = Math.max(0, 2 * p - 1); row <= 2 * p + 1; row++)
    for (let column = Math.max(0, 2 * q - 1); column <= 2 * q + 1; column++)
      places.push(((n * 400 + row) * 672 + column) * 64 + channel);
  return places;
}

/** Axes of place i in [n, height, width, 64]. */
const axesOf = (i: number, [, height, width]: readonly number[]) => {
  const pixel = Math.floor(i / 64);
  const row = Math.floor(pixel / width!);
  return { n: Math.floor(row / height!), p: row % height!, q: pixel % width!, channel: i % 64 };
};

const pool = (training: boolean): BenchCase => ({
  name: `max-pool/${training ? 'forward+backward' : 'forward'}`,
  shape: '2×400×672×64, 3×3 of stride 2',
  dtypes: ['f32', 'bf16'],
  bytes: (dtype) => (training ? 2 : 1) * 2 * 400 * 672 * 64 * 1.25 * sizeOf(dtype),
  peer: { op: 'max-pool', backward: training },
  async prepare(context) {
    const [x, dy] = [new RepeatedNoise(1), new RepeatedNoise(1, 2)];
    const winner = (places: readonly number[]) =>
      places.reduce((best, place) => (x.at(place) > x.at(best) ? place : best));
    return opCase(
      {
        op: 'maxPool2d',
        inputs: [x.tensor(poolShape.from, context)],
        options: { kernel: 3, stride: 2, padding: 1 },
        training,
        ...(training ? { douts: [dy.tensor(poolShape.to, context)] } : {}),
        async check([y], [dx]) {
          const out = (await y!.read()) as Float32Array;
          const most = (i: number) => {
            const { n, p, q, channel } = axesOf(i, poolShape.to);
            return x.at(winner(windowOf(n, p, q, channel)));
          };
          const want = spread(out.length).map((i) => [i, most(i)] as const);
          expectNear('maxPool2d', out, want, 0);
          if (!training) return;
          const slopes = (await dx!.read()) as Float32Array;
          // Of the windows that see place i, those that it wins.
          const slope = (i: number) => {
            const { n, p: row, q: column, channel } = axesOf(i, poolShape.from);
            let sum = 0;
            for (let p = row >> 1; p <= Math.min(199, (row + 1) >> 1); p++)
              for (let q = column >> 1; q <= Math.min(335, (column + 1) >> 1); q++)
                if (winner(windowOf(n, p, q, channel)) === i)
                  sum += dy.at(((n * 200 + p) * 336 + q) * 64 + channel);
            return sum;
          };
          const wanted = spread(slopes.length, 400).map((i) => [i, slope(i)] as const);
          expectNear('maxPool2d dx', slopes, wanted, context.dtype === 'bf16' ? 8e-3 : 1e-6);
        },
      },
      context,
    );
  },
});

export const mapCases: readonly BenchCase[] = [
  norm('groupNorm', false),
  norm('groupNorm', true),
  norm('batchNorm', false),
  norm('batchNorm', true),
  relu,
  upsampleAdd,
  pool(false),
  pool(true),
];
