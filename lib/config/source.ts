/** YAML files and `--set` options as layers that know where each of their values was written. */
import { readFile } from 'node:fs/promises';
import { isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import { MixplError } from '../errors.js';
import { ioError } from '../files.js';
import type { Path } from './path.js';

/** Options from one place. */
export interface Layer {
  readonly value: unknown;
  /** Where `path` (or its key) is written, as `file:line:column`; undefined when it is not in here. */
  locate(path: Path): string | undefined;
}

/** Where a file that cannot be used says so: 1-based. */
function at(file: string, position: { line: number; col: number }): string {
  return `${file}:${position.line}:${position.col}`;
}

/** @throws MixplError ERR_IO, ERR_CONFIG with file:line:column */
export async function readYamlLayer(file: string): Promise<Layer> {
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (cause) {
    const expected = 'must be a config file or the name of a preset';
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT')
      throw new MixplError('ERR_IO', `${file}: ${expected}, got neither (no such file)`, { cause });
    throw ioError(file, expected, cause);
  }
  return parseYamlLayer(text, file);
}

/** @throws MixplError ERR_CONFIG with file:line:column */
export function parseYamlLayer(text: string, file: string): Layer {
  const lines = new LineCounter();
  const document = parseDocument(text, { merge: true, lineCounter: lines, prettyErrors: false });
  const error = document.errors[0];
  if (error)
    throw new MixplError(
      'ERR_CONFIG',
      `${at(file, lines.linePos(error.pos[0]))}: ${error.message}`,
    );
  const root = document.contents;
  if (root && !isMap(root) && !(isScalar(root) && root.value === null))
    throw new MixplError(
      'ERR_CONFIG',
      `${at(file, lines.linePos(root.range?.[0] ?? 0))}: a config must be a mapping of options, got ${isSeq(root) ? 'a list' : 'a single value'}`,
    );
  return {
    value: document.toJS() ?? {},
    locate(path) {
      let node: Node | null = root;
      let offset = node?.range?.[0] ?? 0;
      for (const key of path) {
        if (isAlias(node)) node = node.resolve(document) ?? null;
        if (isMap(node)) {
          const pair = node.items.find(
            (item) => isScalar(item.key) && String(item.key.value) === String(key),
          );
          if (!pair) return undefined;
          offset = (pair.key as Node).range?.[0] ?? offset;
          node = pair.value as Node | null;
        } else if (isSeq(node)) {
          node = (node.items[Number(key)] as Node | undefined) ?? null;
          if (!node) return undefined;
          offset = node.range?.[0] ?? offset;
        } else return undefined;
      }
      return at(file, lines.linePos(offset));
    },
  };
}

/** One `--set a.b=value`; the value is read as YAML. @throws MixplError ERR_CONFIG */
export function parseOverride(text: string): { path: string[]; value: unknown; label: string } {
  const label = `--set ${text}`;
  const equals = text.indexOf('=');
  const path = text.slice(0, Math.max(0, equals)).trim().split('.');
  if (equals < 0 || path.some((key) => key === ''))
    throw new MixplError(
      'ERR_CONFIG',
      `${label}: must be of the form option.name=value, got '${text}'`,
    );
  if (text.slice(equals + 1).trim() === '')
    throw new MixplError(
      'ERR_CONFIG',
      `${label}: must have a value, got nothing; try null for none`,
    );
  const document = parseDocument(text.slice(equals + 1), { prettyErrors: false });
  const error = document.errors[0];
  if (error) throw new MixplError('ERR_CONFIG', `${label}: ${error.message}`);
  return { path, value: document.toJS() as unknown, label };
}
