import { setImmediate } from 'node:timers/promises';

/** Numbers that are handled in a turn of the event loop: some milliseconds' work on a slow machine. */
export const numbersPerTurn = 2 ** 18;

/** Of the current turn, by everybody. */
let left = numbersPerTurn;

/**
 * Ranges of `count` items of `size` numbers each, one after the other, for work on the JavaScript thread:
 * when a turn of the event loop has had its share, the next range waits for another turn.
 */
export async function* rangesInTurns(
  count: number,
  size = 1,
): AsyncGenerator<[from: number, to: number], void, undefined> {
  for (let from = 0, to = 0; from < count; from = to) {
    if (left <= 0) {
      await setImmediate();
      left = numbersPerTurn;
    }
    to = Math.min(count, from + Math.max(1, Math.floor(left / size)));
    left -= (to - from) * size;
    yield [from, to];
  }
}

/** Not set to 0, for somebody to fill. */
export function unsetFloats(count: number): Float32Array {
  return new Float32Array(Buffer.allocUnsafeSlow(4 * count).buffer);
}
