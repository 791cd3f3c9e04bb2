import { SaxesParser } from 'saxes';
import { MixplError } from '../errors.js';

/** One `<object>`; numbers are NaN where the file has none that can be read. */
export interface VocObject {
  readonly name: string;
  readonly difficult: boolean;
  /** xmin, ymin, xmax, ymax as written. */
  readonly box: readonly [number, number, number, number];
  /** The same as text, '' where an element is missing. */
  readonly boxText: readonly [string, string, string, string];
  /** 1-based, of `<object>`. */
  readonly line: number;
}

export interface VocAnnotation {
  /** NaN where the file does not say. */
  readonly width: number;
  readonly height: number;
  readonly objects: readonly VocObject[];
}

const corners = ['xmin', 'ymin', 'xmax', 'ymax'] as const;

/**
 * Reads a Pascal VOC annotation. Elements count by their whole path, so that the boxes and names of
 * `<part>` are not taken for the object's.
 *
 * @throws MixplError ERR_BAD_FILE with file:line:column when it is not XML or not an `<annotation>`
 */
export function parseVocXml(text: string, file: string): VocAnnotation {
  const parser = new SaxesParser();
  const path: string[] = [];
  const objects: VocObject[] = [];
  let size: Map<string, string> = new Map();
  let object: { line: number; fields: Map<string, string> } | undefined;
  let content = '';

  parser.on('error', (error) => {
    // saxes writes "line:column: what".
    throw new MixplError('ERR_BAD_FILE', `${file}:${error.message} (it must be XML)`);
  });
  parser.on('opentag', ({ name }) => {
    path.push(name);
    content = '';
    if (path.length === 1 && name !== 'annotation')
      throw new MixplError(
        'ERR_BAD_FILE',
        `${file}:${parser.line}: must be a Pascal VOC <annotation>, got <${name}>`,
      );
    if (path.length === 2 && name === 'object') object = { line: parser.line, fields: new Map() };
  });
  parser.on('text', (piece) => {
    content += piece;
  });
  parser.on('cdata', (piece) => {
    content += piece;
  });
  parser.on('closetag', () => {
    const [, section, ...field] = path;
    if (section === 'size' && field.length === 1) size = size.set(field[0]!, content.trim());
    if (section === 'object' && object) {
      if (field.length === 0) {
        objects.push(objectOf(object.fields, object.line));
        object = undefined;
      } else object.fields.set(field.join('/'), content.trim());
    }
    path.pop();
    content = '';
  });
  parser.write(text.replace(/^\uFEFF/, '')).close();
  return { width: numberOf(size.get('width')), height: numberOf(size.get('height')), objects };
}

function objectOf(fields: ReadonlyMap<string, string>, line: number): VocObject {
  const boxText = corners.map((corner) => fields.get(`bndbox/${corner}`) ?? '');
  return {
    name: fields.get('name') ?? '',
    difficult: numberOf(fields.get('difficult') ?? '0') === 1,
    box: boxText.map(numberOf) as unknown as VocObject['box'],
    boxText: boxText as unknown as VocObject['boxText'],
    line,
  };
}

function numberOf(text: string | undefined): number {
  return text ? Number(text) : Number.NaN;
}
