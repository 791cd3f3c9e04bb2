import sharp from 'sharp';
import { expect, test } from 'vitest';
import { writePanel } from '../../../lib/report/pictures.js';
import { temporaryFolder } from '../temporary-folder.js';

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
