import { describe, expect, test } from 'vitest';
import {
  colorMagnitudes,
  colorSpace,
  drawErasePatches,
  type geometricSpace,
  labelledView,
  softTeacherErase,
  strongDefaults,
  strongView,
  type ViewOptions,
  viewOptions,
  weakDefaults,
  weakView,
} from '../../../lib/augment/views.js';
import { invert3, multiply3 } from '../../../lib/geometry.js';
import type { ColorOpName, DecodedImage, Instances, View } from '../../../lib/image/composition.js';
import { resizedSize, testView, viewInstances } from '../../../lib/image/view.js';
import { Random } from '../../../lib/random.js';

/** Sizes only: views never look at pixels. */
function picture(width: number, height: number): DecodedImage {
  return { width, height, data: new Uint8Array(0) };
}
function draw(count: number, options: Partial<ViewOptions>, source = picture(640, 480)): View[] {
  const random = new Random(11);
  return Array.from({ length: count }, () => strongView(source, random, options));
}
const still: Partial<ViewOptions> = { resize: { width: 1000, height: 500 }, flip: 0, color: [] };
const onlyGeometric = (op: (typeof geometricSpace)[number]) => ({ ...still, geometric: [op] });

describe('resize rule', () => {
  test('480 x 640 (h x w): 1200 gives 1000 x 1333', () => {
    expect(resizedSize(picture(640, 480), 1200, 1333)).toEqual({ width: 1333, height: 1000 });
    expect(resizedSize(picture(640, 480), 400, 1333)).toEqual({ width: 533, height: 400 });
    expect(testView(picture(640, 480))).toMatchObject({ width: 1067, height: 800 });
  });

  test('draws every short side between the bounds, both included; the factor stays in range', () => {
    const random = new Random(1);
    const shorts = new Set<number>();
    for (let i = 0; i < 4000; i++) {
      const view = weakView(picture(640, 480), random, {
        resize: { long: 1333, short: [400, 420] },
      });
      shorts.add(view.height);
      expect(view.width).toBe(Math.floor((640 * view.height) / 480 + 0.5));
    }
    expect([...shorts].sort()).toEqual(Array.from({ length: 21 }, (_, i) => 400 + i));
    for (let i = 0; i < 300; i++) {
      const factor = weakView(picture(640, 480), random).width / 640;
      expect(factor).toBeGreaterThan(0.832);
      expect(factor).toBeLessThan(2.084);
    }
  });

  test('a fixed size is taken as it is', () => {
    const view = weakView(picture(31, 77), new Random(1), { resize: { width: 64, height: 32 } });
    expect([view.width, view.height]).toEqual([64, 32]);
  });

  test('a sliver keeps a pixel', () => {
    expect(resizedSize(picture(100_000, 1), 400, 1333)).toEqual({ width: 1333, height: 1 });
  });
});

describe('flip', () => {
  test('happens as often as asked', () => {
    const flipped = (flip: number) => {
      const random = new Random(2);
      let count = 0;
      for (let i = 0; i < 1000; i++)
        if (weakView(picture(64, 48), random, { flip }).matrix[0] < 0) count++;
      return count;
    };
    expect(flipped(0)).toBe(0);
    expect(flipped(1)).toBe(1000);
    expect(Math.abs(flipped(0.5) - 500)).toBeLessThan(60);
  });
});

describe('geometric operations', () => {
  test('TranslateX moves by nothing or a tenth of the width, truncated, either way', () => {
    const counts = new Map<number, number>();
    for (const { matrix } of draw(2000, onlyGeometric('translate-x'))) {
      const shift = matrix[2];
      counts.set(shift, (counts.get(shift) ?? 0) + 1);
    }
    expect([...counts.keys()].sort((a, b) => a - b)).toEqual([-100, 0, 100]);
    expect(Math.abs(counts.get(0)! - 1000)).toBeLessThan(120);
    const odd = draw(200, { ...onlyGeometric('translate-y'), resize: { width: 50, height: 77 } });
    expect([...new Set(odd.map((v) => v.matrix[5] + 0))].sort()).toEqual([-7, 0, 7]);
  });

  test('Rotate turns by up to 30 degrees either way, in tenths of them, about the centre', () => {
    const angles = draw(500, onlyGeometric('rotate')).map(({ matrix: m, width, height }) => {
      const scale = [width / 640, height / 480] as const;
      const angle = (Math.atan2(m[3] / scale[0], m[0] / scale[0]) * 180) / Math.PI;
      const centre = [m[0] * 320 + m[1] * 240 + m[2], m[3] * 320 + m[4] * 240 + m[5]];
      expect(centre[0]).toBeCloseTo(width / 2, 6);
      expect(centre[1]).toBeCloseTo(height / 2, 6);
      return angle;
    });
    expect(Math.max(...angles)).toBeGreaterThan(29);
    expect(Math.min(...angles)).toBeLessThan(-29);
    for (const a of angles) {
      expect(Math.abs(a)).toBeLessThan(30.001);
      expect(a * 10).toBeCloseTo(Math.round(a * 10), 5);
    }
  });

  test('shears have the tangent of at most 30 degrees and no centring', () => {
    for (const { matrix: m, height } of draw(200, onlyGeometric('shear-x'))) {
      const t = m[1] / (height / 480);
      expect(Math.abs(t)).toBeLessThan(Math.tan(Math.PI / 6) + 1e-9);
      expect(m[2]).toBeCloseTo(-0.5 * t, 9); // the centres of the first row stay
      expect([m[3], m[5]]).toEqual([0, 0]);
    }
    for (const { matrix: m } of draw(50, onlyGeometric('shear-y'))) expect(m[1]).toBe(0);
  });

  test('each is drawn one time in five; the border is coloured half the time', () => {
    const kinds = new Map<string, number>();
    let colored = 0;
    const views = draw(3000, { ...still, translate: 1, color: ['brightness'] });
    for (const { matrix: m, layer } of views) {
      const angle = m[1] !== 0 && m[3] !== 0;
      const kind = angle ? 'rotate' : m[1] !== 0 ? 'shear-x' : m[3] !== 0 ? 'shear-y' : 'translate';
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1);
      if (layer.colorFill) colored++;
    }
    expect(Math.abs(kinds.get('rotate')! - 600)).toBeLessThan(100);
    expect(Math.abs(kinds.get('shear-x')! - 600)).toBeLessThan(100);
    expect(Math.abs(kinds.get('shear-y')! - 600)).toBeLessThan(100);
    expect(Math.abs(kinds.get('translate')! - 1200)).toBeLessThan(130);
    expect(Math.abs(colored - 1500)).toBeLessThan(130);
  });

  test('the map is the inverse of the matrix', () => {
    for (const { matrix, layer } of draw(50, {})) {
      const product = multiply3(matrix, layer.map);
      for (const [i, v] of [1, 0, 0, 0, 1, 0, 0, 0, 1].entries())
        expect(product[i]).toBeCloseTo(v, 9);
      expect(invert3(layer.map)[0]).toBeCloseTo(matrix[0], 9);
    }
  });
});

describe('colour operations', () => {
  test('one of nine, each as likely, with magnitudes in tenths of the table', () => {
    const counts = new Map<string, number>();
    const random = new Random(3);
    for (let i = 0; i < 4500; i++) {
      const [step, ...rest] = labelledView(picture(64, 48), random).layer.color;
      expect(rest).toEqual([]);
      counts.set(step?.op ?? 'identity', (counts.get(step?.op ?? 'identity') ?? 0) + 1);
      if (!step) continue;
      const [low, high] = colorMagnitudes[step.op];
      expect(step.magnitude).toBeGreaterThanOrEqual(low);
      expect(step.magnitude).toBeLessThanOrEqual(high);
      expect(step.magnitude * 10).toBeCloseTo(Math.round(step.magnitude * 10), 9);
    }
    expect([...counts.keys()].sort()).toEqual([...colorSpace].sort());
    for (const count of counts.values()) expect(Math.abs(count - 500)).toBeLessThan(100);
  });

  test('teacher views have none; lists and magnitudes can be chosen', () => {
    const random = new Random(4);
    expect(weakView(picture(64, 48), random).layer.color).toEqual([]);
    const steps = Array.from({ length: 200 }, () => {
      const options = {
        color: ['brightness'] as const,
        colorMagnitudes: { brightness: [0.8, 1.2] as const },
      };
      return labelledView(picture(64, 48), random, options).layer.color[0]!;
    });
    expect(new Set(steps.map((s) => s.op))).toEqual(new Set<ColorOpName>(['brightness']));
    expect(new Set(steps.map((s) => s.magnitude))).toEqual(new Set([0.8, 0.9, 1, 1.1, 1.2]));
  });
});

describe('pipeline erasing', () => {
  test("Soft Teacher's: 1 … 5 patches of less than a fifth, grey, inside the view", () => {
    const counts = new Set<number>();
    for (const view of draw(400, { ...still, erase: softTeacherErase })) {
      counts.add(view.layer.erase.length);
      for (const r of view.layer.erase) {
        expect(r.value).toBe(128);
        expect(Math.min(r.x1, r.y1)).toBeGreaterThanOrEqual(0);
        expect(r.x2).toBeLessThanOrEqual(view.width);
        expect(r.y2).toBeLessThanOrEqual(view.height);
        expect(r.x2 - r.x1).toBeLessThan(200);
        expect(r.y2 - r.y1).toBeLessThan(100);
      }
    }
    expect(Math.max(...counts)).toBe(5);
  });

  test('hides boxes that it covers', () => {
    const [view] = draw(1, still) as [View];
    const box = (x: number): Instances => ({
      boxes: Float32Array.of(x, 10, x + 10, 20),
      labels: Int32Array.of(0),
      scores: Float32Array.of(1),
    });
    const covered = { x1: 0, y1: 0, x2: 500, y2: 500, value: 128 };
    const erased = { ...view, layer: { ...view.layer, erase: [covered] } };
    const identity = { ...erased, matrix: [1, 0, 0, 0, 1, 0, 0, 0, 1] as const };
    expect(viewInstances(identity, box(10)).labels.length).toBe(0);
    expect(viewInstances(identity, box(510)).labels.length).toBe(1);
  });

  test('patches of the whole picture stay inside', () => {
    const rects = drawErasePatches(
      { width: 7, height: 5 },
      { patches: [50, 51], ratio: [0.99, 1], value: 'mean' },
      new Random(1),
    );
    for (const r of rects) expect([r.x2 <= 7, r.y2 <= 5]).toEqual([true, true]);
  });
});

test('viewInstances clips to the picture first, then maps, clips and drops slivers', () => {
  const view = testView(picture(100, 100), { long: 50, short: 50 });
  const seen = viewInstances(view, {
    boxes: Float32Array.of(-50, 10, 20, 300, 99.99, 0, 120, 50, 10, 10, 20, 20),
    labels: Int32Array.of(0, 1, 2),
    scores: Float32Array.of(1, 1, 1),
  });
  expect([...seen.boxes]).toEqual([0, 5, 10, 50, 5, 5, 10, 10]);
  expect([...seen.labels]).toEqual([0, 2]);
});

test('the same seed draws the same views; another does not', () => {
  const views = (seed: number) => {
    const random = new Random(seed);
    return Array.from({ length: 20 }, () => strongView(picture(640, 480), random));
  };
  expect(views(5)).toEqual(views(5));
  expect(views(5)).not.toEqual(views(6));
});

describe('bad options', () => {
  const bad: [string, object, string][] = [
    ['unknown key', { rotat: 3 }, "did you mean 'rotate'?"],
    ['unknown colour', { color: ['brightnes'] }, "got 'brightnes'; did you mean 'brightness'?"],
    ['unknown geometry', { geometric: ['shear'] }, 'geometric operation must be one of'],
    ['unknown magnitude', { colorMagnitudes: { blur: [0, 1] } }, "got 'blur'"],
    ['reversed range', { resize: { long: 100, short: [9, 3] } }, 'resize.short[1] must be in [9,'],
    ['zero size', { resize: { width: 0, height: 3 } }, 'resize.width must be in [1,'],
    ['probability', { flip: 1.5 }, 'flip must be in [0, 1], got 1.5'],
    ['not a number', { rotate: Number.NaN }, 'rotate must be in [0, 180], got NaN'],
    ['erase', { erase: { ...softTeacherErase, ratio: [0.5, 0.1] } }, 'erase.ratio[1]'],
  ];
  test.each(bad)('%s', (_, options, message) => {
    expect(() => viewOptions(strongDefaults, options)).toThrow(
      expect.objectContaining({ code: 'ERR_CONFIG', message: expect.stringContaining(message) }),
    );
  });

  test('the defaults themselves pass', () => {
    expect(viewOptions(strongDefaults)).toEqual(strongDefaults);
    expect(viewOptions(weakDefaults, { erase: softTeacherErase }).erase).toBe(softTeacherErase);
  });
});
