// Several batches in one graph: what passes one after the other lose, and their gradients.
import { describe, expect, test } from 'vitest';
import { createDetector, type Detector, type DetectorOptions, native } from '../../../lib/index.js';
import { smallDetectors } from '../cuda/small-detectors.js';
import { testDevice as device } from '../devices.js';
import { sceneBatch } from './scenes.js';

const weights = [0.5, 2, 1.25];

/** Batches of different sizes and counts, with three classes. */
async function batches(dtype: 'f32' | 'bf16') {
  const all = [
    await sceneBatch(2, dtype, { width: 96, height: 64, seed: 3, device }),
    await sceneBatch(1, dtype, { width: 64, height: 96, seed: 4, device }),
    await sceneBatch(1, dtype, { width: 32, height: 64, seed: 5, device }),
  ];
  return all.map(({ batch, targets }) => ({
    batch,
    targets: targets.map((t) => ({ ...t, labels: t.labels.map((label) => label % 3) })),
  }));
}

async function gradients(detector: Detector): Promise<Map<string, Float32Array>> {
  const all = new Map<string, Float32Array>();
  for (const { name } of detector.parameters()) {
    const gradient = await detector.gradient(name);
    if (gradient) all.set(name, gradient as Float32Array);
  }
  return all;
}

async function learned(options: DetectorOptions, dtype: 'fp32' | 'bf16', together: boolean) {
  await using detector = await createDetector(options, { device, dtype, seed: 3 });
  const passes = await batches(dtype === 'bf16' ? 'bf16' : 'f32');
  try {
    if (together) {
      await detector.forwardTogether(passes);
      await detector.backward({ weights });
    } else
      for (const [i, { batch, targets }] of passes.entries()) {
        await detector.forward(batch, targets);
        await detector.backward({ weight: weights[i]! });
      }
    const losses = await detector.lossValues();
    const statistics = new Map<string, Float32Array>();
    for (const { name, kind } of detector.parameters())
      if (kind === 'buffer') statistics.set(name, await detector.readTensor(name));
    return { losses, statistics, gradients: await gradients(detector) };
  } finally {
    for (const { batch } of passes) batch.dispose();
  }
}

const norm = (values: Iterable<number>) => Math.hypot(...values);

/** Relative, of losses and of a gradient's norm; f32 differs by the order of sums alone. */
const tolerance = { fp32: 2e-5, bf16: 2e-2 };

describe('batches together', () => {
  const retinanet = smallDetectors.retinanet!;
  const backbone = { depth: 18, frozenStages: -1, baseWidth: 8 } as const;
  const cases: [string, DetectorOptions, 'fp32' | 'bf16'][] = [
    ...Object.entries(smallDetectors).map(
      ([name, options]) => [name, options, 'fp32'] as [string, DetectorOptions, 'fp32'],
    ),
    ...(['frozen-bn', 'bn-eval', 'bn'] as const).map(
      (kind) =>
        [
          `norm ${kind}`,
          { ...retinanet, backbone: { ...backbone, norm: kind } } as DetectorOptions,
          'fp32',
        ] as [string, DetectorOptions, 'fp32'],
    ),
    [
      'bottlenecks',
      { ...retinanet, backbone: { ...backbone, depth: 50, norm: 'bn-eval' } } as DetectorOptions,
      'fp32',
    ],
    [
      'recomputed',
      { ...retinanet, backbone: { ...backbone, norm: 'gn', recompute: true } } as DetectorOptions,
      'fp32',
    ],
    ['retinanet', retinanet, 'bf16'],
  ];
  test.each(cases)('%s: as one after the other', async (_, options, dtype) => {
    const [apart, together] = [
      await learned(options, dtype, false),
      await learned(options, dtype, true),
    ];
    const bound = tolerance[dtype];
    expect(together.losses).toHaveLength(apart.losses.length);
    apart.losses.forEach((losses, i) => {
      expect(Object.keys(together.losses[i]!)).toEqual(Object.keys(losses));
      for (const [name, value] of Object.entries(losses))
        expect(Math.abs(together.losses[i]![name]! - value), `${name} of ${i}`).toBeLessThanOrEqual(
          bound * Math.abs(value) + 1e-6,
        );
    });
    expect([...together.gradients.keys()]).toEqual([...apart.gradients.keys()]);
    const whole = norm([...apart.gradients.values()].map(norm));
    expect(whole).toBeGreaterThan(0);
    for (const [name, want] of apart.gradients) {
      const got = together.gradients.get(name)!;
      // What has nearly no gradient beside the others is a sum that cancels.
      expect(norm(got.map((v, i) => v - want[i]!)), name).toBeLessThanOrEqual(
        bound * norm(want) + (bound / 100) * whole,
      );
    }
    for (const [name, want] of apart.statistics)
      together.statistics.get(name)!.forEach((v, i) => {
        expect(Math.abs(v - want[i]!), name).toBeLessThanOrEqual(bound * Math.abs(want[i]!) + 1e-6);
      });
  });
});

describe('forwardTogether', () => {
  const open = () => createDetector(smallDetectors.retinanet!, { device, dtype: 'fp32', seed: 3 });

  test('is read, discarded and refused as one', async () => {
    await using detector = await open();
    const passes = await batches('f32');
    await detector.forwardTogether(passes);
    await detector.discard();
    expect(await detector.lossValues()).toEqual([]);
    await detector.forwardTogether(passes);
    await expect(detector.backward({ weights: [1, 2] })).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'detector.backward: weights must be one for each pass (3), got 2',
    });
    await expect(detector.backward()).rejects.toMatchObject({ code: 'ERR_SHAPE' });
    await detector.backward({ weights });
    await expect(detector.backward({ weights })).rejects.toMatchObject({ code: 'ERR_STATE' });
    expect(await detector.lossValues()).toHaveLength(3);
    for (const { batch } of passes) batch.dispose();
  });

  test('wants 1 to 8 batches, and targets that fit each', async () => {
    await using detector = await open();
    const [pass] = (await batches('f32')) as [Awaited<ReturnType<typeof batches>>[0]];
    await expect(detector.forwardTogether([])).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'detector.forward: passes must have at least one entry, got none',
    });
    await expect(detector.forwardTogether(Array(9).fill(pass))).rejects.toMatchObject({
      code: 'ERR_SHAPE',
      message: 'detector.forward: takes at most 8 batches, got 9',
    });
    await expect(
      detector.forwardTogether([pass, { ...pass, targets: [pass.targets[0]!] }]),
    ).rejects.toMatchObject({ code: 'ERR_SHAPE' });
    expect(await detector.lossValues()).toEqual([]);
    await detector.forwardTogether(Array(8).fill(pass));
    await detector.backward({ weights: Array(8).fill(1) });
    expect(await detector.lossValues()).toHaveLength(8);
    pass.batch.dispose();
  });

  test('leaves nothing behind', async () => {
    await using detector = await open();
    const passes = await batches('f32');
    const run = async () => {
      await detector.forwardTogether(passes);
      await detector.backward({ weights });
      await detector.zeroGradients();
    };
    await run();
    const { liveBytes } = native.memoryStats(device);
    await run();
    expect(native.memoryStats(device).liveBytes).toBe(liveBytes);
    for (const { batch } of passes) batch.dispose();
  });
});
