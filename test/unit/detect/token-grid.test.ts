import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { ndarray } from '../../oracle/array.js';
import {
  coordinateEncoding,
  type Grid,
  sinePositions,
  tokenProposals,
  tokenReferences,
  tokensOf,
  validCounts,
} from '../../oracle/token-grid.js';
import { expectClose, onDevice, runOp, testDevices, testOp, uniforms } from '../ops/test-op.js';
import { tolerances } from '../tolerances.js';
import { f32, numbers, run, toBf16 } from './run.js';

/** Angles of up to 2 pi are rounded a few times, which moves a sine by some units of 2^-24 * 2 pi. */
const sines = { relative: 0, absolute: 3e-6 };

const optionsOf = ({ maps, padded, sizes }: Grid, more: object = {}) => ({
  heights: maps.map(([h]) => h),
  widths: maps.map(([, w]) => w),
  padded,
  sizes: sizes.flat(),
  ...more,
});

const grids: Record<string, Grid> = {
  'four levels': {
    maps: [
      [12, 17],
      [6, 9],
      [3, 5],
      [2, 3],
    ],
    padded: [95, 130],
    sizes: [
      [95, 130],
      [61, 101],
      [95, 8],
    ],
  },
  'no padding': {
    maps: [
      [4, 6],
      [2, 3],
    ],
    padded: [32, 48],
    sizes: [
      [32, 48],
      [32, 48],
    ],
  },
  'one cell a level': {
    maps: [
      [1, 1],
      [1, 1],
    ],
    padded: [7, 5],
    sizes: [
      [7, 5],
      [1, 1],
    ],
  },
  'sizes between pixels and beyond the input': {
    maps: [[10, 10]],
    padded: [10, 10],
    sizes: [
      [4.25, 10.5],
      [0.5, 99],
    ],
  },
  'eight levels': {
    maps: Array.from({ length: 8 }, (_, l) => [9 - l, 8 - l] as [number, number]),
    padded: [72, 64],
    sizes: [[50, 60]],
  },
  'no images': { maps: [[3, 4]], padded: [24, 32], sizes: [] },
  'edges at the bounds of proposals': { maps: [[50, 51]], padded: [400, 408], sizes: [[400, 408]] },
};

/** Odd sizes that a stride leaves over. */
function randomGrid(random: Random): Grid {
  const padded: [number, number] = [random.integer(20, 200), random.integer(20, 200)];
  const maps = [8, 16, 32].map(
    (s) => padded.map((side) => Math.ceil(side / s)) as [number, number],
  );
  const sizes = Array.from(
    { length: 3 },
    () => padded.map((side) => random.integer(1, side + 1)) as [number, number],
  );
  return { maps, padded, sizes };
}
const random = new Random(20240718);
for (let i = 0; i < 5; i++) grids[`drawn ${i}`] = randomGrid(random.fork('grid', i));

for (const [name, grid] of Object.entries(grids)) {
  const tokens = tokensOf(grid);
  const images = grid.sizes.length;
  const perImage = grid.maps.reduce((sum, [h, w]) => sum + h * w, 0);

  test(`tokenGrid counts rows and columns of picture: ${name}`, async () => {
    const [valid, ratios] = await run('tokenGrid', [], optionsOf(grid));
    const want = validCounts(grid);
    expect(valid!.shape).toEqual([images, grid.maps.length, 2]);
    expect(valid!.dtype).toBe('i32');
    expect(valid!.data).toEqual(want.flat(2));
    expect(ratios!.shape).toEqual(valid!.shape);
    const shares = want.flatMap((levels) =>
      levels.flatMap(([rows, columns], l) => [
        Math.fround(columns! / grid.maps[l]![1]),
        Math.fround(rows! / grid.maps[l]![0]),
      ]),
    );
    expect(ratios!.data).toEqual(shares);
  });

  test(`paddingMask marks it, if there is any: ${name}`, async () => {
    const [mask] = await run('paddingMask', [], optionsOf(grid));
    if (!tokens.some((t) => t.padding)) return expect(mask).toBeUndefined();
    expect(mask).toMatchObject({ shape: [images, perImage], dtype: 'u8' });
    expect(mask!.data).toEqual(tokens.map((t) => (t.padding ? 1 : 0)));
  });

  for (const options of [
    { channels: 8, offset: -0.5 },
    { channels: 12, temperature: 20 },
    { channels: 32 },
  ])
    test(`sinePositions encode rows and columns: ${name}, ${options.channels} channels`, async () => {
      const want = sinePositions(grid, options).flat();
      const [got] = await run('sinePositions', [], optionsOf(grid, options));
      expect(got).toMatchObject({ shape: [images, perImage, options.channels], dtype: 'f32' });
      expectClose(got!.data, want, sines, 'positions');
    });

  test(`tokenReferences are centres in shares of the picture: ${name}`, async () => {
    const [got] = await run('tokenReferences', [], optionsOf(grid));
    expect(got!.shape).toEqual([images, perImage, 2]);
    expectClose(got!.data, tokenReferences(grid).flat(), tolerances.f32, 'references');
  });

  test(`tokenProposals are boxes around them: ${name}`, async () => {
    const want = tokenProposals(grid);
    const [logits, mask] = await run('tokenProposals', [], optionsOf(grid));
    expect(logits!.shape).toEqual([images, perImage, 4]);
    expect(mask).toMatchObject({ shape: [images, perImage], dtype: 'u8' });
    expect(mask!.data).toEqual(want.map((box) => (box ? 0 : 1)));
    const infinity = Number.POSITIVE_INFINITY;
    for (const [i, box] of want.entries()) {
      const got = logits!.data.slice(4 * i, 4 * i + 4);
      if (!box) expect(got).toEqual([infinity, infinity, infinity, infinity]);
      else expectClose(got, box, { relative: 2e-6, absolute: 2e-6 }, `box ${i}`);
    }
  });
}

for (const device of testDevices)
  test(`sinePositions in bf16 are those in f32, rounded${onDevice(device)}`, async () => {
    for (const channels of [4, 24, 32]) {
      const options = JSON.stringify(optionsOf(grids['four levels']!, { channels }));
      const positions = async (compute: 'f32' | 'bf16') => {
        const { outputs } = await native.runOp('sinePositions', [], options, { device, compute });
        expect(outputs[0]!.dtype).toBe(compute);
        return Array.from(await outputs[0]!.read());
      };
      expect(await positions('bf16')).toEqual((await positions('f32')).map(toBf16));
    }
  });

test('what is made of a grid has the same bits for any number of threads', async () => {
  const maps = [[90, 120] as const, [45, 60] as const];
  const grid = { maps, padded: [720, 960] as const, sizes: [[720, 400] as const] };
  for (const op of ['sinePositions', 'tokenReferences', 'tokenProposals', 'paddingMask']) {
    const options = optionsOf(grid, op === 'sinePositions' ? { channels: 16 } : {});
    const once = await run(op, [], options);
    native.setNumThreads(3);
    expect(await run(op, [], options).finally(() => native.setNumThreads(1))).toEqual(once);
  }
});

testOp('coordinateEncoding', {
  oracle: (
    { boxes, ratios },
    { each = 128, order = 'yxwh' }: { each?: number; order?: 'yxwh' | 'xywh' },
  ) => {
    const [n, q, width] = boxes!.shape as [number, number, number];
    // Of an image's level 0, x and y in turn.
    const ratio = (image: number, k: number) =>
      ratios ? ratios.data[image * ratios.shape[1]! * 2 + (k % 2)]! : 1;
    const out = Array.from({ length: n * q }, (_, i) => {
      const box = Array.from(boxes!.data.subarray(i * width, (i + 1) * width));
      return coordinateEncoding(
        box.map((v, k) => v * ratio(Math.floor(i / q), k)),
        each,
        order,
      );
    });
    return ndarray([n, q, width * each], out.flat());
  },
  activations: [],
  differentiable: ['boxes'],
  cases: (random) => {
    const one = (name: string, shape: number[], options: object) => ({
      name,
      inputs: { boxes: uniforms(random, shape) },
      options: { ...options },
    });
    return [
      one('boxes', [2, 5, 4], { each: 16, order: 'yxwh' }),
      one('boxes, x first', [2, 5, 4], { each: 16, order: 'xywh' }),
      one('points', [1, 7, 2], { each: 6, order: 'yxwh' }),
      one('points, x first', [1, 7, 2], { each: 6, order: 'xywh' }),
      one('one pair', [1, 1, 4], { each: 2, order: 'yxwh' }),
      one('as a decoder has them', [1, 10, 4], {}),
      one('no queries', [2, 0, 4], { each: 8 }),
      ...['yxwh', 'xywh'].flatMap((order) =>
        [4, 2].map((width) => {
          const { name, inputs, options } = one(`in padding, ${width} ${order}`, [2, 3, width], {
            each: 4,
            order,
          });
          return { name, inputs: { ...inputs, ratios: uniforms(random, [2, 3, 2]) }, options };
        }),
      ),
    ];
  },
});

for (const device of testDevices)
  test(`coordinateEncoding in bf16 is rounded, and its gradient is f32${onDevice(device)}`, async () => {
    const boxes = [0.1, 0.7, 0.25, 0.5];
    const input = native.createTensor(Float32Array.from(boxes), [1, 1, 4], 'f32', device);
    const dout = native.createTensor(
      Uint16Array.from({ length: 32 }, () => 0x3f80), // 1
      [1, 1, 32],
      'bf16',
      device,
    );
    const mode = { device, compute: 'bf16' as const, douts: [dout] };
    const got = await native.runOp('coordinateEncoding', [input], '{"each": 8}', mode);
    const want = coordinateEncoding(boxes.map(Math.fround), 8, 'yxwh');
    expect(got.outputs[0]!.dtype).toBe('bf16');
    expectClose(await got.outputs[0]!.read(), want, tolerances.bf16, 'encoding');
    expect(got.gradients[0]!.dtype).toBe('f32');
    const slopes = boxes.map((box) => {
      let sum = 0;
      for (let m = 0; m < 4; m++) {
        const f = (2 * Math.PI) / 10000 ** (m / 4);
        sum += f * (Math.cos(box * f) - Math.sin(box * f));
      }
      return sum;
    });
    expectClose(await got.gradients[0]!.read(), slopes, tolerances.gradient, 'gradient');
  });

for (const device of testDevices)
  test(`coordinateEncoding goes round many times${onDevice(device)}`, async () => {
    const boxes = ndarray([1, 1, 4], [300, -2000, 170, 150]);
    const angles = Array.from(boxes.data, (v) => Math.fround(v * Math.fround(2 * Math.PI)));
    const got = await runOp(
      'coordinateEncoding',
      { name: '', inputs: { boxes }, options: { each: 2, order: 'xywh' } },
      { spec: { activations: [] }, dout: ndarray([1, 1, 8], [1, 0, 1, 0, 0, 1, 0, 1]), device },
    );
    const want = angles.flatMap((a) => [Math.sin(a), Math.cos(a)]);
    expectClose(got.output, want, { relative: 0, absolute: 3e-7 }, 'encoding');
    const slopes = angles.map((a, i) => 2 * Math.PI * (i < 2 ? Math.cos(a) : -Math.sin(a)));
    expectClose(got.gradients.boxes!, slopes, { relative: 0, absolute: 3e-7 }, 'gradient');
  });

test('coordinateEncoding of what is no number is no number', async () => {
  const { NaN: nan, POSITIVE_INFINITY: infinity } = Number;
  const boxes = { f32: [nan, 0, infinity, 0], shape: [1, 1, 4] };
  expect(await numbers('coordinateEncoding', [boxes], { each: 2, order: 'xywh' })).toEqual([
    ...[nan, nan, 0, 1],
    ...[nan, nan, 0, 1],
  ]);
});

interface Golden {
  torch: string;
  grids: (Grid & {
    channels: number;
    temperature: number;
    offset: number;
    mask: number[];
    ratios: number[];
    positions: number[];
    references: number[];
    logits: number[];
    none: number[];
  })[];
  encodings: {
    order: string;
    each: number;
    shape: number[];
    boxes: number[];
    output: number[];
    dout: number[];
    gradient: number[];
  }[];
}
const golden = JSON.parse(
  readFileSync(new URL('../../golden/detect/token-grid.json', import.meta.url), 'utf8'),
) as Golden;

for (const [i, recorded] of golden.grids.entries())
  test(`grid ${i} equals that of torch ${golden.torch}`, async () => {
    const { channels, temperature, offset } = recorded;
    const options = optionsOf(recorded);
    expect(await numbers('paddingMask', [], options)).toEqual(recorded.mask);
    const [, ratios] = await run('tokenGrid', [], options);
    expectClose(ratios!.data, recorded.ratios, tolerances.f32, 'ratios');
    const references = await numbers('tokenReferences', [], options);
    expectClose(references, recorded.references, tolerances.f32, 'references');
    const [logits, none] = await run('tokenProposals', [], options);
    expect(none!.data).toEqual(recorded.none);
    const finite = logits!.data.map((v, at) => (none!.data[Math.floor(at / 4)] ? 0 : v));
    expectClose(finite, recorded.logits, tolerances.torch, 'logits');
    const positions = await numbers('sinePositions', [], {
      ...options,
      channels,
      temperature,
      offset,
    });
    // In padding both say something else, and nobody looks.
    const picture = (list: number[]) =>
      list.filter((_, at) => !recorded.mask[Math.floor(at / channels)]);
    expectClose(picture(positions), picture(recorded.positions), sines, 'positions');
  });

for (const device of testDevices)
  for (const { order, each, shape, boxes, output, dout, gradient } of golden.encodings)
    test(`encoding of ${shape[2]} numbers, ${order}, equals that of torch ${golden.torch}${onDevice(device)}`, async () => {
      const got = await runOp(
        'coordinateEncoding',
        { name: '', inputs: { boxes: ndarray(shape, boxes) }, options: { order, each } },
        {
          spec: { activations: [] },
          dout: ndarray([shape[0]!, shape[1]!, shape[2]! * each], dout),
          device,
        },
      );
      expectClose(got.output, output, sines, 'encoding');
      expectClose(got.gradients.boxes!, gradient, tolerances.torch, 'gradient');
    });

test('token grids say what was wrong', async () => {
  const grid = grids['no padding']!;
  const refused = (op: string, options: object, code: string, message: string) =>
    expect(run(op, [], options)).rejects.toMatchObject({ code, message: `${op}: ${message}` });
  await refused(
    'tokenGrid',
    optionsOf({ ...grid, maps: [] }),
    'ERR_SHAPE',
    'maps must be 1 to 8, got 0',
  );
  await refused(
    'tokenGrid',
    optionsOf({ ...grid, maps: Array.from({ length: 9 }, () => [1, 1] as const) }),
    'ERR_SHAPE',
    'maps must be 1 to 8, got 9',
  );
  await refused(
    'tokenGrid',
    optionsOf({ ...grid, maps: [[3, 0]] }),
    'ERR_SHAPE',
    'maps must have cells, got 3 x 0',
  );
  await refused(
    'tokenGrid',
    optionsOf({ ...grid, padded: [0, 4] }),
    'ERR_RANGE',
    'padded height must be in [1, 1.07374e+09], got 0',
  );
  await refused(
    'tokenGrid',
    optionsOf({ ...grid, sizes: [[0, 4]] }),
    'ERR_RANGE',
    'sizes must be > 0, got 0',
  );
  await refused(
    'sinePositions',
    optionsOf(grid, { channels: 6 }),
    'ERR_RANGE',
    'channels must be a multiple of 4, got 6',
  );
  await refused(
    'sinePositions',
    optionsOf(grid, { temperature: 0 }),
    'ERR_RANGE',
    'temperature must be > 0, got 0',
  );

  const encode = (input: Parameters<typeof run>[1][number], options: object) =>
    run('coordinateEncoding', [input], options);
  const boxes = { f32: [0, 0, 1, 1], shape: [1, 1, 4] };
  await expect(encode(boxes, { each: 3 })).rejects.toMatchObject({
    code: 'ERR_RANGE',
    message: 'coordinateEncoding: each must be an even number, got 3',
  });
  await expect(encode(f32([1, 2, 3, 4], 4), {})).rejects.toMatchObject({
    code: 'ERR_SHAPE',
    message: 'coordinateEncoding: boxes must have 3 axes (N, Q, 4 or 2), got [1, 4]',
  });
  await expect(encode({ f32: [1, 2, 3], shape: [1, 1, 3] }, {})).rejects.toMatchObject({
    code: 'ERR_SHAPE',
    message: 'coordinateEncoding: boxes must be of 4 or 2 numbers, got [1, 1, 3]',
  });
  await expect(
    encode({ ...boxes, f32: undefined, i32: [0, 0, 1, 1] } as never, {}),
  ).rejects.toThrow();
  await expect(encode(boxes, { order: 'whxy' })).rejects.toMatchObject({ code: 'ERR_CONFIG' });
});
