import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { anchorGrid, type Box } from '../../oracle/boxes.js';
import { type AlignOptions, assignTaskAligned } from '../../oracle/task-aligned.js';
import { boxes, f32, type Input, i32, relativeError, run } from './run.js';

const rounded = (box: readonly number[]) => box.map(Math.fround) as unknown as Box;

function scene(random: Random, count: number, classes: number, side: number) {
  const anchors = [8, 16, 32].flatMap((stride) =>
    anchorGrid({ height: 96 / stride, width: 128 / stride }, { stride, ratios: [1], scales: [8] }),
  );
  const truth = {
    boxes: Array.from({ length: count }, () => {
      const [x, y] = [random.uniform(0, 100), random.uniform(0, 70)];
      const [w, h] = [random.uniform(side / 4, side), random.uniform(side / 4, side)];
      return rounded([x, y, x + w, y + h]);
    }),
    labels: Array.from({ length: count }, () => random.integer(0, classes)),
  };
  // Half of the predictions near the nearest box, half of them anywhere.
  const apart = (a: Box, b: Box) =>
    Math.hypot(a[0] + a[2] - b[0] - b[2], a[1] + a[3] - b[1] - b[3]) / 2;
  const predicted = anchors.map((anchor, i) => {
    const box = [...truth.boxes].sort((a, b) => apart(a, anchor) - apart(b, anchor))[0];
    if (!box || i % 2) {
      const [x, y] = [random.uniform(0, 100), random.uniform(0, 70)];
      return rounded([x, y, x + random.uniform(1, 60), y + random.uniform(1, 60)]);
    }
    const [w, h] = [box[2] - box[0], box[3] - box[1]];
    const move = (v: number, size: number) => v + size * random.uniform(-0.3, 0.3);
    return rounded([move(box[0], w), move(box[1], h), move(box[2], w), move(box[3], h)]);
  });
  const scores = anchors.map(() =>
    Array.from({ length: classes }, () => Math.fround(random.uniform(0.01, 0.9))),
  );
  const valid = anchors.map((_, i) => i % 7 !== 3);
  return { anchors, truth, predicted, scores, valid };
}

type Scene = ReturnType<typeof scene>;
const inputsOf = (s: Scene, withValid: boolean): Input[] => [
  { f32: s.scores.flat(), shape: [s.scores.length, s.scores[0]!.length] },
  boxes(s.predicted),
  boxes(s.anchors),
  boxes(s.truth.boxes),
  i32(s.truth.labels),
  ...(withValid ? [{ u8: s.valid.map(Number), shape: [s.valid.length] }] : []),
];

describe('assignTaskAligned', () => {
  const cases: [string, number, number, number, AlignOptions, boolean][] = [
    ['a few boxes', 5, 3, 60, {}, false],
    ['partly invalid', 5, 3, 60, {}, true],
    ['one class, one box', 1, 1, 80, { top: 60 }, false],
    ['boxes smaller than a stride', 20, 2, 6, {}, false],
    ['many boxes that contend', 200, 4, 90, {}, true],
    ['other exponents, few candidates', 6, 2, 60, { top: 3, alpha: 0.5, beta: 2 }, false],
    ['more candidates than anchors', 3, 2, 60, { top: 1000 }, false],
    ['no boxes', 0, 2, 1, {}, true],
  ];
  test.each(cases)('is the oracle: %s', async (name, count, classes, side, options, partly) => {
    const s = scene(new Random(23).fork(name), count, classes, side);
    const want = assignTaskAligned(
      s.scores,
      s.predicted,
      s.anchors,
      s.truth,
      options,
      partly ? s.valid : undefined,
    );
    const [assigned, quality] = await run('assignTaskAligned', inputsOf(s, partly), options);
    expect(assigned!.data).toEqual(want.assigned);
    expect(relativeError(quality!.data, want.quality, 1e-3)).toBeLessThan(2e-5);
    if (count > 0) expect(want.assigned.some((a) => a >= 0)).toBe(true);
  });

  test('NaN predictions and scores are nobody’s', async () => {
    const s = scene(new Random(4), 3, 2, 60);
    const lost: Scene = {
      ...s,
      predicted: s.predicted.map((b, i) =>
        i % 2 ? b : ([Number.NaN, b[1], b[2], b[3]] as unknown as Box),
      ),
      scores: s.scores.map((row, i) => (i % 3 ? row : row.map(() => Number.NaN))),
    };
    const [assigned, quality] = await run('assignTaskAligned', inputsOf(lost, false));
    assigned!.data.forEach((a, i) => {
      if (i % 2 === 0 || i % 3 === 0) expect(a).toBe(-1);
    });
    expect(quality!.data.every(Number.isFinite)).toBe(true);
  });

  test('has the same bits for any number of threads', async () => {
    const s = scene(new Random(9), 60, 3, 50);
    const results = [];
    for (const threads of [1, 2, 3]) {
      native.setNumThreads(threads);
      results.push(await run('assignTaskAligned', inputsOf(s, true)));
    }
    native.setNumThreads(1);
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
  });

  test('refuses what does not fit', async () => {
    const inputs = inputsOf(scene(new Random(1), 2, 2, 30), true);
    await expect(run('assignTaskAligned', inputs.with(4, i32([0, 2])))).rejects.toMatchObject({
      code: 'ERR_RANGE',
      message: 'assignTaskAligned: labels must be in [0, 1], got 2',
    });
    await expect(run('assignTaskAligned', inputs.with(0, f32([1, 2], 2)))).rejects.toMatchObject({
      code: 'ERR_SHAPE',
    });
    await expect(
      run('assignTaskAligned', inputs.with(5, { u8: [1], shape: [1] })),
    ).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'assignTaskAligned: valid must be [252] (one an anchor), got [1]',
    });
    await expect(run('assignTaskAligned', inputs, { top: 0 })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
    });
  });
});
