import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { strongDefaults, strongView } from '../../../lib/augment/views.js';
import { identity3, invert3, multiply3 } from '../../../lib/geometry.js';
import {
  dropErased,
  dropSmall,
  joinInstances,
  mapBoxes,
  mapInstances,
} from '../../../lib/image/boxes.js';
import { composeToImage } from '../../../lib/image/compose.js';
import { compositionOf, type Instances, noInstances } from '../../../lib/image/composition.js';
import { flipping, scaling, shifting, viewInstances } from '../../../lib/image/view.js';
import { Random } from '../../../lib/random.js';
import { plain } from './pictures.js';

const big = { width: 1e6, height: 1e6 };
function instances(...boxes: number[][]): Instances {
  return {
    boxes: Float32Array.from(boxes.flat()),
    labels: Int32Array.from(boxes, (_, i) => i),
    scores: Float32Array.from(boxes, (_, i) => 1 - i / 8),
  };
}

describe('mapBoxes', () => {
  test('flips and clips', () => {
    const out = mapBoxes(flipping(100), Float32Array.of(10, 20, 30, 40, -5, 0, 120, 50), {
      width: 100,
      height: 45,
    });
    expect([...out]).toEqual([70, 20, 90, 40, 0, 0, 100, 45]);
  });

  test('takes the hull of the corners, through the homogeneous division', () => {
    const quarter = mapBoxes([0, -1, 50, 1, 0, 0, 0, 0, 1], Float32Array.of(10, 5, 20, 25), big);
    expect([...quarter]).toEqual([25, 10, 45, 20]);
    const halved = mapBoxes([1, 0, 0, 0, 1, 0, 0, 0, 2], Float32Array.of(10, 4, 20, 8), big);
    expect([...halved]).toEqual([5, 2, 10, 4]);
  });

  test('an axis-aligned map and back is the identity', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0 }), (seed) => {
        const random = new Random(seed);
        const m = multiply3(
          shifting(random.uniform(0, 50), random.uniform(0, 50)),
          multiply3(flipping(200), scaling(random.uniform(0.2, 5), random.uniform(0.2, 5))),
        );
        const x = random.uniform(0, 20);
        const y = random.uniform(0, 20);
        const box = Float32Array.of(x, y, x + random.uniform(0, 10), y + random.uniform(0, 10));
        const there = mapBoxes(m, box, big);
        const back = mapBoxes(invert3(m), there, big);
        for (let i = 0; i < 4; i++) expect(back[i]).toBeCloseTo(box[i]!, 3);
      }),
    );
  });

  test('keeps a map of a hull around the map of what it holds', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0 }), (seed) => {
        const random = new Random(seed);
        const angle = random.uniform(-3, 3);
        const [c, s] = [Math.cos(angle), Math.sin(angle)];
        const m = multiply3(shifting(500, 500), [c, -s, 0, s, c, 0, 0, 0, 1]);
        const outer = mapBoxes(m, Float32Array.of(10, 10, 90, 70), big);
        const a = random.uniform(10, 90);
        const b = random.uniform(10, 70);
        const inner = mapBoxes(m, Float32Array.of(a, b, a, b), big);
        expect(inner[0]).toBeGreaterThanOrEqual(outer[0]! - 1e-3);
        expect(inner[1]).toBeGreaterThanOrEqual(outer[1]! - 1e-3);
        expect(inner[2]).toBeLessThanOrEqual(outer[2]! + 1e-3);
        expect(inner[3]).toBeLessThanOrEqual(outer[3]! + 1e-3);
      }),
    );
  });
});

describe('filters', () => {
  test('dropSmall wants both sides above the limit', () => {
    const kept = dropSmall(
      instances([0, 0, 0.02, 0.02], [0, 0, 0.01, 5], [3, 3, 3, 9], [0, 0, 1, 1]),
      0.0101,
    );
    expect([...kept.labels]).toEqual([0, 3]);
    expect([...kept.scores]).toEqual([1, 1 - 3 / 8]);
  });

  test('dropErased counts overlapping patches twice: 40% by two equal patches is 80%', () => {
    const box = instances([0, 0, 10, 10]);
    const patch = { x1: 0, y1: 0, x2: 10, y2: 4, value: 'mean' as const };
    expect(dropErased(box, [patch], 0.7).labels.length).toBe(1);
    expect(dropErased(box, [patch, patch], 0.7).labels.length).toBe(0);
    expect(dropErased(box, [patch, patch], 0.81).labels.length).toBe(1);
    const away = { x1: 20, y1: 20, x2: 40, y2: 40, value: 'mean' as const };
    expect(dropErased(box, [away], 1e-9).labels.length).toBe(1);
  });

  test('joinInstances keeps order; nothing joins to nothing', () => {
    const joined = joinInstances([instances([0, 0, 1, 1]), noInstances, instances([2, 2, 3, 3])]);
    expect([...joined.boxes]).toEqual([0, 0, 1, 1, 2, 2, 3, 3]);
    expect(joinInstances([])).toEqual(noInstances);
    expect(mapInstances(identity3, noInstances, big)).toEqual(noInstances);
  });
});

test('pixels and boxes go through the same map: a bright rectangle stays inside its box', async () => {
  const random = new Random(31);
  const drift = [0, 0];
  const views = 60;
  for (let i = 0; i < views; i++) {
    const source = plain(160, 120, 20);
    const box = [random.integer(30, 70), random.integer(30, 50), 0, 0];
    box[2] = box[0]! + random.integer(20, 50);
    box[3] = box[1]! + random.integer(20, 40);
    for (let y = box[1]!; y < box[3]!; y++)
      source.data.fill(255, (y * 160 + box[0]!) * 3, (y * 160 + box[2]!) * 3);
    const view = strongView(source, random.fork(i), {
      ...strongDefaults,
      resize: { long: 300, short: [60, 220] },
      color: [],
    });
    const [seen] = [viewInstances(view, instances(box))];
    const picture = await composeToImage(compositionOf(view));
    const hull = [1e9, 1e9, -1, -1];
    for (let y = 0; y < view.height; y++)
      for (let x = 0; x < view.width; x++) {
        if (picture.data[(y * view.width + x) * 3]! < 190) continue; // fill is 128
        hull[0] = Math.min(hull[0]!, x);
        hull[1] = Math.min(hull[1]!, y);
        hull[2] = Math.max(hull[2]!, x + 1);
        hull[3] = Math.max(hull[3]!, y + 1);
      }
    // Corners of a turned rectangle are thinner than a pixel; blur moves the threshold by up to one.
    for (let k = 0; k < 4; k++)
      expect(Math.abs(hull[k]! - seen.boxes[k]!), `view ${i}, side ${k}`).toBeLessThan(1.6);
    for (const k of [0, 1])
      drift[k]! += (hull[k]! + hull[k + 2]! - seen.boxes[k]! - seen.boxes[k + 2]!) / 2 / views;
  }
  // No half pixel between them: the centres agree on average.
  expect(Math.abs(drift[0]!)).toBeLessThan(0.1);
  expect(Math.abs(drift[1]!)).toBeLessThan(0.1);
});
