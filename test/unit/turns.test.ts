import { describe, expect, test } from 'vitest';
import { toFloat32 } from '../../lib/element-types.js';
import { numbersPerTurn, rangesInTurns } from '../../lib/turns.js';
import { axisCodec } from '../../lib/weights/codec.js';

/** Turns of the event loop from the call of `work` until it is done. */
async function turnsOf<T>(work: () => Promise<T>): Promise<{ turns: number; result: T }> {
  let turns = 0;
  let next: NodeJS.Immediate;
  const count = () => {
    turns++;
    next = setImmediate(count);
  };
  next = setImmediate(count);
  const result = await work();
  clearImmediate(next);
  return { turns, result };
}

describe('work on many numbers leaves the event loop its turns', () => {
  test('whether they are of one tensor or of many', async () => {
    for (const [tensors, each] of [
      [1, 8 * numbersPerTurn],
      [64, numbersPerTurn / 8],
    ] as const) {
      const { turns, result } = await turnsOf(async () => {
        let seen = 0;
        for (let i = 0; i < tensors; i++) {
          let at = 0;
          for await (const [from, to] of rangesInTurns(each)) {
            expect(from).toBe(at);
            expect(to - from).toBeLessThanOrEqual(numbersPerTurn);
            seen += to - from;
            at = to;
          }
        }
        return seen;
      });
      expect(result).toBe(8 * numbersPerTurn);
      expect(turns).toBeGreaterThanOrEqual(7);
    }
  });

  test('items of many numbers are handled whole; no items need none', async () => {
    const ranges: number[][] = [];
    for await (const range of rangesInTurns(3, 2 * numbersPerTurn)) ranges.push(range);
    for await (const range of rangesInTurns(0)) ranges.push(range);
    expect(ranges).toEqual([
      [0, 1],
      [1, 2],
      [2, 3],
    ]);
  });

  const shape = [512, 3, 3, 512];
  const count = 512 * 9 * 512;
  const fewest = Math.floor(count / numbersPerTurn) - 1;
  const values = Float32Array.from({ length: count }, (_, i) => i % 65521);

  test('as the axes of a convolution change places', async () => {
    const codec = axisCodec('oihw', shape);
    const out = await turnsOf(async () => codec.fromOwn(values));
    expect(out.turns).toBeGreaterThanOrEqual(fewest);
    for (const [k, r, s, c] of [
      [0, 0, 1, 7],
      [511, 2, 0, 300],
      [200, 1, 2, 511],
    ] as const)
      expect(out.result[((k * 512 + c) * 3 + r) * 3 + s]).toBe(
        values[((k * 3 + r) * 3 + s) * 512 + c],
      );
    const back = await turnsOf(async () => codec.toOwn(out.result));
    expect(back.turns).toBeGreaterThanOrEqual(fewest);
    expect(Buffer.compare(Buffer.from(back.result.buffer), Buffer.from(values.buffer))).toBe(0);
  });

  test('as numbers of a file become f32', async () => {
    const bytes = new Uint8Array(Float64Array.from(values).buffer);
    const { turns, result } = await turnsOf(() => toFloat32(bytes, 'F64'));
    expect(turns).toBeGreaterThanOrEqual(fewest);
    expect(Buffer.compare(Buffer.from(result.buffer), Buffer.from(values.buffer))).toBe(0);
  });
});
