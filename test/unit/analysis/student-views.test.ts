import { describe, expect, test } from 'vitest';
import { camViews } from '../../../lib/analysis/cam.js';
import { studentViews, type ViewStep, viewNames } from '../../../lib/analysis/student-views.js';
import {
  analyzeGradients,
  type Composition,
  createDetector,
  type Detections,
  type Detector,
  ImageCache,
  Random,
  type TeachableDetector,
} from '../../../lib/index.js';
import { resolveTrainSettings, semiOptionsOf } from '../../../lib/train/settings.js';
import { smallDetectors } from '../cuda/small-detectors.js';
import { decodeTiny, tinyData } from '../train/tiny-data.js';

const count = 4;
const { test: dataset } = tinyData({ test: count });
/** The teacher sees every picture at this size, unflipped: what a fake one says is easily placed there. */
const weak = { width: 64, height: 48 };
const settings = {
  augment: {
    weak: { resize: weak, flip: 0 },
    strong: { resize: { long: 96, short: [64, 80] as [number, number] } },
  },
  semi: {
    mosaicShape: [
      [48, 48],
      [64, 64],
    ] as [number, number][],
    scoreThr: 0.5,
  },
  batch: { unlabelled: count },
};
const choices = { settings, cache: new ImageCache({ decode: decodeTiny }) };

/** Says of every batch, which is the whole list in order, what `boxesOf` says of each picture. */
function teacherSaying(say: (picture: number) => Omit<Detections, 'boxes'> & { boxes: number[] }) {
  const teacher = {
    numClasses: 3,
    predict: async () =>
      dataset.images.map(({ width, height }, i): Detections => {
        const { boxes, ...rest } = say(i);
        const scale = [weak.width / width, weak.height / height];
        return { ...rest, boxes: Float32Array.from(boxes, (v, k) => v * scale[k % 2]!) };
      }),
  };
  return teacher as unknown as TeachableDetector;
}

const right = (i: number, score = 0.9) => ({
  boxes: [...dataset.images[i]!.annotations!.boxes],
  labels: dataset.images[i]!.annotations!.labels,
  scores: Float32Array.of(score),
});
const knows = teacherSaying((i) => right(i));
const silent = teacherSaying(() => ({
  ...{ boxes: [], labels: new Int32Array(0), scores: new Float32Array(0) },
}));

const student = () => createDetector(smallDetectors.retinanet!, { seed: 3, dtype: 'fp32' });

async function stepsOf(teacher: TeachableDetector, detector: Detector, steps: number) {
  const resolved = resolveTrainSettings(settings);
  const walk = studentViews(dataset.images, {
    ...{ teacher, settings: resolved, semi: semiOptionsOf(resolved), cache: choices.cache },
    ...{ preprocess: detector.preprocess, dtype: 'f32', device: 'cpu', random: new Random(5) },
  });
  const out: ViewStep[] = [];
  for await (const step of walk) if (out.push(step) === steps) break;
  return out;
}

describe("a student's views", () => {
  test('show the same pictures again: one each, two mixed, four in a mosaic', async () => {
    await using detector = await student();
    const [first, second] = (await stepsOf(knows, detector, 2)) as [ViewStep, ViewStep];
    expect(first.pictures).toEqual([0, 1, 2, 3]);
    for (const name of ['weak', 'strong'] as const)
      expect(first[name].map(({ pictures }) => pictures)).toEqual([[0], [1], [2], [3]]);
    first.mixup.forEach(({ pictures }, i) => {
      expect(pictures).toHaveLength(2);
      expect(pictures[0]).toBe(i);
    });
    expect(first.mosaic).toHaveLength(1);
    expect([...first.mosaic[0]!.pictures].sort()).toEqual([0, 1, 2, 3]);
    // A round later: the same views, erased and mixed anew.
    expect(second.weak).toEqual(first.weak);
    const map = ({ composition }: { composition: Composition }) => composition.layers[0]!.map;
    expect(second.strong.map(map)).toEqual(first.strong.map(map));
    expect(second.strong).not.toEqual(first.strong);
    // A picture is erased in the same places alone and mixed.
    const erased = ({ composition }: { composition: Composition }) =>
      composition.layers[0]!.erase.length;
    expect(first.mixup.map(erased)).toEqual(first.strong.map(erased));
    expect(await stepsOf(knows, detector, 2)).toEqual([first, second]);
  });

  test("are mixed by the paper's rule when one picture is left over, too", async () => {
    await using detector = await student();
    const resolved = resolveTrainSettings({
      ...settings,
      semi: { ...settings.semi, indexRule: 'paper' },
    });
    const walk = studentViews(tinyData({ test: count + 1 }).test.images, {
      ...{ teacher: detector, settings: resolved, semi: semiOptionsOf(resolved) },
      ...{ cache: choices.cache, preprocess: detector.preprocess, dtype: 'f32', device: 'cpu' },
      random: new Random(5),
    });
    const { value } = await walk.next();
    await walk.return(undefined);
    const { pictures, mixup, mosaic } = value as ViewStep;
    expect(pictures).toEqual([0, 1, 2, 3, 4]);
    for (const view of mixup) expect(view.pictures).toHaveLength(2);
    expect(mosaic[0]!.pictures).toHaveLength(4);
  });

  test("have the teacher's boxes where the objects are, in every view", async () => {
    await using detector = await student();
    const steps = await stepsOf(knows, detector, 3);
    let objects = 0;
    for (const step of steps)
      for (const name of viewNames)
        for (const { pseudo, truth } of step[name]) {
          expect([...pseudo.labels]).toEqual([...truth.labels]);
          pseudo.boxes.forEach((v, i) => {
            expect(Math.abs(v - truth.boxes[i]!)).toBeLessThan(1e-3);
          });
          expect([...truth.scores]).toEqual([...truth.labels].map(() => 1));
          objects += truth.labels.length;
        }
    expect(objects).toBeGreaterThan(3 * (2 * count + 2 * count));
  });
});

describe('analyzeGradients', () => {
  test('of a teacher that is right has no FP and no FN, of one that says nothing no TP and no FP', async () => {
    await using detector = await student();
    const typesOf = async (teacher: TeachableDetector) => {
      const { views, images } = await analyzeGradients(detector, dataset, { ...choices, teacher });
      expect(images).toBe(count);
      expect(views.map(({ view, inputs }) => [view, inputs])).toEqual([
        ['weak', count],
        ['strong', count],
        ['mixup', count],
        ['mosaic', 1],
      ]);
      return views.flatMap(({ thresholds }) =>
        thresholds.map(({ tp, fp, fn, tn }) => [tp, fp, fn, tn].map(({ samples }) => samples)),
      );
    };
    for (const [tp, fp, fn, tn] of await typesOf(knows)) {
      expect(tp).toBeGreaterThan(0);
      expect([fp, fn]).toEqual([0, 0]);
      expect(tn).toBeGreaterThan(0);
    }
    for (const [tp, fp, fn] of await typesOf(silent)) {
      expect([tp, fp]).toEqual([0, 0]);
      expect(fn).toBeGreaterThan(0);
    }
  });

  test('a threshold takes what scores above it alone', async () => {
    await using detector = await student();
    const teacher = teacherSaying((i) => right(i, i % 2 ? 0.25 : 0.75));
    const { views } = await analyzeGradients(detector, dataset, {
      ...{ ...choices, teacher, thresholds: [0.75, 0.5, 0.1, 0.1], views: ['weak'], bins: 4 },
    });
    expect(views.map(({ view }) => view)).toEqual(['weak']);
    const { thresholds } = views[0]!;
    expect(thresholds.map(({ threshold }) => threshold)).toEqual([0.1, 0.5, 0.75]);
    const [all, half, none] = thresholds.map(({ tp }) => tp.samples) as [number, number, number];
    expect(all).toBeGreaterThan(half);
    expect(half).toBeGreaterThan(0);
    expect(none).toBe(0);
    for (const { tp, tn } of thresholds)
      for (const { samples, counts } of [tp, tn]) {
        expect(counts).toHaveLength(4);
        expect(counts.reduce((a, b) => a + b)).toBe(samples);
      }
  });

  test('refuses what makes no sense', async () => {
    await using detector = await student();
    const asked = (options: object) =>
      analyzeGradients(detector, dataset, { ...choices, ...options });
    await expect(asked({ thresholds: [2] })).rejects.toThrow('one or more of 0 … 1, got 2');
    await expect(asked({ thresholds: [] })).rejects.toThrow('one or more of 0 … 1, got none');
    await expect(asked({ views: ['week'] })).rejects.toThrow(
      'analyzeGradients: views must be one or more of weak, strong, mixup, mosaic, got week',
    );
    await expect(asked({ bins: 0 })).rejects.toMatchObject({ code: 'ERR_RANGE' });
    await expect(asked({ signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow(
      'enough',
    );
    await using other = await createDetector({ ...smallDetectors.retinanet!, numClasses: 2 });
    await expect(analyzeGradients(other, dataset, choices)).rejects.toThrow(
      'analyzeGradients: detector must have 3 classes (those of test: red, green, blue), got 2',
    );
    const { unlabelled } = tinyData();
    await expect(analyzeGradients(detector, unlabelled, choices)).rejects.toMatchObject({
      code: 'ERR_DATA',
    });
  });
});

describe('camViews', () => {
  test('sorts objects into found and missed, and pseudo labels without one', async () => {
    await using detector = await student();
    // Right of pictures 0 and 1; picture 2 has one in the wrong place, picture 3 none above the threshold.
    const teacher = teacherSaying((i) =>
      i < 2
        ? right(i)
        : {
            ...right(i, i === 2 ? 0.9 : 0.2),
            boxes: i === 2 ? [30, 30, 39, 39] : right(i).boxes,
          },
    );
    const seen = new Map<string, number[]>();
    for await (const { image, views } of camViews(detector, dataset.images, {
      ...{ ...choices, teacher },
    })) {
      const { found, missed, wrong, unjudged, cam } = views.weak;
      const counts = [found, missed, wrong, unjudged].map(({ labels }) => labels.length);
      seen.set(image.path, counts);
      expect(cam.rows).toBeGreaterThan(0);
      for (const view of Object.values(views)) {
        expect(view!.cam.level).toMatch(/^P[345]$/);
        const { width, height } = view!.composition;
        expect(view!.cam.heat).toMatchObject({ width, height });
      }
    }
    expect(Object.fromEntries(seen)).toEqual({
      'test/0': [1, 0, 0, 0],
      'test/1': [1, 0, 0, 0],
      'test/2': [0, 1, 1, 0],
      'test/3': [0, 1, 0, 0],
    });
  });

  test('judges nothing where nothing is annotated', async () => {
    await using detector = await student();
    const images = dataset.images.map((image) => ({ ...image, annotations: null }));
    let pictures = 0;
    for await (const { views } of camViews(detector, images, { ...choices, teacher: knows })) {
      const { found, missed, wrong, unjudged, cam } = views.weak;
      const counts = [found, missed, wrong, unjudged].map(({ labels }) => labels.length);
      expect(counts).toEqual([0, 0, 0, 1]);
      expect(cam.rows).toBeGreaterThan(0);
      pictures++;
    }
    expect(pictures).toBe(count);
  });

  test('refuses thresholds and levels that are none', async () => {
    await using detector = await student();
    const first = (options: object) =>
      camViews(detector, dataset.images, { ...choices, ...options }).next();
    await expect(first({ threshold: 2 })).rejects.toThrow('threshold must be in [0, 1], got 2');
    await expect(first({ level: 'P9' })).rejects.toMatchObject({ code: 'ERR_RANGE' });
  });
});
