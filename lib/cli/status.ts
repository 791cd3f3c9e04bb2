import { StatusLine } from '../log/progress.js';

/** The status line on stderr of a command that only people watch: nothing without a terminal. */
export function createStatus(): { set(text: string): void; clear(): void } {
  if (!process.stderr.isTTY) return { set: () => undefined, clear: () => undefined };
  const line = new StatusLine(process.stderr);
  return { set: (text) => line.set(text), clear: () => line.clear() };
}
