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
 * Writes a PNG panel: rows of images with their boxes, a title above each and below what the colours mean.
 * @param legend classes in label order, or names with their colours
 * @throws MixplError ERR_IO
 */
export async function writePanel(
  path: string,
  rows: readonly (readonly Tile[])[],
  legend: readonly (string | LegendEntry)[],
): Promise<void> {
  const { default: sharp } = await import('sharp');
  const gap = 8;
  const titleHeight = 18;
  const columns = Math.max(...rows.map((row) => row.length));
  const columnWidths = Array.from({ length: columns }, (_, c) =>
    Math.max(...rows.map((row) => row[c]?.image.width ?? 0)),
  );
  const rowHeights = rows.map((row) => Math.max(...row.map((tile) => tile.image.height)));
  const width = sum(columnWidths) + gap * (columns + 1);
  const height = sum(rowHeights) + rows.length * (gap + titleHeight) + gap + titleHeight;

  const pictures: { input: Buffer; left: number; top: number; raw: RawInfo }[] = [];
  const marks: string[] = [];
  let top = gap;
  rows.forEach((row, r) => {
    let left = gap;
    row.forEach((tile, c) => {
      const { image } = tile;
      marks.push(text(left, top + 13, tile.title));
      pictures.push({
        input: Buffer.from(image.data),
        raw: { width: image.width, height: image.height, channels: 3 },
        left,
        top: top + titleHeight,
      });
      marks.push(boxMarks(tile.boxes, left, top + titleHeight));
      left += columnWidths[c]! + gap;
    });
    top += rowHeights[r]! + titleHeight + gap;
  });
  let left = gap;
  legend.forEach((entry, label) => {
    const { name, color } =
      typeof entry === 'string' ? { name: entry, color: classColor(label) } : entry;
    marks.push(
      `<rect x="${left}" y="${top + 3}" width="10" height="10" fill="${color}"/>`,
      text(left + 14, top + 12, name),
    );
    left += 28 + 7 * name.length;
  });
  const overlay = `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}">${marks.join('')}</svg>`;
  const png = await sharp({ create: { width, height, channels: 3, background: '#222222' } })
    .composite([...pictures, { input: Buffer.from(overlay), left: 0, top: 0 }])
    .png()
    .toBuffer();
  await writeFileWhole(path, [png]);
}

interface RawInfo {
  width: number;
  height: number;
  channels: 3;
}

function boxMarks(
  { boxes, labels, scores, colors }: DrawnBoxes,
  left: number,
  top: number,
): string {
  let marks = '';
  for (let i = 0; i < labels.length; i++) {
    const [x1, y1, x2, y2] = boxes.subarray(4 * i, 4 * i + 4) as unknown as number[];
    const color = colors?.[i] ?? classColor(labels[i]!);
    const x = left + x1!;
    const y = top + y1!;
    marks += `<rect x="${x}" y="${y}" width="${x2! - x1!}" height="${y2! - y1!}" fill="none" stroke="${color}" stroke-width="2"/>`;
    if (scores) marks += text(x + 2, y + 10, scores[i]!.toFixed(2), 9, color);
  }
  return marks;
}

function text(x: number, y: number, content: string, size = 12, color = '#eeeeee'): string {
  // What XML has no place for (Char of XML 1.0), and control characters, of which it has some.
  const visible = content.replace(/[\p{Cc}\p{Cs}\ufffe\uffff]/gu, '\ufffd');
  const safe = visible.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
  return `<text x="${x}" y="${y}" font-family="sans-serif" font-size="${size}" fill="${color}">${safe}</text>`;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
