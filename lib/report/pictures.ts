import { writeFileWhole } from '../files.js';
import type { DecodedImage } from '../image/composition.js';

/** Boxes to draw: xyxy in pixels of the image. */
export interface DrawnBoxes {
  readonly boxes: Float32Array;
  readonly labels: Int32Array;
  readonly scores?: Float32Array;
  /** One a box. @defaultValue those of the classes */
  readonly colors?: readonly string[];
}

/** What a colour below a panel means. */
export interface LegendEntry {
  readonly name: string;
  readonly color: string;
}

/** One image of a panel. */
export interface Tile {
  readonly image: DecodedImage;
  readonly boxes: DrawnBoxes;
  readonly title: string;
}

/** Colour-blind safe (Okabe and Ito 2008), one a class, repeated beyond eight. */
const palette = [
  '#e69f00',
  '#56b4e9',
  '#009e73',
  '#f0e442',
  '#0072b2',
  '#d55e00',
  '#cc79a7',
  '#ffffff',
];

export function classColor(label: number): string {
  return palette[label % palette.length]!;
}

/**
 * Writes a PNG panel: rows of images with their boxes, a title above each and below what the colours of the boxes
 * mean. Marks of large images are larger. A box has its class's name where there are more classes than colours.
 * @param legend classes in label order, or names with their colours
 * @throws MixplError ERR_IO
 */
export async function writePanel(
  path: string,
  rows: readonly (readonly Tile[])[],
  legend: readonly (string | LegendEntry)[],
): Promise<void> {
  const { default: sharp } = await import('sharp');
  const tiles = rows.flat();
  const unit = Math.max(
    1,
    ...tiles.map(({ image }) => Math.max(image.width, image.height) / usualSide),
  );
  const gap = Math.round(8 * unit);
  const line = Math.round(18 * unit);
  const columns = Math.max(...rows.map((row) => row.length));
  const columnWidths = Array.from({ length: columns }, (_, c) =>
    Math.max(...rows.map((row) => row[c]?.image.width ?? 0)),
  );
  const rowHeights = rows.map((row) => Math.max(...row.map((tile) => tile.image.height)));
  const width = sum(columnWidths) + gap * (columns + 1);

  const present = new Set(tiles.flatMap(({ boxes }) => [...boxes.labels]));
  const entries = legend.flatMap((entry, label) => {
    if (typeof entry !== 'string') return entry;
    return present.has(label) ? { name: entry, color: classColor(label) } : [];
  });
  const nameOf = (label: number) => {
    const entry = legend[label];
    return legend.length > palette.length && typeof entry === 'string' ? entry : '';
  };

  const pictures: { input: Buffer; left: number; top: number; raw: RawInfo }[] = [];
  const marks: string[] = [];
  let top = gap;
  rows.forEach((row, r) => {
    let left = gap;
    row.forEach((tile, c) => {
      const { image } = tile;
      const title = cut(tile.title, columnWidths[c]! / unit);
      marks.push(text(left, top + 13 * unit, title, { size: 12 * unit }));
      pictures.push({
        input: Buffer.from(image.data),
        raw: { width: image.width, height: image.height, channels: 3 },
        left,
        top: top + line,
      });
      marks.push(boxMarks(tile.boxes, { left, top: top + line, unit, nameOf }));
      left += columnWidths[c]! + gap;
    });
    top += rowHeights[r]! + line + gap;
  });
  let left = gap;
  for (const { name, color } of entries) {
    const shown = cut(name, (width - 2 * gap) / unit - 28);
    const wide = (28 + letter * shown.length) * unit;
    if (left > gap && left + wide > width) {
      left = gap;
      top += line;
    }
    const side = 10 * unit;
    marks.push(
      `<rect x="${left}" y="${top + 3 * unit}" width="${side}" height="${side}" fill="${color}"/>`,
      text(left + 14 * unit, top + 12 * unit, shown, { size: 12 * unit }),
    );
    left += wide;
  }
  const height = top + line + (entries.length > 0 ? gap : 0);
  const overlay = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${marks.join('')}</svg>`;
  const png = await sharp({ create: { width, height, channels: 3, background: '#222222' } })
    .composite([...pictures, { input: Buffer.from(overlay), left: 0, top: 0 }])
    .png()
    .toBuffer();
  await writeFileWhole(path, [png]);
}

/** Pixels: larger images are looked at reduced. */
const usualSide = 1000;
/** Width of a letter, as a rule. */
const letter = 7;

function cut(name: string, width: number): string {
  const most = Math.max(1, Math.floor(width / letter));
  return name.length > most ? `${name.slice(0, most - 1)}…` : name;
}

interface RawInfo {
  width: number;
  height: number;
  channels: 3;
}

interface BoxPlace {
  left: number;
  top: number;
  unit: number;
  nameOf: (label: number) => string;
}

/** What is told of boxes lies above them all, that of the first on top. */
function boxMarks(
  { boxes, labels, scores, colors }: DrawnBoxes,
  { left, top, unit, nameOf }: BoxPlace,
): string {
  let frames = '';
  let chips = '';
  for (let i = labels.length - 1; i >= 0; i--) {
    const [x1, y1, x2, y2] = boxes.subarray(4 * i, 4 * i + 4) as unknown as number[];
    const color = colors?.[i] ?? classColor(labels[i]!);
    const x = left + x1!;
    const y = top + y1!;
    frames += `<rect x="${x}" y="${y}" width="${x2! - x1!}" height="${y2! - y1!}" fill="none" stroke="${color}" stroke-width="${2 * unit}"/>`;
    const told = [nameOf(labels[i]!), scores?.[i]?.toFixed(2) ?? ''].filter(Boolean).join(' ');
    if (!told) continue;
    const wide = (5 + 5.5 * told.length) * unit;
    chips += `<rect x="${x}" y="${y}" width="${wide}" height="${12 * unit}" fill="${color}"/>`;
    chips += text(x + 3 * unit, y + 9.5 * unit, told, { size: 9 * unit, color: '#000000' });
  }
  return frames + chips;
}

function text(
  x: number,
  y: number,
  content: string,
  { size, color = '#eeeeee' }: { size: number; color?: string },
): string {
  // What XML has no place for (Char of XML 1.0), and control characters, of which it has some.
  const visible = content.replace(/[\p{Cc}\p{Cs}\ufffe\uffff]/gu, '\ufffd');
  const safe = visible.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  return `<text x="${x}" y="${y}" font-family="sans-serif" font-size="${size}" fill="${color}">${safe}</text>`;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
