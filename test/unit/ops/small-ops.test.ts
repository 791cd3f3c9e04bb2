import { expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { type NdArray, ndarray } from '../../oracle/array.js';
import { reluLoop, scaledSumLoop, upsampleAddLoop } from '../../oracle/small-ops.js';
import { expectRefused, testGolden } from './golden.js';
import { normals, runOp, tensor, testOp } from './test-op.js';

const zeros = (shape: number[]) =>
  ndarray(shape, new Float64Array(shape.reduce((a, b) => a * b, 1)));

testOp('relu', {
  oracle: reluLoop,
  activations: ['x'],
  differentiable: ['x'],
  cases: (random) => [
    { name: 'a feature map', inputs: { x: normals(random, [2, 5, 7, 13]) } },
    { name: 'more than one chunk', inputs: { x: normals(random, [70001]) } },
    { name: 'a scalar', inputs: { x: normals(random, []) } },
    { name: 'nothing', inputs: { x: zeros([0, 3]) } },
  ],
});

test('relu keeps NaN and infinity and is flat at 0', async () => {
  const values = [Number.NaN, -1, 0, 2, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 3, -4];
  // Twice: once in the vector loop, once in what is left over.
  for (const x of [values, values.slice(0, 7)]) {
    const call = { name: '', inputs: { x: ndarray([x.length], x) } };
    const dout = ndarray(
      [x.length],
      x.map(() => 1),
    );
    for (const dtype of ['f32', 'bf16'] as const) {
      const got = await runOp('relu', call, { dtype, spec: { activations: ['x'] }, dout });
      expect(Array.from(got.output)).toEqual(x.map((v) => Math.max(v, 0)));
      expect(Array.from(got.gradients.x!)).toEqual(x.map((v) => (v > 0 ? 1 : 0)));
    }
  }
});

testOp('upsampleAdd', {
  oracle: upsampleAddLoop,
  activations: ['lateral', 'top'],
  differentiable: ['lateral', 'top'],
  cases: (random) => {
    const one = (name: string, lateral: number[], top: number[]) => ({
      name,
      inputs: { lateral: normals(random, lateral), top: normals(random, top) },
    });
    return [
      one('twice', [2, 6, 8, 16], [2, 3, 4, 16]),
      one('odd sizes', [1, 7, 5, 3], [1, 4, 3, 3]),
      one('the same size', [2, 3, 3, 9], [2, 3, 3, 9]),
      one('smaller', [1, 2, 3, 5], [1, 5, 7, 5]),
      one('from one pixel', [1, 4, 5, 8], [1, 1, 1, 8]),
      one('no images', [0, 4, 4, 8], [0, 2, 2, 8]),
      one('no lateral pixels', [1, 0, 4, 8], [1, 2, 2, 8]),
    ];
  },
});
testGolden('upsampleAdd', 'upsample-add', { activations: ['lateral', 'top'] });

testOp('scaledSum', {
  oracle: scaledSumLoop,
  activations: [],
  differentiable: ['a', 'b', 'c'],
  loss: true,
  cases: (random) => {
    const one = (names: string[], options = {}) => {
      const inputs: Record<string, NdArray> = {};
      for (const name of names) inputs[name] = normals(random, []);
      return { name: `${names.length} ${JSON.stringify(options)}`, inputs, options };
    };
    const divided = (names: string[], divisor: number, options = {}) => {
      const call = one(names, { ...options, divided: true });
      return { ...call, inputs: { ...call.inputs, divisor: ndarray([1], [divisor]) } };
    };
    return [
      one(['a'], { scale: -2 }),
      one(['a', 'b', 'c'], { scale: 0.125 }),
      one(['a', 'b', 'c']),
      one([]),
      divided(['a', 'b'], 7, { scale: 2 }),
      divided(['a'], -0.25),
      one(['a', 'b'], { scale: 2, divisor: 7 }),
      one(['a'], { divisor: 3 }),
    ];
  },
});

test('small ops say what was wrong', async () => {
  const refused = (
    op: string,
    shapes: number[][],
    options: object,
    code: string,
    message: string,
  ) =>
    expectRefused(
      () =>
        native.runOp(
          op,
          shapes.map((s) => tensor(zeros(s))),
          JSON.stringify(options),
        ),
      code,
      `${op}: ${message}`,
    );
  await refused('relu', [], {}, 'ERR_SHAPE', 'needs 1 tensor, got 0');
  await expectRefused(
    () => native.runOp('relu', [tensor(zeros([2]), 'i32')], '{}'),
    'ERR_DTYPE',
    'relu: x must be f32 or bf16, got i32',
  );
  await refused(
    'upsampleAdd',
    [
      [1, 2, 2],
      [1, 1, 1, 3],
    ],
    {},
    'ERR_SHAPE',
    'lateral must have 4 axes (N, H, W, C), got [1, 2, 2]',
  );
  await refused(
    'upsampleAdd',
    [
      [1, 2, 2, 3],
      [1, 1, 3],
    ],
    {},
    'ERR_SHAPE',
    "top must have 4 axes (N, H', W', C), got [1, 1, 3]",
  );
  await refused(
    'upsampleAdd',
    [
      [2, 2, 2, 3],
      [1, 1, 1, 3],
    ],
    {},
    'ERR_SHAPE',
    'axis 0 of top must be 2 (images of lateral), got [1, 1, 1, 3]',
  );
  await refused(
    'upsampleAdd',
    [
      [1, 2, 2, 3],
      [1, 1, 1, 4],
    ],
    {},
    'ERR_SHAPE',
    'axis 3 of top must be 3 (channels of lateral), got [1, 1, 1, 4]',
  );
  await refused(
    'upsampleAdd',
    [
      [1, 2, 2, 3],
      [1, 0, 1, 3],
    ],
    {},
    'ERR_SHAPE',
    'top must not be empty, got [1, 0, 1, 3]',
  );
  await expectRefused(
    () =>
      native.runOp(
        'upsampleAdd',
        [tensor(zeros([1, 2, 2, 3])), tensor(zeros([1, 1, 1, 3]), 'bf16')],
        '{}',
      ),
    'ERR_DTYPE',
    'upsampleAdd: top must be f32, got bf16',
  );
  await refused('scaledSum', [[], [2]], {}, 'ERR_SHAPE', 'scalars must be [] (a scalar), got [2]');
  await expectRefused(
    () => native.runOp('scaledSum', [tensor(zeros([]), 'bf16')], '{}'),
    'ERR_DTYPE',
    'scaledSum: scalars must be f32, got bf16',
  );
  const divided = { divided: true };
  await refused('scaledSum', [], divided, 'ERR_SHAPE', 'needs a divisor, got no tensor');
  await refused(
    'scaledSum',
    [[], []],
    divided,
    'ERR_SHAPE',
    'divisor must be [1] (one number), got []',
  );
});
