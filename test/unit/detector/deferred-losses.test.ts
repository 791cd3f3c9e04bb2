// forward(), whose losses step() reads together with the gradient's norm.
import { describe, expect, test } from 'vitest';
import { createDetector, type Detector } from '../../../lib/index.js';
import { testDevice as device } from '../devices.js';
import { sceneBatch, tinyDetector } from './scenes.js';

const bias = 'bbox_head.retina_cls.bias';
const open = () => createDetector(tinyDetector, { dtype: 'fp32', seed: 2 });

async function withScene(use: (detector: Detector, scene: Scene) => Promise<void>): Promise<void> {
  await using detector = await open();
  const scene = await sceneBatch(1, 'f32');
  try {
    await use(detector, scene);
  } finally {
    scene.batch.dispose();
  }
}
type Scene = Awaited<ReturnType<typeof sceneBatch>>;

describe('forward', () => {
  test('loses what loss() does; its values are there before and after the step, once', () =>
    withScene(async (detector, { batch, targets }) => {
      const want = await detector.loss(batch, targets);
      await detector.forward(batch, targets);
      expect(await detector.lossValues()).toEqual([want]);
      expect(await detector.lossValues()).toEqual([]);
      await detector.backward();
      await detector.forward(batch, targets);
      await detector.backward();
      await detector.forward(batch, targets);
      await detector.backward({ weight: 2 });
      await detector.step({ lr: 1e-3 });
      // The first pass of this step was read before.
      expect(await detector.lossValues()).toEqual([want, want]);
      expect(await detector.lossValues()).toEqual([]);
      await detector.forward(batch, targets);
      const [after] = await detector.lossValues();
      expect(Object.keys(after!)).toEqual(Object.keys(want));
      expect(after).not.toEqual(want);
    }));

  test('a step on a loss that is not finite says which, changes no weight and leaves no gradient', () =>
    withScene(async (detector, { batch, targets }) => {
      const before = await detector.readTensor(bias);
      await detector.writeTensor(
        bias,
        before.map(() => Number.NaN),
      );
      await detector.forward(batch, targets);
      await detector.backward();
      const weights = await detector.readTensor('neck.lateral_convs.0.conv.weight');
      await expect(detector.step({ lr: 0.1 })).rejects.toMatchObject({
        code: 'ERR_DIVERGED',
        message: expect.stringMatching(/^detector.step: loss_cls must be finite, got -?nan; the w/),
      });
      expect((await detector.lossValues())[0]!.loss_cls).toBeNaN();
      expect(await detector.readTensor('neck.lateral_convs.0.conv.weight')).toEqual(weights);
      for (const { name } of detector.parameters())
        expect(await detector.gradient(name)).toBeNull();
      await detector.discard();
      await detector.writeTensor(bias, before);
      await detector.forward(batch, targets);
      await detector.backward();
      expect((await detector.step({ lr: 1e-4 })).gradNorm).toBeGreaterThan(0);
    }));

  test('its losses are forgotten with its graph and with the gradients', () =>
    withScene(async (detector, { batch, targets }) => {
      await detector.forward(batch, targets);
      await detector.forward(batch, targets);
      expect(await detector.lossValues()).toHaveLength(1);
      await detector.forward(batch, targets);
      await detector.discard();
      expect(await detector.lossValues()).toEqual([]);
      await detector.forward(batch, targets);
      await detector.backward();
      await detector.discard();
      expect(await detector.lossValues()).toHaveLength(1);
      await detector.forward(batch, targets);
      await detector.backward();
      await detector.zeroGradients();
      expect(await detector.lossValues()).toEqual([]);
    }));

  test('keeps the losses of 256 passes of a step', () =>
    withScene(async (detector, { batch, targets }) => {
      for (let pass = 0; pass < 260; pass++) {
        await detector.forward(batch, targets);
        await detector.backward();
      }
      expect(await detector.lossValues()).toHaveLength(256);
    }));
});

describe('stepStudent', () => {
  // Live BatchNorm: buffers that change with every pass.
  const options = { ...tinyDetector, backbone: { ...tinyDetector.backbone, norm: 'bn' } } as const;

  test.each(['skip', 'copy', 'average'] as const)(
    'is step() and ema() with buffers "%s"; a refused step changes neither detector',
    async (buffers) => {
      const pair = async () => {
        const student = await createDetector(options, { dtype: 'fp32', seed: 2, device });
        const teacher = await student.createTeacher();
        return { student, teacher };
      };
      const { batch, targets } = await sceneBatch(1, 'f32', { device });
      const [one, two] = [await pair(), await pair()];
      const weights = async (detector: Detector) => {
        const values = [];
        for (const { name } of detector.parameters()) values.push(await detector.readTensor(name));
        return values;
      };
      for (const momentum of [1, 0.25]) {
        for (const { student } of [one, two]) {
          await student.forward(batch, targets);
          await student.backward();
        }
        const { gradNorm } = await one.student.step({ lr: 0.01 });
        await one.teacher.ema(one.student, momentum, { buffers });
        const report = await two.teacher.stepStudent(two.student, {
          lr: 0.01,
          momentum,
          buffers,
        });
        expect(report).toEqual({ gradNorm });
        expect(await two.student.lossValues()).toEqual(await one.student.lossValues());
        expect(await weights(two.student)).toEqual(await weights(one.student));
        expect(await weights(two.teacher)).toEqual(await weights(one.teacher));
      }
      const { student, teacher } = two;
      const before = await weights(teacher);
      await student.writeTensor(bias, (await student.readTensor(bias)).fill(Number.NaN));
      await student.forward(batch, targets);
      await student.backward();
      const own = await weights(student);
      await expect(
        teacher.stepStudent(student, { lr: 0.01, momentum: 1, buffers }),
      ).rejects.toMatchObject({ code: 'ERR_DIVERGED' });
      expect(await weights(teacher)).toEqual(before);
      expect(await weights(student)).toEqual(own);
      await expect(
        teacher.stepStudent(student, { lr: 0.01, momentum: 2, buffers }),
      ).rejects.toMatchObject({ code: 'ERR_RANGE' });
      batch.dispose();
      for (const detector of [one, two].flatMap((p) => [p.student, p.teacher])) detector.dispose();
    },
  );
});
