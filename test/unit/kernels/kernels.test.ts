import fc from 'fast-check';
import ndarray from 'ndarray';
import { describe, expect, test } from 'vitest';
import { MixplError } from '../../../lib/errors.js';
import { compositionOf, testView } from '../../../lib/image/index.js';
import * as kernels from '../../../lib/kernels/index.js';
import { anchorGrid, type Box, decode, encode, giou, iou, toBoxes } from '../../oracle/boxes.js';
import { nms as nmsLoop } from '../../oracle/detect.js';

const { anchors, batchedNms, boxIou, decodeBoxes, ema, encodeBoxes, nms, sigmoidFocalLoss } =
  kernels;

const flatBoxes = Float32Array.of(0, 0, 4, 4, 1, 0, 5, 4, 10, 10, 14, 16);
const scores = Float32Array.of(0.5, 0.9, 0.7);

async function failure(promise: Promise<unknown>): Promise<{ code: string; message: string }> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(MixplError);
  return error as MixplError;
}

describe('kernels', () => {
  test('nms and batchedNms', async () => {
    expect(await nms(flatBoxes, scores)).toEqual(Int32Array.of(1, 2));
    expect(await nms(flatBoxes, scores, { iouThr: 0.9 })).toEqual(Int32Array.of(1, 2, 0));
    expect(await nms(flatBoxes, scores, { maxBoxes: 1 })).toEqual(Int32Array.of(1));
    const labels = Int32Array.of(7, -3, 7);
    expect(await batchedNms(flatBoxes, scores, { labels })).toEqual(Int32Array.of(1, 2, 0));
    expect(await nms(new Float32Array(0), new Float32Array(0))).toEqual(new Int32Array(0));
  });

  test('boxIou gives a table', async () => {
    const list = toBoxes(flatBoxes);
    const plain = await boxIou(flatBoxes, flatBoxes.subarray(4));
    expect(plain.shape).toEqual([3, 2]);
    expect(plain.stride).toEqual([2, 1]);
    const pairs = (f: (a: Box, b: Box) => number) =>
      list.flatMap((a) => list.slice(1).map((b) => Math.fround(f(a, b))));
    expect(Array.from(plain.data)).toEqual(pairs(iou));
    const general = await boxIou(flatBoxes, flatBoxes.subarray(4), { kind: 'giou' });
    pairs(giou).forEach((v, i) => {
      expect(general.data[i]).toBeCloseTo(v, 6);
    });
    // The result is an ndarray's make-up.
    const { data, shape, stride, offset } = plain;
    expect(ndarray(data, shape, stride, offset).get(1, 0)).toBe(1);
  });

  test('compose: pictures as they are, normalised, padded', async () => {
    const picture = (width: number, height: number) => ({
      width,
      height,
      data: Uint8Array.from({ length: 3 * width * height }, (_, i) => (7 * i) % 256),
    });
    const whole = (source: ReturnType<typeof picture>) =>
      compositionOf(testView(source, { long: 8, short: 8 }));
    const square = picture(8, 8);
    const plain = await kernels.compose([whole(square)]);
    expect(plain.shape).toEqual([1, 8, 8, 3]);
    expect([...plain.data]).toEqual([...square.data]);

    const both = await kernels.compose([whole(square), whole(picture(8, 4))], {
      ...{ mean: [10, 20, 30], std: [2, 2, 2], channelOrder: 'bgr', padDivisor: 16 },
    });
    expect(both.shape).toEqual([2, 16, 16, 3]);
    const { data, shape, stride, offset } = both;
    const at = ndarray(data, shape, stride, offset);
    expect(at.get(1, 3, 5, 0)).toBe((square.data[3 * (3 * 8 + 5) + 2]! - 10) / 2);
    expect(at.get(1, 4, 0, 0)).toBe(0);
    const wrong = { ...whole(square), width: -1 };
    expect(await failure(kernels.compose([wrong]))).toMatchObject({ code: 'ERR_SHAPE' });
    for (const [composition, message] of [
      [null, 'compose: composition 0 must be an object, got null'],
      [{ width: 1, height: 1 }, 'compose: layers of composition 0 must be an array, got undefined'],
      [
        { width: 1, height: 1, layers: [null] },
        'compose: layer 0 of composition 0 must be an object, got null',
      ],
      [
        { width: 1, height: 1, layers: [{ ...whole(square).layers[0], source: null }] },
        'compose: source.data of layer 0 of composition 0 must be a Uint8Array, got undefined',
      ],
    ] as const)
      expect(await failure(kernels.compose([composition as never]))).toMatchObject({
        code: 'ERR_SHAPE',
        message,
      });
    expect(await failure(kernels.compose([whole(square)], null as never))).toMatchObject({
      message: 'compose: options must be an object, got null',
    });
  });

  test('encodeBoxes and decodeBoxes', async () => {
    const [a, b] = [flatBoxes.slice(0, 4), flatBoxes.slice(8, 12)];
    const [anchor, box] = [toBoxes(a)[0]!, toBoxes(b)[0]!];
    const deltas = await encodeBoxes(a, b, { stds: [0.1, 0.1, 0.2, 0.2] });
    encode(anchor, box).forEach((d, i) => {
      expect(deltas.data[i]).toBeCloseTo(d / (i < 2 ? 0.1 : 0.2), 4);
    });
    const back = await decodeBoxes(a, deltas, { stds: [0.1, 0.1, 0.2, 0.2] });
    box.forEach((v, i) => {
      expect(back.data[i]).toBeCloseTo(v, 4);
    });
    const thin = await decodeBoxes(a, Float32Array.of(0, 0, -10, 0), { clamp: 'upper' });
    decode(anchor, [0, 0, -10, 0], false).forEach((v, i) => {
      expect(thin.data[i]).toBeCloseTo(v, 5);
    });
  });

  test('anchors', async () => {
    const found = await anchors({ height: 2, width: 3 }, { stride: 8 });
    const truth = anchorGrid({ height: 2, width: 3 }, { stride: 8 });
    expect(found.shape).toEqual([54, 4]);
    truth.flat().forEach((v, i) => {
      expect(found.data[i]).toBeCloseTo(v, 4);
    });
    const rounded = await anchors({ height: 1, width: 1 }, { stride: 8, sizes: [32], round: true });
    expect(Array.from(rounded.data)).toEqual([
      -23, -11, 23, 11, -16, -16, 16, 16, -11, -23, 11, 23,
    ]);
  });

  test('sigmoidFocalLoss and its gradient', async () => {
    // By hand: logit 0 has p = q = 1/2 everywhere.
    const logits = Float32Array.of(0, 0, 0, 0);
    const labels = Int32Array.of(1, 2);
    const { loss, dlogits } = await sigmoidFocalLoss(logits, labels, { gradient: true });
    const term = 0.25 * Math.log(2);
    expect(loss).toBeCloseTo((0.25 + 3 * 0.75) * term, 6);
    // w q^g (g p log p - q) for a positive, mirrored for a negative.
    const slope = 0.25 * (2 * 0.5 * Math.log(0.5) - 0.5);
    const expected = [-0.75 * slope, 0.25 * slope, -0.75 * slope, -0.75 * slope];
    expect(dlogits!.shape).toEqual([2, 2]);
    expected.forEach((v, i) => {
      expect(dlogits!.data[i]).toBeCloseTo(v, 6);
    });
    const bare = await sigmoidFocalLoss(logits, labels, { gamma: 0, alpha: 0.5 });
    expect(bare.dlogits).toBeNull();
    expect(bare.loss).toBeCloseTo(4 * 0.5 * Math.log(2), 6);
    expect((await sigmoidFocalLoss(new Float32Array(0), new Int32Array(0))).loss).toBe(0);
  });

  test('ema leaves its arguments alone', async () => {
    const [teacher, student] = [Float32Array.of(1, 2), Float32Array.of(3, 6)];
    const after = await ema(teacher, student, { momentum: 0.25 });
    expect(Array.from(after.data)).toEqual([1.5, 3]);
    expect(Array.from(teacher)).toEqual([1, 2]);
  });
});

describe('ndarrays', () => {
  test('views are read by stride and offset', async () => {
    // Boxes as columns of a larger table, scores as every other number of it, backwards.
    const table = ndarray(new Float32Array(6 * 5), [6, 5]);
    const list = toBoxes(flatBoxes);
    list.forEach((box, i) => {
      box.forEach((v, k) => {
        table.set(k + 1, 4 - i, v);
      });
    });
    const view = table.lo(1, 0).hi(4, 5).transpose(1, 0).step(-1, 1).hi(3, 4);
    expect(view.offset).not.toBe(0);
    const backwards = ndarray(Float32Array.of(0.7, -1, 0.9, -1, 0.5), [3], [-2], 4);
    expect(await nms(view, backwards)).toEqual(await nms(flatBoxes, scores));
    const contiguous = { data: flatBoxes, shape: [3, 4] };
    expect(await nms(contiguous, scores)).toEqual(Int32Array.of(1, 2));
  });

  test('any view of any shape is the array it shows', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 }),
        fc.array(fc.tuple(fc.boolean(), fc.boolean()), { minLength: 4, maxLength: 4 }),
        fc.nat(),
        async (sizes, moves, turn) => {
          const count = sizes.reduce((n, s) => n * s, 1);
          let view = ndarray(
            Float32Array.from({ length: count }, (_, i) => i),
            sizes,
          );
          view = view.step(...sizes.map((_, axis) => (moves[axis]![0] ? -1 : 1)));
          view = view.lo(...sizes.map((s, axis) => (moves[axis]![1] && s > 1 ? 1 : 0)));
          const axes = sizes.map((_, i) => (i + turn) % sizes.length);
          view = view.transpose(...axes);
          const shown: number[] = [];
          const walk = (index: number[]) => {
            if (index.length === view.shape.length) shown.push(view.get(...index));
            else for (let i = 0; i < view.shape[index.length]!; i++) walk([...index, i]);
          };
          walk([]);
          const zeros = { data: new Float32Array(shown.length), shape: view.shape };
          const read = await ema(zeros, view, { momentum: 1 });
          expect(Array.from(read.data)).toEqual(shown);
          expect(read.shape).toEqual(view.shape);
        },
      ),
      { numRuns: 60 },
    ));

  test('nms of a list is nms of the loop', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(20), fc.nat(20), fc.nat(9), fc.nat(9), fc.nat(5)), {
          maxLength: 40,
        }),
        async (list) => {
          const found = list.map(([x, y, w, h]): Box => [x, y, x + w, y + h]);
          const points = list.map(([, , , , s]) => s);
          const data = Float32Array.from(found.flat());
          expect(Array.from(await nms(data, Float32Array.from(points)))).toEqual(
            nmsLoop(found, points, 0.5),
          );
        },
      ),
      { numRuns: 30 },
    ));
});

describe('bad calls', () => {
  const bad = (value: unknown) => value as never;

  test.each([
    [
      () => nms(flatBoxes.subarray(1), scores),
      'ERR_SHAPE',
      'nms: boxes must be [B, 4], got 11 numbers',
    ],
    [
      () => nms(flatBoxes, scores.subarray(1)),
      'ERR_SHAPE',
      'nms: scores must be [3], got 2 numbers',
    ],
    [
      () => nms({ data: flatBoxes, shape: [4, 3] }, scores),
      'ERR_SHAPE',
      'nms: boxes must be [B, 4], got [4, 3]',
    ],
    [
      () => nms({ data: flatBoxes, shape: [4, 4] }, scores),
      'ERR_SHAPE',
      'nms: boxes must lie inside its data (12 numbers), got elements 0 … 15',
    ],
    [
      () => nms({ data: flatBoxes, shape: [3, 4], stride: [4, 1], offset: 1 }, scores),
      'ERR_SHAPE',
      'nms: boxes must lie inside its data (12 numbers), got elements 1 … 12',
    ],
    [
      () => nms({ data: flatBoxes, shape: [3, 4], stride: [4] }, scores),
      'ERR_SHAPE',
      'nms: boxes.stride must hold 2 integers (one per axis), got [4]',
    ],
    [
      () => nms(bad(Float64Array.from(flatBoxes)), scores),
      'ERR_DTYPE',
      'nms: boxes must be a Float32Array or an ndarray over one, got Float64Array',
    ],
    [
      () => nms(bad([[0, 0, 1, 1]]), scores),
      'ERR_DTYPE',
      'nms: boxes must be a Float32Array or an ndarray over one, got Array',
    ],
    [
      () => nms(bad(undefined), scores),
      'ERR_DTYPE',
      'nms: boxes must be a Float32Array or an ndarray over one, got undefined',
    ],
    [
      () => nms(bad(ndarray(new Float64Array(4), [1, 4])), scores),
      'ERR_DTYPE',
      'nms: boxes must be a Float32Array or an ndarray over one, got an ndarray over Float64Array',
    ],
    [
      () => batchedNms(flatBoxes, scores, bad({})),
      'ERR_DTYPE',
      'batchedNms: labels must be an Int32Array or an ndarray over one, got null',
    ],
    [
      () => nms(flatBoxes, scores, { iouThr: Number.NaN }),
      'ERR_RANGE',
      'nms: iouThr must be a number in [0, 1], got NaN',
    ],
    [
      () => nms(flatBoxes, scores, { maxBoxes: 1.5 }),
      'ERR_RANGE',
      'nms: maxBoxes must be an integer >= 0, got 1.5',
    ],
    [
      () => nms(flatBoxes, scores, bad({ iouThreshold: 0.5 })),
      'ERR_CONFIG',
      "nms: unknown option 'iouThreshold'; did you mean 'iouThr'?",
    ],
    [
      () => boxIou(flatBoxes, flatBoxes, { kind: bad('jaccard') }),
      'ERR_RANGE',
      "boxIou: kind must be one of 'iou', 'giou', 'diou', 'ciou', got 'jaccard'",
    ],
    [
      () => encodeBoxes(flatBoxes, flatBoxes.subarray(4)),
      'ERR_SHAPE',
      'encodeBoxes: boxes must be [3, 4], got 8 numbers',
    ],
    [
      () => encodeBoxes(flatBoxes, flatBoxes, { stds: [1, 1, 0, 1] }),
      'ERR_RANGE',
      'encodeBoxes: stds must be > 0, got 0',
    ],
    [
      () => decodeBoxes(flatBoxes, flatBoxes, { means: bad([1, 2]) }),
      'ERR_RANGE',
      'decodeBoxes: means must hold 4 numbers, got 2',
    ],
    [
      () => anchors({ height: 2, width: -1 }, { stride: 8 }),
      'ERR_RANGE',
      'anchors: width must be an integer in [0, 65536], got -1',
    ],
    [
      () => anchors({ height: 2, width: 1 }, bad({})),
      'ERR_RANGE',
      'anchors: stride must be a number >= 0, got undefined',
    ],
    [
      () => sigmoidFocalLoss(new Float32Array(5), new Int32Array(2)),
      'ERR_SHAPE',
      'sigmoidFocalLoss: logits must be [2, C], got 5 numbers',
    ],
    [
      () => sigmoidFocalLoss({ data: new Float32Array(6), shape: [3, 2] }, new Int32Array(2)),
      'ERR_SHAPE',
      'sigmoidFocalLoss: logits must be [2, C], got [3, 2]',
    ],
    [
      () => ema(flatBoxes, scores, { momentum: 0.5 }),
      'ERR_SHAPE',
      'ema: student must be [12], got 3 numbers',
    ],
    [
      () => ema(scores, scores, bad({})),
      'ERR_RANGE',
      'ema: momentum must be a number in [0, 1], got undefined',
    ],
  ])('%s', async (call, code, message) => {
    expect(await failure(call())).toMatchObject({ code, message });
  });
});

describe('abort', () => {
  test('before the call nothing is done', async () => {
    const reason = new Error('enough');
    await expect(nms(flatBoxes, scores, { signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    );
  });

  test('in the middle rejects at once, and the next call works', async () => {
    const control = new AbortController();
    const count = 4000;
    const many = Float32Array.from({ length: 4 * count }, (_, i) => i % 97);
    const slow = boxIou(many, many, { kind: 'ciou', signal: control.signal });
    control.abort(new Error('enough'));
    await expect(slow).rejects.toThrow('enough');
    expect(await nms(flatBoxes, scores)).toEqual(Int32Array.of(1, 2));
  });
});
