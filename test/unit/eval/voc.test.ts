import { describe, expect, test } from 'vitest';
import type { DetectedBoxes, GroundTruthBoxes } from '../../../lib/eval/boxes.js';
import { evaluateVoc } from '../../../lib/eval/voc.js';
import { Random } from '../../../lib/random.js';
import { type VocDetection, type VocTruth, vocAveragePrecision } from '../../oracle/voc-eval.js';

type Labelled<T> = T & { label: number };

function inputOf(
  truths: readonly Labelled<VocTruth>[],
  detections: readonly Labelled<VocDetection>[],
  sizes: { numImages: number; numClasses: number },
): { groundTruth: GroundTruthBoxes; detections: DetectedBoxes } {
  return {
    groundTruth: {
      categories: Array.from({ length: sizes.numClasses }, (_, id) => ({ id, name: `c${id}` })),
      numImages: sizes.numImages,
      boxes: Float64Array.from(truths.flatMap((x) => [...x.box])),
      images: Int32Array.from(truths, (x) => x.image),
      labels: Int32Array.from(truths, (x) => x.label),
      ignore: Uint8Array.from(truths, (x) => (x.difficult ? 1 : 0)),
      areas: new Float64Array(truths.length),
      ids: new Float64Array(truths.length),
    },
    detections: {
      boxes: Float64Array.from(detections.flatMap((x) => [...x.box])),
      scores: Float64Array.from(detections, (x) => x.score),
      images: Int32Array.from(detections, (x) => x.image),
      labels: Int32Array.from(detections, (x) => x.label),
    },
  };
}

describe('evaluateVoc', () => {
  test('equals the slow loop under every rule', async () => {
    const seed = Math.floor(Math.random() * 2 ** 31);
    const thresholds = [0.3, 0.5, 0.75];
    let classes = 0;
    for (let i = 0; i < 1500; i++) {
      const random = new Random(seed).fork('voc', i);
      const numImages = random.integer(1, 4);
      const numClasses = random.integer(1, 3);
      const box = () => {
        const x = random.integer(0, 10);
        const y = random.integer(0, 10);
        return [x, y, x + random.integer(1, 10), y + random.integer(1, 10)];
      };
      const truths = Array.from({ length: random.integer(0, 12) }, () => ({
        image: random.integer(0, numImages),
        label: random.integer(0, numClasses),
        box: box(),
        difficult: random.next() < 0.25,
      }));
      const detections = Array.from({ length: random.integer(0, 20) }, () => {
        const like = truths[random.integer(0, Math.max(1, truths.length))];
        return {
          image: like?.image ?? random.integer(0, numImages),
          label: like?.label ?? random.integer(0, numClasses),
          box: like ? like.box.map((v) => v + random.integer(0, 2)) : box(),
          score: random.integer(0, 6) / 5,
        };
      });
      const input = inputOf(truths, detections, { numImages, numClasses });
      for (const interpolation of ['11point', 'area'] as const)
        for (const legacyCoordinates of [true, false]) {
          const options = { interpolation, legacyCoordinates, iouThresholds: thresholds };
          const metrics = await evaluateVoc(input, options);
          for (const [label, { ap }] of metrics.perClass.entries())
            for (const [t, threshold] of thresholds.entries()) {
              const expected = vocAveragePrecision(
                truths.filter((x) => x.label === label),
                detections.filter((x) => x.label === label),
                {
                  threshold,
                  extra: legacyCoordinates ? 1 : 0,
                  elevenPoint: interpolation === '11point',
                },
              );
              const same = expected === null ? ap[t] === null : Math.abs(ap[t]! - expected) < 1e-12;
              if (!same)
                throw new Error(
                  `class ${label}: ${ap[t]} is not ${expected}, seed ${seed}, case ${i}`,
                );
              if (expected !== null) classes++;
            }
        }
    }
    expect(classes).toBeGreaterThan(10_000);
  });

  test('a worked example: one hit, one duplicate, one miss, two ground truths', async () => {
    const at = (x: number) => [x, 0, x + 9, 9];
    const input = inputOf(
      [
        { image: 0, label: 0, box: at(0), difficult: false },
        { image: 0, label: 0, box: at(50), difficult: false },
        { image: 0, label: 0, box: at(100), difficult: true },
      ],
      [
        { image: 0, label: 0, box: at(0), score: 0.9 },
        { image: 0, label: 0, box: at(100), score: 0.8 }, // difficult: does not count
        { image: 0, label: 0, box: at(1), score: 0.7 }, // duplicate
        { image: 0, label: 0, box: at(50), score: 0.6 },
      ],
      { numImages: 1, numClasses: 2 },
    );
    // Precision is 1 up to recall 1/2, then 2/3.
    const eleven = await evaluateVoc(input);
    expect(eleven.map).toBeCloseTo((6 * 1 + 5 * (2 / 3)) / 11, 12);
    expect(eleven.perClass[1]).toMatchObject({ ap: [null], numGroundTruths: 0, numDetections: 0 });
    expect(eleven.perClass[0]).toMatchObject({ recall: [1], numGroundTruths: 2, numDetections: 4 });
    const area = await evaluateVoc(input, { interpolation: 'area' });
    expect(area.map).toBeCloseTo(0.5 + 0.5 * (2 / 3), 12);
  });

  test('refuses unknown rules and values that are not finite', async () => {
    const input = inputOf([], [{ image: 0, label: 0, box: [0, 0, 1, 1], score: Number.NaN }], {
      numImages: 1,
      numClasses: 1,
    });
    await expect(evaluateVoc(input)).rejects.toMatchObject({
      code: 'ERR_RANGE',
      message: 'evaluateVoc: detections.scores[0] must be finite, got nan',
    });
    await expect(evaluateVoc(input, { interpolation: '10point' as 'area' })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
    });
    await expect(evaluateVoc(input, { interpolate: 'area' } as object)).rejects.toMatchObject({
      message: expect.stringContaining("did you mean 'interpolation'?"),
    });
  });
});
