import { visible } from './visible.js';

/** Anything that logs as pino does: `info('text')` or `info({ field: 1 }, 'text')`. */
export interface Logger {
  debug: LogMethod;
  info: LogMethod;
  warn: LogMethod;
  error: LogMethod;
}
export type LogLevel = keyof Logger;

export interface LogMethod {
  (message: string): void;
  (fields: object, message: string): void;
}

export const logLevels: readonly LogLevel[] = ['debug', 'info', 'warn', 'error'];

export interface LoggerOptions {
  /** Nothing below it is written. @defaultValue 'info' */
  level?: LogLevel;
  /** Takes whole lines without their end. @defaultValue process.stderr */
  write?: (line: string) => void;
  /** How a line is marked by its level, e.g. with colours. @defaultValue `warn: ` and `error: ` in front */
  mark?: (level: LogLevel, text: string) => string;
}

/** A logger for people: one line per message, fields as `name=value`; control characters are shown. */
export function createLogger(options: LoggerOptions = {}): Logger {
  const {
    level: lowest = 'info',
    write = (line) => void process.stderr.write(`${line}\n`),
    mark = plainMark,
  } = options;
  const method =
    (level: LogLevel): LogMethod =>
    (first: string | object, message?: string) => {
      if (logLevels.indexOf(level) < logLevels.indexOf(lowest)) return;
      const fields = typeof first === 'string' ? '' : formatFields(first);
      const text = typeof first === 'string' ? first : (message ?? '');
      write(mark(level, visible([text, fields].filter(Boolean).join(' '))));
    };
  return {
    debug: method('debug'),
    info: method('info'),
    warn: method('warn'),
    error: method('error'),
  };
}

/** A logger that says nothing. */
export const silentLogger: Logger = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

function plainMark(level: LogLevel, text: string): string {
  return level === 'info' ? text : `${level}: ${text}`;
}

function formatFields(fields: object): string {
  return Object.entries(fields)
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(' ');
}
