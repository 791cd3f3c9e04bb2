import { checkKeys, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';

/** How far prefetch works ahead. */
export interface PrefetchOptions {
  /** Workers running at the same time. @defaultValue 4 */
  concurrency?: number;
  /** Results begun but not yet taken, running ones included; at least `concurrency`. @defaultValue 2 × concurrency */
  ahead?: number;
  signal?: AbortSignal | undefined;
}

const optionKeys = keysOf<PrefetchOptions>({ concurrency: 0, ahead: 0, signal: 0 });

/**
 * Runs `worker` on the jobs, several at a time and ahead of the consumer, and yields the results in
 * the order of the jobs. Jobs are pulled one by one, only as far as `ahead` allows, so an endless
 * source is fine. Nothing starts before the first next().
 *
 * A job or source that fails throws at its place, after the results before it; nothing new is
 * begun from then on. An abort throws `signal.reason` at once, even while workers hang. When the
 * consumer stops early, the workers' signal aborts and the source is closed.
 *
 * @param worker gets a signal that aborts when nobody wants the result any more
 * @throws MixplError ERR_RANGE for a concurrency or ahead that is not a positive integer
 */
export function prefetch<Job, Result>(
  source: Iterable<Job> | AsyncIterable<Job>,
  worker: (job: Job, signal: AbortSignal) => Promise<Result> | Result,
  options: PrefetchOptions = {},
): AsyncGenerator<Result, void, undefined> {
  checkKeys('prefetch', options, optionKeys);
  const { concurrency = 4, signal } = options;
  const { ahead = 2 * concurrency } = options;
  for (const [name, value] of Object.entries({ concurrency, ahead }))
    if (!Number.isInteger(value) || value < 1)
      throw new MixplError(
        'ERR_RANGE',
        `prefetch: ${name} must be a positive integer, got ${value}`,
      );
  return run(source, worker, { concurrency, ahead: Math.max(ahead, concurrency), signal });
}

/** What became of a job; kept as a value, so that no rejection is ever without a handler. */
type Outcome<Result> =
  | { kind: 'result'; value: Result }
  | { kind: 'failed'; reason: unknown }
  | { kind: 'end' };

async function* run<Job, Result>(
  source: Iterable<Job> | AsyncIterable<Job>,
  worker: (job: Job, signal: AbortSignal) => Promise<Result> | Result,
  options: { concurrency: number; ahead: number; signal: AbortSignal | undefined },
): AsyncGenerator<Result, void, undefined> {
  const { concurrency, ahead, signal } = options;
  signal?.throwIfAborted();
  const jobs: AsyncIterator<Job> | Iterator<Job> =
    Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]();
  const stop = new AbortController();
  let exhausted = false;
  let running = 0;
  const waitingForWorker: (() => void)[] = [];

  /** The next job, once a worker is free for it. */
  const pull = async (): Promise<{ job: Job } | Outcome<Result>> => {
    while (running >= concurrency && !stop.signal.aborted)
      await new Promise<void>((resolve) => waitingForWorker.push(resolve));
    if (exhausted || stop.signal.aborted) return { kind: 'end' };
    try {
      const next = await jobs.next();
      if (next.done) {
        exhausted = true;
        return { kind: 'end' };
      }
      running++;
      return { job: next.value };
    } catch (reason) {
      exhausted = true;
      return { kind: 'failed', reason };
    }
  };
  const work = async (next: { job: Job } | Outcome<Result>): Promise<Outcome<Result>> => {
    if (!('job' in next)) return next;
    try {
      return { kind: 'result', value: await worker(next.job, stop.signal) };
    } catch (reason) {
      exhausted = true;
      return { kind: 'failed', reason };
    } finally {
      running--;
      waitingForWorker.shift()?.();
    }
  };

  const queue: Promise<Outcome<Result>>[] = [];
  /** Jobs are pulled strictly one after the other. */
  let lastPull: Promise<unknown> = Promise.resolve();
  let interrupt: (() => void) | undefined;
  const onAbort = () => interrupt?.();
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    for (;;) {
      while (queue.length < ahead && !exhausted) {
        const next = lastPull.then(pull);
        lastPull = next;
        queue.push(next.then(work));
      }
      const first = queue.shift();
      if (!first) return;
      // Not Promise.race: on a long-lived promise it keeps a record of every round.
      const outcome = await new Promise<Outcome<Result>>((resolve) => {
        interrupt = () => resolve({ kind: 'end' });
        if (signal?.aborted) interrupt();
        else void first.then(resolve);
      });
      signal?.throwIfAborted();
      if (outcome.kind === 'failed') throw outcome.reason;
      if (outcome.kind === 'end') return;
      yield outcome.value;
      signal?.throwIfAborted();
    }
  } finally {
    signal?.removeEventListener('abort', onAbort);
    exhausted = true;
    stop.abort(signal?.aborted ? signal.reason : undefined);
    for (const wake of waitingForWorker) wake();
    // Not awaited: a source that hangs must not hold up an abort.
    void (async () => jobs.return?.())().catch(() => {});
  }
}

/** The results of `worker` on every item, in order, `concurrency` at a time. */
export async function mapBounded<Item, Result>(
  items: Iterable<Item>,
  worker: (item: Item, signal: AbortSignal) => Promise<Result> | Result,
  options: PrefetchOptions = {},
): Promise<Result[]> {
  const results: Result[] = [];
  for await (const result of prefetch(items, worker, options)) results.push(result);
  return results;
}
