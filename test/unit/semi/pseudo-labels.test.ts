import { describe, expect, test } from 'vitest';
import { Random } from '../../../lib/random.js';
import {
  countPseudoLabels,
  judgePicture,
  perImage,
  precisionOf,
  recallOf,
  sumReports,
} from '../../../lib/semi/pseudo-labels.js';
import { matchLoop } from '../../oracle/matching.js';
import { detections } from './fake-detector.js';

/** Objects from rows of [x1, y1, x2, y2, label, crowd]. */
function objects(...rows: number[][]) {
  return {
    boxes: Float32Array.from(rows.flatMap((r) => r.slice(0, 4))),
    labels: Int32Array.from(rows, (r) => r[4]!),
    crowd: Uint8Array.from(rows, (r) => r[5] ?? 0),
  };
}

const everything = () => true;

function judged(
  found: number[][],
  truth: number[][] | null,
  shown: { boxes?: (i: number) => boolean; objects?: (i: number) => boolean } = {},
) {
  return judgePicture(
    { instances: detections(...found), shown: shown.boxes ?? everything },
    truth && { instances: objects(...truth), shown: shown.objects ?? everything },
  );
}

const count = (pictures: ReturnType<typeof judged>[], scoreThr = 0.5) =>
  countPseudoLabels(pictures, { numClasses: 3, scoreThr });

const none = { boxes: 0, right: 0, onCrowd: 0, objects: 0, found: 0 };

describe('countPseudoLabels', () => {
  test('counts labels and objects by class and by size, each by its own', () => {
    const { truth, ...labels } = count([
      judged(
        [
          [0, 0, 30, 30, 0.9, 0], // small, finds the medium one
          [100, 100, 200, 200, 0.8, 1], // nothing is there
          [0, 0, 30, 30, 0.4, 0], // below the threshold
        ],
        [
          [0, 0, 33, 33, 0],
          [300, 300, 310, 310, 2],
        ],
      ),
    ]);
    expect(labels).toMatchObject({ images: 1, boxes: 2, perClass: [1, 1, 0], bySize: [1, 0, 1] });
    expect(truth).toEqual({
      ...{ images: 1, boxes: 2, right: 1, onCrowd: 0, objects: 2, found: 1 },
      perClass: [
        { boxes: 1, right: 1, onCrowd: 0, objects: 1, found: 1 },
        { ...none, boxes: 1 },
        { ...none, objects: 1 },
      ],
      bySize: [
        { ...none, boxes: 1, right: 1, objects: 1 },
        { ...none, objects: 1, found: 1 },
        { ...none, boxes: 1 },
      ],
    });
    expect([precisionOf(truth!), recallOf(truth!)]).toEqual([0.5, 0.5]);
  });

  test('of both counts what the view shows', () => {
    const found = [
      [0, 0, 20, 20, 0.9, 0],
      [40, 40, 60, 60, 0.9, 0],
    ];
    const truth = [
      [0, 0, 20, 20, 0],
      [40, 40, 60, 60, 0],
      [80, 80, 99, 99, 0],
    ];
    const first = (i: number) => i === 0;
    const both = count([judged(found, truth, { boxes: first, objects: first })]).truth!;
    expect(both).toMatchObject({ boxes: 1, right: 1, objects: 1, found: 1 });
    // A label at the border of the view, whose object is just beyond it: right, and no object.
    const border = count([judged(found, truth, { objects: () => false })]).truth!;
    expect(border).toMatchObject({ boxes: 2, right: 2, objects: 0, found: 0 });
    expect(recallOf(border)).toBeNull();
    // The other way round: an object without a label.
    const lost = count([judged(found, truth, { boxes: () => false })]).truth!;
    expect(lost).toMatchObject({ boxes: 0, right: 0, objects: 3, found: 0 });
    expect([precisionOf(lost), recallOf(lost)]).toEqual([null, 0]);
  });

  test('crowds are no objects; labels on them are neither right nor wrong', () => {
    const crowd = [0, 0, 90, 90, 0, 1];
    const { truth } = count([
      judged(
        [
          [0, 0, 20, 20, 0.9, 0],
          [5, 5, 20, 20, 0.9, 0],
          [0, 0, 9, 9, 0.9, 1],
        ],
        [crowd],
      ),
    ]);
    expect(truth).toMatchObject({ boxes: 3, right: 0, onCrowd: 2, objects: 0 });
    expect([precisionOf(truth!), recallOf(truth!)]).toEqual([0, null]);
    const alone = count([judged([[0, 0, 20, 20, 0.9, 0]], [crowd])]).truth!;
    expect(precisionOf(alone)).toBeNull();
  });

  test('empty pictures count, pictures that nobody annotated do not', () => {
    const report = count([judged([], []), judged([[0, 0, 9, 9, 0.9, 2]], null)]);
    expect(report).toMatchObject({ images: 2, boxes: 1, emptyImages: 1 });
    expect(report.truth).toMatchObject({ ...none, images: 1 });
    expect(count([judged([], null)]).truth).toBeNull();
    expect(count([])).toMatchObject({ images: 0, boxes: 0, meanScore: null, truth: null });
  });

  test('a score must be above the threshold', () => {
    const picture = judged([[0, 0, 9, 9, 0.5, 0]], [[0, 0, 9, 9, 0]]);
    expect(count([picture], 0.5).truth).toMatchObject({ boxes: 0, found: 0 });
    expect(count([picture], 0.49).truth).toMatchObject({ boxes: 1, right: 1, found: 1 });
  });

  test('equals counting by the slow loop at any threshold', () => {
    const random = new Random(4);
    for (let round = 0; round < 200; round++) {
      const box = () => {
        const [x, y] = [random.integer(0, 5), random.integer(0, 5)];
        return [x, y, x + random.integer(1, 5), y + random.integer(1, 5)] as const;
      };
      const found = Array.from({ length: 8 }, () => ({
        ...{ box: box(), label: random.integer(0, 3) },
        score: random.integer(1, 10) / 10,
      }));
      const truth = Array.from({ length: 6 }, () => ({
        ...{ box: box(), label: random.integer(0, 3) },
        crowd: random.next() < 0.2,
      }));
      const picture = judged(
        found.map(({ box, score, label }) => [...box, score, label]),
        truth.map(({ box, label, crowd }) => [...box, label, Number(crowd)]),
      );
      for (const scoreThr of [0.05, 0.35, 0.75]) {
        const above = found.filter(({ score }) => score > scoreThr);
        const verdicts = matchLoop(above, truth);
        const right = verdicts.filter((v) => typeof v === 'number').length;
        expect(count([picture], scoreThr).truth).toMatchObject({
          ...{ boxes: above.length, right, found: right },
          onCrowd: verdicts.filter((v) => v === 'crowd').length,
          objects: truth.filter(({ crowd }) => !crowd).length,
        });
      }
    }
  });
});

describe('sumReports', () => {
  const pictures = [
    judged(
      [[0, 0, 40, 40, 0.9, 0]],
      [
        [0, 0, 40, 40, 0],
        [50, 50, 60, 60, 1],
      ],
    ),
    judged(
      [
        [0, 0, 40, 40, 0.6, 2],
        [0, 0, 9, 9, 0.2, 2],
      ],
      [],
    ),
    judged([[0, 0, 120, 120, 0.75, 1]], null),
  ];

  test('of parts is the report of the whole', () => {
    const whole = count(pictures);
    const { meanScore, ...sum } = sumReports(pictures.map((picture) => count([picture])))!;
    expect({ ...sum, meanScore: null }).toEqual({ ...whole, meanScore: null });
    expect(meanScore).toBeCloseTo(whole.meanScore!, 12);
  });

  test('leaves the parts as they are; of none is null', () => {
    const parts = pictures.map((picture) => count([picture]));
    const before = structuredClone(parts);
    sumReports(parts);
    expect(parts).toEqual(before);
    expect(sumReports([])).toBeNull();
  });

  test('per image: labels over all pictures, objects over the annotated ones', () => {
    const numbers = perImage(count(pictures), ['red', 'green', 'blue']);
    expect(numbers).toMatchObject({
      ...{ perImage: 1, emptyShare: 0, small: 0, medium: 2 / 3, large: 1 / 3 },
      perClass: { red: 1 / 3, green: 1 / 3, blue: 1 / 3 },
      truth: {
        ...{ perImage: 1, precision: 0.5, recall: 0.5, small: 0.5, medium: 0.5, large: 0 },
        perClass: { red: 0.5, green: 0.5, blue: 0 },
      },
    });
    expect('truth' in perImage(count(pictures.slice(2)), ['red', 'green', 'blue'])).toBe(false);
  });
});
