import { join } from 'node:path';
import sharp from 'sharp';
import { expect, test } from 'vitest';
import { classColor, writePanel } from '../../../lib/report/pictures.js';
import { temporaryFolder } from '../temporary-folder.js';

const classes = Array.from({ length: 80 }, (_, i) => `class ${i}`);

/** An image of so many boxes, one a class, each 40 wide, 20 high and 30 below the one before. */
async function panel(side: number, count: number, legend: readonly string[] = classes) {
  const path = join(await temporaryFolder(), 'panel.png');
  const labels = Int32Array.from({ length: count }, (_, i) => i);
  const boxes = Float32Array.from([...labels].flatMap((i) => [10, 30 * i, 50, 30 * i + 20]));
  const image = { data: new Uint8Array(3 * side * side), width: side, height: side };
  const scores = new Float32Array(count).fill(0.5);
  await writePanel(
    path,
    [[{ image, boxes: { boxes, labels, scores }, title: 'x'.repeat(500) }]],
    legend,
  );
  const { data, info } = await sharp(path)
    .removeAlpha()
    .raw()
    .toBuffer({ resolveWithObject: true });
  const at = (x: number, y: number) =>
    `#${data.subarray(3 * (y * info.width + x), 3 * (y * info.width + x) + 3).toString('hex')}`;
  return { ...info, at };
}

test('what colours mean is told of the classes that are there, in as many lines as it takes', async () => {
  const none = await panel(200, 0);
  const one = await panel(200, 1);
  const ten = await panel(200, 10);
  expect([none.width, one.width, ten.width]).toEqual([216, 216, 216]);
  expect(one.height).toBeGreaterThan(none.height);
  expect(ten.height).toBeGreaterThan(one.height + 50);
  expect(one.at(12, one.height - 18)).toBe(classColor(0));
});

test('scores stand on the colour of their class, with its name where colours are too few', async () => {
  const named = await panel(200, 1);
  const short = await panel(200, 1, ['class 0']);
  // Right of the score, in the box; the image is 8 from the left and 26 from the top.
  expect(named.at(8 + 10 + 34, 26 + 6)).toBe(classColor(0));
  expect(short.at(8 + 10 + 34, 26 + 6)).toBe('#000000');
});

test('marks of large images are larger', async () => {
  const { at, width } = await panel(3000, 1);
  expect(width).toBe(3048);
  // The left line of the box, at 10 of the image, is 6 wide: across it, below the score.
  const y = 24 + 54 + 17;
  expect([-4, -2, 2].map((from) => at(24 + 10 + from, y))).toEqual([
    ...['#000000', classColor(0), classColor(0)],
  ]);
});

test.each([
  ['noncharacters', 'a\ufffeb\uffff'],
  ['halves of surrogate pairs', 'a\ud800b\udc00'],
  ['control characters', 'a\0\x1b\x7f\x85'],
  ['marks of XML', '<a href="&">'],
  ['what lies beyond 16 bits', '\u{1f984}'],
])('names with %s are drawn', async (_, name) => {
  const path = `${await temporaryFolder()}/panel.png`;
  const image = { data: new Uint8Array(3 * 32 * 24), width: 32, height: 24 };
  const boxes = { boxes: new Float32Array(4), labels: Int32Array.of(0) };
  await writePanel(path, [[{ image, boxes, title: name }]], [name]);
  expect((await sharp(path).metadata()).width).toBe(32 + 2 * 8);
});
