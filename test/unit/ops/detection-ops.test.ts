import { expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { type NdArray, ndarray } from '../../oracle/array.js';
import {
  boxesFromSidesLoop,
  learnedScaleLoop,
  roiAlignLoop,
  sigmoidBceLoop,
  softmaxCrossEntropyLoop,
} from '../../oracle/detection-ops.js';
import { expectRefused } from './golden.js';
import { normals, tensor, testOp, uniforms } from './test-op.js';

testOp('learnedScale', {
  oracle: learnedScaleLoop,
  activations: ['x'],
  differentiable: ['x', 'scale'],
  cases: (random) => {
    const one = (name: string, shape: number[]) => ({
      name,
      inputs: { x: normals(random, shape), scale: ndarray([], [1.25]) },
    });
    return [
      one('a box output', [2, 5, 7, 4]),
      one('more than one chunk', [40000, 2]),
      one('one number', [1]),
      one('none', [0, 4]),
    ];
  },
});

testOp('sigmoidBce', {
  oracle: sigmoidBceLoop,
  activations: ['logits'],
  differentiable: ['logits'],
  loss: true,
  cases: (random) => {
    const one = (name: string, shape: number[], scale: number) => ({
      name,
      inputs: {
        logits: normals(random, shape, scale),
        target: uniforms(random, shape),
        weight: ndarray(
          shape,
          Array.from(uniforms(random, shape, -1, 2).data, (v) => Math.max(0, Math.fround(v))),
        ),
      },
    });
    return [
      one('centre-ness', [2, 5, 7, 1], 2),
      one('large logits', [300], 20),
      one('several chunks', [20000], 1),
      one('none', [0], 1),
    ];
  },
});

testOp('boxesFromSides', {
  oracle: boxesFromSidesLoop,
  activations: ['sides'],
  differentiable: ['sides'],
  f32Output: true,
  cases: (random) => [
    { name: 'a box output', inputs: { sides: normals(random, [2, 3, 5, 4]) } },
    { name: 'none', inputs: { sides: normals(random, [0, 4]) } },
  ],
});

testOp('softmaxCrossEntropy', {
  oracle: softmaxCrossEntropyLoop,
  activations: ['logits'],
  integers: ['labels'],
  differentiable: ['logits'],
  loss: true,
  cases: (random) => {
    const one = (name: string, rows: number, classes: number, scale = 2) => ({
      name,
      inputs: {
        logits: normals(random, [rows, classes], scale),
        labels: ndarray(
          [rows],
          Array.from({ length: rows }, () => random.integer(-1, classes)),
        ),
      },
    });
    return [
      one('a box head', 300, 81),
      one('one class', 9, 1),
      one('large logits', 20, 5, 40),
      one('no regions', 0, 4),
    ];
  },
});

/** Boxes inside, across and beyond the map, of any size; image of each. */
function regions(
  random: Random,
  count: number,
  { images, side }: { images: number; side: number },
): { boxes: NdArray; places: NdArray } {
  const boxes = Array.from({ length: count }, () => {
    const [x, y] = [random.uniform(-0.3, 1.1) * side, random.uniform(-0.3, 1.1) * side];
    const size = side * 1.2 * random.next() ** 2;
    return [x, y, x + size * random.uniform(0.3, 1), y + size * random.uniform(0.3, 1)].map(
      Math.fround,
    );
  });
  return {
    boxes: ndarray([count, 4], boxes.flat()),
    places: ndarray(
      [count, 2],
      boxes.flatMap(() => [random.integer(0, images), 0]),
    ),
  };
}

testOp('roiAlign', {
  oracle: roiAlignLoop,
  activations: ['map'],
  integers: ['places'],
  differentiable: ['map'],
  cases: (random) => {
    const one = (name: string, map: number[], count: number, options: object = {}) => ({
      name,
      inputs: {
        map: normals(random, map),
        ...regions(random, count, { images: map[0]!, side: 8 * Math.max(map[1]!, map[2]!) }),
      },
      options: { scales: [0.125], ...options },
    });
    return [
      one('adaptive samples', [2, 9, 13, 3], 12),
      one('two samples, no shift', [2, 9, 13, 70], 10, { samplingRatio: 2, aligned: false }),
      one('three samples', [1, 6, 5, 8], 9, { samplingRatio: 3, size: 3 }),
      one('one pixel', [1, 1, 1, 16], 5, { samplingRatio: 2 }),
      one('packs of channels', [2, 9, 13, 24], 7),
      one('more regions than a block has threads', [1, 5, 9, 4], 300, { size: 2 }),
      one('one bin', [1, 12, 4, 5], 8, { size: 1 }),
      one('no regions', [1, 4, 4, 8], 0),
    ];
  },
});

test('roiAlign takes each region from its own level', async () => {
  const random = new Random(3);
  const maps = [normals(random, [2, 16, 20, 24]), normals(random, [2, 8, 10, 24])];
  const { boxes, places } = regions(random, 20, { images: 2, side: 80 });
  const own = { ...places, data: places.data.map((v, i) => (i % 2 ? (i >> 1) % 2 : v)) };
  const run = async (levels: NdArray[], at: NdArray, scales: number[]) => {
    const inputs = [...levels.map((m) => tensor(m)), tensor(boxes), tensor(at, 'i32')];
    const { outputs } = await native.runOp('roiAlign', inputs, JSON.stringify({ scales }));
    return outputs[0]!.read();
  };
  const both = await run(maps, own, [0.25, 0.125]);
  const alone = [await run([maps[0]!], places, [0.25]), await run([maps[1]!], places, [0.125])];
  const each = 7 * 7 * 24;
  for (let r = 0; r < 20; r++)
    expect(both.slice(r * each, (r + 1) * each)).toEqual(
      alone[r % 2]!.slice(r * each, (r + 1) * each),
    );
});

test('roiAlign says what was wrong', async () => {
  const map = tensor(ndarray([1, 2, 2, 1], [1, 2, 3, 4]));
  const box = tensor(ndarray([1, 4], [0, 0, 2, 2]));
  const refused = (boxes: NdArray, places: NdArray, options: object, code: string, text: string) =>
    expectRefused(
      () =>
        native.runOp(
          'roiAlign',
          [map, tensor(boxes), tensor(places, 'i32')],
          JSON.stringify(options),
        ),
      code,
      `roiAlign: ${text}`,
    );
  const [one, place] = [ndarray([1, 4], [0, 0, 2, 2]), ndarray([1, 2], [0, 0])];
  await refused(
    one,
    ndarray([1, 2], [1, 0]),
    {},
    'ERR_RANGE',
    'places (image) must be in [0, 0], got 1',
  );
  await refused(
    one,
    ndarray([1, 2], [0, 1]),
    {},
    'ERR_RANGE',
    'places (level) must be in [0, 0], got 1',
  );
  await refused(one, place, { size: 0 }, 'ERR_RANGE', 'size must be in [1, 256], got 0');
  await refused(
    one,
    place,
    { scales: [1, 2] },
    'ERR_SHAPE',
    'scales must hold one number per level (1, at least 1), got 2',
  );
  await refused(
    ndarray([1, 4], [0, Number.NaN, 2, 2]),
    place,
    {},
    'ERR_RANGE',
    'boxes must be finite and below 1e7, got nan in box 0',
  );
  box.dispose();
});

test('sampleBoxes takes all there are, or a share that follows from the seed alone', async () => {
  const assigned = Array.from({ length: 1000 }, (_, i) =>
    i % 10 === 0 ? i : i % 10 === 1 ? -2 : -1,
  );
  const draw = async (options: object) => {
    const input = tensor(ndarray([assigned.length], assigned), 'i32');
    const { outputs } = await native.runOp('sampleBoxes', [input], JSON.stringify(options));
    return Promise.all(outputs.map(async (t) => Array.from(await t.read())));
  };
  const [allPositive, allNegative] = await draw({ sampleSize: 5000 });
  expect(allPositive).toEqual(assigned.flatMap((a, i) => (a >= 0 ? [i] : [])));
  expect(allNegative).toEqual(assigned.flatMap((a, i) => (a === -1 ? [i] : [])));
  const seen = new Map<number, number>();
  for (let stream = 0; stream < 200; stream++) {
    const [positives, negatives] = await draw({
      sampleSize: 64,
      posFraction: 0.25,
      seed: 1,
      stream,
    });
    expect(positives).toHaveLength(16);
    expect(negatives).toHaveLength(48);
    for (const i of positives!) {
      expect(assigned[i]).toBeGreaterThanOrEqual(0);
      seen.set(i, (seen.get(i) ?? 0) + 1);
    }
    for (const i of negatives!) expect(assigned[i]).toBe(-1);
  }
  // 100 positives, each drawn with probability 0.16 in 200 draws: 32 ± 5.2.
  expect(seen.size).toBe(100);
  for (const count of seen.values()) expect(Math.abs(count - 32)).toBeLessThan(5 * 5.2);
  const options = { sampleSize: 64, posFraction: 0.5, seed: 9, stream: 4 };
  expect(await draw(options)).toEqual(await draw(options));
  expect(await draw(options)).not.toEqual(await draw({ ...options, stream: 5 }));
  const [few] = await draw({ sampleSize: 400, posFraction: 0.5 });
  expect(few).toHaveLength(100); // no more than there are; negatives take the rest
});
