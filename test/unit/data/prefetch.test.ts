import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { mapBounded, prefetch } from '../../../lib/data/prefetch.js';

const unhandled = vi.fn();
beforeAll(() => {
  process.on('unhandledRejection', unhandled);
});
afterAll(async () => {
  for (let i = 0; i < 5; i++) await turn();
  process.off('unhandledRejection', unhandled);
  expect(unhandled).not.toHaveBeenCalled();
});

function* count(to = Number.POSITIVE_INFINITY): Generator<number> {
  for (let i = 0; i < to; i++) yield i;
}
async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of source) all.push(item);
  return all;
}
const turns = async (n: number) => {
  for (let i = 0; i < n; i++) await turn();
};

describe('prefetch', () => {
  test('keeps the order, bounds the workers, uses them all', () =>
    fc.assert(
      fc.asyncProperty(
        fc.array(fc.nat(4), { maxLength: 30 }),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 12 }),
        fc.boolean(),
        async (delays, concurrency, ahead, asynchronous) => {
          let running = 0;
          let most = 0;
          let begun = 0;
          let taken = 0;
          let furthest = 0;
          const jobs = delays.map((delay, i) => ({ delay, i }));
          async function* slowly() {
            for (const job of jobs) {
              await turn();
              yield job;
            }
          }
          const results: number[] = [];
          const worker = async ({ delay, i }: { delay: number; i: number }) => {
            most = Math.max(most, ++running);
            furthest = Math.max(furthest, ++begun - taken);
            await turns(delay);
            running--;
            return i;
          };
          const stream = prefetch(asynchronous ? slowly() : jobs, worker, { concurrency, ahead });
          for await (const result of stream) {
            taken++;
            results.push(result);
          }
          expect(results).toEqual(jobs.map(({ i }) => i));
          expect(most).toBeLessThanOrEqual(concurrency);
          expect(furthest).toBeLessThanOrEqual(Math.max(ahead, concurrency) + 1);
        },
      ),
      { numRuns: 60 },
    ));

  test('keeps all workers busy while the consumer is slow, and no more than ahead results', async () => {
    let begun = 0;
    const stream = prefetch(count(), async () => begun++, { concurrency: 2, ahead: 6 });
    await turns(3);
    expect(begun).toBe(0); // nothing before the first next()
    expect(await stream.next()).toEqual({ done: false, value: 0 });
    await turns(20);
    expect(begun).toBe(6);
    await stream.next();
    await turns(20);
    expect(begun).toBe(7);
    await stream.return();
  });

  test('two workers take half the time', async () => {
    let most = 0;
    let running = 0;
    const worker = async () => {
      most = Math.max(most, ++running);
      await turns(3);
      running--;
    };
    await collect(prefetch(count(10), worker, { concurrency: 2 }));
    expect(most).toBe(2);
  });

  test('an error comes at its place; nothing new begins; later failures are quiet', async () => {
    const begun: number[] = [];
    const worker = async (i: number) => {
      begun.push(i);
      await turns(i === 2 ? 4 : 1);
      if (i >= 2) throw new Error(`job ${i}`);
      return i;
    };
    const results: number[] = [];
    const reading = (async () => {
      for await (const i of prefetch(count(), worker, { concurrency: 3, ahead: 9 }))
        results.push(i);
    })();
    await expect(reading).rejects.toThrow('job 2');
    expect(results).toEqual([0, 1]);
    const last = begun.length;
    await turns(20);
    expect(begun).toHaveLength(last);
    expect(last).toBeLessThan(8);
  });

  test('a worker that throws at once, and a source that throws', async () => {
    const throwing = prefetch(count(), () => {
      throw new Error('at once');
    });
    await expect(collect(throwing)).rejects.toThrow('at once');
    const results: number[] = [];
    const source = (function* () {
      yield 1;
      yield 2;
      throw new Error('source');
    })();
    const reading = (async () => {
      for await (const i of prefetch(source, (i) => i)) results.push(i);
    })();
    await expect(reading).rejects.toThrow('source');
    expect(results).toEqual([1, 2]);
  });

  test('an abort ends it at once with its reason, even when workers hang', async () => {
    const controller = new AbortController();
    const signals: AbortSignal[] = [];
    const stream = prefetch(
      count(),
      (_, signal) => {
        signals.push(signal);
        return new Promise<never>(() => {});
      },
      { concurrency: 2, signal: controller.signal },
    );
    const next = stream.next();
    await turns(3);
    controller.abort(new Error('stop'));
    await expect(next).rejects.toThrow('stop');
    expect(signals).toHaveLength(2);
    expect(
      signals.every(({ aborted, reason }) => aborted && reason === controller.signal.reason),
    ).toBe(true);
    expect(await stream.next()).toEqual({ done: true, value: undefined });
  });

  test('an abort between two results, and before the first', async () => {
    const controller = new AbortController();
    const stream = prefetch(count(), async (i) => i, { signal: controller.signal });
    await stream.next();
    controller.abort(new Error('between'));
    await expect(stream.next()).rejects.toThrow('between');
    const late = prefetch(count(), async (i) => i, { signal: controller.signal });
    await expect(late.next()).rejects.toThrow('between');
  });

  test('leaves no listener on a signal that lives on', async () => {
    const { signal } = new AbortController();
    const added = vi.spyOn(signal, 'addEventListener');
    const removed = vi.spyOn(signal, 'removeEventListener');
    await collect(prefetch(count(50), async (i) => i, { signal }));
    expect(added.mock.calls.length).toBe(1);
    expect(removed.mock.calls.length).toBe(1);
  });

  test('a consumer that stops early aborts the workers and closes the source', async () => {
    let closed = false;
    const source = (function* () {
      try {
        yield* count();
      } finally {
        closed = true;
      }
    })();
    const signals: AbortSignal[] = [];
    const worker = async (i: number, signal: AbortSignal) => {
      signals.push(signal);
      await turns(2);
      signal.throwIfAborted();
      return i;
    };
    for await (const i of prefetch(source, worker)) if (i === 2) break;
    await turns(5);
    expect(closed).toBe(true);
    expect(signals.at(-1)!.aborted).toBe(true);
    const last = signals.length;
    await turns(10);
    expect(signals).toHaveLength(last);
  });

  test.each([
    [{ concurrency: 0 }, 'concurrency must be a positive integer, got 0'],
    [{ concurrency: 1.5 }, 'got 1.5'],
    [{ ahead: -1 }, 'ahead must be a positive integer, got -1'],
  ])('%j is refused at once', (options, message) =>
    expect(() => prefetch([], () => 0, options)).toThrow(message),
  );
});

test('mapBounded gives all results in order', async () => {
  const squares = await mapBounded([3, 1, 2], async (x) => {
    await turns(x);
    return x * x;
  });
  expect(squares).toEqual([9, 1, 4]);
  expect(await mapBounded([], (x) => x)).toEqual([]);
});
