/** Losses and box ops at the sizes of an 800 × 1344 step. */
import type { BenchCase } from '../case.js';
import { expectNear, sizeOf } from '../case.js';
import { boxesIn, intsOf, noise, RepeatedNoise, tensorOf } from '../data.js';
import { opCase } from '../op-case.js';

const anchors = 201600; // 9 at each place of P3 to P7
const classes = 80;

function focal(backward: boolean): BenchCase {
  const numel = anchors * classes;
  return {
    name: `focal-loss/${backward ? 'forward+backward' : 'forward'}`,
    shape: `${anchors}×${classes}`,
    dtypes: ['f32', 'bf16'],
    bytes: (dtype) => numel * sizeOf(dtype) * (backward ? 2 : 1),
    peer: { op: 'focal-loss', backward, anchors, classes },
    async prepare(context) {
      const logits = new RepeatedNoise(6);
      const labels = new Int32Array(anchors).fill(classes);
      for (let i = 0; i < anchors; i += 1000) labels[i] = 1;
      return opCase(
        {
          op: 'sigmoidFocalLoss',
          inputs: [
            logits.tensor([anchors, classes], context),
            intsOf(labels, [anchors], context.device),
          ],
          ...(backward
            ? { douts: [tensorOf(Float32Array.of(1), [], { ...context, dtype: 'f32' })] }
            : {}),
          async check([loss], [dlogits]) {
            const term = (alpha: number, z: number) =>
              alpha * (1 + Math.exp(z)) ** -2 * Math.log1p(Math.exp(-z));
            const asOther = (x: number) => term(0.75, -x);
            // As if no place were its anchor's class, then those that are.
            let want = logits.sum(numel, asOther);
            for (let anchor = 0; anchor < anchors; anchor++) {
              if (labels[anchor] === classes) continue;
              const x = logits.at(anchor * classes + labels[anchor]!);
              want += term(0.25, x) - asOther(x);
            }
            expectNear('focalLoss', (await loss!.read()) as Float32Array, [[0, want]], 1e-4);
            if (!dlogits) return;
            // dL/dz = w q² (2 p log p - q), z = ±x.
            const slope = (i: number) => {
              const sign = labels[Math.floor(i / classes)] === i % classes ? 1 : -1;
              const z = sign * logits.at(i);
              const [p, q] = [1 / (1 + Math.exp(-z)), 1 / (1 + Math.exp(z))];
              return sign * (sign > 0 ? 0.25 : 0.75) * q * q * (2 * p * Math.log(p) - q);
            };
            const places = [1, 80_001, 4_000_000, numel - 1];
            expectNear(
              'dlogits',
              (await dlogits.read()) as Float32Array,
              places.map((i) => [i, slope(i)] as const),
              context.dtype === 'bf16' ? 1e-2 : 1e-4,
            );
          },
        },
        context,
      );
    },
  };
}

const suppression: BenchCase = {
  name: 'nms',
  shape: '10000 boxes, one class, IoU 0.5',
  dtypes: ['f32'],
  bytes: () => 10000 * 20,
  peer: { op: 'nms', boxes: 10000 },
  async prepare(context) {
    const boxes = boxesIn(10000, 1333, 800);
    const scores = noise(10000, 1, 5);
    return opCase(
      {
        op: 'nms',
        inputs: [tensorOf(boxes, [10000, 4], context), tensorOf(scores, [10000], context)],
        options: { iouThr: 0.5 },
        async check([kept]) {
          const got = Array.from(await kept!.read());
          const want = slowNms(boxes, scores);
          if (got.length !== want.length || got.some((box, i) => box !== want[i]))
            throw new Error(`nms: kept ${got.length} boxes, want ${want.length}`);
        },
      },
      context,
    );
  },
};

function slowNms(boxes: Float32Array, scores: Float32Array): number[] {
  const order = Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]! || a - b);
  const f32 = Math.fround;
  const areas = scores.map((_, b) => {
    const width = f32(boxes[4 * b + 2]! - boxes[4 * b]!);
    return width * f32(boxes[4 * b + 3]! - boxes[4 * b + 1]!);
  });
  const side = (a: number, b: number) =>
    Math.max(0, f32(Math.min(boxes[a + 2]!, boxes[b + 2]!) - Math.max(boxes[a]!, boxes[b]!)));
  const overlap = (a: number, b: number) => {
    const width = side(4 * a, 4 * b);
    if (width === 0) return 0;
    const inter = f32(width * side(4 * a + 1, 4 * b + 1));
    return inter / (areas[a]! + areas[b]! - inter);
  };
  const kept: number[] = [];
  for (const box of order) if (kept.every((other) => overlap(other, box) <= 0.5)) kept.push(box);
  return kept;
}

/** Of P2 to P5. */
const mapNumbers = [4, 8, 16, 32].reduce((sum, s) => sum + (800 / s) * (1344 / s) * 256, 0);

const roiAlign = (backward: boolean): BenchCase => ({
  name: `roi-align/${backward ? 'forward+backward' : 'forward'}`,
  shape: '512 boxes, 7×7×256, four levels of 800×1344',
  dtypes: ['f32', 'bf16'],
  // Four points a sample, one output; backward the output's gradient, and every map is written.
  bytes: (dtype) =>
    (512 * 49 * 256 * 5 + (backward ? 512 * 49 * 256 + mapNumbers : 0)) * sizeOf(dtype),
  peer: { op: 'roi-align', boxes: 512, backward },
  async prepare(context) {
    const strides = [4, 8, 16, 32];
    const shapes = strides.map((s) => [1, 800 / s, 1344 / s, 256]);
    // A plane a x + b y + c in every channel: bilinear samples of it are exact.
    const plane = ([, h, w]: readonly number[], stride: number) => {
      const values = new Float32Array(h! * w! * 256);
      for (let y = 0; y < h!; y++)
        for (let x = 0; x < w!; x++)
          values.fill(
            ((x + 0.5) * stride + (y + 0.5) * stride) / 1024,
            (y * w! + x) * 256,
            (y * w! + x + 1) * 256,
          );
      return values;
    };
    const boxes = boxesIn(512, 1200, 700).map((v) => v + 50);
    const places = new Int32Array(1024);
    for (let i = 0; i < 512; i++) {
      const side = Math.sqrt(
        (boxes[4 * i + 2]! - boxes[4 * i]!) * (boxes[4 * i + 3]! - boxes[4 * i + 1]!),
      );
      places[2 * i + 1] = Math.min(3, Math.max(0, Math.floor(Math.log2(side / 56 + 1e-6))));
    }
    const dout = new Float32Array(backward ? 512 * 49 * 256 : 0).fill(1);
    return opCase(
      {
        op: 'roiAlign',
        inputs: [
          ...shapes.map((shape, l) => tensorOf(plane(shape, strides[l]!), shape, context)),
          tensorOf(boxes, [512, 4], { ...context, dtype: 'f32' }),
          intsOf(places, [512, 2], context.device),
        ],
        options: { scales: strides.map((s) => 1 / s), size: 7, samplingRatio: 2, aligned: true },
        ...(backward ? { douts: [tensorOf(dout, [512, 7, 7, 256], context)] } : {}),
        async check([y], dlevels) {
          const out = (await y!.read()) as Float32Array;
          // The mean of a plane over a bin is its value at the bin's centre.
          const want = [0, 100, 255, 511].map((b) => {
            const [x1, y1, x2, y2] = Array.from(boxes.subarray(4 * b, 4 * b + 4)) as [
              number,
              number,
              number,
              number,
            ];
            const at = (low: number, high: number, bin: number) =>
              low + ((high - low) * (bin + 0.5)) / 7;
            return [
              (b * 49 + 3 * 7 + 4) * 256 + 9,
              (at(x1, x2, 4) + at(y1, y2, 3)) / 1024,
            ] as const;
          });
          expectNear('roiAlign', out, want, context.dtype === 'bf16' ? 1e-2 : 1e-4);
          // A bin's weights add up to 1, all inside the maps: each level gets its boxes' 49 bins.
          for (const [l, dlevel] of dlevels.slice(0, 4).entries()) {
            const values = (await dlevel!.read()) as Float32Array;
            let sum = 0;
            for (let i = 9; i < values.length; i += 256) sum += values[i]!;
            const own = places.filter((level, i) => i % 2 === 1 && level === l).length;
            const relative = context.dtype === 'bf16' ? 1e-2 : 1e-4;
            expectNear(`roiAlign dlevel ${l}`, [sum], [[0, 49 * own]], relative);
          }
        },
      },
      context,
    );
  },
});

export const detectionCases: readonly BenchCase[] = [
  focal(false),
  focal(true),
  suppression,
  roiAlign(false),
  roiAlign(true),
];
