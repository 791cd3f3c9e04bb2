import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Random } from '../../../lib/random.js';
import * as oracle from '../../oracle/boxes.js';
import { boxes, f32, numbers, relativeError, run } from './run.js';

const golden = JSON.parse(
  readFileSync(new URL('../../golden/detect/boxes.json', import.meta.url), 'utf8'),
);

/** A few f32 operations on pixels up to some hundred: 2^-24 times a small factor. */
const rounding = 2e-6;

function randomBoxes(random: Random, count: number): oracle.Box[] {
  return Array.from({ length: count }, () => {
    const [x, y] = [random.uniform(-20, 80), random.uniform(-20, 80)];
    const [w, h] = [random.uniform(2, 60), random.uniform(2, 60)];
    return [x, y, x + w, y + h].map(Math.fround) as unknown as oracle.Box;
  });
}

const anyBox = fc
  .tuple(
    fc.float({ min: -500, max: 500, noNaN: true }),
    fc.float({ min: -500, max: 500, noNaN: true }),
    fc.float({ min: 1, max: 400, noNaN: true }),
    fc.float({ min: 1, max: 400, noNaN: true }),
  )
  .map(([x, y, w, h]) => [x, y, x + w, y + h].map(Math.fround) as unknown as oracle.Box);

describe('boxIou', () => {
  const { iou, giou, diou, ciou } = oracle;
  const kinds = Object.entries({ iou, giou, diou, ciou });

  test.each(kinds)('%s is the oracle and torchvision', async (kind, similarity) => {
    const random = new Random(11);
    const [a, b] = [randomBoxes(random, 37), randomBoxes(random, 21)];
    const [result] = await run('boxIou', [boxes(a), boxes(b)], { kind });
    expect(result!.shape).toEqual([37, 21]);
    const truth = a.flatMap((x) => b.map((y) => similarity(x, y)));
    expect(relativeError(result!.data, truth)).toBeLessThan(rounding);
    const recorded = await numbers('boxIou', [f32(golden.a, 4), f32(golden.b, 4)], { kind });
    expect(relativeError(recorded, golden[kind])).toBeLessThan(rounding);
  });

  test('is 1 with itself, 0 apart, symmetric; points and NaN do no harm', async () => {
    const list = [
      [0, 0, 4, 4],
      [100, 100, 103, 109],
      [2, 2, 2, 2],
      [Number.NaN, 0, 1, 1],
    ];
    const table = await numbers('boxIou', [boxes(list), boxes(list)]);
    const at = (i: number, j: number) => table[4 * i + j]!;
    expect([at(0, 0), at(1, 1), at(0, 1), at(1, 0)]).toEqual([1, 1, 0, 0]);
    expect([at(2, 2), at(0, 2), at(2, 0)]).toEqual([0, 0, 0]);
    expect(at(3, 0)).toBeNaN();
  });

  test('takes empty lists', async () => {
    expect((await run('boxIou', [boxes([]), boxes([[0, 0, 1, 1]])]))[0]!.shape).toEqual([0, 1]);
    expect((await run('boxIou', [boxes([[0, 0, 1, 1]]), boxes([])]))[0]!.shape).toEqual([1, 0]);
  });

  test('says what it wanted', async () => {
    await expect(run('boxIou', [f32([1, 2, 3], 3), boxes([])])).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'boxIou: axis 1 of a must be 4 (xyxy), got [1, 3]',
    });
    await expect(run('boxIou', [boxes([]), boxes([])], { kind: 'jaccard' })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: "boxIou: kind must be 'iou', 'giou', 'diou' or 'ciou', got 'jaccard'",
    });
  });
});

describe('the delta coder', () => {
  test('encodes and decodes as the oracle', async () => {
    const random = new Random(5);
    const [anchors, targets] = [randomBoxes(random, 50), randomBoxes(random, 50)];
    const encoded = await numbers('encodeBoxes', [boxes(anchors), boxes(targets)]);
    const truth = anchors.flatMap((a, i) => oracle.encode(a, targets[i]!));
    expect(relativeError(encoded, truth)).toBeLessThan(4 * rounding);
    const deltas = anchors.map(() => [0, 0, 0, 0].map(() => Math.fround(random.normal() * 3)));
    for (const bothSides of [true, false]) {
      const decoded = await numbers('decodeBoxes', [boxes(anchors), boxes(deltas)], { bothSides });
      const expected = anchors.flatMap((a, i) =>
        oracle.decode(a, deltas[i] as unknown as oracle.Deltas, bothSides),
      );
      // Corners are differences of a centre and half a size of up to 62.5 anchors.
      expect(relativeError(decoded, expected, 1000)).toBeLessThan(4 * rounding);
    }
  });

  test.each(['plain', 'roi'])('is torchvision’s BoxCoder (%s)', async (name) => {
    const recorded = golden[`coder_${name}`];
    const stds = recorded.weights.map((w: number) => 1 / w);
    const anchors = f32(recorded.anchors, 4);
    const encoded = await numbers('encodeBoxes', [anchors, f32(recorded.boxes, 4)], { stds });
    expect(relativeError(encoded, recorded.encoded)).toBeLessThan(4 * rounding);
    const decoded = await numbers('decodeBoxes', [anchors, f32(recorded.deltas, 4)], {
      stds,
      bothSides: false,
    });
    expect(relativeError(decoded, recorded.decoded, 1000)).toBeLessThan(4 * rounding);
  });

  test('holds dw = ±10 as its sources do', async () => {
    const anchor = boxes([[0, 0, 8, 8]]);
    const width = async (dw: number, bothSides: boolean) => {
      const [x1, , x2] = await numbers('decodeBoxes', [anchor, boxes([[0, 0, dw, 0]])], {
        bothSides,
      });
      return (x2! - x1!) / 8;
    };
    expect(await width(10, true)).toBeCloseTo(62.5, 3);
    expect(await width(10, false)).toBeCloseTo(62.5, 3);
    expect(await width(-10, true)).toBeCloseTo(1 / 62.5, 6);
    expect(await width(-10, false)).toBeCloseTo(Math.exp(-10), 6);
  });

  test('decode undoes encode', () =>
    fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(anyBox, anyBox), { minLength: 1 }), async (pairs) => {
        // Within the clamp of a factor 62.5.
        const fits = pairs.filter(([a, b]) =>
          oracle
            .encode(a, b)
            .slice(2)
            .every((d) => Math.abs(d) < 4),
        );
        const anchors = boxes(fits.map(([a]) => a));
        const targets = fits.flatMap(([, b]) => [...b]);
        const coder = { means: [0.1, -0.2, 0, 0.3], stds: [0.1, 0.1, 0.2, 0.2] };
        const deltas = await numbers('encodeBoxes', [anchors, f32(targets, 4)], coder);
        const back = await numbers('decodeBoxes', [anchors, f32(deltas, 4)], coder);
        expect(relativeError(back, targets, 1000)).toBeLessThan(4 * rounding);
      }),
      { numRuns: 50 },
    ));

  test('refuses what does not fit', async () => {
    await expect(run('encodeBoxes', [boxes([[0, 0, 1, 1]]), boxes([])])).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'encodeBoxes: boxes must be [1, 4] (one an anchor), got [0, 4]',
    });
    await expect(
      run('decodeBoxes', [boxes([]), boxes([])], { stds: [1, 1, 0, 1] }),
    ).rejects.toMatchObject({ code: 'ERR_RANGE' });
    await expect(
      run('decodeBoxes', [boxes([]), boxes([])], { std: [1, 1, 1, 1] }),
    ).rejects.toMatchObject({ code: 'ERR_CONFIG' });
  });
});

describe('the distance coder', () => {
  test('measures to the sides and back', async () => {
    const points = f32([3, 4, 10, 20], 2);
    const list = [
      [1, 1, 9, 9],
      [10, 0, 30, 25],
    ];
    const sides = await numbers('encodeDistances', [points, boxes(list)]);
    expect(sides).toEqual([2, 3, 6, 5, 0, 20, 20, 5]);
    expect(await numbers('decodeDistances', [points, f32(sides, 4)])).toEqual(list.flat());
  });
  test('holds distances in [0, most - 0.1]', async () => {
    const sides = await numbers('encodeDistances', [f32([3, 4], 2), boxes([[5, 1, 9, 9]])], {
      most: 4,
    });
    expect(relativeError(sides, [0, 3, 3.9, 3.9])).toBeLessThan(rounding);
  });
  test('refuses what does not fit', () =>
    expect(
      run('encodeDistances', [boxes([[1, 2, 3, 4]]), boxes([[5, 1, 9, 9]])]),
    ).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'encodeDistances: axis 1 of points must be 2 (x, y), got [1, 4]',
    }));
});

describe('anchors', () => {
  test.each([
    [{ height: 3, width: 5 }, { stride: 8 }],
    [
      { height: 2, width: 2 },
      { stride: 128, ratios: [1], scales: [8] },
    ],
    [
      { height: 1, width: 7 },
      { stride: 4, ratios: [0.5, 3], scales: [2, 3, 5] },
    ],
  ])('of %o with %o are the oracle', async (size, options) => {
    const [result] = await run('levelAnchors', [], { ...size, ...options });
    const truth = oracle.anchorGrid(size, options);
    expect(result!.shape).toEqual([truth.length, 4]);
    expect(relativeError(result!.data, truth.flat(), 64)).toBeLessThan(rounding);
  });

  test('of RetinaNet start at (-16, -16, 16, 16)', async () => {
    const all = await numbers('levelAnchors', [], { stride: 8, height: 1, width: 1 });
    // Ratio 1, scale 0 is the fourth of ratios {0.5, 1, 2} times three scales.
    expect(all.slice(12, 16)).toEqual([-16, -16, 16, 16]);
    expect(all.length).toBe(36);
  });

  test('of torchvision: sizes, rounded corners', async () => {
    const { sizes, strides, height, width, boxes: recorded } = golden.anchors;
    const levels = [];
    for (const [level, stride] of strides.entries())
      levels.push(
        await numbers('levelAnchors', [], {
          stride,
          sizes: sizes[level],
          round: true,
          height: height / stride,
          width: width / stride,
        }),
      );
    expect(levels.flat()).toEqual(recorded);
  });

  test('of cells that begin beyond the padded image are invalid', async () => {
    const options = { stride: 16, ratios: [1], scales: [1, 2], height: 3, width: 4 };
    const valid = (padHeight: number, padWidth: number) =>
      numbers('validAnchors', [], { ...options, padHeight, padWidth });
    const rows = (flags: number[][]) => flags.flatMap((r) => r.flatMap((f) => [f, f]));
    expect(await valid(48, 64)).toEqual(rows(Array(3).fill([1, 1, 1, 1])));
    expect(await valid(33, 64)).toEqual(rows(Array(3).fill([1, 1, 1, 1])));
    expect(await valid(32, 17)).toEqual(
      rows([
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 0, 0],
      ]),
    );
    expect(await valid(0, 64)).toEqual(rows(Array(3).fill([0, 0, 0, 0])));
  });

  test('may be none, and must be possible', async () => {
    expect((await run('levelAnchors', [], { height: 0, width: 4 }))[0]!.shape).toEqual([0, 4]);
    for (const bad of [{ stride: 0 }, { ratios: [] }, { scales: [-1] }, { ratios: [1, 0] }])
      await expect(run('levelAnchors', [], bad)).rejects.toMatchObject({ code: 'ERR_CONFIG' });
    for (const bad of [{ height: -1 }, { height: 65536, width: 65536 }])
      await expect(run('levelAnchors', [], bad)).rejects.toMatchObject({ code: 'ERR_RANGE' });
  });
});
