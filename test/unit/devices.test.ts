import { describe, expect, test } from 'vitest';
import { composeBatch, type DecodedImage, neverChanges } from '../../lib/image/index.js';
import { createDetector } from '../../lib/index.js';
import * as kernels from '../../lib/kernels/index.js';
import { type DType, native, resolveDevice } from '../../lib/native.js';
import { sceneBatch, tinyDetector } from './detector/scenes.js';
import { testDevice } from './devices.js';
import { identityLayer, plain, single } from './image/pictures.js';

const noGpu = native.cudaReason();

describe('devices', () => {
  test('are listed, the CPU first', () => {
    const [cpu, ...gpus] = native.devices();
    expect(cpu).toMatchObject({ id: 'cpu', usable: true });
    gpus.forEach((gpu, i) => {
      expect(gpu).toMatchObject({
        id: `cuda:${i}`,
        computeCapability: expect.stringMatching(/^\d+\.\d+$/),
      });
      expect(gpu.memoryBytes).toBeGreaterThan(0);
      expect(gpu.usable).toBe(gpu.reason === undefined);
    });
    expect(noGpu === null).toBe(gpus.some(({ usable }) => usable));
  });

  test('have names of their own', () => {
    expect(resolveDevice('cpu')).toBe('cpu');
    expect(native.devices().map(({ id }) => id)).toContain(resolveDevice('auto'));
    for (const name of ['gpu', 'cuda:', 'cuda:x', 'cuda:-1', ''])
      expect(() => resolveDevice(name)).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
    expect(() => resolveDevice('cuda:99')).toThrow(expect.objectContaining({ code: 'ERR_DEVICE' }));
  });

  test.skipIf(noGpu === null)('that are missing are refused with the reason', async () => {
    expect(() => resolveDevice('cuda')).toThrow(noGpu!);
    await expect(createDetector(tinyDetector, { device: 'cuda' })).rejects.toThrow(noGpu!);
    await expect(
      composeBatch([single(identityLayer(plain(2, 2, 1)))], {
        ...{ mean: [0, 0, 0], std: [1, 1, 1], channelOrder: 'rgb', padDivisor: 1 },
        ...{ dtype: 'f32', device: 'cuda', padTo: 'batch' },
      }),
    ).rejects.toMatchObject({ code: 'ERR_DEVICE' });
  });

  test.each([
    ['f32', Float32Array.of(1.5, -2, 3, 0, 5, 6)],
    ['i32', Int32Array.of(1, -2, 3, 0, 5, 6)],
    ['u8', Uint8Array.of(1, 2, 3, 0, 255, 6)],
  ] as [DType, Float32Array | Int32Array | Uint8Array][])(
    'hold tensors of %s',
    async (dtype, values) => {
      const tensor = native.createTensor(values, [2, 3], dtype, testDevice);
      expect(tensor.device).toBe(resolveDevice(testDevice));
      expect(await tensor.read()).toEqual(values);
      tensor.dispose();
      const empty = native.createTensor(values.slice(0, 0), [0, 3], dtype, testDevice);
      expect(await empty.read()).toEqual(values.slice(0, 0));
      empty.dispose();
    },
  );

  test('count their own memory', () => {
    const before = native.memoryStats(testDevice).liveBytes;
    const tensor = native.createTensor(new Float32Array(1 << 16), [1 << 16], 'f32', testDevice);
    expect(native.memoryStats(testDevice).liveBytes - before).toBeGreaterThanOrEqual(4 << 16);
    tensor.dispose();
    expect(native.memoryStats(testDevice).liveBytes).toBe(before);
  });
});

describe.skipIf(noGpu !== null)('a GPU', () => {
  test('gives a batch to a detector on the CPU, which finds the same in it', async () => {
    await using detector = await createDetector(tinyDetector, { device: 'cpu', dtype: 'fp32' });
    const here = await sceneBatch(1, 'f32');
    const there = await sceneBatch(1, 'f32', { device: 'cuda' });
    expect(there.batch.tensor.device).toBe('cuda:0');
    expect(await there.batch.tensor.read()).toEqual(await here.batch.tensor.read());
    expect(await detector.predict(there.batch)).toEqual(await detector.predict(here.batch));
    here.batch.dispose();
    there.batch.dispose();
  });

  test('composes for the kernels', async () => {
    const composition = single(identityLayer(plain(5, 3, 77)));
    const { data, shape } = await kernels.compose([composition], { device: 'cuda' });
    expect(shape).toEqual([1, 3, 5, 3]);
    expect(data).toEqual(new Float32Array(45).fill(77));
  });

  test('copies a picture that never changes once, any other each time', async () => {
    const first = async (image: DecodedImage) => {
      const { data } = await kernels.compose([single(identityLayer(image))], { device: 'cuda' });
      return data[0];
    };
    const [named, other] = [plain(3, 3, 10), plain(3, 3, 10)];
    neverChanges(named);
    expect([await first(named), await first(other)]).toEqual([10, 10]);
    for (const { data } of [named, other]) data.fill(99);
    expect([await first(named), await first(other)]).toEqual([10, 99]);
  });

  test('is refused where it does not exist', async () => {
    await expect(kernels.compose([], { device: 'cuda:99' })).rejects.toMatchObject({
      code: 'ERR_DEVICE',
    });
  });
});
