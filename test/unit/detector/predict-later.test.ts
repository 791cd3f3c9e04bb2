import { describe, expect, test } from 'vitest';
import { createDetector } from '../../../lib/index.js';
import { native } from '../../../lib/native.js';
import { onDevice, testDevices } from '../ops/test-op.js';
import { sceneBatch, tinyDetector } from './scenes.js';

const options = { ...tinyDetector, test: { scoreThr: 0 } };
const optimizer = { type: 'sgd' as const, momentum: 0 };

describe('predictions that are read later', () => {
  for (const device of testDevices) {
    test(`are those of the moment they were asked for${onDevice(device)}`, async () => {
      await using detector = await createDetector(options, { seed: 2, device, optimizer });
      const { batch, targets } = await sceneBatch(2, detector.computeDtype, { device });
      const other = await sceneBatch(1, detector.computeDtype, { device, seed: 8 });
      const wanted = [await detector.predict(batch), await detector.predict(other.batch)];
      expect(wanted[0]![0]!.scores.length).toBeGreaterThan(0);
      await detector.predictLater(batch);
      await detector.predictLater(other.batch);
      other.batch.dispose();
      await detector.loss(batch, targets);
      await detector.backward();
      await detector.step({ lr: 0.1 });
      expect(await detector.predictions()).toEqual(wanted);
      expect(await detector.predictions()).toEqual([]);
      expect(await detector.predict(batch)).not.toEqual(wanted[0]);
      batch.dispose();
    });

    // A GPU does all of this beside one another, in two streams.
    test(`of a teacher do not mind what its student does meanwhile, nor it them${onDevice(device)}`, async () => {
      await using student = await createDetector(options, { seed: 2, device, optimizer });
      await using teacher = await student.createTeacher();
      const bias = 'bbox_head.retina_cls.bias';
      const weight = 'bbox_head.retina_cls.weight';
      const weak = () => sceneBatch(2, student.computeDtype, { device, seed: 8 });
      const strong = () => sceneBatch(1, student.computeDtype, { device });
      const learn = async () => {
        const { batch, targets } = await strong();
        await student.forward(batch, targets);
        await student.backward();
        batch.dispose();
        return { losses: await student.lossValues(), gradient: await student.gradient(weight) };
      };
      const first = await weak();
      const boxes = await teacher.predict(first.batch);
      first.batch.dispose();
      const learned = await learn();
      const own = await teacher.readTensor(bias);
      for (let round = 0; round < 2; round++) {
        await student.zeroGradients();
        const { batch } = await weak();
        await teacher.predictLater(batch);
        batch.dispose();
        const here = await learn();
        // What is written now is for later predictions.
        await teacher.writeTensor(
          bias,
          own.map((b) => b + 1),
        );
        await teacher.ema(student, 1);
        expect(await teacher.predictions()).toEqual([boxes]);
        expect(here).toEqual(learned);
        expect(await teacher.readTensor(bias)).toEqual(own);
      }
    });

    if (device !== 'cpu')
      test(`are waited for once, when they are read${onDevice(device)}`, async () => {
        await using detector = await createDetector(options, { seed: 2, device });
        const { batch, targets } = await sceneBatch(1, detector.computeDtype, { device });
        const waits = () => native.memoryStats(device).synchronisations;
        const before = waits();
        await detector.predictLater(batch);
        await detector.forward(batch, targets);
        await detector.backward();
        expect(waits() - before).toBe(0);
        await detector.predictions();
        expect(waits() - before).toBe(1);
        batch.dispose();
      });
  }

  test('are an error for a batch that predict() refuses', async () => {
    await using detector = await createDetector(options, { seed: 2 });
    const { batch } = await sceneBatch(1, detector.computeDtype);
    const wrong = { ...batch, sizes: [] };
    await expect(detector.predictLater(wrong)).rejects.toThrow('sizes must hold 2 numbers');
    expect(await detector.predictions()).toEqual([]);
    batch.dispose();
  });
});
