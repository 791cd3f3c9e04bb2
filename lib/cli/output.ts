/**
 * What the command line says. Results go to stdout, everything else to stderr. With `--json` stdout
 * holds exactly one JSON object: the result, or `{ "error": { "code", "message" } }`. Whatever is for
 * people shows control characters instead of sending them to the terminal; JSON is exact.
 */
import type { MixplError } from '../errors.js';
import { visible } from '../log/visible.js';

/** Exit codes. A user's mistake is 1 or 2, never a signal's number. */
export const exitCodes = {
  ok: 0,
  /** The work could not be done: files, data, a diverged training. */
  failed: 1,
  /** The command line or the config is wrong. */
  usage: 2,
  /** An internal error of mixpl. */
  internal: 70,
  /** Stopped by Ctrl-C before there was a result; as a shell reports it. */
  interrupted: 130,
} as const;

export interface Output {
  readonly json: boolean;
  /** The result: the object with --json, else the text. */
  result(value: object, text: () => string | Promise<string>): Promise<void>;
  /** A remark for people, on stderr. */
  note(text: string): void;
  warn(text: string): void;
}

export function createOutput({ json = false }: { json?: boolean | undefined }): Output {
  return {
    json,
    async result(value, text) {
      const printed = json ? JSON.stringify(value) : visible(await text());
      if (printed) process.stdout.write(`${printed}\n`);
    },
    note: (text) => void process.stderr.write(`${visible(text)}\n`),
    warn: (text) => void process.stderr.write(`warning: ${visible(text)}\n`),
  };
}

/** Says what went wrong and gives the exit code. A stack is shown only with MIXPL_DEBUG=1. */
export function reportError(error: unknown, { json }: { json: boolean }): number {
  const { code, message, exit } = explain(error);
  process.stderr.write(`error: ${visible(message)}\n`);
  if (process.env.MIXPL_DEBUG === '1' && error instanceof Error)
    process.stderr.write(`${visible(`${error.stack}`)}\n`);
  if (json) process.stdout.write(`${JSON.stringify({ error: { code, message } })}\n`);
  return exit;
}

interface Explanation {
  code: string;
  message: string;
  exit: number;
}

function explain(error: unknown): Explanation {
  if (isMixplError(error)) {
    const exit = {
      ERR_CONFIG: exitCodes.usage,
      ERR_RANGE: exitCodes.usage,
      ERR_INTERNAL: exitCodes.internal,
    }[error.code as string];
    return { code: error.code, message: error.message, exit: exit ?? exitCodes.failed };
  }
  if (error instanceof Error && error.name === 'AbortError')
    return { code: 'ERR_ABORTED', message: error.message, exit: exitCodes.interrupted };
  const system = error as NodeJS.ErrnoException;
  if (error instanceof Error && typeof system.syscall === 'string' && system.code)
    return { code: 'ERR_IO', message: error.message, exit: exitCodes.failed };
  const text = error instanceof Error ? error.message : String(error);
  return {
    code: 'ERR_INTERNAL',
    message: `internal error of mixpl: ${text}; run again with MIXPL_DEBUG=1 for a stack trace`,
    exit: exitCodes.internal,
  };
}

/** By name: the class may exist twice when a package is installed twice. */
function isMixplError(error: unknown): error is MixplError {
  return error instanceof Error && error.name === 'MixplError';
}
