// What a GPU can do to a training, done by the emulated one.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createDetector, type Detector, native, type Targets } from '../../../lib/index.js';
import { sceneBatch } from '../detector/scenes.js';
import { essence, student, train } from './runs.js';
import { smallDetectors } from './small-detectors.js';

const wrong = (faults: Parameters<NonNullable<typeof native.setEmulatedFaults>>[0]) =>
  native.setEmulatedFaults!(faults);
/** Bytes of the device that somebody holds. */
const taken = () => {
  const { memoryBytes, freeBytes } = native.devices().find((d) => d.id === 'cuda:0')!;
  return memoryBytes! - freeBytes!;
};

vi.setConfig({ testTimeout: 600_000 });

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-faults-'));
});
afterEach(async () => {
  if (native.setEmulatedFaults) wrong({});
  await rm(folder, { recursive: true, force: true });
});

const small = () =>
  createDetector(smallDetectors.retinanet!, { device: 'cuda', dtype: 'fp32', seed: 2 });
const scenes = (count: number) =>
  sceneBatch(count, 'f32', { width: 64, height: 64, device: 'cuda' });
const few = (targets: Targets[]) =>
  targets.map((t) => ({ ...t, labels: t.labels.map((label) => label % 3) }));

/** One whole step, in numbers. */
async function step(detector: Detector) {
  const { batch, targets } = await scenes(1);
  const losses = await detector.loss(batch, few(targets));
  await detector.backward();
  const { gradNorm } = await detector.step({ lr: 0.01 });
  batch.dispose();
  return { losses, gradNorm };
}

describe.skipIf(!native.setEmulatedFaults)('a GPU without memory', () => {
  test('names call, bytes wanted and bytes free; the detector goes on when there is room', async () => {
    await using healthy = await small();
    const want = await step(healthy);
    await using detector = await small();
    const { batch, targets } = await scenes(4);
    const truth = few(targets);
    const message =
      /: out of memory: wanted \d+ bytes on cuda:0 \(emulated\), where \d+ of \d+ bytes are free; tensors hold \d+$/;
    for (const [call, run] of [
      ['detector.loss', () => detector.loss(batch, truth)],
      ['detector.predict', () => detector.predict(batch)],
      [
        'Tensor.from',
        async () => native.createTensor(new Float32Array(1 << 20), [1 << 20], 'f32', 'cuda'),
      ],
      ['createDetector', small],
    ] as [string, () => Promise<unknown>][]) {
      wrong({ memoryBytes: taken() });
      await expect(run(), call).rejects.toMatchObject({
        code: 'ERR_OUT_OF_MEMORY',
        message: expect.stringMatching(new RegExp(`^${call}${message.source}`)),
      });
      wrong({});
    }
    batch.dispose();
    expect(await step(detector)).toEqual(want);
  });

  test('in the middle of a backward pass leaves no gradient', async () => {
    await using healthy = await small();
    const want = await step(healthy);
    await using detector = await small();
    const { batch, targets } = await scenes(4);
    await detector.loss(batch, few(targets));
    wrong({ memoryBytes: taken() });
    await expect(detector.backward()).rejects.toMatchObject({
      code: 'ERR_OUT_OF_MEMORY',
      message: expect.stringMatching(/^detector.backward: out of memory/),
    });
    wrong({});
    for (const { name } of detector.parameters()) expect(await detector.gradient(name)).toBeNull();
    await expect(detector.backward()).rejects.toMatchObject({ code: 'ERR_STATE' });
    batch.dispose();
    expect(await step(detector)).toEqual(want);
  });

  test('ends a run, which goes on from its checkpoint', async () => {
    await using whole = await student('retinanet', 'cuda');
    const { steps } = await train(whole);
    await using first = await student('retinanet', 'cuda');
    await expect(
      train(first, { out: folder }, ({ iteration }) => {
        if (iteration === 3) wrong({ memoryBytes: 0 });
      }),
    ).rejects.toMatchObject({
      code: 'ERR_OUT_OF_MEMORY',
      message: expect.stringMatching(
        /^\S+: out of memory: .*, after 3 iterations; the last good checkpoint is .*iteration-000002; try smaller batches/,
      ),
    });
    wrong({});
    await using second = await student('retinanet', 'cuda');
    const rest = await train(second, { out: folder, resume: true });
    expect(essence(rest.steps)).toEqual(essence(steps.slice(2)));
  });
});

describe.skipIf(!native.setEmulatedFaults)('a launch that fails', () => {
  test('is an error with its place, and nothing but the call is lost', async () => {
    await using healthy = await small();
    const want = await step(healthy);
    await using detector = await small();
    const { batch, targets } = await scenes(1);
    const truth = few(targets);
    for (const launches of [0, 3, 17]) {
      wrong({ launchesToFail: launches });
      await expect(detector.loss(batch, truth)).rejects.toMatchObject({
        code: 'ERR_DEVICE',
        message: expect.stringMatching(/\(\w+\.(cu|h):\d+\): the launch failed/),
      });
    }
    await detector.loss(batch, truth);
    wrong({ launchesToFail: 9 });
    await expect(detector.backward()).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    batch.dispose();
    expect(await step(detector)).toEqual(want);
  });
});

describe.skipIf(!native.setEmulatedFaults)('a GPU that is lost', () => {
  test('refuses every call; the process and its other devices live', async () => {
    await using detector = await small();
    const { batch, targets } = await scenes(1);
    wrong({ launchesToLoss: 5 });
    await expect(detector.loss(batch, few(targets))).rejects.toMatchObject({
      code: 'ERR_DEVICE',
      message: expect.stringMatching(/: the GPU was lost/),
    });
    for (const call of [
      () => detector.loss(batch, few(targets)),
      () => detector.predict(batch),
      () => detector.readTensor('bbox_head.retina_cls.bias'),
      () => native.synchronize('cuda'),
      () => scenes(1),
    ])
      await expect(call()).rejects.toMatchObject({ code: 'ERR_DEVICE' });
    batch.dispose();
    await using other = await createDetector(smallDetectors.retinanet!, { device: 'cpu' });
    const { batch: own, targets: truth } = await sceneBatch(1, other.computeDtype);
    await other.loss(own, few(truth));
    await other.backward();
    own.dispose();
  });

  test('ends a run, which goes on from its checkpoint on the CPU', async () => {
    await using first = await student('faster-rcnn', 'cuda');
    await expect(
      train(first, { out: folder }, ({ iteration }) => {
        if (iteration === 5) wrong({ launchesToLoss: 30 });
      }),
    ).rejects.toMatchObject({
      code: 'ERR_DEVICE',
      message: expect.stringMatching(
        /the GPU was lost.*, after 5 iterations; the last good checkpoint is .*iteration-000004; try to resume in a new process, on another device/,
      ),
    });
    await using second = await student('faster-rcnn', 'cpu');
    const { events, steps } = await train(second, { out: folder, resume: true });
    expect(events[0]).toMatchObject({ type: 'resumed', iteration: 4 });
    expect(events[1]).toMatchObject({ type: 'warning', code: 'environment-changed' });
    expect(steps.map((s) => s.iteration)).toEqual([5, 6]);
  });
});
