import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { type NdArray, ndarray, numel } from '../../oracle/array.js';
import {
  attentionLoop,
  multiheadAttentionLoop,
  packedAttentionLoop,
} from '../../oracle/attention.js';
import { expectRefused, testGolden } from './golden.js';
import {
  expectClose,
  normals,
  type OpCase,
  onDevice,
  rounded,
  runOp,
  tensor,
  testDevices,
  testOp,
  testSeed,
  toBf16,
} from './test-op.js';

interface Sizes {
  images?: number;
  queries: number;
  keys?: number;
  heads?: number;
  depth?: number;
  width?: number;
  /** Of bias and mask, the first axis. */
  biases?: number;
  masks?: number;
  /** One row of the mask for all queries. */
  keyMask?: boolean;
  scale?: number;
}

/** Ones with the given probability; the first key of each row is seen unless `all`. */
const masks = (random: Random, shape: number[], share = 0.3, all = false): NdArray =>
  ndarray(
    shape,
    Array.from({ length: numel(shape) }, (_, i) =>
      (all || i % shape.at(-1)! > 0) && random.uniform(0, 1) < share ? 1 + (i % 3) : 0,
    ),
  );

function caseOf(random: Random, name: string, sizes: Sizes): OpCase {
  const { images = 1, queries, keys = queries, heads = 2, depth = 32, width = depth } = sizes;
  const { biases = 0, masks: masked = 0, keyMask = false, scale } = sizes;
  return {
    name,
    inputs: {
      q: normals(random, [images, queries, heads * depth]),
      k: normals(random, [images, keys, heads * depth]),
      v: normals(random, [images, keys, heads * width]),
      ...(biases ? { bias: normals(random, [biases, heads, queries, keys]) } : {}),
      ...(masked ? { mask: masks(random, [masked, keyMask ? 1 : queries, keys]) } : {}),
    },
    options: {
      heads,
      ...(scale === undefined ? {} : { scale }),
      ...(biases ? { hasBias: true } : {}),
      ...(masked ? { hasMask: true } : {}),
    },
  };
}

// A GPU multiplies probabilities that are rounded to 8 bits, of terms that may cancel: about 2^-9 of
// the largest result beside the rounding of the result itself.
const bf16Output = { relative: 2 ** -7.99, absolute: 2 ** -8 };
const spec = {
  activations: ['q', 'k', 'v'],
  bytes: ['mask'],
  differentiable: ['q', 'k', 'v', 'bias'],
  bf16Output,
  // A GPU rounds the scores' gradient, and takes the sum over a row from the rounded output.
  roundedGradients: ['q', 'k', 'v', 'bias'],
} as const;

testOp('attention', {
  oracle: attentionLoop,
  ...spec,
  cases: (random) => {
    const one = (name: string, sizes: Sizes) => caseOf(random, name, sizes);
    return [
      one('self-attention, several blocks', { images: 2, queries: 150 }),
      one('cross-attention', { images: 3, queries: 37, keys: 81 }),
      one('wider scores than values', { queries: 70, keys: 65, depth: 64, width: 32 }),
      one('wider values than scores', { queries: 19, keys: 33, depth: 16, width: 48 }),
      one('64 columns', { queries: 66, keys: 40, depth: 64, heads: 1 }),
      one('128 columns', { queries: 70, keys: 67, depth: 128, heads: 1 }),
      one('odd sizes', { images: 2, queries: 13, keys: 11, depth: 5, width: 7, heads: 3 }),
      one('two keys', { queries: 9, keys: 2, depth: 1, heads: 1 }),
      one('one query', { queries: 1, keys: 90 }),
      one('two parts of the queries', { queries: 290, keys: 20, depth: 8, heads: 1 }),
      one('a scale of its own', { queries: 20, scale: 0.6 }),
      one('windows with bias and masks', { images: 6, queries: 49, biases: 1, masks: 3 }),
      one('many windows of one bias', { images: 70, queries: 4, depth: 8, heads: 1, biases: 1 }),
      one('windows of 12 by 12', { images: 2, queries: 144, biases: 1, masks: 2, heads: 1 }),
      one('a bias for every other image', { images: 4, queries: 21, keys: 18, biases: 2 }),
      one('a bias for each image', { images: 2, queries: 9, biases: 2 }),
      one('padded keys', { images: 3, queries: 33, keys: 70, masks: 3, keyMask: true }),
      one('denoising groups', { images: 2, queries: 69, masks: 1 }),
      one('no images', { images: 0, queries: 3 }),
      one('no queries', { queries: 0, keys: 3, biases: 1 }),
      one('no keys', { queries: 3, keys: 0 }),
    ];
  },
});

testOp('packedAttention', {
  oracle: packedAttentionLoop,
  ...spec,
  activations: ['packed', 'v'],
  differentiable: ['packed', 'v', 'bias'],
  roundedGradients: ['packed', 'v', 'bias'],
  cases: (random) => {
    const one = (name: string, values: boolean, sizes: Sizes): OpCase => {
      const { inputs, options } = caseOf(random, name, sizes);
      const { q, k: _, v, ...rest } = inputs as Record<string, NdArray> & { q: NdArray };
      const [images, rows, columns] = q.shape as [number, number, number];
      const packed = normals(random, [images, rows, (values ? 2 : 3) * columns]);
      return {
        name,
        inputs: { packed, ...(values ? { v: v! } : {}), ...rest },
        options: { ...options, ...(values ? { hasValues: true } : {}) },
      };
    };
    return [
      one('q and k', true, { images: 2, queries: 70 }),
      one('q and k, with wider values', true, { queries: 20, depth: 8, width: 24 }),
      one('q, k and v', false, { images: 4, queries: 49, biases: 1, masks: 2 }),
      one('odd sizes', false, { images: 2, queries: 11, depth: 3, heads: 3 }),
      one('no rows', false, { queries: 0 }),
    ];
  },
});

testGolden('attention', 'attention', spec);

const projections = ['inWeight', 'inBias', 'outWeight', 'outBias'];
const moduleInputs = ['query', 'key', 'value', 'inWeight', 'outWeight'];
const moduleSpec = {
  activations: [],
  bytes: ['mask'],
  differentiable: ['query', 'key', 'value', ...projections],
} as const;

type Same = 'none' | 'key' | 'value';
interface ModuleSizes {
  queries?: number;
  keys?: number;
  heads?: number;
  depth?: number;
  masked?: boolean;
}
function moduleCase(
  random: Random,
  name: string,
  same: Same,
  { queries = 20, keys = queries, heads = 2, depth = 8, masked = false }: ModuleSizes,
): OpCase {
  const columns = heads * depth;
  const scale = 1 / Math.sqrt(columns);
  return {
    name,
    inputs: {
      query: normals(random, [2, queries, columns]),
      ...(same === 'none' ? { key: normals(random, [2, keys, columns]) } : {}),
      ...(same === 'value' ? {} : { value: normals(random, [2, keys, columns]) }),
      inWeight: normals(random, [3 * columns, columns], scale),
      inBias: normals(random, [3 * columns], 0.2),
      outWeight: normals(random, [columns, columns], scale),
      outBias: normals(random, [columns], 0.2),
      ...(masked ? { mask: masks(random, [2, 1, keys]) } : {}),
    },
    // The sums of linear's gradients are split among threads where columns fill no vectors.
    dependsOnThreads: columns % 8 > 0,
    options: { heads, same, ...(masked ? { hasMask: true } : {}) },
  };
}

testOp('multiheadAttention', {
  oracle: multiheadAttentionLoop as never,
  ...moduleSpec,
  cases: (random) => {
    const one = (name: string, same: Same, sizes: ModuleSizes) =>
      moduleCase(random, name, same, sizes);
    return [
      one('cross-attention with padded keys', 'none', { keys: 31, masked: true }),
      one('query is key', 'key', {}),
      one('query is key and value', 'value', { masked: true }),
      one('rows that start anywhere', 'none', { heads: 3, depth: 3 }),
      one('rows that start anywhere, query is key', 'key', { heads: 1, depth: 5 }),
      one('no queries', 'none', { queries: 0, keys: 4 }),
    ];
  },
});

testGolden('multiheadAttention', 'multihead-attention', moduleSpec);

for (const device of testDevices)
  for (const same of ['none', 'key', 'value'] as const)
    test(`multiheadAttention in bf16 is near that in f32, same: ${same}${onDevice(device)}`, async () => {
      const random = new Random(testSeed).fork('module', same);
      const call = rounded(moduleCase(random, same, same, { heads: 2, depth: 16 }), moduleInputs);
      const dout = normals(random, [2, 20, 32]);
      dout.data.set(dout.data.map(toBf16));
      const bf16Spec = { ...moduleSpec, activations: moduleInputs.slice(0, 3) };
      const want = await runOp('multiheadAttention', call, { spec: moduleSpec, dout, device });
      const got = await runOp('multiheadAttention', call, {
        spec: bf16Spec,
        dtype: 'bf16',
        dout,
        device,
      });
      expect(got.dtype).toBe('bf16');
      // Some four results behind one another are rounded to 2^-9: by far less than by a wrong term.
      const near = { relative: 0, absolute: 0.03 };
      expectClose(got.output, want.output, near, 'output');
      for (const [name, gradient] of Object.entries(want.gradients))
        if (gradient) expectClose(got.gradients[name]!, gradient, near, `gradient of ${name}`);
    });

const rowsSpec = { activations: [], differentiable: ['weight'] } as const;
testOp('weightRows', {
  oracle: ({ weight }, { begin = 0, end }: { begin?: number; end?: number }) => {
    const [rows, columns] = weight!.shape as [number, number];
    const last = end ?? rows;
    return ndarray([last - begin, columns], weight!.data.slice(begin * columns, last * columns));
  },
  ...rowsSpec,
  cases: (random) =>
    [
      { name: 'the middle', rows: 48, columns: 16, options: { begin: 16, end: 32 } },
      { name: 'rows that start anywhere', rows: 9, columns: 3, options: { begin: 2, end: 7 } },
      { name: 'all', rows: 4, columns: 5, options: {} },
      { name: 'none', rows: 4, columns: 5, options: { begin: 4 } },
    ].map(({ name, rows, columns, options }) => ({
      name,
      inputs: { weight: normals(random, [rows, columns]) },
      options,
    })),
});

describe('attention', () => {
  for (const device of testDevices)
    for (const dtype of ['f32', 'bf16'] as const) {
      const run = (call: OpCase, dout: NdArray) =>
        runOp('attention', call, { spec, dtype, dout, device });

      test(`a query that sees no key gets zeros and no gradient, ${dtype}${onDevice(device)}`, async () => {
        const random = new Random(testSeed).fork('blind');
        const call = caseOf(random, 'blind', { queries: 70, keys: 67, biases: 1, masks: 1 });
        const { mask, bias } = call.inputs as Record<string, NdArray>;
        for (let j = 0; j < 67; j++) mask!.data[3 * 67 + j] = 1;
        for (let m = 0; m < 2; m++)
          for (let j = 0; j < 67; j++)
            bias!.data[(m * 70 + 66) * 67 + j] = Number.NEGATIVE_INFINITY;
        const got = await run(call, normals(random, [1, 70, 64]));
        for (const row of [3, 66]) {
          expect(Array.from(got.output.subarray(row * 64, row * 64 + 64))).toEqual(
            Array(64).fill(0),
          );
          expect(got.gradients.q!.subarray(row * 64, row * 64 + 64).every((g) => g === 0)).toBe(
            true,
          );
          for (let m = 0; m < 2; m++)
            expect(
              got.gradients
                .bias!.subarray((m * 70 + row) * 67, (m * 70 + row + 1) * 67)
                .every((g) => g === 0),
            ).toBe(true);
        }
        for (const name of ['q', 'k', 'v', 'bias'])
          expect(got.gradients[name]!.every(Number.isFinite), name).toBe(true);
      });

      test(`one key gives its value and no gradient to q and k, ${dtype}${onDevice(device)}`, async () => {
        const random = new Random(testSeed).fork('one key');
        for (const sizes of [
          { queries: 9, keys: 1 },
          { queries: 1, depth: 1, heads: 1 },
        ]) {
          const call = rounded(caseOf(random, 'one key', sizes), ['v']);
          const v = Array.from(call.inputs.v!.data);
          const dout = normals(random, [1, sizes.queries, v.length]);
          dout.data.set(dout.data.map(toBf16));
          const got = await run(call, dout);
          expect(Array.from(got.output)).toEqual(Array(sizes.queries).fill(v).flat());
          const sums = v.map((_, c) =>
            dout.data.reduce((a, d, i) => (i % v.length === c ? a + d : a), 0),
          );
          expectClose(got.gradients.v!, sums, { relative: 2 ** -8, absolute: 1e-6 }, 'dv');
          for (const name of ['q', 'k'])
            expect(
              got.gradients[name]!.every((g) => Math.abs(g) < 1e-5),
              name,
            ).toBe(true);
        }
      });

      test(`scores in the thousands, ${dtype}${onDevice(device)}`, async () => {
        // Column 0 decides; each query sees its own key alone. -3e38 is how some masks say no.
        const size = 40;
        const unit = dtype === 'f32' ? 64 : 8;
        const rows = (f: (i: number, d: number) => number) =>
          ndarray(
            [1, size, 8],
            Array.from({ length: size * 8 }, (_, i) => f(Math.floor(i / 8), i % 8)),
          );
        const call: OpCase = {
          name: 'large',
          inputs: {
            q: rows((_, d) => (d === 0 ? unit : 0)),
            k: rows((i, d) => (d === 0 ? i * unit : 0)),
            v: rows((i, d) => i + d),
            bias: ndarray(
              [1, 1, size, size],
              Array.from({ length: size * size }, (_, i) => (i % size > i / size ? -3e38 : 0)),
            ),
          },
          options: { heads: 1, scale: 1, hasBias: true },
        };
        const got = await run(
          call,
          rows(() => 1),
        );
        expect(Array.from(got.output)).toEqual(Array.from(rows((i, d) => i + d).data));
        expect(got.gradients.q!.every((g) => Math.abs(g) < 1e-20)).toBe(true);
      });

      test(`what is no number spoils its own row and head, ${dtype}${onDevice(device)}`, async () => {
        const random = new Random(testSeed).fork('nan');
        const call = caseOf(random, 'nan', { queries: 40 });
        call.inputs.q!.data[7 * 64 + 2] = Number.NaN;
        const got = await run(call, normals(random, [1, 40, 64]));
        for (let i = 0; i < 40; i++)
          for (let c = 0; c < 64; c++)
            expect(Number.isNaN(got.output[i * 64 + c]!), `${i}, ${c}`).toBe(i === 7 && c < 32);
      });
    }

  for (const device of testDevices.filter((name) => name !== 'cpu'))
    test(`a GPU has room for heads of 128 columns${onDevice(device)}`, async () => {
      const wide = tensor(ndarray([1, 1, 129], new Float64Array(129)), 'f32', device);
      await expectRefused(
        () => native.runOp('attention', [wide, wide, wide], '{"heads":1}', {}),
        'ERR_RANGE',
        'attention: on a GPU a head must have at most 128 columns, got 129',
      );
    });

  test('says what is wrong', async () => {
    const zeros = (shape: number[], dtype: 'f32' | 'bf16' | 'u8' | 'i32' = 'f32') =>
      tensor(ndarray(shape, new Float64Array(numel(shape))), dtype);
    const refuse = (
      inputs: ReturnType<typeof tensor>[],
      options: Record<string, unknown>,
      code: string,
      message: string,
      op = 'attention',
    ) => expectRefused(() => native.runOp(op, inputs, JSON.stringify(options), {}), code, message);
    const [q, k, v] = [zeros([2, 3, 8]), zeros([2, 5, 8]), zeros([2, 5, 4])] as const;
    const two = { heads: 2 };
    await refuse([q, k], two, 'ERR_SHAPE', 'attention: needs 3 tensors, got 2');
    await refuse(
      [q, k, v],
      { heads: 3 },
      'ERR_SHAPE',
      'attention: axis 2 of q must be a positive multiple of 3 (heads), got [2, 3, 8]',
    );
    await refuse([q, k, v], { heads: 0 }, 'ERR_RANGE', 'attention: heads must be >= 1, got 0');
    await refuse(
      [zeros([3, 8]), k, v],
      two,
      'ERR_SHAPE',
      'attention: q must have 3 axes (N, Q, M * D), got [3, 8]',
    );
    await refuse(
      [q, zeros([2, 5, 6]), v],
      two,
      'ERR_SHAPE',
      'attention: k must be [2, 5, 8] (images and columns of q), got [2, 5, 6]',
    );
    await refuse(
      [q, k, zeros([2, 4, 4])],
      two,
      'ERR_SHAPE',
      'attention: v must be [2, 5, 4] (images and rows of k), got [2, 4, 4]',
    );
    await refuse(
      [q, zeros([2, 5, 8], 'bf16'), v],
      two,
      'ERR_DTYPE',
      'attention: k must be f32, got bf16',
    );
    const bias = (shape: number[]) => [q, k, v, zeros(shape)];
    const biased = { heads: 2, hasBias: true };
    await refuse(
      bias([3, 2, 3, 5]),
      biased,
      'ERR_SHAPE',
      'attention: axis 0 of bias must be a divisor of 2 (images), got [3, 2, 3, 5]',
    );
    await refuse(
      bias([1, 2, 3, 4]),
      biased,
      'ERR_SHAPE',
      'attention: bias must be [1, 2, 3, 5] (B, M, Q, K), got [1, 2, 3, 4]',
    );
    const mask = (shape: number[], dtype: 'u8' | 'i32' = 'u8') => [q, k, v, zeros(shape, dtype)];
    const masked = { heads: 2, hasMask: true };
    await refuse(
      mask([1, 3, 5], 'i32'),
      masked,
      'ERR_DTYPE',
      'attention: mask must be u8, got i32',
    );
    await refuse(
      mask([0, 3, 5]),
      masked,
      'ERR_SHAPE',
      'attention: axis 0 of mask must be a divisor of 2 (images), got [0, 3, 5]',
    );
    await refuse(
      mask([1, 2, 5]),
      masked,
      'ERR_SHAPE',
      'attention: axis 1 of mask must be 3 (queries, or 1), got [1, 2, 5]',
    );
    await refuse(
      mask([1, 1, 4]),
      masked,
      'ERR_SHAPE',
      'attention: axis 2 of mask must be 5 (keys), got [1, 1, 4]',
    );
    await refuse(
      [zeros([2, 3, 8])],
      two,
      'ERR_SHAPE',
      'packedAttention: axis 2 of packed must be a positive multiple of 6 (heads), got [2, 3, 8]',
      'packedAttention',
    );
    await refuse(
      [zeros([2, 3, 8]), zeros([2, 4, 8])],
      { heads: 2, hasValues: true },
      'ERR_SHAPE',
      'packedAttention: v must be [2, 3, 8] (images and rows of packed), got [2, 4, 8]',
      'packedAttention',
    );
  });
});
