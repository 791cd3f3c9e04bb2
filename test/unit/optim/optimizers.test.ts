import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { emaShare, type OptimizerCase, trajectory } from '../../oracle/optimizers.js';
import { f32, type Input, numbers, relativeError, run } from '../detect/run.js';

const golden = JSON.parse(
  readFileSync(new URL('../../golden/detect/optimizers.json', import.meta.url), 'utf8'),
);

/** Ten f32 steps: each rounds a few times at 2^-24 of the weight. */
const tenSteps = 5e-6;

describe('optimizers', () => {
  const { shapes, steps, lr, lrFactors, weightDecays, starts, gradients } = golden;
  const inputs: Input[] = [
    ...starts.map((f: number[], i: number) => ({ f32: f, shape: shapes[i] })),
    ...gradients.map((f: number[], i: number) => ({ f32: f, shape: [steps, ...shapes[i]] })),
  ];

  interface Recorded {
    type: string;
    clipNorm: number;
    options: object;
    weights: number[][];
    norms: number[];
  }
  const recorded: [string, Recorded][] = golden.runs.map((r: Recorded) => [
    `${r.type} ${JSON.stringify(r.options)} clip ${r.clipNorm}`,
    r,
  ]);
  test.each(recorded)('%s is torch’s after ten steps of two groups', async (_, recorded) => {
    const { type, clipNorm, options, weights } = recorded;
    const optimizer = { type, clipNorm, ...options };
    const after = await run('optimizerSteps', inputs, { lr, lrFactors, weightDecays, optimizer });
    for (const [i, wanted] of weights.entries())
      expect(relativeError(after[i]!.data, wanted)).toBeLessThan(tenSteps);
  });

  const { groups } = golden;
  const grouped: [string, Recorded][] = groups.runs.map((r: Recorded) => [
    `${r.type} clip ${r.clipNorm}`,
    r,
  ]);
  test.each(grouped)('%s is torch’s with groups of parameters by path', async (_, recorded) => {
    const { type, clipNorm, options, weights } = recorded;
    const { paths, customKeys, weightDecay, lr, steps, starts, gradients } = groups;
    const keys = Object.entries<{ lr_mult?: number; decay_mult?: number }>(customKeys);
    const optimizer = {
      ...{ type, clipNorm, weightDecay, ...options },
      groups: keys.map(([match, { lr_mult = 1, decay_mult = 1 }]) => ({
        ...{ match, lrFactor: lr_mult, weightDecayFactor: decay_mult },
      })),
    };
    const inputs = [
      ...starts.map((w: number[]) => f32(w)),
      ...gradients.map((g: number[]) => f32(g, g.length / steps)),
    ];
    const after = await run('optimizerSteps', inputs, { lr, paths, optimizer });
    expect(weights).toHaveLength(paths.length);
    for (const [i, wanted] of weights.entries())
      expect(relativeError(after[i]!.data, wanted), paths[i]).toBeLessThan(tenSteps);
  });

  test('the gradient norm is torch’s', async () => {
    const { norms } = golden.runs[0];
    for (let step = 0; step < steps; step++) {
      const all = gradients.map((g: number[]) => {
        const size = g.length / steps;
        return f32(g.slice(step * size, (step + 1) * size));
      });
      const [norm] = await numbers('gradientNorm', all);
      expect(relativeError([norm!], [norms[step]])).toBeLessThan(1e-6);
    }
  });

  const cases: OptimizerCase[] = [
    { type: 'sgd', lr: 0.1 },
    { type: 'sgd', lr: 0.1, momentum: 0, weightDecay: 0.2 },
    { type: 'sgd', lr: 0.05, momentum: 0.7, dampening: 0.5, weightDecay: 0.01 },
    { type: 'sgd', lr: 0.05, momentum: 0.9, nesterov: true, weightDecay: 0.01 },
    { type: 'adamw', lr: 0.05, weightDecay: 0.3 },
    { type: 'adamw', lr: 0.05, betas: [0.5, 0.6], eps: 0.01 },
  ];
  test.each(cases.map((c) => [JSON.stringify(c), c] as const))('%s is the oracle', async (_, c) => {
    const { lr, weightDecay = 0, ...optimizer } = c;
    const random = new Random(9);
    // More than one chunk of 16384, and a remainder after the last full vector.
    const count = 20011;
    const start = Float32Array.from({ length: count }, () => random.normal());
    const rows = Float32Array.from({ length: 4 * count }, () => random.normal());
    const after = await numbers('optimizerSteps', [f32(start), { f32: rows, shape: [4, count] }], {
      lr,
      weightDecays: [weightDecay],
      optimizer,
    });
    const truth = Array.from(
      start,
      (w, i) =>
        trajectory(
          w,
          [0, 1, 2, 3].map((t) => rows[t * count + i]!),
          c,
        ).at(-1)!,
    );
    expect(relativeError(after, truth)).toBeLessThan(tenSteps);
  });

  test('give the same bits for any number of threads', async () => {
    const random = new Random(2);
    const count = 70001;
    const start = f32(Float32Array.from({ length: count }, () => random.normal()));
    const rows = {
      f32: Float32Array.from({ length: 2 * count }, () => random.normal()),
      shape: [2, count],
    };
    const results = [];
    for (const threads of [1, 2, 3]) {
      native.setNumThreads(threads);
      results.push(
        await numbers('optimizerSteps', [start, rows], {
          lr: 0.1,
          optimizer: { type: 'adamw', clipNorm: 1 },
        }),
      );
    }
    native.setNumThreads(1);
    expect(results[1]).toEqual(results[0]);
    expect(results[2]).toEqual(results[0]);
  });

  test('say which option is wrong', async () => {
    const bad = async (optimizer: object, message: string) =>
      expect(run('optimizerSteps', [f32([1]), f32([1], 1)], { optimizer })).rejects.toMatchObject({
        code: 'ERR_CONFIG',
        message,
      });
    await bad({ type: 'adam' }, "optimizer.type must be 'sgd' or 'adamw', got 'adam'");
    await bad({ momentum: -0.1 }, 'optimizer.momentum must be in [0, 1], got -0.1');
    await bad({ type: 'adamw', betas: [0.9] }, 'optimizer.betas must hold two numbers, got 1');
    await bad({ type: 'adamw', betas: [0.9, 1] }, 'optimizer.betas must be in [0, 1], got 1');
    await bad(
      { nesterov: true, momentum: 0 },
      'optimizer.nesterov must come with a momentum > 0 and without dampening',
    );
    await bad(
      { type: 'adamw', momentum: 0.9 },
      "optimizerSteps.optimizer: unknown option 'momentum'",
    );
    await expect(run('optimizerSteps', [f32([1]), f32([1, 2], 2)])).rejects.toMatchObject({
      code: 'ERR_SHAPE',
    });
  });
});

describe('clipping', () => {
  const step = async (gradient: number[], clipNorm: number) =>
    numbers('optimizerSteps', [f32(gradient.map(() => 0)), f32(gradient, gradient.length)], {
      lr: 1,
      optimizer: { momentum: 0, clipNorm },
    });

  test('scales to the norm, never enlarges, and 0 turns it off', async () => {
    expect(relativeError(await step([3, 4], 1), [-0.6, -0.8])).toBeLessThan(1e-6);
    expect(await step([3, 4], 20)).toEqual([-3, -4]);
    expect(await step([3, 4], 0)).toEqual([-3, -4]);
  });

  test('the norm sees infinity and NaN, and is finite where f32 squares are not', async () => {
    expect(await numbers('gradientNorm', [f32([1, Number.NaN])])).toEqual([Number.NaN]);
    expect(await numbers('gradientNorm', [f32([1]), f32([-Infinity])])).toEqual([Infinity]);
    const large = await numbers('gradientNorm', [f32(Array(32).fill(1e25))]);
    expect(relativeError(large, [Math.sqrt(32) * 1e25], 1e25)).toBeLessThan(1e-6);
    expect(await numbers('gradientNorm', [])).toEqual([0]);
  });
});

describe('ema', () => {
  test('is (1 - m) teacher + m student; 0 keeps, 1 copies', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.tuple(
            fc.float({ min: -1e3, max: 1e3, noNaN: true }),
            fc.float({ min: -1e3, max: 1e3, noNaN: true }),
          ),
          { maxLength: 50 },
        ),
        fc.double({ min: 0, max: 1, noNaN: true }),
        async (pairs, momentum) => {
          const teacher = f32(pairs.map(([t]) => t));
          const student = f32(pairs.map(([, s]) => s));
          const at = (m: number) => numbers('ema', [teacher, student], { momentum: m });
          const truth = pairs.map(([t, s]) => (1 - momentum) * t + momentum * s);
          expect(relativeError(await at(momentum), truth, 1e3)).toBeLessThan(3e-7);
          expect(await at(0)).toEqual(pairs.map(([t]) => t));
          expect(await at(1)).toEqual(pairs.map(([, s]) => s));
        },
      ),
      { numRuns: 40 },
    ));

  test('momentum 0 and 1 do not even multiply', async () => {
    const odd = f32([Infinity, Number.NaN]);
    expect(await numbers('ema', [f32([1, 2]), odd], { momentum: 0 })).toEqual([1, 2]);
    expect(await numbers('ema', [odd, f32([1, 2])], { momentum: 1 })).toEqual([1, 2]);
  });

  test('at the shares of the reference: 2/3, 4/9, 1/3, then the floor', async () => {
    // Updates happen after iterations 2, 5, 8, ... (facts, section 12, item 1).
    expect([2, 5, 8].map((i) => emaShare(i).toFixed(4))).toEqual(['0.6667', '0.4444', '0.3333']);
    expect(emaShare(19994)).toBeCloseTo(2.0002e-4, 9);
    expect(emaShare(19997)).toBe(2e-4);
    let teacher = [5];
    let truth = 5;
    for (const i of [2, 5, 8, 19994, 19997]) {
      teacher = await numbers('ema', [f32(teacher), f32([i])], { momentum: emaShare(i) });
      truth = (1 - emaShare(i)) * truth + emaShare(i) * i;
    }
    expect(relativeError(teacher, [truth])).toBeLessThan(1e-6);
  });

  test('refuses what does not fit', async () => {
    await expect(run('ema', [f32([1]), f32([1, 2])])).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'ema: student must be [1] (as the teacher), got [2]',
    });
    await expect(run('ema', [f32([1]), f32([1])], { momentum: 1.01 })).rejects.toMatchObject({
      code: 'ERR_RANGE',
    });
    await expect(run('ema', [{ i32: [1], shape: [1] }, f32([1])])).rejects.toMatchObject({
      code: 'ERR_DTYPE',
    });
  });
});
