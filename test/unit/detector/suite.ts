// What every detector has to pass, whatever its head.
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { detectorOptions } from '../../../lib/config/parts.js';
import {
  createDetector,
  type Detector,
  type DetectorOptions,
  parseConfig,
  type RunConfig,
  type StepEvent,
  type Targets,
  trainSemiSupervised,
  writeSafetensors,
} from '../../../lib/index.js';
import { temporaryFolder } from '../temporary-folder.js';
import { bf16Detector } from '../tolerances.js';
import { decodeTiny, tinyData, tinySettings } from '../train/tiny-data.js';
import { sceneBatch } from './scenes.js';
import { expectSlopes } from './slopes.js';

export interface DetectorSuite {
  /** Small enough for a test, with every part of the real thing; six classes. */
  options: DetectorOptions;
  /** Names of the losses. */
  losses: readonly string[];
  /** Steps to learn two scenes by heart, and the loss that is left at most. */
  overfit: { steps: number; loss: number };
  /** Beside `options`, where bf16 is compared with fp32: so that no loss hangs on a few thresholds. */
  compared?: object;
  /** Steps of training before bf16 is compared with fp32. @defaultValue 0, and 40 */
  comparedAfter?: readonly number[];
  /** What bf16 may do beyond tolerances.ts, and why is said there where it is used. */
  bf16?: Partial<Record<keyof typeof bf16Detector, number>>;
  /** That scores of detections follow from. @defaultValue the first "..._cls.bias" */
  scoreBias?: string;
  /** Whether detections have a least score (test.scoreThr). @defaultValue true */
  thresholded?: boolean;
  /** Parameters whose gradient is compared with differences of the loss. */
  gradients: readonly string[];
  /**
   * Names and shapes (OIHW) of the head in mmdetection's state dict, for `options`; without a head's
   * name in front they are bbox_head's.
   */
  head: Readonly<Record<string, readonly number[]>>;
}

const adam = { type: 'adamw' as const, weightDecay: 1e-4, clipNorm: 10 };

/** Losses of `steps` steps. @param settle in the last third the learning rate falls to nothing */
async function train(
  detector: Detector,
  steps: number,
  { settle = false } = {},
): Promise<number[]> {
  const { batch, targets } = await sceneBatch(2, detector.computeDtype);
  const curve: number[] = [];
  for (let i = 0; i < steps; i++) {
    const losses = await detector.loss(batch, targets);
    curve.push(Object.values(losses).reduce((sum, v) => sum + v, 0));
    await detector.backward();
    const left = settle ? (3 * (steps - i)) / steps : 1;
    await detector.step({ lr: 2e-3 * Math.min(1, (i + 1) / 10, left) });
  }
  batch.dispose();
  return curve;
}

function iou(a: Float32Array, b: Float32Array): number {
  const w = Math.min(a[2]!, b[2]!) - Math.max(a[0]!, b[0]!);
  const h = Math.min(a[3]!, b[3]!) - Math.max(a[1]!, b[1]!);
  if (w <= 0 || h <= 0) return 0;
  const area = (x: Float32Array) => (x[2]! - x[0]!) * (x[3]! - x[1]!);
  return (w * h) / (area(a) + area(b) - w * h);
}

/** Share of the boxes that are among the confident detections, with their class. */
async function found(detector: Detector): Promise<number> {
  const { batch, targets } = await sceneBatch(2, detector.computeDtype);
  const detections = await detector.predict(batch);
  batch.dispose();
  const hit = targets.flatMap(({ boxes, labels }, n) =>
    [...labels].map((label, i) =>
      [...detections[n]!.scores].some(
        (score, k) =>
          score > 0.4 &&
          detections[n]!.labels[k] === label &&
          iou(detections[n]!.boxes.subarray(4 * k), boxes.subarray(4 * i)) > 0.5,
      ),
    ),
  );
  return hit.filter(Boolean).length / hit.length;
}

/** Its losses, gradients and detections on the two scenes of a seed. */
async function outputs(detector: Detector, seed: number) {
  const { batch, targets } = await sceneBatch(2, detector.computeDtype, { seed });
  const losses = await detector.loss(batch, targets);
  await detector.backward();
  const gradients = new Map<string, Float32Array>();
  for (const { name, trainable } of detector.parameters()) {
    const gradient = trainable && (await detector.gradient(name));
    if (gradient) gradients.set(name, gradient);
  }
  await detector.discard();
  const detections = await detector.predict(batch);
  batch.dispose();
  return { losses, gradients, detections };
}

type Outputs = Awaited<ReturnType<typeof outputs>>;

/** Of scenes: on one alone, who learns an object, which rounding may choose, weighs too much. */
const comparedSeeds = [3, 4, 5, 6];

/** All scenes together are within what tolerances.ts allows to a detector in bf16, and gives reasons for. */
function expectNearInBf16(
  pairs: readonly (readonly [want: Outputs, got: Outputs])[],
  allowed: DetectorSuite['bf16'],
): void {
  const limits = { ...bf16Detector, ...allowed };
  for (const key of Object.keys(pairs[0]![0].losses)) {
    const sum = (side: 0 | 1) => pairs.reduce((total, pair) => total + pair[side].losses[key]!, 0);
    expect(Math.abs(sum(1) / sum(0) - 1), key).toBeLessThan(limits.loss);
    for (const [want, got] of pairs)
      expect(Math.abs(got.losses[key]! / want.losses[key]! - 1), key).toBeLessThan(4 * limits.loss);
  }
  let [norm, other, distance] = [0, 0, 0];
  let [confident, same] = [0, 0];
  for (const [want, got] of pairs) {
    for (const [key, gradient] of want.gradients)
      got.gradients.get(key)!.forEach((v, i) => {
        norm += gradient[i]! ** 2;
        other += v ** 2;
        distance += (v - gradient[i]!) ** 2;
      });
    for (const [n, { boxes, scores, labels }] of want.detections.entries())
      for (const [i, score] of scores.entries()) {
        if (score < 0.4) continue;
        const found = got.detections[n]!;
        confident++;
        same += [...found.scores].some(
          (s, k) =>
            found.labels[k] === labels[i] &&
            Math.abs(s - score) < limits.score &&
            iou(found.boxes.subarray(4 * k), boxes.subarray(4 * i)) > limits.iou,
        )
          ? 1
          : 0;
      }
  }
  expect(Math.sqrt(distance / norm), 'gradient').toBeLessThan(limits.gradient);
  expect(Math.abs(Math.sqrt(other / norm) - 1), 'norm').toBeLessThan(limits.gradientNorm);
  expect(same, 'detections').toBeGreaterThanOrEqual(confident * limits.detections);
}

export function testDetector(name: string, suite: DetectorSuite): void {
  const { options } = suite;

  describe(name, () => {
    for (const dtype of ['fp32', 'bf16'] as const)
      test(`learns two scenes by heart in ${dtype}`, async () => {
        await using detector = await createDetector(options, { dtype, seed: 1, optimizer: adam });
        // At the full rate losses of neighbouring steps differ by a third, and so do trainings that began
        // 2^-23 apart (two-stage ones): where it ended would be chance.
        const curve = await train(detector, suite.overfit.steps, { settle: true });
        expect(curve[0]).toBeGreaterThan(2 * suite.overfit.loss);
        expect(curve.at(-1)).toBeLessThan(suite.overfit.loss);
        expect(await found(detector)).toBeGreaterThan(0.8);
      });

    test.each(suite.comparedAfter ?? [0, 40])(
      'is near itself in bf16 after %i steps',
      async (steps) => {
        const start = { seed: 1, optimizer: adam };
        await using trained = await createDetector(options, { ...start, dtype: 'fp32' });
        if (steps) await train(trained, steps);
        const compared = { ...options, ...suite.compared } as DetectorOptions;
        await using exact = await createDetector(compared, { ...start, dtype: 'fp32' });
        await using rounded = await createDetector(compared, { ...start, dtype: 'bf16' });
        for (const detector of [exact, rounded]) await detector.loadState(await trained.state());
        const pairs: [Outputs, Outputs][] = [];
        for (const seed of comparedSeeds)
          pairs.push([await outputs(exact, seed), await outputs(rounded, seed)]);
        expectNearInBf16(pairs, suite.bf16);
      },
    );

    test('has its losses by name', async () => {
      await using detector = await createDetector(options);
      const { batch, targets } = await sceneBatch(1, detector.computeDtype);
      expect(Object.keys(await detector.loss(batch, targets))).toEqual(suite.losses);
      batch.dispose();
    });

    test('is the same to the last bit when it is trained again', async () => {
      const curves: number[][] = [];
      for (let run = 0; run < 2; run++) {
        await using detector = await createDetector(options, { seed: 5, optimizer: adam });
        curves.push(await train(detector, 4));
      }
      expect(curves[1]).toEqual(curves[0]);
    });

    test('a weight of NaN is a loss of NaN, no detection and no step', async () => {
      await using detector = await createDetector(options, { seed: 2, optimizer: adam });
      const { batch, targets } = await sceneBatch(1, detector.computeDtype);
      const bias =
        suite.scoreBias ?? detector.parameters().find((p) => /_cls\.bias$/.test(p.name))!.name;
      const before = await detector.readTensor(bias);
      await detector.writeTensor(
        bias,
        before.map(() => Number.NaN),
      );
      expect(await detector.predict(batch)).toMatchObject([{ scores: new Float32Array(0) }]);
      const losses = await detector.loss(batch, targets);
      expect(Object.values(losses).some(Number.isNaN)).toBe(true);
      await detector.backward();
      await expect(detector.step({ lr: 1e-3 })).rejects.toMatchObject({ code: 'ERR_DIVERGED' });
      batch.dispose();
    });

    test.skipIf(suite.gradients.length === 0)(
      'has the gradient of its own loss (central differences)',
      async () => {
        await using detector = await createDetector(options, { dtype: 'fp32', seed: 4 });
        await expectSlopes(detector, suite.gradients);
      },
    );

    test('is defined for no box, one box, 500 boxes and boxes smaller than a pixel', async () => {
      await using detector = await createDetector(options, { seed: 2, optimizer: adam });
      const { batch } = await sceneBatch(1, detector.computeDtype);
      const boxes = (count: number, size: number): Targets => ({
        boxes: Float32Array.from({ length: 4 * count }, (_, i) => {
          const at = (((i >> 2) * 37) % 80) + 1;
          return i % 4 < 2 ? at : at + size;
        }),
        labels: new Int32Array(count),
      });
      for (const targets of [boxes(0, 1), boxes(1, 20), boxes(500, 12), boxes(3, 0.2)]) {
        const losses = await detector.loss(batch, [targets]);
        for (const value of Object.values(losses)) expect(value).toBeGreaterThanOrEqual(0);
        await detector.backward();
        expect((await detector.step({ lr: 1e-4 })).gradNorm).toBeGreaterThan(0);
      }
      batch.dispose();
    });

    test('works with one class', async () => {
      await using detector = await createDetector({ ...options, numClasses: 1 }, { seed: 2 });
      const { batch, targets } = await sceneBatch(2, detector.computeDtype);
      const one = targets.map(({ boxes, labels }) => ({ boxes, labels: labels.map(() => 0) }));
      for (const value of Object.values(await detector.loss(batch, one)))
        expect(value).toBeGreaterThan(0);
      await detector.backward();
      expect(await detector.predict(batch)).toHaveLength(2);
      batch.dispose();
    });

    test('an image without boxes takes no part in what the others lose, wherever it stands', async () => {
      await using detector = await createDetector(
        { ...options, ...suite.compared } as DetectorOptions,
        { dtype: 'fp32', seed: 2 },
      );
      const none = { boxes: new Float32Array(0), labels: new Int32Array(0) };
      const { batch, targets } = await sceneBatch(2, 'f32');
      const swapped = await sceneBatch(2, 'f32', { order: [1, 0] });
      const single = await sceneBatch(1, 'f32');
      const last = await detector.loss(batch, [targets[0]!, none]);
      const first = await detector.loss(swapped.batch, [none, targets[0]!]);
      const alone = await detector.loss(single.batch, [targets[0]!]);
      expect(single.targets[0]).toEqual(targets[0]);
      for (const [name, value] of Object.entries(last)) {
        expect(value, name).toBeGreaterThan(0);
        expect(Math.abs(first[name]! - value) / value, name).toBeLessThan(1e-4);
        // What is summed over boxes stays. It may count as one positive, or as its regions, in what divides.
        if (!/bbox|iou|centerness|dfl/.test(name)) continue;
        const share = value / alone[name]!;
        expect(share, name).toBeGreaterThan(/rcnn/.test(options.type!) ? 0.4 : 0.97);
        expect(share, name).toBeLessThan(1 + 1e-4);
      }
      for (const b of [batch, swapped.batch, single.batch]) b.dispose();
    });

    test("takes weights under mmdetection's names, all of them", async () => {
      await using detector = await createDetector(options, { seed: 1 });
      const isHead = (n: string) => /^(bbox|rpn|roi)_head\./.test(n);
      const named = (n: string) => (isHead(n) ? n : `bbox_head.${n}`);
      const own = detector.parameters().filter((p) => isHead(p.name));
      expect(own.map((p) => p.name).sort()).toEqual(Object.keys(suite.head).map(named).sort());
      const folder = await temporaryFolder();
      const file = join(folder, 'head.safetensors');
      await detector.exportWeights(file, { layout: 'mmdetection' });
      await using other = await createDetector(options, { seed: 2 });
      const result = await other.loadWeights(file, { layout: 'mmdetection' });
      expect(result).toMatchObject({ missing: [], unexpected: [] });
      for (const { name } of own)
        expect(await other.readTensor(name), name).toEqual(await detector.readTensor(name));
      // The shapes that mmdetection would give them.
      const tensors = new Map(
        Object.entries(suite.head).map(([n, shape]) => [
          named(n),
          { shape: [...shape], data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(0.5) },
        ]),
      );
      for (const p of detector.parameters())
        if (!isHead(p.name))
          tensors.set(p.name, {
            shape: p.shape.length === 4 ? [0, 3, 1, 2].map((axis) => p.shape[axis]!) : [...p.shape],
            data: new Float32Array(p.shape.reduce((a, b) => a * b, 1)),
          });
      const made = join(folder, 'made.safetensors');
      await writeSafetensors(made, tensors);
      expect(await other.loadWeights(made, { layout: 'mmdetection' })).toMatchObject({
        missing: [],
        unexpected: [],
      });
    });

    test('a config of it is itself once it is resolved, and makes it', async () => {
      const { numClasses, ...rest } = options;
      const config = parseConfig({
        name: 'round-trip',
        model: rest as RunConfig['model'],
        data: { labelled: { format: 'voc', folder: 'x', imageSet: 'train' } },
        semi: { method: 'supervised' },
      });
      expect(parseConfig(config)).toEqual(config);
      await using detector = await createDetector(detectorOptions(config, numClasses));
      expect(detector.numClasses).toBe(numClasses);
    });

    test('learns by MixPL for a few steps', async () => {
      await using student = await createDetector(
        {
          ...options,
          numClasses: 3,
          test: { ...options.test, ...(suite.thresholded !== false && { scoreThr: 0.001 }) },
        } as DetectorOptions,
        { seed: 3, optimizer: adam },
      );
      const steps: StepEvent[] = [];
      for await (const event of trainSemiSupervised(student, {
        data: tinyData(),
        decode: decodeTiny,
        settings: {
          ...tinySettings,
          lr: 1e-3,
          semi: { ...tinySettings.semi, scoreThr: 0.005 },
          schedule: { iterations: 5, warmup: { iterations: 2 } },
          validation: { interval: 5, batch: 2 },
        },
      }))
        if (event.type === 'step') steps.push(event);
      expect(steps).toHaveLength(5);
      for (const { losses } of steps)
        for (const value of Object.values(losses)) expect(Number.isFinite(value)).toBe(true);
      expect(Object.keys(steps[4]!.losses)).toEqual(
        expect.arrayContaining(suite.losses.flatMap((l) => [`sup_${l}`, `mosaic_unsup_${l}`])),
      );
    });
  });
}
