import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  eraseView,
  type LabelledView,
  prepareCached,
  projectInstances,
  pseudoMixup,
  pseudoMosaic,
} from '../../../lib/augment/mixing.js';
import { strongView, weakView } from '../../../lib/augment/views.js';
import { composeToImage } from '../../../lib/image/compose.js';
import { compositionOf, type Instances } from '../../../lib/image/composition.js';
import { resizedView } from '../../../lib/image/view.js';
import { Random } from '../../../lib/random.js';
import { plain } from '../image/pictures.js';

const mixplErase = { patches: [1, 20], ratio: [0, 0.1], threshold: 0.7 } as const;

function instances(...boxes: number[][]): Instances {
  return {
    boxes: Float32Array.from(boxes.flat()),
    labels: Int32Array.from(boxes, (_, i) => i),
    scores: Float32Array.from(boxes, () => 0.5),
  };
}
function labelled(
  width: number,
  height: number,
  value: number,
  ...boxes: number[][]
): LabelledView {
  const view = resizedView(plain(width, height, value), { width, height });
  return { view, instances: instances(...boxes) };
}

describe('eraseView', () => {
  test('draws 1 … 19 patches of at most a tenth, as mean colour, and leaves the input alone', () => {
    const random = new Random(1);
    const start = labelled(200, 100, 50, [0, 0, 200, 100]);
    let most = 0;
    for (let i = 0; i < 300; i++) {
      const { view, instances } = eraseView(start, mixplErase, random);
      most = Math.max(most, view.layer.erase.length);
      for (const r of view.layer.erase) {
        expect(r.value).toBe('mean');
        expect(r.x2 - r.x1).toBeLessThanOrEqual(20);
        expect(r.y2 - r.y1).toBeLessThanOrEqual(10);
        // One ratio for both sides.
        expect(Math.abs((r.x2 - r.x1) / 2 - (r.y2 - r.y1))).toBeLessThanOrEqual(1);
      }
      expect(instances.labels.length).toBe(1); // 19 patches of 1% never hide 70%
    }
    expect(most).toBeGreaterThan(15);
    expect(start.view.layer.erase).toEqual([]);
  });

  test('drops what it hides', () => {
    const all = { patches: [30, 31], ratio: [0.5, 0.9], threshold: 0.7 } as const;
    const start = labelled(100, 100, 50, [45, 45, 55, 55]);
    expect(eraseView(start, all, new Random(2)).instances.labels.length).toBe(0);
  });
});

describe('prepareCached', () => {
  test('fits the box, may enlarge, flips always; boxes scale with the asked factor', () => {
    const { view, instances } = prepareCached(labelled(100, 50, 1, [10, 20, 30, 40]), {
      width: 410,
      height: 205,
    });
    expect([view.width, view.height]).toEqual([410, 205]);
    expect([...instances.boxes].map((v) => Math.round(v * 1e3) / 1e3)).toEqual([
      410 - 123,
      82,
      410 - 41,
      164,
    ]);
  });

  test('sizes are rounded down, boxes clipped to them', () => {
    const { view, instances } = prepareCached(labelled(100, 33, 1, [0, 0, 100, 33]), {
      width: 77,
      height: 77,
    });
    expect([view.width, view.height]).toEqual([77, 25]); // 25.41
    expect([...instances.boxes]).toEqual([0, 0, 77, 25]);
    // By the asked 0.77, not by the 25 / 33 that came of it.
    const inside = prepareCached(labelled(100, 33, 1, [10, 5, 60, 20]), { width: 77, height: 77 });
    expect([...inside.instances.boxes]).toEqual(
      [77 - 46.2, 3.85, 77 - 7.7, 15.4].map((v) => expect.closeTo(v, 4)),
    );
  });

  test('shows the mirrored picture, sampled from the original', async () => {
    const source = plain(64, 32, 10);
    source.data.fill(200, 0, 3 * 8); // top left corner of the first row
    for (let y = 1; y < 8; y++) source.data.fill(200, y * 64 * 3, (y * 64 + 8) * 3);
    const view = resizedView(source, { width: 64, height: 32 });
    const cached = { view, instances: instances([0, 0, 8, 8]) };
    const once = prepareCached(cached, { width: 128, height: 64 });
    const picture = await composeToImage(compositionOf(once.view));
    const at = (x: number, y: number) => picture.data[(y * 128 + x) * 3];
    expect([at(120, 5), at(5, 5), at(100, 5), at(120, 30)]).toEqual([200, 10, 10, 10]);
    expect([...once.instances.boxes]).toEqual([112, 0, 128, 16]);
    const twice = prepareCached(once, { width: 64, height: 32 });
    expect(await composeToImage(compositionOf(twice.view))).toEqual(
      await composeToImage(compositionOf(view)),
    );
  });

  test("keeps the pipeline's erased rectangles where they were", () => {
    const start = labelled(100, 50, 1);
    const layer = { ...start.view.layer, erase: [{ x1: 10, y1: 0, x2: 20, y2: 10, value: 128 }] };
    const { view } = prepareCached(
      { ...start, view: { ...start.view, layer } },
      { width: 200, height: 100 },
    );
    expect(view.layer.erase).toEqual([{ x1: 160, y1: 0, x2: 180, y2: 20, value: 128 }]);
  });
});

describe('pseudoMixup', () => {
  test('half and half on the smallest canvas; all offsets occur; boxes move along', async () => {
    const a = labelled(30, 10, 100, [0, 0, 5, 5]);
    const b = labelled(28, 12, 200, [1, 1, 2, 2], [3, 3, 4, 4]);
    const random = new Random(3);
    const offsets = new Set<string>();
    for (let i = 0; i < 100; i++) {
      const { composition, instances } = pseudoMixup(a, b, random);
      expect([composition.width, composition.height]).toEqual([30, 12]);
      const [first, second] = composition.layers;
      expect([first!.weight, second!.weight]).toEqual([0.5, 0.5]);
      offsets.add(`${first!.rect[1]} ${second!.rect[0]}`);
      expect([...instances.boxes.subarray(0, 4)]).toEqual([
        0,
        first!.rect[1],
        5,
        5 + first!.rect[1],
      ]);
      expect(instances.boxes[4]).toBe(1 + second!.rect[0]);
      expect([...instances.labels]).toEqual([0, 0, 1]);
    }
    expect(offsets.size).toBe(9); // {0, 1, 2} x {0, 1, 2}, both ends included
    const { composition } = pseudoMixup(a, b, new Random(4));
    const picture = await composeToImage(composition, [100, 100, 100]);
    expect(new Set(picture.data)).toEqual(new Set([100, 150])); // 100 alone: half way to the mean 100
  });
});

describe('pseudoMosaic', () => {
  test('tiles touch the centre of a canvas in multiples of 32', async () => {
    const tiles = [
      labelled(30, 20, 10, [0, 0, 30, 20]),
      labelled(16, 9, 60, [0, 0, 16, 9]),
      labelled(33, 17, 110, [0, 0, 33, 17]),
      labelled(5, 31, 160, [0, 0, 5, 31]),
    ];
    const { composition, instances } = pseudoMosaic(tiles);
    expect([composition.width, composition.height]).toEqual([96, 64]);
    expect([...instances.boxes]).toEqual(
      [
        [18, 12, 48, 32],
        [48, 23, 64, 32],
        [15, 32, 48, 49],
        [48, 32, 53, 63],
      ].flat(),
    );
    const picture = await composeToImage(composition, [0, 0, 0]);
    const at = (x: number, y: number) => picture.data[(y * 96 + x) * 3];
    expect([at(47, 31), at(48, 31), at(47, 32), at(48, 32)]).toEqual([10, 60, 110, 160]);
    expect([at(17, 31), at(0, 0), at(95, 63), at(53, 40)]).toEqual([0, 0, 0, 0]);
  });

  test('canvas sides are multiples of 32 and at most 1600 for boxes up to 800', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0 }), (seed) => {
        const random = new Random(seed);
        const box = { width: random.integer(400, 800), height: random.integer(400, 800) };
        const tiles = Array.from({ length: 4 }, () =>
          prepareCached(labelled(random.integer(20, 90), random.integer(20, 90), 0), box),
        );
        const { width, height } = pseudoMosaic(tiles).composition;
        expect([width % 32, height % 32]).toEqual([0, 0]);
        expect(Math.max(width, height)).toBeLessThanOrEqual(1600);
      }),
      { numRuns: 60 },
    );
  });

  test('wants four tiles', () => {
    expect(() => pseudoMosaic([])).toThrow(
      expect.objectContaining({
        code: 'ERR_SHAPE',
        message: 'pseudoMosaic: tiles must be 4 views, got 0',
      }),
    );
  });
});

describe('projectInstances', () => {
  test('a box of the weak view lands where the strong view shows it', () => {
    const random = new Random(6);
    for (let i = 0; i < 200; i++) {
      const source = plain(64, 48, 0);
      const weak = weakView(source, random);
      const strong = strongView(source, random, { geometric: ['translate-x', 'translate-y'] });
      const [a, , c, , e, f] = weak.matrix;
      const box = [20, 15, 40, 30];
      const xs = [a * box[0]! + c, a * box[2]! + c].sort((p, q) => p - q);
      const inWeak = instances([xs[0]!, e * box[1]! + f, xs[1]!, e * box[3]! + f]);
      const found = projectInstances(inWeak, weak, strong, 0.01);
      const m = strong.matrix;
      const expected = [m[0] * box[0]! + m[2], m[0] * box[2]! + m[2]].sort((p, q) => p - q);
      const clipped = expected.map((v) => Math.min(Math.max(v, 0), strong.width));
      expect(found.boxes[0]).toBeCloseTo(clipped[0]!, 2);
      expect(found.boxes[2]).toBeCloseTo(clipped[1]!, 2);
      expect([...found.scores]).toEqual([0.5]);
    }
  });

  test('drops what the strong view does not show', () => {
    const source = plain(100, 100, 0);
    const weak = resizedView(source, { width: 100, height: 100 });
    const strong = { ...weak, matrix: [1, 0, 60, 0, 1, 0, 0, 0, 1] as const };
    const found = projectInstances(
      instances([50, 10, 90, 40], [10, 10, 20, 20], [40, 5, 40.005, 50]),
      weak,
      strong,
      0.01,
    );
    expect([...found.labels]).toEqual([1]);
  });
});
