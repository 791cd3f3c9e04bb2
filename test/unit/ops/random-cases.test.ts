// Thousands of random cases against torchvision's ops, as digests: see scripts/golden/op_cases.py, which
// makes the same inputs.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { nms } from '../../../lib/kernels/index.js';
import { native } from '../../../lib/native.js';
import { type NdArray, ndarray, scalar } from '../../oracle/array.js';
import { runOp } from './test-op.js';

/** Loss, inner product of the gradient with the formula's numbers, norm of the gradient. */
type Digest = [loss: number, probe: number, norm: number];
type Op = 'giou' | 'diou' | 'ciou' | 'focal' | 'smoothL1' | 'roiAlign';
const golden = JSON.parse(
  readFileSync(new URL('../../golden/ops/random-cases.json', import.meta.url), 'utf8'),
) as Record<Op, Digest[]> & { torchvision: string; nms: [count: number, checksum: number][] };

function formula(name: string, count: number): Float64Array {
  let h = 7;
  for (const c of Buffer.from(name)) h = (h * 31 + c) % 65521;
  return Float64Array.from({ length: count }, (_, i) => {
    let x = (Math.imul(i, 2654435761) + Math.imul(h, 40503)) >>> 0;
    for (let k = 0; k < 2; k++) x = Math.imul(x ^ (x >>> 16), 0x45d9f3b) >>> 0;
    return ((x ^ (x >>> 16)) >>> 0) / 2 ** 31 - 1;
  });
}

function boxes(name: string, count: number): Float64Array {
  const u = formula(name, 4 * count);
  return u.map((v, i) => {
    const start = 100 * (u[i - (i % 4 < 2 ? 0 : 2)]! + 1);
    return i % 4 < 2 ? start : start + 2 + 75 * (v + 1);
  });
}

function near(name: string, target: Float64Array): Float64Array {
  const free = boxes(`${name}#free`, target.length / 4);
  const u = formula(`${name}#moved`, target.length);
  const moved = target.map((v, i) => ((i >> 2) % 4 === 0 ? free[i]! : v + 12 * u[i]!));
  return moved.map((v, i) => (i % 4 < 2 ? v : Math.max(v, moved[i - 2]! + 1)));
}

const weights = (name: string) => formula(`${name}#weight`, 25).map((v) => 1 + 0.5 * v);

interface Call {
  name: string;
  options: object;
  /** The first is the one with the gradient. */
  inputs: Record<string, NdArray>;
  integers?: string[];
}

const overlaps = (kind: string) => (b: number) => {
  const name = `${kind}${b}`;
  const target = boxes(name, 25);
  return {
    name: 'iouLoss',
    options: { kind },
    inputs: {
      pred: ndarray([25, 4], near(name, target)),
      target: ndarray([25, 4], target),
      weight: ndarray([25], weights(name)),
    },
  };
};

const calls: Record<Op, (block: number) => Call> = {
  giou: overlaps('giou'),
  diou: overlaps('diou'),
  ciou: overlaps('ciou'),
  focal: (b) => ({
    name: 'sigmoidFocalLoss',
    options: { gamma: [2, 0, 1, 3.5][b % 4], alpha: [0.25, 0.5, 1, 0.75][b % 4] },
    inputs: {
      logits: ndarray(
        [25, 4],
        formula(`focal${b}`, 100).map((v) => 8 * v),
      ),
      labels: ndarray(
        [25],
        formula(`focal${b}#labels`, 25).map((v) => Math.floor(3 * (v + 1)) - 1),
      ),
    },
    integers: ['labels'],
  }),
  smoothL1: (b) => ({
    name: 'smoothL1Loss',
    options: { beta: [0, 1 / 9, 1][b % 3] },
    inputs: {
      pred: ndarray([25, 4], formula(`l1${b}`, 100)),
      target: ndarray([25, 4], formula(`l1${b}#target`, 100)),
      weight: ndarray([25], weights(`l1${b}`)),
    },
  }),
  roiAlign: (b) => ({
    name: 'roiAlign',
    options: {
      ...{ scales: [0.125], size: 7 },
      ...{ samplingRatio: [0, 2][b % 2], aligned: [false, true][(b >> 1) % 2] },
    },
    inputs: {
      features: ndarray([1, 13, 17, 3], formula(`roi${b}#features`, 13 * 17 * 3)),
      boxes: ndarray(
        [50, 4],
        boxes(`roi${b}`, 50).map((v) => v * 0.75 - 20),
      ),
      places: ndarray([50, 2], new Float64Array(100)),
    },
    integers: ['places'],
  }),
};

test.each(Object.keys(calls) as Op[])(
  `%s has the losses and gradients of torchvision ${golden.torchvision} on random cases`,
  async (op) => {
    // An emulated GPU takes seconds for each block of regions.
    const cases = golden[op].slice(0, op === 'roiAlign' && native.setEmulation ? 8 : undefined);
    for (const [b, [loss, probe, norm]] of cases.entries()) {
      const { name, integers = [], ...call } = calls[op](b);
      const [first] = Object.keys(call.inputs) as [string];
      const prefix = `${{ smoothL1: 'l1', roiAlign: 'roi' }[op as string] ?? op}${b}`;
      const size = 50 * 7 * 7 * 3;
      const dout =
        op === 'roiAlign' ? ndarray([50, 7, 7, 3], formula(`${prefix}#dout`, size)) : scalar(1);
      const spec = { activations: [], integers };
      const got = await runOp(name, call as Parameters<typeof runOp>[1], { spec, dout });
      const value =
        op === 'roiAlign'
          ? got.output.reduce((s, v, i) => s + v * Math.fround(dout.data[i]!), 0)
          : got.output[0]!;
      const gradient = got.gradients[first]!;
      const numbers = formula(`${prefix}#probe`, gradient.length);
      const product = gradient.reduce((s, g, i) => s + g * numbers[i]!, 0);
      const where = `${op}, block ${b}`;
      // f32 results, and box arithmetic in f32 for regions, against float64.
      expect(Math.abs(value - loss), where).toBeLessThan(2e-5 * Math.max(1, Math.abs(loss)));
      expect(Math.abs(product - probe), where).toBeLessThan(2e-5 * norm + 1e-7);
      const length = Math.sqrt(gradient.reduce((s, g) => s + g * g, 0));
      expect(Math.abs(length - norm), where).toBeLessThan(2e-5 * norm + 1e-7);
    }
  },
  600_000,
);

test(`nms keeps what torchvision ${golden.torchvision} keeps of a thousand sets`, async () => {
  for (const [b, expected] of golden.nms.entries()) {
    const crowd = Float32Array.from(boxes(`nms${b}`, 30), (v) => v * 0.5);
    const scores = Float32Array.from(formula(`nms${b}#scores`, 30), (v) => (v + 1) / 2);
    const kept = await nms(crowd, scores, { iouThr: [0.1, 0.3, 0.5, 0.7][b % 4]! });
    const checksum = kept.reduce((sum, k, i) => sum + (i + 1) * (k + 1), 0);
    expect([kept.length, checksum], `set ${b}`).toEqual(expected);
  }
});
