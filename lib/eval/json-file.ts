import { constants } from 'node:buffer';
import { readFile } from 'node:fs/promises';
import { MixplError } from '../errors.js';
import { ioError } from '../files.js';

/** @throws MixplError ERR_IO when the file cannot be read, ERR_BAD_FILE when it is not JSON */
export async function readJsonFile(path: string): Promise<unknown> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (cause) {
    throw ioError(path, 'must be a readable JSON file', cause);
  }
  if (bytes.length === 0)
    throw new MixplError('ERR_BAD_FILE', `${path}: must hold JSON, got an empty file`);
  if (bytes.length > constants.MAX_STRING_LENGTH)
    throw new MixplError(
      'ERR_BAD_FILE',
      `${path}: must be at most ${constants.MAX_STRING_LENGTH} bytes (a JavaScript string ends there), got ${bytes.length}`,
    );
  const text = bytes.toString('utf8').replace(/^\uFEFF/, '');
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MixplError('ERR_BAD_FILE', `${path}${explain(text, cause)}`, { cause });
  }
}

/** Where and why the text is not JSON, as `:line:column: …`. */
function explain(text: string, cause: unknown): string {
  const notANumber = /[[:,]\s*(-?(?:NaN|Infinity))\b/.exec(text);
  if (notANumber)
    return `${place(text, notANumber.index)}: numbers must be finite (JSON has no others), got ${notANumber[1]}`;
  const message = cause instanceof Error ? cause.message : String(cause);
  if (/end of JSON input|Unterminated/i.test(message))
    return `${place(text, text.length)}: must hold complete JSON, got a file that is cut off here`;
  const position = /position (\d+)/.exec(message);
  return `${position ? place(text, Number(position[1])) : ''}: must hold JSON, got ${message}`;
}

function place(text: string, position: number): string {
  const before = text.slice(0, position);
  const line = before.split('\n').length;
  return `:${line}:${position - before.lastIndexOf('\n')}`;
}
