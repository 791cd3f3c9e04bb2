/** Losses of boxes and classes, and the assignment of anchors, at the sizes of an 800 × 1344 step. */
import type { BenchCase } from '../case.js';
import { expectNear, sizeOf, spread } from '../case.js';
import { boxesIn, fillWith, intsOf, RepeatedNoise, tensorOf } from '../data.js';
import { opCase } from '../op-case.js';

const one = Float32Array.of(1);

function softmaxCrossEntropy(backward: boolean): BenchCase {
  const [rows, classes] = [4 * 512, 81];
  const numel = rows * classes;
  return {
    name: `softmax-cross-entropy/${backward ? 'forward+backward' : 'forward'}`,
    shape: `${rows}×${classes}, the regions of four images`,
    dtypes: ['f32', 'bf16'],
    bytes: (dtype) => numel * sizeOf(dtype) * (backward ? 2 : 1),
    peer: { op: 'softmax-cross-entropy', backward, rows, classes },
    async prepare(context) {
      const logits = fillWith(new Float32Array(numel), new RepeatedNoise(6).block);
      const labels = Int32Array.from({ length: rows }, (_, i) => (7 * i) % classes);
      const rowOf = (row: number) => logits.subarray(row * classes, (row + 1) * classes);
      const normaliser = (row: number) => rowOf(row).reduce((sum, v) => sum + Math.exp(v), 0);
      return opCase(
        {
          op: 'softmaxCrossEntropy',
          inputs: [
            tensorOf(logits, [rows, classes], context),
            intsOf(labels, [rows], context.device),
          ],
          ...(backward ? { douts: [tensorOf(one, [], { ...context, dtype: 'f32' })] } : {}),
          async check([loss], [dlogits]) {
            let want = 0;
            for (let row = 0; row < rows; row++)
              want += Math.log(normaliser(row)) - rowOf(row)[labels[row]!]!;
            expectNear('loss', (await loss!.read()) as Float32Array, [[0, want]], 1e-4);
            if (!dlogits) return;
            const slope = (i: number) => {
              const row = Math.floor(i / classes);
              const hit = labels[row] === i % classes ? 1 : 0;
              return Math.exp(logits[i]!) / normaliser(row) - hit;
            };
            expectNear(
              'dlogits',
              (await dlogits.read()) as Float32Array,
              spread(numel).map((i) => [i, slope(i)] as const),
              context.dtype === 'bf16' ? 1e-2 : 1e-4,
            );
          },
        },
        context,
      );
    },
  };
}

type Box = readonly [x1: number, y1: number, x2: number, y2: number];
const boxAt = (boxes: ArrayLike<number>, i: number): Box => [
  boxes[4 * i]!,
  boxes[4 * i + 1]!,
  boxes[4 * i + 2]!,
  boxes[4 * i + 3]!,
];
const area = (b: Box) => (b[2] - b[0]) * (b[3] - b[1]);

function iouOf(a: Box, b: Box): number {
  const w = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const h = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  const inter = Math.max(0, w) * Math.max(0, h);
  return inter / (area(a) + area(b) - inter);
}

function giouLossOf(a: Box, b: Box): number {
  const iou = iouOf(a, b);
  const union = (area(a) + area(b)) / (1 + iou);
  const enclosing: Box = [
    Math.min(a[0], b[0]),
    Math.min(a[1], b[1]),
    Math.max(a[2], b[2]),
    Math.max(a[3], b[3]),
  ];
  return 1 - iou + (area(enclosing) - union) / area(enclosing);
}

function giouLoss(backward: boolean): BenchCase {
  const count = 10_000;
  return {
    name: `giou-loss/${backward ? 'forward+backward' : 'forward'}`,
    shape: `${count} pairs of boxes`,
    dtypes: ['f32'],
    bytes: () => count * (backward ? 13 : 9) * 4,
    peer: { op: 'giou-loss', backward, boxes: count },
    async prepare(context) {
      const [a, b] = [boxesIn(count, 1333, 800, 1), boxesIn(count, 1333, 800, 2)];
      // Most pairs overlap, as predictions and their targets do.
      for (let i = 0; i < b.length; i++) b[i] = 0.8 * a[i]! + 0.2 * b[i]!;
      return opCase(
        {
          op: 'iouLoss',
          inputs: [
            tensorOf(a, [count, 4], context),
            tensorOf(b, [count, 4], context),
            tensorOf(new Float32Array(count).fill(1), [count], context),
          ],
          options: { kind: 'giou' },
          ...(backward ? { douts: [tensorOf(one, [], context)] } : {}),
          async check([loss], [dpred]) {
            let want = 0;
            for (let i = 0; i < count; i++) want += giouLossOf(boxAt(a, i), boxAt(b, i));
            expectNear('loss', (await loss!.read()) as Float32Array, [[0, want]], 1e-4);
            if (!dpred) return;
            // Central differences in double.
            const slope = (at: number) => {
              const moved = (by: number) =>
                boxAt(a, at >> 2).map((v, k) => (k === (at & 3) ? v + by : v)) as unknown as Box;
              const value = (by: number) => giouLossOf(moved(by), boxAt(b, at >> 2));
              return (value(1e-4) - value(-1e-4)) / 2e-4;
            };
            expectNear(
              'dpred',
              (await dpred.read()) as Float32Array,
              spread(4 * count).map((i) => [i, slope(i)] as const),
              1e-4,
            );
          },
        },
        context,
      );
    },
  };
}

/** RetinaNet's nine at each place of P3 to P7. */
function anchorsOf(): Float32Array {
  const boxes: number[] = [];
  for (const [level, [h, w]] of [
    [100, 168],
    [50, 84],
    [25, 42],
    [13, 21],
    [7, 11],
  ].entries() as IterableIterator<[number, [number, number]]>) {
    const stride = 8 * 2 ** level;
    for (let y = 0; y < h; y++)
      for (let x = 0; x < w; x++)
        for (const ratio of [0.5, 1, 2])
          for (const scale of [4, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3)]) {
            const [dx, dy] = [1 / Math.sqrt(ratio), Math.sqrt(ratio)];
            const [cx, cy, half] = [x * stride, y * stride, (stride * scale) / 2];
            boxes.push(cx - half * dx, cy - half * dy, cx + half * dx, cy + half * dy);
          }
  }
  return Float32Array.from(boxes);
}

const assignMaxIou: BenchCase = {
  name: 'assign/max-iou',
  shape: '201600 anchors, 16 boxes',
  dtypes: ['f32'],
  bytes: () => 201_600 * 20,
  peer: { op: 'assign-max-iou', boxes: 16 },
  async prepare(context) {
    const anchors = anchorsOf();
    const count = anchors.length / 4;
    const boxes = boxesIn(16, 1333, 800, 3);
    return opCase(
      {
        op: 'assignMaxIou',
        inputs: [tensorOf(anchors, [count, 4], context), tensorOf(boxes, [16, 4], context)],
        options: { posIou: 0.5, negIou: 0.4, lowQuality: 'restoreBest' },
        async check([assigned]) {
          const got = (await assigned!.read()) as Int32Array;
          const truth = Array.from({ length: 16 }, (_, g) => boxAt(boxes, g));
          const bestOfBox = new Float64Array(16);
          const ious = new Float64Array(16 * count);
          for (let i = 0; i < count; i++) {
            const anchor = boxAt(anchors, i);
            for (let g = 0; g < 16; g++) {
              const iou = iouOf(anchor, truth[g]!);
              ious[16 * i + g] = iou;
              if (iou > bestOfBox[g]!) bestOfBox[g] = iou;
            }
          }
          // Rounding may decide these otherwise.
          const close = (a: number, b: number) => Math.abs(a - b) < 1e-4;
          let [compared, positive] = [0, 0];
          for (let i = 0; i < count; i++) {
            const row = ious.subarray(16 * i, 16 * (i + 1));
            let owner = 0;
            for (let g = 1; g < 16; g++) if (row[g]! > row[owner]!) owner = g;
            const best = row[owner]!;
            let [ties, kept] = [0, false];
            for (let g = 0; g < 16; g++) {
              if (close(row[g]!, best)) ties++;
              if (close(row[g]!, bestOfBox[g]!)) kept = true; // a box's best anchor
            }
            const unsure = close(best, 0.5) || close(best, 0.4) || ties > 1;
            if (best > 0 && unsure && !kept) continue;
            const want = best >= 0.5 ? owner : best >= 0.4 ? -2 : -1;
            if (got[i] !== want && !(kept && got[i] === owner))
              throw new Error(`assignMaxIou[${i}]: got ${got[i]}, want ${want}, IoU ${best}`);
            compared++;
            if (want >= 0) positive++;
          }
          if (compared < 0.9 * count || positive < 16)
            throw new Error(`only ${compared} anchors could be compared, ${positive} positive`);
        },
      },
      context,
    );
  },
};

export const boxCases: readonly BenchCase[] = [
  softmaxCrossEntropy(false),
  softmaxCrossEntropy(true),
  giouLoss(false),
  giouLoss(true),
  assignMaxIou,
];
