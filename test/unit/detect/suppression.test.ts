import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { anchorGrid, type Box } from '../../oracle/boxes.js';
import { densePostProcess, type Level, nms as nmsLoop } from '../../oracle/detect.js';
import {
  boxes,
  f32,
  type Input,
  i32,
  numbers,
  relativeError,
  run,
  threadCounts,
  toBf16,
} from './run.js';

const golden = JSON.parse(
  readFileSync(new URL('../../golden/detect/boxes.json', import.meta.url), 'utf8'),
);

// Integers, so that IoU > threshold is the same question in f32 and f64 for these thresholds.
const thresholds = fc.constantFrom(0, 0.25, 0.5, 0.75, 1);
const gridBox = fc
  .tuple(fc.nat(30), fc.nat(30), fc.nat(12), fc.nat(12))
  .map(([x, y, w, h]): Box => [x, y, x + w, y + h]);
const candidate = fc.record({
  box: gridBox,
  score: fc.nat(9),
  label: fc.integer({ min: -1, max: 2 }),
});
const candidates = fc.array(candidate, { maxLength: 120 });

function inputsOf(list: { box: Box; score: number; label: number }[], classwise: boolean): Input[] {
  const inputs = [boxes(list.map((c) => c.box)), f32(list.map((c) => c.score))];
  return classwise ? [...inputs, i32(list.map((c) => c.label))] : inputs;
}

describe('nms', () => {
  test('is the oracle, ties and points included', () =>
    fc.assert(
      fc.asyncProperty(candidates, thresholds, fc.boolean(), async (list, iouThr, classwise) => {
        const kept = await numbers('nms', inputsOf(list, classwise), { iouThr });
        expect(kept).toEqual(
          nmsLoop(
            list.map((c) => c.box),
            list.map((c) => c.score),
            iouThr,
            classwise ? list.map((c) => c.label) : undefined,
          ),
        );
      }),
      { numRuns: 100 },
    ));

  test('is torchvision’s nms and batched_nms', async () => {
    const { boxes: flat, scores, labels, kept } = golden.nms;
    for (const [threshold, wanted] of Object.entries<{ nms: number[]; batched: number[] }>(kept)) {
      const inputs = [f32(flat, 4), f32(scores)];
      const iouThr = Number(threshold);
      expect(await numbers('nms', inputs, { iouThr })).toEqual(wanted.nms);
      expect(await numbers('nms', [...inputs, i32(labels)], { iouThr })).toEqual(wanted.batched);
    }
  });

  test('keeps a subset by falling score; once more changes nothing; order does not matter', () =>
    fc.assert(
      fc.asyncProperty(
        fc.uniqueArray(candidate, { selector: (c) => JSON.stringify(c.box), maxLength: 80 }),
        thresholds,
        fc.nat(),
        async (list, iouThr, seed) => {
          const distinct = list.map((c, i) => ({ ...c, score: i + 0.5 }));
          const kept = await numbers('nms', inputsOf(distinct, true), { iouThr });
          const survivors = kept.map((i) => distinct[i]!);
          expect(new Set(kept).size).toBe(kept.length);
          expect(kept).toEqual([...kept].sort((a, b) => distinct[b]!.score - distinct[a]!.score));
          expect(await numbers('nms', inputsOf(survivors, true), { iouThr })).toEqual(
            survivors.map((_, i) => i),
          );
          const shuffled = new Random(seed).permutation(distinct.length).map((i) => distinct[i]!);
          const again = await numbers('nms', inputsOf(shuffled, true), { iouThr });
          expect(again.map((i) => shuffled[i]!)).toEqual(survivors);
        },
      ),
      { numRuns: 60 },
    ));

  test('is the oracle on thousands of boxes, for any number of threads', async () => {
    const random = new Random(21);
    const count = 3000;
    const list = Array.from({ length: count }, () => {
      const [x, y] = [random.integer(0, 300), random.integer(0, 300)];
      const box: Box = [x, y, x + random.integer(5, 60), y + random.integer(5, 60)];
      return { box, score: random.integer(0, 100000), label: random.integer(0, 3) };
    });
    for (const classwise of [false, true]) {
      const wanted = nmsLoop(
        list.map((c) => c.box),
        list.map((c) => c.score),
        0.5,
        classwise ? list.map((c) => c.label) : undefined,
      );
      for (const threads of threadCounts(1, 2, 3)) {
        native.setNumThreads(threads);
        const inputs = inputsOf(list, classwise);
        expect(await numbers('nms', inputs, { iouThr: 0.5 })).toEqual(wanted);
        expect(await numbers('nms', inputs, { iouThr: 0.5, most: 700 })).toEqual(
          wanted.slice(0, 700),
        );
      }
    }
    native.setNumThreads(1);
  });

  test('NaN: a score comes last, a box suppresses nobody', async () => {
    const list = [
      [0, 0, 4, 4],
      [0, 0, 4, 4],
      [Number.NaN, 0, 4, 4],
      [8, 8, 9, 9],
    ];
    const scores = f32([Number.NaN, 0.1, 0.9, -0.5]);
    expect(await numbers('nms', [boxes(list), scores])).toEqual([2, 1, 3]);
    expect(await numbers('nms', [boxes(list), f32([0, -0, 0, Number.NaN])])).toEqual([0, 2, 3]);
  });

  test('takes nothing, keeps nothing', async () => {
    expect(await numbers('nms', [boxes([]), f32([])])).toEqual([]);
    expect(await numbers('nms', [boxes([[0, 0, 1, 1]]), f32([1])], { most: 0 })).toEqual([]);
  });

  test('refuses what does not fit', async () => {
    await expect(run('nms', [boxes([[0, 0, 1, 1]]), f32([1, 2])])).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'nms: scores must be [1] (one per box), got [2]',
    });
    await expect(run('nms', [boxes([]), f32([]), f32([])])).rejects.toMatchObject({
      code: 'ERR_DTYPE',
      message: 'nms: labels must be i32, got f32',
    });
    await expect(run('nms', [boxes([]), f32([])], { iouThr: 1.5 })).rejects.toMatchObject({
      code: 'ERR_RANGE',
      message: 'nms: iouThr must be in [0, 1], got 1.5',
    });
  });
});

describe('densePostProcess', () => {
  const classes = 4;
  const sizes = [
    { height: 90, width: 121 },
    { height: 70, width: 128 },
  ];
  const grids = [
    { height: 12, width: 16, stride: 8 },
    { height: 6, width: 8, stride: 16 },
  ];

  /** Two images over two levels; logits as falling as a trained head's. */
  function headOutputs(seed: number, keep: (x: number) => number) {
    const random = new Random(seed);
    return grids.map((grid) => {
      const anchors = anchorGrid(grid, { stride: grid.stride, scales: [4] }).map(
        (b) => b.map(Math.fround) as unknown as Box,
      );
      const per = anchors.length;
      const draw = (n: number, f: () => number) => Array.from({ length: n }, () => keep(f()));
      return {
        grid,
        anchors,
        logits: draw(2 * per * classes, () => random.normal() * 2 - 3),
        deltas: draw(2 * per * 4, () => random.normal() * 0.7),
      };
    });
  }

  const wanted = { scoreThr: 0.05, nmsPre: 150, nmsIou: 0.5, maxPerImage: 100 };

  test.each(['f32', 'bf16'] as const)('is the oracle on %s outputs', async (dtype) => {
    const levels = headOutputs(dtype === 'f32' ? 4 : 6, dtype === 'f32' ? Math.fround : toBf16);
    const inputs = levels.flatMap(({ grid, anchors, logits, deltas }): Input[] => {
      const { height, width } = grid;
      const make = (values: number[], channels: number) =>
        ({ [dtype]: values, shape: [2, height, width, channels] }) as unknown as Input;
      return [make(logits, 3 * classes), make(deltas, 12), boxes(anchors)];
    });
    const results = await run('densePostProcess', inputs, {
      ...wanted,
      classes,
      heights: sizes.map((s) => s.height),
      widths: sizes.map((s) => s.width),
    });
    for (const [n, size] of sizes.entries()) {
      const mine = levels.map(({ anchors, logits, deltas }): Level => {
        const per = anchors.length;
        const own = deltas.slice(n * per * 4, (n + 1) * per * 4);
        return {
          anchors,
          logits: logits.slice(n * per * classes, (n + 1) * per * classes),
          deltas: anchors.map((_, i) => own.slice(4 * i, 4 * i + 4) as unknown as Box),
        };
      });
      const truth = densePostProcess(mine, { ...wanted, ...size, classes });
      expect(truth.length).toBeGreaterThan(60);
      const [found, scores, labels] = results.slice(3 * n, 3 * n + 3);
      expect(labels!.data).toEqual(truth.map((d) => d.label));
      expect(
        relativeError(
          scores!.data,
          truth.map((d) => d.score),
        ),
      ).toBeLessThan(1e-6);
      expect(
        relativeError(
          found!.data,
          truth.flatMap((d) => d.box),
          100,
        ),
      ).toBeLessThan(1e-5);
    }
  });

  const one = { heights: [50], widths: [50], classes: 2, scoreThr: 0 };
  const anchor = boxes([[10, 10, 20, 20]]);
  const still = f32([0, 0, 0, 0], 4);

  test('decides strictly at its threshold, and by index on ties', async () => {
    // sigmoid(0) is 0.5 exactly.
    const at = (scoreThr: number) =>
      run('densePostProcess', [f32([0, 0], 2), still, anchor], { ...one, scoreThr });
    expect((await at(0.5))[1]!.data).toEqual([]);
    const [, scores, labels] = await at(0.4999);
    expect(scores!.data).toEqual([0.5, 0.5]);
    expect(labels!.data).toEqual([0, 1]);
    const best = await run('densePostProcess', [f32([0, 0], 2), still, anchor], {
      ...one,
      nmsPre: 1,
    });
    expect(best[2]!.data).toEqual([0]);
  });

  test('drops boxes that the image does not hold, and NaN', async () => {
    const outside = boxes([[60, 10, 70, 20]]);
    const found = async (logits: Input, deltas: Input, anchors: Input) =>
      (await run('densePostProcess', [logits, deltas, anchors], one))[1]!.data.length;
    expect(await found(f32([3, 3], 2), still, anchor)).toBe(2);
    expect(await found(f32([3, 3], 2), still, outside)).toBe(0);
    expect(await found(f32([Number.NaN, 3], 2), still, anchor)).toBe(1);
    expect(await found(f32([3, 3], 2), f32([Number.NaN, 0, 0, 0], 4), anchor)).toBe(0);
    expect(await found(f32([3, 3], 2), f32([0, 0, 0, Number.NaN], 4), anchor)).toBeLessThan(3);
  });

  test('minSize is strict', async () => {
    const at = async (minSize: number) =>
      (await run('densePostProcess', [f32([3, -50], 2), still, anchor], { ...one, minSize }))[1]!
        .data.length;
    expect(await at(9.99)).toBe(2);
    expect(await at(10)).toBe(0);
  });

  test('refuses outputs that do not fit the anchors', async () => {
    await expect(
      run('densePostProcess', [f32([0, 0, 0], 3), still, anchor], one),
    ).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'densePostProcess: logits of level 0 must hold 1 x 1 x 2 numbers, got [1, 3]',
    });
    await expect(
      run('densePostProcess', [f32([0, 0], 2), still, anchor], { ...one, nmsPre: 0 }),
    ).rejects.toMatchObject({ code: 'ERR_CONFIG' });
  });
});
