import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { assignAtss, centerness } from '../../oracle/atss.js';
import { anchorGrid, type Box } from '../../oracle/boxes.js';
import { expectRefused } from '../ops/golden.js';
import { boxes, i32, numbers, relativeError, run, threadCounts } from './run.js';

// Whole numbers: distances are exact in f32, so they tie here as they do there.
const gridBox = fc
  .tuple(fc.nat(70), fc.nat(50), fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 60 }))
  .map(([x, y, w, h]): Box => [x, y, x + w, y + h]);

const atss = { ratios: [1], scales: [8] };
const pyramid = (height: number, width: number, strides = [8, 16, 32, 64, 128]): Box[][] =>
  strides.map((stride) =>
    anchorGrid(
      { height: Math.ceil(height / stride), width: Math.ceil(width / stride) },
      { stride, ...atss },
    ),
  );
const flags = (valid: readonly boolean[] = []) => ({
  u8: valid.map(Number),
  shape: [valid.length],
});
const assign = (
  levels: Box[][],
  truth: readonly Box[],
  options: object = {},
  valid?: readonly boolean[],
) => numbers('assignAtss', [boxes(truth), flags(valid), ...levels.map(boxes)], options);

describe('assignAtss', () => {
  test('is the oracle, ties, invalid anchors and small levels included', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(gridBox, { maxLength: 8 }),
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 5 }),
        fc.infiniteStream(fc.boolean()),
        fc.boolean(),
        async (truth, topK, count, stream, partly) => {
          const levels = pyramid(72, 96, [8, 16, 32, 64, 128].slice(5 - count));
          const valid = partly
            ? levels.flat().map(() => stream.next().value as boolean)
            : undefined;
          expect(await assign(levels, truth, { topK }, valid)).toEqual(
            assignAtss(levels, truth, { topK }, valid),
          );
        },
      ),
      { numRuns: 100 },
    ));

  test('is the oracle for 500 boxes, on any number of threads', async () => {
    const random = new Random(11);
    const levels = pyramid(256, 320);
    const truth = Array.from({ length: 500 }, (): Box => {
      const [x, y] = [random.integer(-20, 300), random.integer(-20, 230)];
      return [x, y, x + random.integer(1, 200), y + random.integer(1, 200)];
    });
    const want = assignAtss(levels, truth);
    expect(new Set(want).size).toBeGreaterThan(100);
    for (const threads of threadCounts(1, 3)) {
      native.setNumThreads(threads);
      expect(await assign(levels, truth).finally(() => native.setNumThreads(1))).toEqual(want);
    }
  });

  test('without boxes everything valid is background', async () => {
    const levels = pyramid(32, 32, [16, 32]);
    expect(await assign(levels, [])).toEqual([-1, -1, -1, -1, -1]);
    expect(await assign(levels, [], {}, [true, false, true, true, false])).toEqual([
      -1, -2, -1, -1, -2,
    ]);
  });

  test('one anchor is positive when its centre is inside; no anchors have no boxes', async () => {
    const one: Box[][] = [[[0, 0, 8, 8]]];
    expect(await assign(one, [[3, 3, 5, 5]])).toEqual([0]);
    expect(await assign(one, [[4, 3, 6, 5]])).toEqual([-1]);
    // By more than 0.01 pixels, as in TOOD's assigner.
    expect(await assign(one, [[3.98, 3, 6, 5]])).toEqual([0]);
    expect(await assign(one, [[3.995, 3, 6, 5]])).toEqual([-1]);
    expect(await assign([[], []], [[3, 3, 5, 5]])).toEqual([]);
    expect(await assign([], [[3, 3, 5, 5]])).toEqual([]);
    expect(await assign(one, [[3, 3, 5, 5]], {}, [false])).toEqual([-2]);
  });

  test('a box smaller than the stride, between the centres, has no anchor', async () => {
    expect(await assign(pyramid(64, 64), [[10, 10, 13, 13]])).not.toContain(0);
    expect(await assign(pyramid(64, 64), [[15, 15, 17.5, 17.5]])).toContain(0);
  });

  test('of two equal boxes the first has the anchors; a nearer fit takes them away', async () => {
    const levels = pyramid(128, 128, [8]);
    const box: Box = [20, 20, 84, 84];
    expect(await assign(levels, [box, box])).not.toContain(1);
    const both = await assign(levels, [[16, 16, 76, 76], box]);
    expect(new Set(both)).toEqual(new Set([-1, 0, 1]));
  });

  test('says what was wrong', async () => {
    const call =
      (inputs: Parameters<typeof run>[1], options: object = {}) =>
      () =>
        run('assignAtss', inputs, options);
    const anchors = boxes([[0, 0, 1, 1]]);
    await expectRefused(
      call([anchors, flags([true, false]), anchors]),
      'ERR_SHAPE',
      'assignAtss: valid must be [1] (one an anchor), got [2]',
    );
    await expectRefused(
      call([anchors]),
      'ERR_SHAPE',
      'assignAtss: needs boxes, valid and the anchors of each level, got 1 tensors',
    );
    await expectRefused(
      call([anchors, flags(), anchors], { topK: 0 }),
      'ERR_CONFIG',
      'train.topK must be in [1, 65536], got 0',
    );
    await expectRefused(
      call([anchors, flags(), { f32: [1, 2, 3], shape: [1, 3] }]),
      'ERR_SHAPE',
      'assignAtss: axis 1 of anchors must be 4 (xyxy), got [1, 3]',
    );
  });
});

describe('boxTargets', () => {
  test('spreads an assignment over the levels, with the centre-ness of the anchors', async () => {
    const levels = pyramid(96, 96, [8, 32]);
    const truth: Box[] = [
      [3, 5, 71, 60],
      [40, 40, 90, 91],
    ];
    const all = levels.flat();
    const valid = all.map((_, i) => i % 17 !== 5);
    const assigned = assignAtss(levels, truth, {}, valid);
    const outputs = await run(
      'boxTargets',
      [boxes(truth), i32([4, 2]), i32(assigned), ...levels.map(boxes)],
      { classes: 7 },
    );
    const joined = (k: number) => [k, k + 4].flatMap((i) => outputs[i]!.data);
    expect(joined(0)).toEqual(assigned.map((j) => (j >= 0 ? [4, 2][j]! : j === -1 ? 7 : -1)));
    expect(joined(1)).toEqual(assigned.flatMap((j) => (j >= 0 ? [...truth[j]!] : [0, 0, 0, 0])));
    expect(joined(2)).toEqual(assigned.map((j) => Number(j >= 0)));
    const want = assigned.map((j, i) => (j >= 0 ? centerness(all[i]!, truth[j]!) : 0));
    expect(relativeError(joined(3), want, 1e-3)).toBeLessThan(1e-6);
    expect(Math.max(...want)).toBeGreaterThan(0.5);
  });

  test('says what was wrong', async () => {
    const one = boxes([[0, 0, 1, 1]]);
    await expectRefused(
      () => run('boxTargets', [one, i32([0]), i32([1]), one], {}),
      'ERR_RANGE',
      'boxTargets: assigned must be in [-2, 0], got 1',
    );
    await expectRefused(
      () => run('boxTargets', [one, i32([0]), i32([0, 0]), one], {}),
      'ERR_SHAPE',
      'boxTargets: assigned must hold 1 entries (one an anchor), got 2',
    );
    await expectRefused(
      () => run('boxTargets', [one, i32([0, 1]), i32([0]), one], {}),
      'ERR_SHAPE',
      'boxTargets: labels must be [1] (one per box), got [2]',
    );
  });
});
