import { expect, test } from 'vitest';
import { learningRate, type RateSchedule } from '../../../lib/train/schedule.js';

const paper: RateSchedule = {
  warmup: { iterations: 500, factor: 0.001 },
  decay: { type: 'constant' },
};

test('the warm-up of the reference: linear from 0.001, whole at its last iteration', () => {
  expect(learningRate(0.01, paper, 0)).toBeCloseTo(1e-5, 12);
  expect(learningRate(0.01, paper, 499)).toBe(0.01);
  expect(learningRate(0.01, paper, 500)).toBe(0.01);
  // mmengine multiplies step by step: the same line.
  let rate = 0.01 * 0.001;
  for (let i = 1; i < 499; i++) {
    rate *= 1 + (1 - 0.001) / (499 * 0.001 + (i - 1) * (1 - 0.001));
    expect(learningRate(0.01, paper, i)).toBeCloseTo(rate, 10);
  }
});

test('without a warm-up the rate is whole at once', () => {
  for (const iterations of [0, 1])
    expect(learningRate(1, { ...paper, warmup: { iterations, factor: 0.5 } }, 0)).toBe(1);
});

test('steps multiply from their milestone on', () => {
  const schedule: RateSchedule = {
    warmup: { iterations: 0, factor: 1 },
    decay: { type: 'step', milestones: [10, 20], factor: 0.1 },
  };
  const rates = [9, 10, 19, 20, 1000].map((i) => learningRate(1, schedule, i));
  expect(rates[0]).toBe(1);
  expect(rates[1]).toBeCloseTo(0.1);
  expect(rates[2]).toBeCloseTo(0.1);
  expect(rates[3]).toBeCloseTo(0.01);
  expect(rates[4]).toBeCloseTo(0.01);
});
