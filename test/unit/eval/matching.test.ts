import { describe, expect, test } from 'vitest';
import { evaluateDetections } from '../../../lib/eval/index.js';
import { matchObjects, sizeOf, unmatched } from '../../../lib/eval/matching.js';
import { Random } from '../../../lib/random.js';
import { type FoundRow, matchLoop, type ObjectRow, type Verdict } from '../../oracle/matching.js';

const flat = (rows: readonly { box: readonly number[]; label: number }[]) => ({
  boxes: Float32Array.from(rows.flatMap(({ box }) => box)),
  labels: Int32Array.from(rows, ({ label }) => label),
});
const foundOf = (rows: readonly FoundRow[]) => ({
  ...flat(rows),
  scores: Float32Array.from(rows, ({ score }) => score),
});
const objectsOf = (rows: readonly ObjectRow[]) => ({
  ...flat(rows),
  crowd: Uint8Array.from(rows, ({ crowd }) => Number(crowd)),
});

function verdicts(found: readonly FoundRow[], objects: readonly ObjectRow[]): Verdict[] {
  const { objectOf, boxOf } = matchObjects(foundOf(found), objectsOf(objects));
  boxOf.forEach((box, j) => {
    if (box >= 0) expect(objectOf[box]).toBe(j);
  });
  expect(boxOf.filter((box) => box >= 0)).toHaveLength(objectOf.filter((j) => j >= 0).length);
  return Array.from(objectOf, (j) => (j >= 0 ? j : j === unmatched.onCrowd ? 'crowd' : 'wrong'));
}

const found = (box: FoundRow['box'], { score = 0.9, label = 0 } = {}): FoundRow => ({
  box,
  score,
  label,
});
const object = (box: ObjectRow['box'], { crowd = false, label = 0 } = {}): ObjectRow => ({
  box,
  label,
  crowd,
});

/** Boxes on a coarse grid meet exactly, tie and repeat; scores of few levels tie, too. */
function randomImage(random: Random, { crowds = true } = {}) {
  const box = (): FoundRow['box'] => {
    const [x, y] = [random.integer(0, 6), random.integer(0, 6)];
    return [x, y, x + random.integer(1, 5), y + random.integer(1, 5)];
  };
  const label = () => random.integer(0, 2);
  return {
    found: Array.from({ length: random.integer(0, 12) }, () =>
      found(box(), { score: random.integer(1, 5) / 5, label: label() }),
    ),
    objects: Array.from({ length: random.integer(0, 8) }, () =>
      object(box(), { crowd: crowds && random.next() < 0.2, label: label() }),
    ),
  };
}

describe('matchObjects', () => {
  test('equals the slow loop, ties and crowds included', () => {
    const random = new Random(5);
    const seen = new Set<string>();
    for (let round = 0; round < 2000; round++) {
      const image = randomImage(random);
      const expected = matchLoop(image.found, image.objects);
      expect(verdicts(image.found, image.objects)).toEqual(expected);
      for (const verdict of expected) seen.add(typeof verdict === 'number' ? 'right' : verdict);
    }
    expect([...seen].sort()).toEqual(['crowd', 'right', 'wrong']);
  });

  test('finds as many objects of each class as COCO recalls at IoU 0.5', async () => {
    const random = new Random(6);
    const images = Array.from({ length: 60 }, (_, id) => {
      const box = (x = random.uniform(0, 60), y = random.uniform(0, 60)): FoundRow['box'] =>
        [
          ...[x, y],
          ...[x + random.uniform(15, 40), y + random.uniform(15, 40)],
        ] as unknown as FoundRow['box'];
      const objects = Array.from({ length: 4 }, () =>
        object(box(), { crowd: random.next() < 0.1, label: random.integer(0, 2) }),
      );
      const near = objects.flatMap(({ box: [x, y], label }) =>
        [1, 2].map(() =>
          found(box(x + random.normal(), y + random.normal()), { score: random.next(), label }),
        ),
      );
      return { id: id + 1, found: near, objects };
    });
    const categories = ['a', 'b'].map((name, i) => ({ id: i + 1, name }));
    const dataset = {
      categories,
      images: images.map(({ id: image, objects }) => ({
        id: image,
        annotations: {
          ...objectsOf(objects),
          areas: Float64Array.from(objects, () => 100),
        },
      })),
    };
    const detections = images.map((image) => foundOf(image.found));
    const { tables } = await evaluateDetections({ dataset, detections });
    const right = [0, 0];
    const objects = [0, 0];
    for (const image of images) {
      for (const row of image.objects) if (!row.crowd) objects[row.label]!++;
      verdicts(image.found, image.objects).forEach((verdict, i) => {
        if (typeof verdict === 'number') right[image.found[i]!.label]!++;
      });
    }
    // [IoU, class, area, limit]: IoU 0.5, any area, the largest limit.
    const numAreas = 4;
    const limits = tables.maxDetections.length;
    const recalls = [0, 1].map((label) => tables.recall[label * numAreas * limits + limits - 1]!);
    expect(right.map((count, label) => count / objects[label]!)).toEqual(recalls);
    expect(Math.min(...recalls)).toBeGreaterThan(0.2);
    expect(Math.max(...recalls)).toBeLessThan(0.95);
  });

  test('of equal scores the first box takes the object, of equal IoUs the first object is taken', () => {
    expect(
      verdicts([found([0, 0, 10, 10]), found([0, 0, 10, 10])], [object([0, 0, 10, 10])]),
    ).toEqual([0, 'wrong']);
    expect(
      verdicts([found([0, 0, 10, 10])], [object([2, 0, 12, 10]), object([0, 2, 10, 12])]),
    ).toEqual([0]);
  });

  test('an IoU of exactly 0.5 is enough; another class never is', () => {
    const half = object([0, 0, 10, 20]);
    expect(verdicts([found([0, 0, 10, 10])], [half])).toEqual([0]);
    expect(verdicts([found([0, 0, 10, 9.9])], [half])).toEqual(['wrong']);
    expect(verdicts([found([0, 0, 10, 20], { label: 1 })], [half])).toEqual(['wrong']);
  });

  test('a better box that has an object takes no other one; a worse one then gets it', () => {
    const objects = [object([0, 0, 10, 10]), object([0, 3, 10, 13])];
    const boxes = [found([0, 1, 10, 11], { score: 0.5 }), found([0, 0, 10, 10])];
    expect(verdicts(boxes, objects)).toEqual([1, 0]);
  });

  test('any number of boxes may lie on a crowd, but an object comes first', () => {
    const crowd = object([0, 0, 40, 40], { crowd: true });
    const inside = [0, 1, 2].map((x) => found([x, 0, x + 10, 10]));
    expect(verdicts(inside, [crowd])).toEqual(['crowd', 'crowd', 'crowd']);
    expect(verdicts(inside, [crowd, object([0, 0, 10, 10])])).toEqual([1, 'crowd', 'crowd']);
    expect(verdicts([found([36, 0, 46, 10])], [crowd])).toEqual(['wrong']);
    expect(verdicts([found([0, 0, 10, 10], { label: 1 })], [crowd])).toEqual(['wrong']);
  });

  test('without boxes or objects nothing is matched; a box without area finds nothing', () => {
    expect(verdicts([], [object([0, 0, 9, 9])])).toEqual([]);
    expect(verdicts([found([0, 0, 9, 9])], [])).toEqual(['wrong']);
    const point = found([5, 5, 5, 5]);
    expect(
      verdicts([point], [object([5, 5, 5, 5]), object([0, 0, 9, 9], { crowd: true })]),
    ).toEqual(['wrong']);
  });

  test('what boxes above a threshold take does not depend on those below it', () => {
    const random = new Random(8);
    for (let round = 0; round < 300; round++) {
      const { found: all, objects } = randomImage(random);
      const above = all.filter(({ score }) => score > 0.5);
      const whole = verdicts(all, objects).filter((_, i) => all[i]!.score > 0.5);
      expect(verdicts(above, objects)).toEqual(whole);
    }
  });
});

test('sizes are those of COCO: 32² is medium, 96² large', () => {
  const sizes = [31.9, 32, 95.9, 96].map((side) => sizeOf(Float32Array.of(0, 0, side, side), 0));
  expect(sizes).toEqual([0, 1, 1, 2]);
});
