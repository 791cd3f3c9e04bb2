import { expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { type NdArray, ndarray, numel } from '../../oracle/array.js';
import {
  addLevelRowsLoop,
  concatTokensLoop,
  maskTokensLoop,
  takeTokensLoop,
} from '../../oracle/tokens.js';
import { expectRefused } from './golden.js';
import { normals, onDevice, runOp, tensor, testDevices, testOp } from './test-op.js';

const zeros = (shape: readonly number[]) => ndarray(shape, new Float64Array(numel(shape)));
const letters = 'abcdefghijklmnopqr';

testOp('concatTokens', {
  oracle: concatTokensLoop,
  activations: [...letters],
  differentiable: [...letters],
  cases: (random) => {
    const one = (name: string, ...shapes: number[][]) => ({
      name,
      inputs: Object.fromEntries(shapes.map((s, i) => [letters[i]!, normals(random, s)])),
    });
    return [
      one('maps of a pyramid', [2, 6, 5, 8], [2, 3, 3, 8], [2, 2, 2, 8]),
      one('sequences and a map', [3, 4, 2], [3, 2, 3, 2], [3, 1, 2]),
      one('odd channels', [2, 4, 3], [2, 1, 1, 3], [2, 7, 3]),
      one('one map', [2, 3, 4, 5]),
      one('one sequence', [2, 3, 4]),
      one('an empty one', [2, 3, 4], [2, 0, 4], [2, 1, 4]),
      one('only empty ones', [2, 0, 4], [2, 0, 3, 4]),
      one('no images', [0, 3, 4], [0, 2, 4]),
      one('no channels', [2, 3, 0], [2, 1, 0]),
      one('more parts than a launch takes', ...Array.from(letters, (_, i) => [2, i + 1, 4])),
      one('more than one block of bytes', [1, 80, 64, 8], [1, 300, 8]),
    ];
  },
});

testOp('takeTokens', {
  oracle: takeTokensLoop,
  activations: ['x'],
  differentiable: ['x'],
  cases: (random) => {
    const one = (name: string, shape: number[], first: number, count: number) => ({
      name,
      inputs: { x: normals(random, shape) },
      options: { first, count },
    });
    return [
      one('some in the middle', [3, 9, 16], 2, 5),
      one('the first', [2, 5, 8], 0, 1),
      one('the last', [2, 5, 8], 3, 2),
      one('all', [2, 5, 8], 0, 5),
      one('odd channels', [2, 7, 3], 1, 4),
      one('pairs of channels', [2, 7, 2], 1, 3),
      one('one token of one image', [1, 1, 1], 0, 1),
      one('no images', [0, 4, 8], 1, 2),
      one('many', [1, 3000, 16], 700, 2200),
    ];
  },
});

const bits = (shape: readonly number[], of: (i: number) => boolean): NdArray =>
  ndarray(
    shape,
    Array.from({ length: numel(shape) }, (_, i) => (of(i) ? 1 + (i % 255) : 0)),
  );

testOp('maskTokens', {
  oracle: maskTokensLoop,
  activations: ['x'],
  differentiable: ['x'],
  bytes: ['mask'],
  cases: (random) => {
    const one = (name: string, shape: number[], of: (i: number) => boolean) => ({
      name,
      inputs: { x: normals(random, shape), mask: bits(shape.slice(0, 2), of) },
    });
    return [
      one('some', [3, 7, 16], (i) => i % 3 === 1),
      one('all', [2, 3, 8], () => true),
      one('none', [2, 3, 8], () => false),
      one('odd channels', [2, 5, 3], (i) => i > 4),
      one('no tokens', [2, 0, 8], () => true),
      one('many', [2, 1100, 16], (i) => i % 7 < 3),
      { name: 'no mask', inputs: { x: normals(random, [2, 3, 4]) } },
    ];
  },
});

for (const device of testDevices)
  test(`maskTokens puts zeros where there was no number${onDevice(device)}`, async () => {
    const inputs = {
      x: ndarray([1, 3, 2], [Number.NaN, Number.POSITIVE_INFINITY, Number.NaN, 1, 2, 3]),
      mask: ndarray([1, 3], [255, 0, 1]),
    };
    const spec = { activations: ['x'], bytes: ['mask'] };
    const got = await runOp('maskTokens', { name: '', inputs }, { spec, device });
    expect(Array.from(got.output)).toEqual([0, 0, Number.NaN, 1, 0, 0]);
  });

testOp('addLevelRows', {
  oracle: addLevelRowsLoop,
  activations: ['x'],
  differentiable: ['x', 'rows'],
  cases: (random) => {
    const one = (name: string, n: number, c: number, counts: number[]) => ({
      name,
      inputs: {
        x: normals(random, [n, counts.reduce((a, b) => a + b, 0), c]),
        rows: normals(random, [counts.length, c]),
      },
      options: { counts },
    });
    return [
      one('four levels', 2, 16, [12, 6, 2, 1]),
      one('odd channels', 3, 5, [4, 1]),
      one('one level', 2, 8, [7]),
      one('an empty level', 2, 8, [3, 0, 2]),
      one('only empty levels', 2, 8, [0, 0]),
      one('no levels', 2, 8, []),
      one('no images', 0, 8, [3, 2]),
      one('no channels', 2, 0, [3, 2]),
      one('many chunks', 2, 12, [700, 257, 256, 3]),
      one('wide', 1, 520, [40, 9]),
      one('as many levels as there may be', 1, 8, Array<number>(16).fill(2)),
    ];
  },
});

test('token ops say what was wrong', async () => {
  const refused = (
    op: string,
    inputs: Parameters<typeof native.runOp>[1],
    code: string,
    message: string,
    options = {},
  ) =>
    expectRefused(
      () => native.runOp(op, inputs, JSON.stringify(options)),
      code,
      `${op}: ${message}`,
    );
  const t = (...shape: number[]) => tensor(zeros(shape));

  await refused('concatTokens', [], 'ERR_SHAPE', 'needs 1 tensor or more, got 0');
  await refused(
    'concatTokens',
    [t(2, 3)],
    'ERR_SHAPE',
    'parts must be [N, T, C] or [N, H, W, C], got [2, 3]',
  );
  await refused(
    'concatTokens',
    [t(2, 3, 4), t(1, 3, 4)],
    'ERR_SHAPE',
    'axis 0 of parts must be 2 (images of the first part), got [1, 3, 4]',
  );
  await refused(
    'concatTokens',
    [t(2, 3, 4), t(2, 3, 3, 5)],
    'ERR_SHAPE',
    'axis 3 of parts must be 4 (channels of the first part), got [2, 3, 3, 5]',
  );
  await refused(
    'concatTokens',
    [t(2, 3, 4), tensor(zeros([2, 3, 4]), 'bf16')],
    'ERR_DTYPE',
    'parts must be f32, got bf16',
  );
  await refused(
    'concatTokens',
    [tensor(zeros([2, 3, 4]), 'i32')],
    'ERR_DTYPE',
    'parts must be f32 or bf16, got i32',
  );

  await refused('takeTokens', [t(2, 3)], 'ERR_SHAPE', 'x must have 3 axes (N, T, C), got [2, 3]');
  const x = t(2, 3, 4);
  await refused('takeTokens', [x], 'ERR_RANGE', 'count must be >= 1, got 0', { count: 0 });
  await refused('takeTokens', [x], 'ERR_RANGE', 'first must be >= 0, got -1', { first: -1 });
  await refused(
    'takeTokens',
    [x],
    'ERR_RANGE',
    'first + count must be <= 3 (the tokens of x), got 2 + 2',
    { first: 2, count: 2 },
  );

  await refused('maskTokens', [x, t(2, 3)], 'ERR_DTYPE', 'mask must be u8, got f32');
  await refused(
    'maskTokens',
    [x, tensor(zeros([3, 2]), 'u8')],
    'ERR_SHAPE',
    'mask must be [2, 3] (one number for each token of x), got [3, 2]',
  );

  const counts = [1, 2];
  await refused(
    'addLevelRows',
    [x, t(2, 3)],
    'ERR_SHAPE',
    'rows must be [2, 4] (one for each level, of the channels of x), got [2, 3]',
    { counts },
  );
  await refused(
    'addLevelRows',
    [x, tensor(zeros([2, 4]), 'bf16')],
    'ERR_DTYPE',
    'rows must be f32, got bf16',
    { counts },
  );
  await refused(
    'addLevelRows',
    [x, t(2, 4)],
    'ERR_SHAPE',
    'counts must sum to 3 (the tokens of x), got 2',
    { counts: [1, 1] },
  );
  await refused(
    'addLevelRows',
    [x, t(17, 4)],
    'ERR_SHAPE',
    'counts must be of at most 16 levels, got 17',
    { counts: Array<number>(17).fill(0) },
  );
});
