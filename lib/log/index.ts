export { formatDuration } from './duration.js';
export { crc32c, EventFileWriter, scalarsOf } from './event-file.js';
export { JsonLinesWriter, trimJsonLines } from './json-lines.js';
export { type Line, wholeLines } from './lines.js';
export {
  createLogger,
  type Logger,
  type LoggerOptions,
  type LogLevel,
  type LogMethod,
  logLevels,
  silentLogger,
} from './logger.js';
export { Progress, type ProgressOptions, type ProgressStream, StatusLine } from './progress.js';
export { visible } from './visible.js';
