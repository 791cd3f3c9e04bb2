import { MixplError } from './errors.js';

/** What happens to work that an AbortSignal takes its caller from. */
export interface AbortableWork<T> {
  /** Called when the signal aborts. */
  cancel?: () => void;
  /** Gets what came all the same. */
  late?: (result: T) => void;
}

/** @throws MixplError ERR_CONFIG when it is none */
export function checkSignal(call: string, signal: AbortSignal | undefined): void {
  if (signal === undefined) return;
  // Not by instanceof: test runners have globals of their own.
  if (typeof signal?.throwIfAborted !== 'function' || typeof signal.addEventListener !== 'function')
    throw new MixplError(
      'ERR_CONFIG',
      `${call}: signal must be an AbortSignal, got ${signal === null ? 'null' : typeof signal}`,
    );
}

/** What is to be done when a signal aborts: one listener each, as Node warns of eleven, which many requests soon are. */
const callbacks = new WeakMap<AbortSignal, Set<() => void>>();

function onAbort(signal: AbortSignal, callback: () => void): () => void {
  let all = callbacks.get(signal);
  if (!all) {
    const added = new Set<() => void>();
    signal.addEventListener(
      'abort',
      () => {
        for (const call of [...added]) call();
      },
      { once: true },
    );
    callbacks.set(signal, added);
    all = added;
  }
  all.add(callback);
  return () => all.delete(callback);
}

/** What `work` gives, or the reason of the signal as soon as it aborts. */
export function abortable<T>(
  signal: AbortSignal | undefined,
  work: Promise<T>,
  { cancel, late }: AbortableWork<T> = {},
): Promise<T> {
  if (!signal) return work;
  return new Promise((resolve, reject) => {
    const abort = () => {
      reject(signal.reason);
      cancel?.();
    };
    const forget = onAbort(signal, abort);
    if (signal.aborted) abort();
    work
      .then((result) => {
        if (signal.aborted) late?.(result);
        resolve(result);
      }, reject)
      .finally(forget);
  });
}
