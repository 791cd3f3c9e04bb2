// Runs a named op that computes the losses of a head with one square anchor a cell, beside its oracle.
import { expect } from 'vitest';
import { native } from '../../../lib/native.js';
import type { Random } from '../../../lib/random.js';
import { ndarray } from '../../oracle/array.js';
import type { HeadLevel, Truth } from '../../oracle/atss.js';
import { anchorGrid, type Box } from '../../oracle/boxes.js';
import { tensor, toBf16 } from '../ops/test-op.js';
import { tolerances } from '../tolerances.js';

export interface HeadCase {
  /** Pixels; every level has ceil(size / stride) cells. */
  height: number;
  width: number;
  strides: readonly number[];
  classes: number;
  /** Numbers per cell and their spread, map by map. */
  maps: readonly { channels: number; scale: number; mean?: number }[];
  truths: readonly Truth[];
  /** Of the image without its padding: anchors beyond it are not valid. */
  padSizes?: readonly { height: number; width: number }[];
  options?: Record<string, unknown>;
}

/** Boxes of all sizes, on a grid of `unit` pixels. */
export function randomTruth(
  random: Random,
  count: number,
  { height, width, classes }: { height: number; width: number; classes: number },
): Truth {
  const boxes = Array.from({ length: count }, (): Box => {
    const [w, h] = [random.integer(6, width), random.integer(6, height)];
    const [x, y] = [random.integer(0, width - w + 1), random.integer(0, height - h + 1)];
    return [x, y, x + w, y + h];
  });
  return { boxes, labels: boxes.map(() => random.integer(0, classes)) };
}

/**
 * Losses and gradients of `op` against `oracle(levels, truths, base)`, where base holds the outputs
 * that count as constants: those before a step of the gradient check.
 */
export async function checkHeadLosses(
  op: string,
  c: HeadCase,
  random: Random,
  oracle: (
    levels: readonly HeadLevel[],
    truths: readonly Truth[],
    base: readonly HeadLevel[],
  ) => number[],
  dtype: 'f32' | 'bf16',
): Promise<number[]> {
  const round = dtype === 'bf16' ? toBf16 : Math.fround;
  const images = c.truths.length;
  const sizes = c.strides.map((s) => [Math.ceil(c.height / s), Math.ceil(c.width / s)] as const);
  const anchors = c.strides.map((stride, l) =>
    anchorGrid({ height: sizes[l]![0], width: sizes[l]![1] }, { stride, ratios: [1], scales: [8] }),
  );
  const levels = c.strides.map((_, l): HeadLevel => {
    const cells = anchors[l]!.length;
    const draw = ({ channels, scale, mean = 0 }: HeadCase['maps'][number]) =>
      Array.from({ length: cells * channels }, () => round(mean + scale * random.normal()));
    return { anchors: anchors[l]!, maps: Array.from({ length: images }, () => c.maps.map(draw)) };
  });
  const truths = c.truths.map((truth, n) => {
    const pad = c.padSizes?.[n];
    if (!pad) return truth;
    const valid = sizes.flatMap(([h, w], l) =>
      Array.from({ length: h * w }, (_, i) => {
        const stride = c.strides[l]!;
        return (
          Math.floor(i / w) < Math.ceil(pad.height / stride) &&
          i % w < Math.ceil(pad.width / stride)
        );
      }),
    );
    return { ...truth, valid };
  });

  const inputs = [
    ...levels.flatMap(({ maps }, l) =>
      c.maps.map(({ channels }, k) =>
        tensor(
          ndarray(
            [images, ...sizes[l]!, channels],
            maps.flatMap((of) => of[k]!),
          ),
          dtype,
        ),
      ),
    ),
    ...c.truths.flatMap(({ boxes, labels }) => [
      tensor(ndarray([boxes.length, 4], boxes.flat())),
      tensor(ndarray([labels.length], labels), 'i32'),
    ]),
  ];
  const options = JSON.stringify({
    classes: c.classes,
    strides: c.strides,
    ...(c.padSizes && {
      padHeights: c.padSizes.map((p) => p.height),
      padWidths: c.padSizes.map((p) => p.width),
    }),
    ...c.options,
  });
  const mode = { compute: dtype } as const;
  const { outputs } = await native.runOp(op, inputs, options, mode);
  const losses = await Promise.all(outputs.map(async (t) => (await t.read())[0]!));
  const want = oracle(levels, truths, levels);
  expect(losses).toHaveLength(want.length);
  losses.forEach((loss, k) => {
    const limit = tolerances.headLoss.relative * Math.abs(want[k]!);
    expect(Math.abs(loss - want[k]!), `loss ${k}: ${loss}, want ${want[k]}`).toBeLessThanOrEqual(
      limit,
    );
  });

  const numMaps = c.maps.length;
  for (const k of want.keys()) {
    const douts = want.map((_, i) => (i === k ? tensor(ndarray([], [1])) : null));
    const { gradients } = await native.runOp(op, inputs, options, { ...mode, douts });
    const read = await Promise.all(
      gradients.slice(0, numMaps * levels.length).map(async (t) => (t ? await t.read() : null)),
    );
    // One direction over all maps; the smallest step that f64 differences leave exact enough.
    const direction = read.map((_, i) => {
      const { anchors: own } = levels[Math.floor(i / numMaps)]!;
      return Array.from({ length: images * own.length * c.maps[i % numMaps]!.channels }, () =>
        random.normal(),
      );
    });
    const moved = (step: number): HeadLevel[] =>
      levels.map(({ anchors: own, maps }, l) => ({
        anchors: own,
        maps: maps.map((of, n) =>
          of.map((map, m) =>
            map.map((v, i) => v + step * direction[l * numMaps + m]![n * map.length + i]!),
          ),
        ),
      }));
    const h = 1e-6;
    const at = (step: number) => oracle(moved(step), truths, levels)[k]!;
    const numeric = (at(h) - at(-h)) / (2 * h);
    let [ours, squares] = [0, 0];
    for (const [i, gradient] of read.entries())
      for (const [j, g] of (gradient ?? []).entries()) {
        ours += g * direction[i]![j]!;
        squares += g * g;
      }
    const { relative } = dtype === 'bf16' ? tolerances.gradientBf16 : tolerances.gradient;
    const limit = relative * Math.max(Math.abs(numeric), Math.sqrt(squares)) + 1e-8;
    expect(
      Math.abs(ours - numeric),
      `gradient of loss ${k}: ours ${ours}, numeric ${numeric}`,
    ).toBeLessThanOrEqual(limit);
  }

  native.setNumThreads(3);
  const threaded = await native
    .runOp(op, inputs, options, mode)
    .finally(() => native.setNumThreads(1));
  expect(await Promise.all(threaded.outputs.map(async (t) => (await t.read())[0]!))).toEqual(
    losses,
  );
  return losses;
}
