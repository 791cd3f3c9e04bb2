import { describe, expect, test } from 'vitest';
import { probePass, sampleTypes } from '../../../lib/detector/probe.js';
import {
  createDetector,
  type Detector,
  type DetectorOptions,
  type DetectorState,
  gradCam,
  gradientDensity,
  type ImageBatch,
  Random,
  type Targets,
} from '../../../lib/index.js';
import { gradientDensityLoop } from '../../oracle/gradient-density.js';
import { smallDetectors } from '../cuda/small-detectors.js';
import { sceneBatch } from './scenes.js';

const adam = { type: 'adamw' as const, weightDecay: 1e-4, clipNorm: 10 };
const dense = ['retinanet', 'fcos', 'atss', 'paa', 'tood before alignment'];
const dtypes = ['fp32', 'bf16'] as const;

/** Two scenes whose labels the small detectors know. */
async function scenes(
  count: number,
  detector: Detector,
): Promise<{ batch: ImageBatch; targets: Targets[] }> {
  const { batch, targets } = await sceneBatch(count, detector.computeDtype, {
    width: 96,
    height: 64,
  });
  return { batch, targets: targets.map((t) => ({ ...t, labels: t.labels.map((l) => l % 3) })) };
}

/** Without the first box, the second moved, one of another class, and one where nothing is. */
function mistaken({ boxes, labels }: Targets): Targets {
  const moved = boxes.map((v, i) => (i >= 4 && i < 8 ? v + 3 : v)).slice(4);
  return {
    boxes: Float32Array.of(...moved, 2, 2, 30, 26),
    labels: Int32Array.of(...labels.slice(1).map((l, i) => (i === 1 ? (l + 1) % 3 : l)), 0),
  };
}

/** Weights of the size that training gives them: at first class scores hardly depend on features. */
async function spread(detector: Detector, seed: number): Promise<void> {
  for (const [i, { name, kind, shape }] of detector.parameters().entries()) {
    if (kind !== 'weight' || shape.length < 2 || !/head|branches/.test(name)) continue;
    const random = new Random(seed).fork(i);
    const values = await detector.readTensor(name);
    await detector.writeTensor(
      name,
      values.map((v) => 3 * v + random.uniform(-0.1, 0.1)),
    );
  }
}

/** Every number by its bits. */
function bytesOf(state: DetectorState): Record<string, string> {
  return Object.fromEntries(
    [...state].map(([name, { data }]) => [
      name,
      Buffer.from(data.buffer, data.byteOffset, data.byteLength).toString('base64'),
    ]),
  );
}

/** Rows that were to find an object: level, row and class. */
function positivesOf({ scores }: Awaited<ReturnType<typeof probePass>>, objects: number) {
  return scores.flatMap(({ labels, pairs }, level) => {
    const found = new Map<string, { level: number; row: number; label: number }>();
    const add = (row: number, label: number) => found.set(`${row} ${label}`, { level, row, label });
    labels.forEach((label, row) => {
      if (label >= 0 && label < objects) add(row, label);
    });
    for (let i = 0; i < pairs.length; i += 2) if (pairs[i]! >= 0) add(pairs[i]!, pairs[i + 1]!);
    return [...found.values()];
  });
}

const logit = (p: number) => Math.log(p / (1 - p));

/** Sum of the class logits of `rows`: what gradCam explains. */
function scoreOf(
  { scores, probabilities }: Awaited<ReturnType<typeof probePass>>,
  rows: ReturnType<typeof positivesOf>,
): number {
  return rows.reduce((sum, { level, row, label }) => {
    const { values, classes } = scores[level]!;
    const value = values[row * classes + label]!;
    return sum + (probabilities ? logit(value) : value);
  }, 0);
}

describe('gradient density', () => {
  for (const dtype of dtypes)
    test.each(dense)(`of %s in ${dtype} is that of a plain loop`, async (name) => {
      await using detector = await createDetector(smallDetectors[name]!, { dtype, seed: 3 });
      await spread(detector, 7);
      const { batch, targets: truth } = await scenes(2, detector);
      const pseudo = [truth.map(mistaken), truth];
      const real = await probePass(detector, batch, truth);
      for (const bins of [1, 7, 30]) {
        const found = await gradientDensity(detector, batch, { truth, pseudo, bins });
        expect(found).toHaveLength(2);
        for (const [s, set] of pseudo.entries()) {
          const learned = await probePass(detector, batch, set);
          // The same forward pass, whatever it is to learn.
          expect(learned.scores.map((l) => l.values)).toEqual(real.scores.map((l) => l.values));
          for (const image of [0, 1]) {
            const { probabilities } = real;
            const wanted = gradientDensityLoop(learned.scores, real.scores, {
              ...{ image, images: 2, bins, probabilities },
            });
            const { counts, aboveHalf } = found[s]![image]!;
            expect(sampleTypes.map((type) => [...counts[type]])).toEqual(wanted.counts);
            expect(sampleTypes.map((type) => aboveHalf[type])).toEqual(wanted.aboveHalf);
          }
        }
      }
      // All four kinds were there, and without mistakes two.
      const totals = async (set: Targets[]) =>
        (await gradientDensity(detector, batch, { truth, pseudo: [set] }))[0]!.map((image) =>
          sampleTypes.map((type) => image.counts[type].reduce((a, b) => a + b, 0) > 0),
        );
      expect(await totals(truth.map(mistaken))).toEqual(truth.map(() => [true, true, true, true]));
      expect(await totals(truth)).toEqual(truth.map(() => [true, false, false, true]));
      batch.dispose();
    });

  test('leaves out what an assignment ignores', async () => {
    await using detector = await createDetector(smallDetectors.retinanet!, { seed: 3 });
    const { batch, targets: truth } = await scenes(1, detector);
    const none: Targets = { boxes: new Float32Array(0), labels: new Int32Array(0) };
    const count = async (a: Targets[], b: Targets[]) => {
      const [set] = await gradientDensity(detector, batch, { truth: a, pseudo: [b] });
      return Object.values(set![0]!.counts).reduce(
        (sum, bins) => sum + bins.reduce((x, y) => x + y, 0),
        0,
      );
    };
    const { scores } = await probePass(detector, batch, truth);
    const rows = scores.flatMap(({ labels }) => [...labels]);
    const ignored = rows.filter((label) => label < 0).length;
    expect(ignored).toBeGreaterThan(0);
    expect(await count(truth, [none])).toBe(3 * (rows.length - ignored));
    expect(await count([none], truth)).toBe(3 * (rows.length - ignored));
    batch.dispose();
  });

  test.each([
    ['gfl', /targets between 0 and 1/],
    ['tood', /targets between 0 and 1/],
    ['centernet', /targets between 0 and 1/],
    ['faster-rcnn', /a softmax over the classes/],
    ['cascade-rcnn', /a softmax over the classes/],
    ['sparse-rcnn', /queries that are matched one to one/],
    ['dab-detr', /queries that are matched one to one/],
    ['deformable-detr', /queries that are matched one to one/],
    ['dino', /queries that are matched one to one/],
  ])('is refused by %s, which says who has one', async (name, got) => {
    await using detector = await createDetector(smallDetectors[name]!, { seed: 3 });
    const { batch, targets: truth } = await scenes(1, detector);
    const asked = gradientDensity(detector, batch, { truth, pseudo: [truth] });
    await expect(asked).rejects.toMatchObject({ code: 'ERR_CONFIG' });
    await expect(asked).rejects.toThrow(/retinanet, fcos, atss, paa, and tood before/);
    await expect(asked).rejects.toThrow(got);
    batch.dispose();
  });

  test('refuses what makes no sense', async () => {
    await using detector = await createDetector(smallDetectors.retinanet!, { seed: 3 });
    const { batch, targets: truth } = await scenes(2, detector);
    for (const bins of [0, 1.5, 1001, Number.NaN])
      await expect(gradientDensity(detector, batch, { truth, pseudo: [], bins })).rejects.toThrow(
        `gradientDensity: bins must be a whole number in [1, 1000], got ${bins}`,
      );
    await expect(
      gradientDensity(detector, batch, { truth, pseudo: [truth.slice(1)] }),
    ).rejects.toMatchObject({ code: 'ERR_SHAPE' });
    await detector.writeTensor('bbox_head.retina_cls.bias', new Float32Array(27).fill(Number.NaN));
    await expect(
      gradientDensity(detector, batch, { truth, pseudo: [truth] }),
    ).rejects.toMatchObject({ code: 'ERR_DIVERGED' });
    batch.dispose();
  });
});

describe('Grad-CAM', () => {
  /** What would move where regions and queries look: their gradient is cut, differences would see it. */
  const steering = /rpn_(cls|reg)\.|fc_reg\.|reg_branches\.\d+\.4\./;
  /** The choice of tokens that queries start from is none that a gradient knows, either. */
  const choosing = /bbox_head\.cls_branches\.2\.weight/;

  /** Objects of every size. */
  async function largeAndSmall(detector: Detector) {
    const { batch, targets } = await scenes(1, detector);
    const [{ boxes, labels }] = targets as [Targets];
    const more = Float32Array.of(...boxes, 4, 4, 60, 58, 2, 1, 94, 63);
    return { batch, targets: [{ boxes: more, labels: Int32Array.of(...labels, 1, 2) }] };
  }

  test.each(Object.keys(smallDetectors))(
    'of %s is what central differences of its logits make of its features',
    async (name) => {
      const options = smallDetectors[name]!;
      await using detector = await createDetector(options, {
        dtype: 'fp32',
        device: 'cpu',
        seed: 3,
      });
      await spread(detector, 7);
      const chooses = name === 'dino' || name === 'deformable-detr';
      for (const { name: parameter, shape } of detector.parameters())
        if (steering.test(parameter) || (chooses && choosing.test(parameter)))
          await detector.writeTensor(parameter, new Float32Array(shape.reduce((a, b) => a * b, 1)));
      const { batch, targets } = await largeAndSmall(detector);
      const seen = await probePass(detector, batch, targets);
      // Which rows are assigned is not what is differentiated.
      const rows = positivesOf(seen, detector.numClasses);
      const score = scoreOf(seen, rows);
      expect(rows.length).toBeGreaterThan(0);

      let warm = 0;
      const gradients: number[] = [];
      for (const [l, { shape, values }] of seen.levels.entries()) {
        const level = `P${seen.firstLevel + l}`;
        const [cam] = await gradCam(detector, batch, targets, { level });
        expect(cam).toMatchObject({ level, rows: rows.length });
        expect(Math.abs(cam!.score / score - 1)).toBeLessThan(1e-5);
        // A level's last layer has a bias: moved by a channel, all cells of that channel move.
        const bias = detector
          .parameters()
          .map((p) => p.name)
          .find((n) => new RegExp(`neck\\.(fpn_)?convs\\.${l}\\.(conv|gn)\\.bias$`).test(n))!;
        const before = await detector.readTensor(bias);
        const [, height, width, channels] = shape as [number, number, number, number];
        expect(cam!.cells).toMatchObject({ height, width });
        const weights: number[] = [];
        for (let c = 0; c < channels; c++) {
          const moved = async (by: number) => {
            await detector.writeTensor(
              bias,
              before.map((v, i) => (i === c ? v + by : v)),
            );
            return scoreOf(await probePass(detector, batch, targets), rows);
          };
          const step = 4e-3;
          const slope = ((await moved(step)) - (await moved(-step))) / (2 * step);
          weights.push(slope / (height * width));
        }
        await detector.writeTensor(bias, before);
        gradients.push(Math.hypot(...weights));
        // Against the sum of what the channels say, one by one: ReLUs that switch within a step, and
        // the rounding of logits, count where channels cancel each other.
        let [off, size] = [0, 0];
        for (let cell = 0; cell < height * width; cell++) {
          const parts = weights.map((w, c) => w * values[cell * channels + c]!);
          const heat = Math.max(
            parts.reduce((a, b) => a + b, 0),
            0,
          );
          off += (cam!.cells.values[cell]! - heat) ** 2;
          size += parts.reduce((a, b) => a + Math.abs(b), 0) ** 2;
          warm += heat;
        }
        expect(Math.sqrt(off), level).toBeLessThanOrEqual(5e-3 * Math.sqrt(size));
      }
      // The comparison is one of numbers that are not all 0.
      expect(warm).toBeGreaterThan(0);
      // Regions of so small a picture are all taken from the finest level.
      const several = seen.levels.length > 1 && !/rcnn/.test(name);
      expect(gradients.filter((g) => g > 0).length).toBeGreaterThan(several ? 1 : 0);
      batch.dispose();
    },
  );

  test('chooses the level with most gradient, of each image by itself', async () => {
    await using detector = await createDetector(smallDetectors.retinanet!, { seed: 3 });
    await spread(detector, 7);
    const { batch } = await scenes(2, detector);
    const box = (...corners: number[]): Targets => ({
      boxes: Float32Array.from(corners),
      labels: Int32Array.of(1),
    });
    // Anchors of P3 have sides of 32 to 51 pixels, those of P5 of 128 and more.
    const targets = [box(10, 10, 42, 42), box(1, 1, 95, 63)];
    const found = await gradCam(detector, batch, targets);
    expect(found.map((cam) => cam.level)).toEqual(['P3', 'P4']);
    for (const [n, { level, cells }] of found.entries())
      expect((await gradCam(detector, batch, targets, { level }))[n]!.cells).toEqual(cells);
    batch.dispose();
  });

  test.each(dtypes)(
    'an image has the heat that it has alone, and none without an object (%s)',
    async (dtype) => {
      await using detector = await createDetector(smallDetectors.retinanet!, { dtype, seed: 3 });
      await spread(detector, 7);
      const [two, one] = [await scenes(2, detector), await scenes(1, detector)];
      const none: Targets = { boxes: new Float32Array(0), labels: new Int32Array(0) };
      const [alone] = await gradCam(detector, one.batch, one.targets, { level: 'P3' });
      const options = { level: 'P3' };
      const both = await gradCam(detector, two.batch, [two.targets[0]!, none], options);
      expect(both[0]!.rows).toBe(alone!.rows);
      alone!.cells.values.forEach((v, i) => {
        expect(Math.abs(both[0]!.cells.values[i]! - v)).toBeLessThanOrEqual(
          1e-5 * Math.max(...alone!.cells.values),
        );
      });
      expect(both[1]).toMatchObject({ rows: 0, score: 0 });
      expect(Math.max(...both[1]!.heat.values)).toBe(0);
      for (const b of [two.batch, one.batch]) b.dispose();
    },
  );

  test('lies over the picture, cell by cell', async () => {
    await using detector = await createDetector(smallDetectors.retinanet!, {
      preprocess: { resize: { long: 64, short: 48 } },
      seed: 3,
    });
    const random = new Random(4);
    const data = Uint8Array.from({ length: 40 * 30 * 3 }, () => random.integer(0, 256));
    const target = { boxes: Float32Array.of(5, 5, 28, 25), labels: Int32Array.of(1) };
    const picture = { data, width: 40, height: 30 };
    const [cam] = await gradCam(detector, [picture], [target], { level: 'P3' });
    expect(cam!.heat).toMatchObject({ width: 40, height: 30 });
    // 64 x 48, padded to 64 x 64: cells of 8 pixels, 5 of the picture's; six of the eight rows are its.
    expect(cam!.cells).toMatchObject({ width: 8, height: 8 });
    const cell = (x: number, y: number) => cam!.cells.values[y * 8 + x]!;
    const heat = (x: number, y: number) => cam!.heat.values[y * 40 + x]!;
    const near = (got: number, want: number) =>
      expect(Math.abs(got - want)).toBeLessThanOrEqual(1e-6 * Math.max(...cam!.cells.values));
    for (const [x, y] of [
      [0, 0],
      [3, 2],
      [7, 5],
    ] as const)
      near(heat(5 * x + 2, 5 * y + 2), cell(x, y)); // their centres
    near(heat(0, 0), cell(0, 0));
    near(heat(9, 2), 0.6 * cell(1, 0) + 0.4 * cell(2, 0)); // 0.4 of the way
    near(heat(39, 29), 0.6 * cell(7, 5) + 0.4 * cell(7, 6)); // the lower edge looks into the padding
  });

  test('refuses levels that are not there', async () => {
    await using detector = await createDetector(smallDetectors.retinanet!, { seed: 3 });
    const { batch, targets } = await scenes(1, detector);
    await expect(gradCam(detector, batch, targets, { level: 'P2' })).rejects.toThrow(
      'gradCam: level must be a level of the pyramid, P3 to P5, got P2',
    );
    for (const level of ['3', 'p3', 'P0', ''])
      await expect(gradCam(detector, batch, targets, { level })).rejects.toThrow(
        `gradCam: level must be 'auto' or a level of the pyramid like 'P3', got '${level}'`,
      );
    await expect(gradCam(detector, batch, [])).rejects.toThrow(
      'detector.gradCam: targets must have one entry per image (1), got 0',
    );
    batch.dispose();
  });

  test('refuses weights that are not finite', async () => {
    await using detector = await createDetector(smallDetectors.retinanet!, { seed: 3 });
    const { batch, targets } = await scenes(1, detector);
    await detector.writeTensor('bbox_head.retina_cls.bias', new Float32Array(27).fill(Number.NaN));
    await expect(gradCam(detector, batch, targets)).rejects.toMatchObject({ code: 'ERR_DIVERGED' });
    batch.dispose();
  });
});

describe('an analysis', () => {
  test.each(Object.keys(smallDetectors))(
    'between and within the steps of %s changes no bit of its training',
    async (name) => {
      const trained = async (analysed: boolean) => {
        const options = smallDetectors[name]!;
        await using detector = await createDetector(options, { seed: 5, optimizer: adam });
        const { batch, targets } = await scenes(2, detector);
        const analyse = async () => {
          if (!analysed) return;
          await gradCam(detector, batch, targets);
          const density = gradientDensity(detector, batch, { truth: targets, pseudo: [targets] });
          await density.catch((error) => expect(error.code).toBe('ERR_CONFIG'));
        };
        const losses: Record<string, number>[] = [];
        for (let step = 0; step < 2; step++) {
          await analyse();
          losses.push(await detector.loss(batch, targets));
          await analyse(); // the graph of the pass is still there
          await detector.backward();
          await analyse(); // so are the gradients
          await detector.step({ lr: 1e-3 });
        }
        batch.dispose();
        return { losses, state: bytesOf(await detector.state()) };
      };
      expect(await trained(true)).toEqual(await trained(false));
    },
  );

  test('that fails leaves gradients as they were', async () => {
    await using detector = await createDetector(smallDetectors.retinanet!, { seed: 5 });
    const { batch, targets } = await scenes(1, detector);
    await detector.loss(batch, targets);
    await detector.backward();
    const bias = 'bbox_head.retina_cls.bias';
    const before = await detector.gradient(bias);
    expect(before!.some((g) => g !== 0)).toBe(true);
    await expect(gradCam(detector, batch, targets, { level: 'P9' })).rejects.toThrow('P9');
    expect(await detector.gradient(bias)).toEqual(before);
    batch.dispose();
  });

  test('sees live BatchNorm as evaluation does', async () => {
    const options = {
      ...smallDetectors.retinanet!,
      backbone: { ...smallDetectors.retinanet!.backbone, norm: 'bn' },
      neck: { channels: 16, numOutputs: 3, norm: 'bn' },
    } as DetectorOptions;
    await using detector = await createDetector(options, { seed: 5, dtype: 'fp32' });
    const { batch, targets } = await scenes(2, detector);
    const alone = await scenes(1, detector);
    const state = bytesOf(await detector.state());
    const [first] = (await probePass(detector, batch, targets)).levels;
    const [single] = (await probePass(detector, alone.batch, alone.targets)).levels;
    // Statistics of the batch would tell them apart.
    const most = Math.max(...single!.values);
    single!.values.forEach((v, i) => {
      expect(Math.abs(first!.values[i]! - v)).toBeLessThan(1e-4 * most);
    });
    await gradCam(detector, batch, targets);
    expect(bytesOf(await detector.state())).toEqual(state);
    for (const b of [batch, alone.batch]) b.dispose();
  });
});
