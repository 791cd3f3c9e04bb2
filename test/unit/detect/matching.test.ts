import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { anchorGrid, type Box, encode, toBoxes } from '../../oracle/boxes.js';
import { type AssignOptions, assignMaxIou } from '../../oracle/detect.js';
import { boxes, f32, i32, numbers, relativeError, run } from './run.js';

const golden = JSON.parse(
  readFileSync(new URL('../../golden/detect/boxes.json', import.meta.url), 'utf8'),
);

const retinanet: AssignOptions = { posIou: 0.5, negIou: 0.4, minPosIou: 0, matchLowQuality: true };
const rpn: AssignOptions = { posIou: 0.7, negIou: 0.3, minPosIou: 0.3, matchLowQuality: true };
const roi: AssignOptions = { posIou: 0.5, negIou: 0.5, minPosIou: 0.5, matchLowQuality: false };

// Corners on a small grid: many exact ties, and every IoU is the same in f32 and f64 comparisons.
const gridBox = fc
  .tuple(fc.nat(12), fc.nat(12), fc.integer({ min: 1, max: 8 }), fc.integer({ min: 1, max: 8 }))
  .map(([x, y, w, h]): Box => [x, y, x + w, y + h]);

describe('assignMaxIou', () => {
  test.each([
    ['retinanet', retinanet],
    ['rpn', rpn],
    ['roi', roi],
    ['torchvision', { ...retinanet, lowQuality: 'restoreBest' } as AssignOptions],
    ['no min', { ...rpn, minPosIou: 0 }],
  ])('is the oracle, ties included (%s)', (_, options) =>
    fc.assert(
      fc.asyncProperty(
        fc.array(gridBox, { minLength: 1, maxLength: 60 }),
        fc.array(gridBox, { maxLength: 6 }),
        fc.array(fc.boolean(), { minLength: 60, maxLength: 60 }),
        fc.boolean(),
        async (anchors, truth, flags, partly) => {
          const valid = partly ? anchors.map((_, i) => flags[i]!) : undefined;
          const inputs = [boxes(anchors), boxes(truth)];
          if (valid) inputs.push({ u8: valid.map(Number), shape: [valid.length] });
          expect(await numbers('assignMaxIou', inputs, options)).toEqual(
            assignMaxIou(anchors, truth, options, valid),
          );
        },
      ),
      { numRuns: 60 },
    ),
  );

  test('is the oracle over many blocks of anchors', async () => {
    const random = new Random(3);
    // Integers again: an IoU that ties in f32 but not in f64 is no error.
    const shape = { stride: 8, ratios: [0.25, 1, 4], scales: [2, 4, 6] };
    const anchors = anchorGrid({ height: 20, width: 26 }, shape);
    const truth = Array.from({ length: 30 }, (): Box => {
      const [x, y] = [random.integer(0, 150), random.integer(0, 110)];
      return [x, y, x + random.integer(3, 40), y + random.integer(3, 40)];
    });
    for (const options of [retinanet, rpn, { ...retinanet, lowQuality: 'restoreBest' as const }])
      expect(await numbers('assignMaxIou', [boxes(anchors), boxes(truth)], options)).toEqual(
        assignMaxIou(anchors, truth, options),
      );
  });

  test('is torchvision’s Matcher', async () => {
    const anchors = toBoxes(golden.anchors.boxes);
    const truth = toBoxes(golden.matcher.truth);
    for (const [name, options] of Object.entries({ retinanet, rpn, roi }))
      expect(
        await numbers('assignMaxIou', [boxes(anchors), boxes(truth)], {
          ...options,
          lowQuality: 'restoreBest',
        }),
      ).toEqual(golden.matcher[name]);
  });

  test('without boxes everything is background; of two equal boxes the first wins by IoU', async () => {
    const anchors = boxes([
      [0, 0, 4, 4],
      [9, 9, 12, 12],
    ]);
    expect(await numbers('assignMaxIou', [anchors, boxes([])])).toEqual([-1, -1]);
    const twice = boxes([
      [0, 0, 4, 4],
      [0, 0, 4, 4],
    ]);
    expect(await numbers('assignMaxIou', [anchors, twice], { matchLowQuality: false })).toEqual([
      0, -1,
    ]);
    // Low-quality matching goes through the boxes in order: the later one overwrites.
    expect(await numbers('assignMaxIou', [anchors, twice])).toEqual([1, -1]);
    expect(await numbers('assignMaxIou', [boxes([]), twice])).toEqual([]);
  });

  test('a box that touches no anchor ties with all of them, as in the references', async () => {
    const anchors = boxes([
      [0, 0, 4, 4],
      [9, 9, 12, 12],
    ]);
    const far = boxes([[50, 50, 60, 60]]);
    expect(await numbers('assignMaxIou', [anchors, far])).toEqual([0, 0]);
    expect(await numbers('assignMaxIou', [anchors, far], { minPosIou: 0.01 })).toEqual([-1, -1]);
  });

  test('refuses what does not fit', async () => {
    const anchors = boxes([[0, 0, 4, 4]]);
    await expect(
      run('assignMaxIou', [anchors, boxes([]), { u8: [1, 1], shape: [2] }]),
    ).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'assignMaxIou: valid must be [1] (one an anchor), got [2]',
    });
    await expect(
      run('assignMaxIou', [anchors, boxes([])], { posIou: 0.3, negIou: 0.4 }),
    ).rejects.toMatchObject({ code: 'ERR_CONFIG' });
    await expect(
      run('assignMaxIou', [anchors, boxes([])], { lowQuality: 'best' }),
    ).rejects.toMatchObject({ code: 'ERR_CONFIG' });
    await expect(run('assignMaxIou', [i32([1]), boxes([])])).rejects.toMatchObject({
      code: 'ERR_DTYPE',
    });
  });
});

describe('denseTargets', () => {
  test('labels, encodes and weighs per image', async () => {
    const anchors = anchorGrid({ height: 6, width: 7 }, { stride: 16 }).map(
      (b) => b.map(Math.fround) as unknown as Box,
    );
    const images: { truth: Box[]; labels: number[] }[] = [
      {
        truth: [
          [10, 12, 70, 60],
          [40, 30, 100, 90],
        ],
        labels: [2, 0],
      },
      { truth: [], labels: [] },
      { truth: [[3, 3, 50, 44]], labels: [1] },
    ];
    const classes = 3;
    const [labels, deltas, weights] = await run(
      'denseTargets',
      [boxes(anchors), ...images.flatMap((i) => [boxes(i.truth), i32(i.labels)])],
      { classes },
    );
    expect(labels!.shape).toEqual([3, anchors.length]);
    expect(deltas!.shape).toEqual([3, anchors.length, 4]);
    const assigned = images.map(({ truth }) => assignMaxIou(anchors, truth, retinanet));
    expect(labels!.data).toEqual(
      images.flatMap((image, n) =>
        assigned[n]!.map((a) => (a >= 0 ? image.labels[a]! : a === -2 ? -1 : classes)),
      ),
    );
    expect(weights!.data).toEqual(assigned.flat().map((a) => (a >= 0 ? 1 : 0)));
    const wanted = images.flatMap(({ truth }, n) =>
      assigned[n]!.flatMap((a, i) => (a >= 0 ? encode(anchors[i]!, truth[a]!) : [0, 0, 0, 0])),
    );
    expect(relativeError(deltas!.data, wanted)).toBeLessThan(1e-5);
  });

  test('refuses a label list of another length', () =>
    expect(
      run('denseTargets', [boxes([[0, 0, 4, 4]]), boxes([[0, 0, 4, 4]]), i32([0, 1])]),
    ).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'denseTargets: labels must be [1] (one per box), got [2]',
    }));
});

test('matching gives the same bits for any number of threads', async () => {
  const random = new Random(8);
  const anchors = await numbers('levelAnchors', [], { stride: 8, height: 40, width: 60 });
  const truth = Array.from({ length: 25 }, () => {
    const [x, y] = [random.integer(0, 400), random.integer(0, 250)];
    return [x, y, x + random.integer(4, 120), y + random.integer(4, 120)];
  });
  const results = [];
  for (const threads of [1, 2, 3]) {
    native.setNumThreads(threads);
    results.push(await numbers('assignMaxIou', [f32(anchors, 4), boxes(truth)]));
  }
  native.setNumThreads(1);
  expect(results[1]).toEqual(results[0]);
  expect(results[2]).toEqual(results[0]);
});
