import { exitCodes } from './output.js';

/**
 * Runs `work` with a signal that the first SIGINT or SIGTERM aborts, so that it can finish cleanly;
 * the second one ends the process.
 */
export async function withInterrupt<T>(
  work: (signal: AbortSignal) => Promise<T>,
  options: { onInterrupt?: () => void } = {},
): Promise<T> {
  const controller = new AbortController();
  const stop = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(exitCodes.interrupted);
    options.onInterrupt?.();
    controller.abort(new DOMException(`stopped by ${name}`, 'AbortError'));
  };
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  try {
    return await work(controller.signal);
  } finally {
    process.off('SIGINT', stop);
    process.off('SIGTERM', stop);
  }
}
