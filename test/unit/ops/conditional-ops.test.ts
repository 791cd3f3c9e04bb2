import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import type { Random } from '../../../lib/random.js';
import { ndarray } from '../../oracle/array.js';
import { addProductLoop, modulatedEncodingLoop, preluLoop } from '../../oracle/conditional-ops.js';
import { expectRefused, testGolden } from './golden.js';
import {
  normals,
  type OpCase,
  onDevice,
  runOp,
  tensor,
  testDevices,
  testOp,
  uniforms,
} from './test-op.js';

const filled = (shape: number[], value = 0) =>
  ndarray(shape, new Float64Array(shape.reduce((a, b) => a * b, 1)).fill(value));

describe('prelu', () => {
  const spec = { activations: ['x'] };
  testOp('prelu', {
    oracle: preluLoop,
    ...spec,
    differentiable: ['x', 'slope'],
    cases: (random) => {
      const one = (name: string, shape: number[], slope = 0.25): OpCase => ({
        name,
        inputs: { x: normals(random, shape, 2), slope: filled([1], slope) },
      });
      return [
        one('tokens', [2, 37, 61]),
        one('several chunks', [20_011]),
        one('whole chunks', [2, 8192]),
        one('a negative slope', [3, 40], -0.75),
        one('a slope of 0', [3, 40], 0),
        one('one number', [1]),
        one('a scalar', []),
        one('nothing', [0, 3]),
      ];
    },
  });
  testGolden('prelu', 'prelu', spec);

  for (const device of testDevices)
    test(`keeps NaN and goes by the sign of infinity${onDevice(device)}`, async () => {
      const { POSITIVE_INFINITY: inf, NEGATIVE_INFINITY: minus, NaN: nan } = Number;
      const values = [inf, minus, nan, 0, 3e38, -3e38, 1, -1];
      // Twice: in vectors, and in what is left over.
      for (const n of [8, 7])
        for (const dtype of ['f32', 'bf16'] as const) {
          const inputs = { x: ndarray([n], values.slice(0, n)), slope: filled([1], 0.5) };
          const dout = filled([n], 1);
          const call = { name: '', inputs };
          const { output, gradients } = await runOp('prelu', call, { spec, device, dtype, dout });
          expect(Array.from(output, Math.sign)).toEqual([1, -1, nan, 0, 1, -1, 1, -1].slice(0, n));
          expect(output[1]).toBe(minus);
          // 0 is not positive, and NaN neither.
          const slopes = [1, 0.5, 0.5, 0.5, 1, 0.5, 1, 0.5].slice(0, n);
          expect(Array.from(gradients.x!)).toEqual(slopes);
        }
    });
});

describe('addProduct', () => {
  testOp('addProduct', {
    oracle: addProductLoop,
    activations: ['x', 'a', 'b'],
    differentiable: ['x', 'a', 'b'],
    cases: (random) => {
      const one = (name: string, shape: number[]): OpCase => ({
        name,
        inputs: {
          x: normals(random, shape),
          a: normals(random, shape),
          b: normals(random, shape),
        },
      });
      return [
        one('tokens', [2, 19, 48]),
        one('an odd number, several chunks', [40_003]),
        one('one number', [1]),
        one('a scalar', []),
        one('nothing', [2, 0, 4]),
      ];
    },
  });
});

describe('modulatedEncoding', () => {
  const spec = { activations: ['encoding', 'sizes', 'scale'] };
  testOp('modulatedEncoding', {
    oracle: modulatedEncodingLoop,
    ...spec,
    differentiable: ['encoding', 'sizes', 'boxes', 'scale'],
    cases: (random: Random) => {
      const one = (name: string, [n, q, c]: [number, number, number]): OpCase[] => {
        const inputs = {
          encoding: uniforms(random, [n, q, 2 * c], -1, 1),
          sizes: normals(random, [n, q, 2], 2),
          boxes: uniforms(random, [n, q, 4], 0.05, 0.95),
        };
        return [
          { name: `${name}, the first layer`, inputs },
          { name, inputs: { ...inputs, scale: normals(random, [n, q, c]) } },
        ];
      };
      return [
        ...one('as wide as the network', [2, 30, 256]),
        ...one('more packs than a warp', [1, 3, 528]),
        ...one('halves that fill no pack', [2, 5, 36]),
        ...one('halves of an odd number', [1, 9, 22]),
        ...one('two channels', [3, 7, 2]),
        ...one('no queries', [2, 0, 16]),
        ...one('no images', [0, 3, 16]),
      ];
    },
  });
  testGolden('modulatedEncoding', 'modulated-encoding', spec);

  for (const device of testDevices)
    test(`a query has nothing to do with the others${onDevice(device)}`, async () => {
      const row = (value: number) => Array.from({ length: 16 }, (_, c) => value + 0.01 * c);
      const inputs = {
        encoding: ndarray([1, 3, 16], [row(0.1), row(Number.NaN), row(0.3)].flat()),
        sizes: ndarray([1, 3, 2], [0, 0, Number.NaN, Number.POSITIVE_INFINITY, 0, 0]),
        boxes: ndarray([1, 3, 4], [0, 0, 0.5, 0.25, 0, 0, 0, 0, 0, 0, 0.5, 0.25]),
      };
      const { output } = await runOp('modulatedEncoding', { name: '', inputs }, { spec, device });
      expect(Array.from(output, Number.isFinite)).toEqual(
        Array.from({ length: 24 }, (_, i) => i < 8 || i >= 16),
      );
      expect(output[0]).toBeCloseTo(0.2, 6); // y: over 0.25
      expect(output[4]).toBeCloseTo(0.14, 6); // x: over 0.5
    });
});

describe('refusals', () => {
  const floats = (...shapes: number[][]) => shapes.map((shape) => tensor(filled(shape)));
  const bf16 = (shape: number[]) => tensor(filled(shape), 'bf16');
  const refused = (op: string, inputs: ReturnType<typeof floats>, code: string, message: string) =>
    expectRefused(() => native.runOp(op, inputs, '{}'), code, `${op}: ${message}`);

  test('prelu says what was wrong', async () => {
    await refused('prelu', floats([2]), 'ERR_SHAPE', 'needs 2 tensors, got 1');
    for (const [shape, got] of [
      [[], '[]'],
      [[2], '[2]'],
    ] as [number[], string][])
      await refused(
        'prelu',
        floats([2, 2], shape),
        'ERR_SHAPE',
        `slope must be [1] (one number for all channels), got ${got}`,
      );
    await refused(
      'prelu',
      [tensor(filled([2]), 'i32'), ...floats([1])],
      'ERR_DTYPE',
      'x must be f32 or bf16, got i32',
    );
    await refused('prelu', [bf16([2]), bf16([1])], 'ERR_DTYPE', 'slope must be f32, got bf16');
  });

  test('addProduct says what was wrong', async () => {
    await refused('addProduct', floats([2], [2]), 'ERR_SHAPE', 'needs 3 tensors, got 2');
    await refused(
      'addProduct',
      floats([2, 3], [3], [2, 3]),
      'ERR_SHAPE',
      'a must be [2, 3] (the shape of x), got [3]',
    );
    await refused(
      'addProduct',
      floats([2, 3], [2, 3], [3, 2]),
      'ERR_SHAPE',
      'b must be [2, 3] (the shape of x), got [3, 2]',
    );
    await refused(
      'addProduct',
      [...floats([2]), bf16([2]), ...floats([2])],
      'ERR_DTYPE',
      'a must be f32, got bf16',
    );
  });

  test('modulatedEncoding says what was wrong', async () => {
    const op = 'modulatedEncoding';
    const rest = floats([1, 3, 2], [1, 3, 4]);
    await refused(op, rest, 'ERR_SHAPE', 'needs 3 or 4 tensors, got 2');
    await refused(
      op,
      [...floats([3, 8]), ...rest],
      'ERR_SHAPE',
      'encoding must have 3 axes (N, Q, 2 C), got [3, 8]',
    );
    await refused(
      op,
      [...floats([1, 3, 6]), ...rest],
      'ERR_SHAPE',
      'encoding must have a multiple of 4 channels, got [1, 3, 6]',
    );
    await refused(
      op,
      floats([1, 3, 8], [1, 3, 4], [1, 3, 4]),
      'ERR_SHAPE',
      'sizes must be [1, 3, 2] (width and height of each query), got [1, 3, 4]',
    );
    await refused(
      op,
      floats([1, 3, 8], [1, 3, 2], [1, 2, 4]),
      'ERR_SHAPE',
      'boxes must be [1, 3, 4] (a box of each query), got [1, 2, 4]',
    );
    await refused(
      op,
      [...floats([1, 3, 8]), ...rest, ...floats([1, 3, 8])],
      'ERR_SHAPE',
      'scale must be [1, 3, 4] (half the channels of encoding), got [1, 3, 8]',
    );
    await refused(op, [bf16([1, 3, 8]), ...rest], 'ERR_DTYPE', 'sizes must be bf16, got f32');
    await refused(
      op,
      [...floats([1, 3, 8], [1, 3, 2]), bf16([1, 3, 4])],
      'ERR_DTYPE',
      'boxes must be f32, got bf16',
    );
  });
});
