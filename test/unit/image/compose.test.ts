import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { invert3, type Matrix3, multiply3 } from '../../../lib/geometry.js';
import { composeBatch, composeToImage } from '../../../lib/image/compose.js';
import {
  type ColorStep,
  type Composition,
  colorOps,
  type EraseRect,
  type Layer,
} from '../../../lib/image/composition.js';
import { flipping, letterbox, resizedView, scaling, shifting } from '../../../lib/image/view.js';
import { native } from '../../../lib/native.js';
import { Random } from '../../../lib/random.js';
import { composeLoop } from '../../oracle/compose.js';
import { testDevice } from '../devices.js';
import { identityLayer, noise, plain, single } from './pictures.js';

const unit = {
  mean: [0, 0, 0] as [number, number, number],
  std: [1, 1, 1] as [number, number, number],
  channelOrder: 'rgb' as 'rgb' | 'bgr',
  padDivisor: 1,
  dtype: 'f32' as 'f32' | 'bf16',
  padTo: 'batch' as const,
  device: testDevice,
};

async function values(
  compositions: readonly Composition[],
  options: Partial<typeof unit> = {},
): Promise<Float32Array> {
  const batch = await composeBatch(compositions, { ...unit, ...options });
  const out = (await batch.tensor.read()) as Float32Array;
  batch.dispose();
  return out;
}

function worst(ours: Float32Array, truth: Float64Array): number {
  expect(ours.length).toBe(truth.length);
  return ours.reduce((most, v, i) => Math.max(most, Math.abs(v - truth[i]!)), 0);
}

function turn(degrees: number): Matrix3 {
  const a = (degrees * Math.PI) / 180;
  return [Math.cos(a), -Math.sin(a), 0, Math.sin(a), Math.cos(a), 0, 0, 0, 1];
}

/** A layer under a random map: resized, perhaps flipped, turned, sheared, or in perspective. */
function randomLayer(random: Random, canvas: { width: number; height: number }): Layer {
  const source = noise(random.integer(1, 30), random.integer(1, 30), random);
  const x1 = random.integer(0, canvas.width);
  const y1 = random.integer(0, canvas.height);
  const x2 = random.integer(x1, canvas.width) + 1;
  const y2 = random.integer(y1, canvas.height) + 1;
  const zoom = () => Math.exp(random.uniform(-2.2, 1.6));
  let m = scaling(zoom(), zoom());
  if (random.next() < 0.5) m = multiply3(flipping(x2 - x1), m);
  const kind = random.integer(0, 5);
  if (kind === 1) m = multiply3(turn(random.uniform(-40, 40)), m);
  if (kind === 2) m = multiply3([1, random.uniform(-0.5, 0.5), 0, 0, 1, 0, 0, 0, 1], m);
  m = multiply3(shifting(x1 + random.uniform(-3, 6), y1 + random.uniform(-3, 6)), m);
  if (kind === 3) m = multiply3([1, 0, 0, 0, 1, 0, 2e-3, -1e-3, 1], m);
  const rects: EraseRect[] = Array.from({ length: random.integer(0, 4) }, () => {
    const a = random.integer(-4, canvas.width);
    const b = random.integer(-4, canvas.height);
    const value = random.next() < 0.5 ? ('mean' as const) : random.integer(0, 256);
    return { x1: a, y1: b, x2: a + random.integer(0, 9), y2: b + random.integer(0, 9), value };
  });
  return {
    source,
    map: invert3(m),
    rect: [x1, y1, x2, y2],
    weight: random.uniform(-1, 1),
    fill: [random.uniform(0, 255), random.uniform(0, 255), random.uniform(0, 255)],
    colorFill: false,
    antialias: random.next() < 0.75,
    color: [],
    erase: rects,
  };
}

/** Positions that sit on a decision (source border, filter's foot) by construction are left to chance. */
function randomComposition(random: Random): Composition {
  const canvas = { width: random.integer(1, 60), height: random.integer(1, 80) };
  const layers = Array.from({ length: random.integer(0, 4) }, () => randomLayer(random, canvas));
  return { ...canvas, layers };
}

describe('compose', () => {
  test('equals the float64 loop on random compositions', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0 }), fc.boolean(), async (seed, bgr) => {
        const composition = randomComposition(new Random(seed));
        const options = {
          mean: [100, 110, 120] as [number, number, number],
          std: [50, 60, 70] as [number, number, number],
          channelOrder: bgr ? ('bgr' as const) : ('rgb' as const),
        };
        const ours = await values([composition], options);
        // 3 layers of up to 255 / 50, each a sum of up to 40 rounded f32 products.
        expect(worst(ours, composeLoop(composition, options))).toBeLessThan(5e-5);
      }),
      { numRuns: 150 },
    );
  });

  test('equals the loop with colour operations where nothing is rounded on the way', async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0 }), fc.boolean(), async (seed, bgr) => {
        const random = new Random(seed);
        const source = noise(random.integer(1, 40), random.integer(1, 75), random);
        const color: ColorStep[] = Array.from({ length: random.integer(1, 4) }, () => ({
          op: colorOps[random.integer(0, colorOps.length)]!,
          magnitude: Math.round(random.uniform(0, 40)) / 10,
        }));
        const flip = random.next() < 0.5;
        const shift = shifting(random.integer(-5, 6), random.integer(-5, 6));
        const composition = single(
          identityLayer(source, {
            map: multiply3(flip ? flipping(source.width) : scaling(1, 1), shift),
            fill: [128, 3, 250],
            colorFill: random.next() < 0.5,
            color,
          }),
        );
        const options = { ...unit, channelOrder: bgr ? ('bgr' as const) : ('rgb' as const) };
        expect(worst(await values([composition], options), composeLoop(composition, options))).toBe(
          0,
        );
      }),
      { numRuns: 150 },
    );
  });

  test('colours turned and resized layers like the loop, up to one step of rounding', async () => {
    const random = new Random(5);
    for (let i = 0; i < 20; i++) {
      const canvas = { width: 50, height: 70 };
      const layer = {
        ...randomLayer(random, canvas),
        weight: 1,
        colorFill: i % 2 === 0,
        color: [{ op: (['brightness', 'color', 'contrast'] as const)[i % 3]!, magnitude: 0.7 }],
      };
      const composition = { ...canvas, layers: [layer] };
      const truth = composeLoop(composition, unit);
      expect(worst(await values([composition]), truth)).toBeLessThanOrEqual(1.001);
    }
  });

  test('a picture at its own size comes out as it is, in either channel order', async () => {
    const source = noise(37, 41, new Random(1));
    expect(await values([single(identityLayer(source))])).toEqual(Float32Array.from(source.data));
    const swapped = source.data.map((_, i) => source.data[i + 2 - 2 * (i % 3)]!);
    expect(await values([single(identityLayer(source))], { channelOrder: 'bgr' })).toEqual(
      Float32Array.from(swapped),
    );
  });

  test('normalises with mean and std in the order of the output', async () => {
    const source = { width: 1, height: 1, data: Uint8Array.of(10, 20, 30) };
    const options = { mean: [1, 2, 3] as [number, number, number], std: [2, 4, 8] as const };
    const out = await values([single(identityLayer(source))], {
      ...options,
      std: [2, 4, 8],
      channelOrder: 'bgr',
    });
    expect([...out]).toEqual([29 / 2, 18 / 4, 7 / 8]);
  });

  test('flipping twice is the identity, to the bit', async () => {
    const source = noise(33, 20, new Random(2));
    const map = multiply3(flipping(33), flipping(33));
    expect(await values([single(identityLayer(source, { map }))])).toEqual(
      await values([single(identityLayer(source))]),
    );
  });

  test('a flipped picture is its mirror image', async () => {
    const source = noise(9, 4, new Random(3));
    const out = await values([single(identityLayer(source, { map: flipping(9) }))]);
    for (let y = 0; y < 4; y++)
      for (let x = 0; x < 9; x++)
        expect(out[(y * 9 + x) * 3]).toBe(source.data[(y * 9 + 8 - x) * 3]);
  });

  test('keeps the mean of a picture that shrinks: nothing is skipped', async () => {
    const source = noise(256, 256, new Random(4));
    const mean = source.data.reduce((a, b) => a + b) / source.data.length;
    for (const view of [resizedView(source, { width: 16, height: 16 })]) {
      const out = await values([{ width: 16, height: 16, layers: [view.layer] }]);
      expect(out.reduce((a, b) => a + b) / out.length).toBeCloseTo(mean, 0);
      // 256 values average to a spread of 255 / sqrt(12 * 256) = 4.6; skipping would leave 74.
      const spread = Math.sqrt(out.reduce((a, v) => a + (v - mean) ** 2, 0) / out.length);
      expect(spread).toBeLessThan(6);
    }
  });

  test('a batch is its compositions one by one, padded with zeros', async () => {
    const random = new Random(6);
    const all = Array.from({ length: 3 }, () => randomComposition(random));
    const options = { ...unit, padDivisor: 32, mean: [9, 9, 9] as [number, number, number] };
    const batch = await composeBatch(all, options);
    const [, height, width] = batch.tensor.shape as [number, number, number];
    expect([height % 32, width % 32]).toEqual([0, 0]);
    expect(batch.padSizes).toEqual(all.map(() => ({ height, width })));
    const together = (await batch.tensor.read()) as Float32Array;
    batch.dispose();
    for (const [n, c] of all.entries()) {
      const alone = await values([c], { mean: [9, 9, 9] });
      for (let y = 0; y < height; y++)
        for (let x = 0; x < 3 * width; x++) {
          const inside = y < c.height && x < 3 * c.width;
          const expected = inside ? alone[y * c.width * 3 + x] : 0;
          if (together[((n * height + y) * width * 3 + x) | 0] !== expected)
            throw new Error(`image ${n}, row ${y}, value ${x}`);
        }
    }
  });

  test('padSizes of single images are rounded one by one', async () => {
    const compositions = [40, 70].map((size) => single(identityLayer(plain(size, size, 5))));
    const batch = await composeBatch(compositions, { ...unit, padDivisor: 32, padTo: 'image' });
    expect(batch.padSizes).toEqual([
      { width: 64, height: 64 },
      { width: 96, height: 96 },
    ]);
    expect(batch.sizes).toEqual([
      { width: 40, height: 40 },
      { width: 70, height: 70 },
    ]);
    batch.dispose();
  });

  test('bf16 is f32 rounded to nearest even', async () => {
    const composition = randomComposition(new Random(77));
    const wide = await values([composition]);
    const words = new Uint32Array(wide.buffer, wide.byteOffset, wide.length);
    const rounded = words.map((u) => ((u + 0x7fff + ((u >>> 16) & 1)) & 0xffff0000) >>> 0);
    expect(await values([composition], { dtype: 'bf16' })).toEqual(
      new Float32Array(rounded.buffer),
    );
  });

  test('layers add up with their weights', async () => {
    const [a, b] = [plain(8, 8, 100), plain(8, 8, 60)];
    const both = {
      width: 8,
      height: 8,
      layers: [
        identityLayer(a!, { weight: 0.5 }),
        identityLayer(b!, { weight: 0.5, rect: [0, 0, 4, 8] }),
      ],
    };
    const out = await values([both], { mean: [20, 20, 20] });
    expect(out[0]).toBe(0.5 * 80 + 0.5 * 40);
    expect(out[7 * 3]).toBe(0.5 * 80); // alone: half contrast around the mean, as in the reference
  });

  test('an erased pixel is the mean colour, or the value', async () => {
    const layer = identityLayer(plain(6, 6, 200), {
      erase: [
        { x1: 1, y1: 1, x2: 3, y2: 3, value: 'mean' },
        { x1: 4, y1: 4, x2: 99, y2: 99, value: 128 },
      ],
    });
    const out = await values([single(layer)], { mean: [50, 50, 50], std: [2, 2, 2] });
    expect(out[0]).toBe(75);
    expect(out[(1 * 6 + 2) * 3]).toBe(0);
    expect(out[(5 * 6 + 5) * 3]).toBe(39);
  });

  test('letterbox places the view and pads with zeros', async () => {
    const view = resizedView(plain(10, 5, 90), { width: 20, height: 10 });
    const { composition, matrix } = letterbox(view, { width: 32, height: 32, align: 'centre' });
    const out = await values([composition]);
    expect(out[(16 * 32 + 16) * 3]).toBeCloseTo(90, 4);
    expect(out[(10 * 32 + 16) * 3]).toBe(0);
    expect(multiply3(matrix, shifting(0, 0))).toEqual([2, 0, 6, 0, 2, 11, 0, 0, 1]);
    expect(() => letterbox(view, { width: 19, height: 32 })).toThrow(
      expect.objectContaining({ code: 'ERR_SHAPE' }),
    );
  });

  test('composeToImage gives the picture back', async () => {
    const source = noise(12, 7, new Random(8));
    const picture = await composeToImage(single(identityLayer(source)));
    expect(picture).toEqual(source);
  });

  test('an empty batch and an empty composition are no error', async () => {
    const batch = await composeBatch([], unit);
    expect(batch.tensor.shape).toEqual([0, 0, 0, 3]);
    batch.dispose();
    expect([...(await values([{ width: 2, height: 1, layers: [] }]))]).toEqual([0, 0, 0, 0, 0, 0]);
  });
});

describe('threads', () => {
  const { threads } = native.buildInfo();
  afterEach(() => native.setNumThreads(threads));

  test('any number of them gives the same bits', async () => {
    const random = new Random(9);
    const compositions = Array.from({ length: 4 }, () => {
      const canvas = { width: 90, height: 200 };
      const layers = Array.from({ length: 2 }, (_, i) => ({
        ...randomLayer(random, canvas),
        rect: [0, 0, 90, 200] as const,
        colorFill: true,
        color: [
          { op: colorOps[random.integer(0, colorOps.length)]!, magnitude: 0.7 },
          ...(i ? [{ op: 'sharpness' as const, magnitude: 1.5 }] : []),
        ],
      }));
      return { ...canvas, layers };
    });
    native.setNumThreads(1);
    const one = await values(compositions);
    for (const count of [2, 3]) {
      native.setNumThreads(count);
      expect(await values(compositions)).toEqual(one);
    }
  });
});

describe('a bad plan is refused', () => {
  const source = plain(4, 4, 1);
  const good = identityLayer(source);
  const nan = Number.NaN;
  const cases: [string, Partial<Layer>, string, string][] = [
    ['map not finite', { map: [nan, 0, 0, 0, 1, 0, 0, 0, 1] }, 'ERR_RANGE', 'map must hold'],
    ['map huge', { map: [1e12, 0, 0, 0, 1, 0, 0, 0, 1] }, 'ERR_RANGE', 'map must hold'],
    ['horizon', { map: [1, 0, 0, 0, 1, 0, -0.5, 0, 1] }, 'ERR_RANGE', 'third coordinate'],
    ['map short', { map: [1, 0, 0] as unknown as Matrix3 }, 'ERR_SHAPE', 'map [9]'],
    ['rect outside', { rect: [0, 0, 5, 4] }, 'ERR_RANGE', 'inside the composition (4x4)'],
    ['rect reversed', { rect: [3, 0, 1, 4] }, 'ERR_RANGE', 'rect must lie'],
    ['rect broken', { rect: [0, 0, 2.5, 4] }, 'ERR_RANGE', 'whole numbers, got 2.5'],
    ['weight', { weight: Number.POSITIVE_INFINITY }, 'ERR_RANGE', 'weight must be finite'],
    ['fill', { fill: [0, 256, 0] }, 'ERR_RANGE', 'fill must be in [0, 255], got 256'],
    ['operation', { color: [{ op: 'blur' as 'color', magnitude: 1 }] }, 'ERR_RANGE', "got 'blur'"],
    ['magnitude', { color: [{ op: 'color', magnitude: nan }] }, 'ERR_RANGE', 'magnitude must be'],
    [
      'erased value',
      { erase: [{ x1: 0, y1: 0, x2: 1, y2: 1, value: 300 }] },
      'ERR_RANGE',
      'erased value must be',
    ],
    [
      'source too short',
      { source: { width: 4, height: 4, data: new Uint8Array(47) } },
      'ERR_SHAPE',
      'source 0 must hold width x height x 3 bytes (4x4x3), got 47',
    ],
    [
      'source empty',
      { source: { width: 0, height: 0, data: new Uint8Array(0) } },
      'ERR_SHAPE',
      'source 0',
    ],
  ];
  test.each(cases)('%s', async (_, changes, code, message) => {
    const bad = { width: 4, height: 4, layers: [{ ...good, ...changes }] };
    await expect(values([bad])).rejects.toMatchObject({
      name: 'MixplError',
      code,
      message: expect.stringContaining(message),
    });
    expect((await values([single(good)]))[0]).toBe(1); // and the next one works
  });

  test('std and padDivisor', async () => {
    await expect(values([single(good)], { std: [1, 0, 1] })).rejects.toMatchObject({
      code: 'ERR_RANGE',
      message: 'compose: std must be > 0 and finite, got 0',
    });
    await expect(values([single(good)], { padDivisor: 0 })).rejects.toMatchObject({
      code: 'ERR_RANGE',
      message: 'compose: padDivisor must be a whole number >= 1, got 0',
    });
  });

  test('a size that no memory holds', async () => {
    const huge = { width: 1 << 20, height: 4, layers: [] };
    await expect(values([huge])).rejects.toMatchObject({ code: 'ERR_RANGE' });
  });

  test('odd but legal maps neither crash nor hang', async () => {
    const random = new Random(10);
    for (let i = 0; i < 300; i++) {
      const wild = () =>
        random.next() < 0.3 ? 0 : 10 ** random.uniform(-12, 9) * (random.next() < 0.5 ? -1 : 1);
      const map = [
        wild(),
        wild(),
        wild(),
        wild(),
        wild(),
        wild(),
        0,
        0,
        10 ** random.uniform(-8, 8),
      ];
      const out = await values([
        single(
          identityLayer(noise(random.integer(1, 9), random.integer(1, 9), random), {
            map: map as unknown as Matrix3,
          }),
        ),
      ]);
      expect(out.every((v) => v >= -0.001 && v <= 255.001)).toBe(true);
    }
  });
});
