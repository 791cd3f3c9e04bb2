import { describe, expect, test } from 'vitest';
import { expectRefused } from '../ops/golden.js';
import { otherwiseEmulated } from '../ops/test-op.js';
import { boxes, f32, type Input, i32, relativeError, run } from './run.js';

const filled = <T>(count: number, f: (i: number) => T): T[] =>
  Array.from({ length: count }, (_, i) => f(i));

const refused = (op: string, inputs: Input[], options: object, code: string, message: string) =>
  expectRefused(() => run(op, inputs, options), code, `${op}: ${message}`);

interface Objects {
  boxes: number[][];
  labels: number[];
}
interface Noisy {
  groups: number;
  groupSize: number;
  labels: number[];
  references: number[];
  targets: { labels: number[]; boxes: number[]; weights: number[]; objects: number[] };
  positives: number;
}

describe('denoisingQueries', () => {
  async function noisy(images: Objects[], sizes: number[], options: object): Promise<Noisy> {
    const [layout, labels, references, ...targets] = await run(
      'denoisingQueries',
      [f32(sizes, 2), ...images.flatMap((o) => [boxes(o.boxes), i32(o.labels)])],
      options,
    );
    const [groups, groupSize] = layout!.data as [number, number];
    const slots = groups * groupSize;
    expect(labels!.shape).toEqual([images.length, slots]);
    expect(references!.shape).toEqual([images.length, slots, 4]);
    expect(targets.map(({ shape }) => shape)).toEqual([
      [images.length, slots],
      [images.length, slots, 4],
      [images.length, slots],
      [images.length, slots],
      [],
    ]);
    expect([labels!, references!, ...targets].map(({ dtype }) => dtype)).toEqual(
      'i32 f32 i32 f32 f32 i32 f32'.split(' '),
    );
    return {
      groups,
      groupSize,
      labels: labels!.data,
      references: references!.data,
      targets: {
        labels: targets[0]!.data,
        boxes: targets[1]!.data,
        weights: targets[2]!.data,
        objects: targets[3]!.data,
      },
      positives: targets[4]!.data[0]!,
    };
  }
  /** sigmoid(inverse_sigmoid(x, 1e-3)). */
  const held = (x: number) => {
    const [a, b] = [Math.max(x, 1e-3), Math.max(1 - x, 1e-3)];
    return a / (a + b);
  };
  const first: Objects = {
    boxes: [
      [10, 20, 30, 60],
      [0, 0, 100, 80],
      [50, 40, 90, 44],
    ],
    labels: [4, 0, 2],
  };
  const second: Objects = { boxes: [[5, 5, 25, 45]], labels: [3] };
  const sizes = [80, 100, 50, 50];
  const shares = [
    [
      [0.2, 0.5, 0.2, 0.5],
      [0.5, 0.5, 1, 1],
      [0.7, 0.525, 0.4, 0.05],
    ],
    [[0.3, 0.5, 0.4, 0.8]],
  ];

  test('without noise is the objects, group by group, positives and negatives', async () => {
    const options = { classes: 5, labelNoise: 0, boxNoise: 0, queries: 11 };
    const got = await noisy([first, second], sizes, options);
    expect([got.groups, got.groupSize, got.positives]).toEqual([3, 6, 12]);
    const slots = [0, 1].flatMap((n) =>
      filled(18, (slot) => ({ n, half: Math.floor((slot % 6) / 3), g: slot % 3 })),
    );
    for (const [i, { n, half, g }] of slots.entries()) {
      const box = shares[n]![g];
      const label = [first, second][n]!.labels[g];
      const learns = box !== undefined && half === 0;
      expect(got.labels[i]).toBe(label ?? -1);
      const reference = got.references.slice(4 * i, 4 * i + 4);
      expect(relativeError(reference, box?.map(held) ?? Array(4).fill(0.5))).toBeLessThan(1e-6);
      const { labels, boxes: own, weights, objects } = got.targets;
      expect([labels[i], weights[i], objects[i]]).toEqual(
        learns ? [label, 1, 3 * n + g] : [5, 0, -1],
      );
      expect(relativeError(own.slice(4 * i, 4 * i + 4), learns ? box : [0, 0, 0, 0])).toBeLessThan(
        1e-6,
      );
    }
  });

  test('has as many groups as the objects of the fullest image allow, at least one', async () => {
    for (const [queries, groups] of [
      [100, 33],
      [3, 1],
      [2, 1],
      [0, 1],
      [6, 2],
    ] as const) {
      const got = await noisy([second, first], [50, 50, 80, 100], { classes: 5, queries });
      expect([got.groups, got.groupSize]).toEqual([groups, 6]);
      expect(got.positives).toBe(4 * groups);
    }
  });

  test('of no objects there are none', async () => {
    const none: Objects = { boxes: [], labels: [] };
    for (const images of [[], [none], [none, none]]) {
      const got = await noisy(
        images,
        images.flatMap(() => [30, 40]),
        { classes: 5 },
      );
      expect([got.groups, got.groupSize, got.positives]).toEqual([1, 0, 0]);
    }
  });

  // Objects far from the image's edges, so that nothing is clamped.
  const many = (count: number): Objects => ({
    boxes: filled(count, (i) => {
      const [x, y] = [420 + 3 * i, 410 + 2 * i];
      return [x, y, x + 100 + i, y + 120 - i];
    }),
    labels: filled(count, (i) => i % 7),
  });

  test('draws labels and corners as often and as far as they should be', async () => {
    const count = 10;
    const objects = many(count);
    const classes = 7;
    const got = await noisy([objects], [1000, 1000], { classes, queries: 9000, seed: 11 });
    expect(got.groups).toBe(900);
    const drawn = Array(classes).fill(0);
    const moved = { positive: [] as number[], negative: [] as number[] };
    for (const [slot, label] of got.labels.entries()) {
      const [half, g] = [Math.floor((slot % (2 * count)) / count), slot % count];
      if (label !== objects.labels[g]) drawn[label]++;
      const [x1, y1, x2, y2] = objects.boxes[g]!.map((v) => v / 1000) as [
        number,
        number,
        number,
        number,
      ];
      const [cx, cy, w, h] = got.references.slice(4 * slot, 4 * slot + 4) as [
        number,
        number,
        number,
        number,
      ];
      if (w < 2e-3 || h < 2e-3) continue; // a side that the noise turned over, or nearly
      const offsets = [
        (2 * (cx - w / 2 - x1)) / (x2 - x1),
        (2 * (cy - h / 2 - y1)) / (y2 - y1),
        (2 * (cx + w / 2 - x2)) / (x2 - x1),
        (2 * (cy + h / 2 - y2)) / (y2 - y1),
      ];
      moved[half === 0 ? 'positive' : 'negative'].push(...offsets);
    }
    // A quarter is drawn from 7 classes, one of which changes nothing: standard deviation 0.0032.
    const changed = drawn.reduce((a, b) => a + b, 0) / got.labels.length;
    expect(Math.abs(changed - (0.25 * 6) / 7)).toBeLessThan(0.012);
    for (const [c, times] of drawn.entries()) {
      const others = objects.labels.filter((label) => label !== c).length / count;
      expect(Math.abs(times / got.labels.length - (0.25 * others) / 7)).toBeLessThan(0.005);
    }

    const mean = (x: number[]) => x.reduce((a, b) => a + b, 0) / x.length;
    const size = moved.positive.map(Math.abs);
    expect(size.length).toBeGreaterThan(4 * 8980);
    expect(Math.min(...size)).toBeGreaterThan(-1e-4);
    expect(Math.max(...size)).toBeLessThan(1 + 1e-4);
    expect(Math.max(...size)).toBeGreaterThan(0.99);
    // Uniform on (-1, 1): of each corner by itself, and no corner follows another.
    for (const k of [0, 1, 2, 3]) {
      const own = moved.positive.filter((_, i) => i % 4 === k);
      expect(Math.abs(mean(own))).toBeLessThan(0.025);
      expect(Math.abs(mean(own.map((x) => x * x)) - 1 / 3)).toBeLessThan(0.015);
      expect(Math.abs(mean(own.map(Math.sign)))).toBeLessThan(0.05);
      for (const other of [0, 1, 2, 3].filter((j) => j > k)) {
        const theirs = moved.positive.filter((_, i) => i % 4 === other);
        expect(Math.abs(mean(own.map((x, i) => x * theirs[i]!)))).toBeLessThan(0.015);
        expect(Math.abs(mean(own.map((x, i) => Math.abs(x * theirs[i]!))) - 0.25)).toBeLessThan(
          0.01,
        );
      }
    }
    const far = moved.negative.map(Math.abs);
    expect(far.length).toBeGreaterThan(4 * 5000);
    expect(Math.min(...far)).toBeGreaterThan(1 - 1e-4);
    expect(Math.max(...far)).toBeLessThan(2 + 1e-4);
    expect(Math.max(...far)).toBeGreaterThan(1.99);
  });

  test('box noise is of its scale', async () => {
    const got = await noisy([many(4)], [1000, 1000], { classes: 7, boxNoise: 0.25, queries: 400 });
    for (let slot = 0; slot < got.labels.length; slot++) {
      const [x1, y1, x2, y2] = many(4).boxes[slot % 4]!.map((v) => v / 1000) as [
        number,
        number,
        number,
        number,
      ];
      const [cx, cy, w, h] = got.references.slice(4 * slot, 4 * slot + 4) as [
        number,
        number,
        number,
        number,
      ];
      const [low, high] = slot % 8 < 4 ? [0, 1] : [1, 2];
      for (const offset of [
        (8 * (cx - w / 2 - x1)) / (x2 - x1),
        (8 * (cy - h / 2 - y1)) / (y2 - y1),
        (8 * (cx + w / 2 - x2)) / (x2 - x1),
        (8 * (cy + h / 2 - y2)) / (y2 - y1),
      ]) {
        expect(Math.abs(offset)).toBeGreaterThan(low - 1e-3);
        expect(Math.abs(offset)).toBeLessThan(high + 1e-3);
      }
    }
  });

  test('boxes stay in the image, references in what the inverse sigmoid has', async () => {
    const edge = {
      boxes: [
        [0, 0, 100, 80],
        [90, 70, 100, 80],
        [0, 0, 4, 4],
      ],
      labels: [0, 1, 2],
    };
    const { references } = await noisy([edge], [80, 100], { classes: 3, queries: 600, seed: 2 });
    const [low, high] = [held(0) - 1e-7, held(1) + 1e-7];
    let clamped = 0;
    for (let i = 0; i < references.length; i += 4) {
      const [cx, cy, w, h] = references.slice(i, i + 4) as [number, number, number, number];
      for (const share of [cx, cy, w, h]) {
        expect(share).toBeGreaterThanOrEqual(low);
        expect(share).toBeLessThanOrEqual(high);
      }
      for (const [centre, side] of [
        [cx, w],
        [cy, h],
      ] as const) {
        expect(centre - side / 2).toBeGreaterThan(-2e-3);
        expect(centre + side / 2).toBeLessThan(1 + 2e-3);
        if (Math.abs(centre - side / 2) < 1e-6) clamped++;
      }
    }
    expect(clamped).toBeGreaterThan(100);
  });

  test('the noise of an object does not depend on the batch around it', async () => {
    const options = { classes: 7, queries: 40, seed: 5, stream: 9 };
    const all = (n: Noisy, image: number) =>
      filled(n.groups * n.groupSize, (slot) => {
        const half = Math.floor((slot % n.groupSize) / (n.groupSize / 2));
        const i = image * n.groups * n.groupSize + slot;
        return {
          key: `${Math.floor(slot / n.groupSize)}/${half}/${slot % (n.groupSize / 2)}`,
          is: [n.labels[i], ...n.references.slice(4 * i, 4 * i + 4)],
        };
      });
    const alone = await noisy([many(4)], [1000, 1000], options);
    const among = await noisy([many(4), many(9)], [1000, 1000, 1000, 1000], options);
    expect([alone.groups, among.groups]).toEqual([10, 4]);
    const known = new Map(all(alone, 0).map(({ key, is }) => [key, is]));
    let same = 0;
    for (const { key, is } of all(among, 0))
      if (known.has(key)) {
        expect(is).toEqual(known.get(key));
        same++;
      }
    expect(same).toBe(4 * 2 * 4);
    // But each slot has its own: no two of a batch, of another seed or another stream are the same.
    const others = [
      among,
      await noisy([many(4)], [1000, 1000], { ...options, seed: 6 }),
      await noisy([many(4)], [1000, 1000], { ...options, stream: 10 }),
    ];
    const shifts = others.flatMap((n) =>
      filled(n.references.length / 4, (i) => i)
        .filter((i) => n.labels[i]! >= 0)
        .map((i) => {
          const g = i % (n.groupSize / 2);
          const [x1, , x2] = many(9).boxes[g]!.map((v) => v / 1000) as [number, number, number];
          return Math.round((1e5 * (n.references[4 * i]! - (x1 + x2) / 2)) / (x2 - x1));
        }),
    );
    expect(shifts.length).toBe(4 * 2 * (4 + 9) + 2 * 80);
    expect(new Set(shifts).size).toBeGreaterThan(shifts.length - 6);
    const again = async () => expect(await noisy([many(4)], [1000, 1000], options)).toEqual(alone);
    await again();
    await otherwiseEmulated(again);
  });

  test('draws every label of one class as that class, and all where it is to', async () => {
    const one = { boxes: many(5).boxes, labels: [0, 0, 0, 0, 0] };
    const got = await noisy([one], [1000, 1000], { classes: 1, labelNoise: 2, queries: 50 });
    expect(new Set(got.labels)).toEqual(new Set([0]));
    const of3 = await noisy([one], [1000, 1000], { classes: 3, labelNoise: 2, queries: 3000 });
    for (const c of [0, 1, 2])
      expect(of3.labels.filter((x) => x === c).length / of3.labels.length).toBeCloseTo(1 / 3, 1);
  });

  test('says what was wrong', async () => {
    const bad = (inputs: Input[], options: object, code: string, message: string) =>
      refused('denoisingQueries', inputs, options, code, message);
    const objects = [boxes(first.boxes), i32(first.labels)];
    const size = f32([80, 100], 2);
    await bad([], {}, 'ERR_SHAPE', 'needs sizes, then boxes and labels per image, got 0 tensors');
    await bad(
      [f32([1, 1, 1, 1], 2), ...objects],
      { classes: 5 },
      'ERR_SHAPE',
      'sizes must be [1, 2] (height and width of each image), got [2, 2]',
    );
    await bad([i32([1]), ...objects], { classes: 5 }, 'ERR_DTYPE', 'sizes must be f32, got i32');
    await bad(
      [size, ...objects],
      { classes: 0 },
      'ERR_RANGE',
      'classes must be in [1, 2.14748e+09], got 0',
    );
    await bad(
      [size, ...objects],
      { classes: 5, labelNoise: 3 },
      'ERR_RANGE',
      'labelNoise must be in [0, 2], got 3',
    );
    await bad(
      [size, ...objects],
      { classes: 5, boxNoise: -1 },
      'ERR_RANGE',
      'boxNoise must be >= 0, got -1',
    );
    await bad(
      [size, ...objects],
      { classes: 5, queries: 65536 },
      'ERR_RANGE',
      'queries must be in [0, 65535], got 65536',
    );
  });
});

describe('denoisingMask', () => {
  test.each([
    [3, 4, 5],
    [1, 2, 1],
    [2, 6, 0],
    [5, 20, 100],
    [7, 2, 300],
  ])('%i groups of %i, %i queries', async (groups, groupSize, queries) => {
    const [mask] = await run('denoisingMask', [], { groups, groupSize, queries });
    const noisy = groups * groupSize;
    const all = noisy + queries;
    expect(mask!.shape).toEqual([1, all, all]);
    expect(mask!.dtype).toBe('u8');
    const group = (i: number) => (i < noisy ? Math.floor(i / groupSize) : -1);
    expect(mask!.data).toEqual(
      filled(all * all, (i) => {
        const [row, column] = [group(Math.floor(i / all)), group(i % all)];
        return Number(column >= 0 && row !== column);
      }),
    );
  });

  test('there is none without denoising queries', async () => {
    expect(await run('denoisingMask', [], { groups: 1, groupSize: 0, queries: 9 })).toEqual([]);
  });

  test('says what was wrong', async () => {
    await refused(
      'denoisingMask',
      [],
      { queries: -1 },
      'ERR_RANGE',
      'queries must be >= 0, got -1',
    );
    await refused('denoisingMask', [i32([1])], {}, 'ERR_SHAPE', 'needs 0 tensors, got 1');
  });
});
