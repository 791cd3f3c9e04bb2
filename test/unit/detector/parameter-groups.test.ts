// Factors of single parameters, from createDetector's options to the weights after a step.
import { describe, expect, test } from 'vitest';
import { detectorOptions, loadConfig, optimizerOptions } from '../../../lib/config/index.js';
import { createDetector, type Detector, type OptimizerOptions } from '../../../lib/index.js';
import { relativeError } from '../detect/run.js';
import { testDevice } from '../devices.js';
import { sceneBatch, tinyDetector } from './scenes.js';

const plain = { type: 'sgd', momentum: 0, weightDecay: 0.02, clipNorm: 0.5 } as const;
const adam = { type: 'adamw', weightDecay: 0.02, clipNorm: 0.5 } as const;
const groups = [
  { match: 'backbone', lrFactor: 0.1 },
  { match: 'bias', weightDecayFactor: 0 },
  { match: 'backbone.layer4', lrFactor: 3, weightDecayFactor: 2 },
];
const lr = 0.1;

const create = (optimizer: OptimizerOptions, options = {}) =>
  createDetector(
    { ...tinyDetector, ...options },
    { dtype: 'fp32', seed: 4, device: testDevice, optimizer },
  );

async function gather(detector: Detector): Promise<void> {
  const { batch, targets } = await sceneBatch(1, 'f32', {
    width: 64,
    height: 64,
    device: detector.device,
  });
  await detector.loss(batch, targets);
  await detector.backward();
  batch.dispose();
}

/** The weights after so many steps, and the norms. */
async function train(detector: Detector, steps: number) {
  const norms = [];
  for (let i = 0; i < steps; i++) {
    await gather(detector);
    norms.push((await detector.step({ lr })).gradNorm);
  }
  return { norms, state: await detector.state() };
}

describe('optimizer.groups', () => {
  test('give each parameter its rate and decay; the norm is of all gradients as they are', async () => {
    await using detector = await create({ ...plain, groups });
    await gather(detector);
    const names = detector.parameters().flatMap(({ name, trainable }) => (trainable ? name : []));
    const read = async (name: string) =>
      [await detector.readTensor(name), await detector.gradient(name)] as const;
    const before = new Map(
      await Promise.all(names.map(async (name) => [name, await read(name)] as const)),
    );
    const norm = Math.hypot(
      ...[...before.values()].map(([, g]) => Math.sqrt(g!.reduce((sum, v) => sum + v * v, 0))),
    );
    const { gradNorm } = await detector.step({ lr });
    expect(Math.abs(gradNorm / norm - 1)).toBeLessThan(1e-5);
    expect(norm).toBeGreaterThan(plain.clipNorm);
    for (const [name, [w, g]] of before) {
      const { lrFactor, decay } = name.includes('backbone.layer4')
        ? { lrFactor: 3, decay: 2 }
        : name.includes('backbone')
          ? { lrFactor: 0.1, decay: 1 }
          : { lrFactor: 1, decay: name.includes('bias') ? 0 : 1 };
      const wanted = Array.from(
        w,
        (v, i) =>
          v -
          lr *
            lrFactor *
            ((plain.clipNorm / (norm + 1e-6)) * g![i]! + plain.weightDecay * decay * v),
      );
      const after = [...(await detector.readTensor(name))];
      expect(relativeError(after, wanted), name).toBeLessThan(1e-6);
    }
  });

  test('of factor 1 change no bit, and none are as an empty list', async () => {
    const same = [{ match: 'backbone', lrFactor: 1, weightDecayFactor: 1 }, { match: 'head' }];
    for (const optimizer of [plain, adam]) {
      await using alone = await create(optimizer);
      const wanted = await train(alone, 3);
      for (const groups of [same, []]) {
        await using grouped = await create({ ...optimizer, groups });
        expect(await train(grouped, 3)).toEqual(wanted);
      }
    }
  });

  test('for the backbone are as backboneLrFactor', async () => {
    await using fields = await create({ ...adam, backboneLrFactor: 0.1, biasDecay: 0 });
    await using listed = await create({
      ...{ ...adam, biasDecay: 0 },
      groups: [{ match: 'backbone.', lrFactor: 0.1 }],
    });
    expect(await train(listed, 2)).toEqual(await train(fields, 2));
  });

  test('go on from a checkpoint to the last bit', async () => {
    await using first = await create({ ...adam, groups });
    const { state } = await train(first, 2);
    await using second = await create({ ...adam, groups });
    await second.loadState(state);
    expect(await train(second, 2)).toEqual(await train(first, 2));
  });

  test('that are optional may be for parameters that only variants of the detector have', async () => {
    const small = [
      ...['model.neck.channels=16', 'model.neck.numOutputs=3', 'model.transformer.heads=2'],
      ...['model.transformer.encoderLayers=1', 'model.transformer.decoderLayers=1'],
      ...['model.backbone.depth=18', 'model.backbone.baseWidth=8', 'model.queries=5'],
    ];
    const named = async (...overrides: string[]) => {
      const config = await loadConfig('deformable-detr-r50-coco-10', {
        withoutData: true,
        overrides: [...small, ...overrides],
      });
      const options = detectorOptions(config, 2);
      await using detector = await createDetector(options, { optimizer: optimizerOptions(config) });
      return detector
        .parameters()
        .flatMap(({ name }) => (/reference_points/.test(name) ? name : []));
    };
    expect(await named()).toEqual([]);
    expect(await named('model.twoStage=false')).toEqual([
      'reference_points_fc.weight',
      'reference_points_fc.bias',
    ]);
    expect(await named('model.twoStage=false', 'model.refine=false')).toHaveLength(2);
    await expect(named('optimizer.groups.1.optional=false')).rejects.toThrow(
      "optimizer.groups.1.match must be a part of a parameter's path",
    );
  });

  test('say which of them is wrong', async () => {
    const bad = async (wrong: object, message: string, options = {}) =>
      expect(create({ groups: wrong } as OptimizerOptions, options)).rejects.toMatchObject({
        code: 'ERR_CONFIG',
        message: expect.stringContaining(message),
      });
    await bad(
      [groups[0], { match: 'sampling_offsets', lrFactor: 0.1 }],
      "optimizer.groups.1.match must be a part of a parameter's path (as in 'bbox_head.",
    );
    await bad([{ match: 'sampling_offsets' }], "got 'sampling_offsets'");
    await bad([{ match: 'neck', lrFactor: 0 }], 'groups.0.lrFactor must be a number > 0, got 0');
    await bad([{ match: 'neck', lrFactor: Number.NaN }], 'lrFactor must be a finite number');
    await bad([{ match: 'neck', decay: 0 }], "optimizer.groups.0: unknown option 'decay'");
    await bad([{ match: 3 }], 'optimizer.groups.0: match must be a string, got 3');
    await bad([groups[0], groups[0]], 'optimizer.groups.1.match must differ');
    // Buffers are no parameters; frozen weights are.
    const frozen = { backbone: { depth: 18, baseWidth: 16 } };
    await bad([{ match: 'running_mean' }], "got 'running_mean'", frozen);
    await using detector = await create({ groups: [{ match: 'backbone.conv1' }] }, frozen);
    expect(detector.parameters().find((p) => p.name === 'backbone.conv1.weight')?.trainable).toBe(
      false,
    );
  });
});
