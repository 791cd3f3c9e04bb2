import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { composeBatch, composeToImage } from '../../../lib/image/compose.js';
import type { ColorOpName, DecodedImage } from '../../../lib/image/composition.js';
import { compositionOf } from '../../../lib/image/composition.js';
import { resizedView } from '../../../lib/image/view.js';
import { testDevice } from '../devices.js';
import { identityLayer, single } from './pictures.js';

interface Golden {
  recordedWith: string;
  width: number;
  height: number;
  pixels: number[];
}
interface Colors extends Golden {
  cases: { op: ColorOpName; magnitude: number; pixels: number[] }[];
}
interface Resizes extends Golden {
  cases: { width: number; height: number; values: number[] }[];
}

function read<T extends Golden>(name: string): T & { source: DecodedImage } {
  const url = new URL(`../../golden/image/${name}.json`, import.meta.url);
  const golden = JSON.parse(readFileSync(url, 'utf8')) as T;
  const { width, height } = golden;
  return { ...golden, source: { width, height, data: Uint8Array.from(golden.pixels) } };
}

describe('colour operations against Pillow', () => {
  const { source, cases, width, height } = read<Colors>('colors');
  // Pillow and mmcv share the tables; they round blends and grey values differently, by one step,
  // and Pillow leaves the outermost pixels unsmoothed.
  const exact = ['auto-contrast', 'equalize', 'posterize', 'solarize'];
  test.each(cases)('$op $magnitude', async ({ op, magnitude, pixels }) => {
    const layer = identityLayer(source, { color: [{ op, magnitude }] });
    const { data } = await composeToImage(single(layer));
    for (let i = 0; i < data.length; i++) {
      const x = Math.floor(i / 3) % width;
      const y = Math.floor(i / 3 / width);
      const border = x === 0 || y === 0 || x === width - 1 || y === height - 1;
      if (op === 'sharpness' && border) continue;
      const difference = Math.abs(data[i]! - pixels[i]!);
      // Rounding of the blurred value counts (magnitude - 1) times on top of the last one's.
      expect(difference, `value ${i}`).toBeLessThanOrEqual(exact.includes(op) ? 0 : 1);
    }
  });
});

describe('resizing against torch, antialiased', () => {
  const { source, cases } = read<Resizes>('resizes');
  test.each(cases)('to $width x $height', async ({ width, height, values }) => {
    const batch = await composeBatch([compositionOf(resizedView(source, { width, height }))], {
      mean: [0, 0, 0],
      std: [1, 1, 1],
      channelOrder: 'rgb',
      padDivisor: 1,
      padTo: 'batch',
      dtype: 'f32',
      device: testDevice,
    });
    const ours = await batch.tensor.read();
    batch.dispose();
    // Where the filter hangs over the edge torch drops its weight and we repeat the edge pixel.
    const marginX = width < source.width ? 1 : 0;
    const marginY = height < source.height ? 1 : 0;
    let compared = 0;
    for (let y = marginY; y < height - marginY; y++)
      for (let x = marginX; x < width - marginX; x++)
        for (let c = 0; c < 3; c++) {
          const i = (y * width + x) * 3 + c;
          expect(Math.abs(ours[i]! - values[i]!)).toBeLessThan(3e-4);
          compared++;
        }
    expect(compared).toBeGreaterThan(40);
  });
});
