/** What a device can do at best, measured in the run that quotes it. */
import { native } from '../native.js';
import { noise, rounded, tensorOf } from './data.js';
import { median } from './harness.js';

export interface Limits {
  /** Bytes read and written per second. */
  copy: number;
  /** Operations per second of a large matrix product. */
  gemm: Record<'f32' | 'bf16', number>;
}

export async function measureLimits(
  device: string,
  dtypes: readonly ('f32' | 'bf16')[],
): Promise<Limits> {
  const gpu = device !== 'cpu';
  const copy = await copySpeed(device, gpu ? 1 << 28 : 1 << 24);
  const gemm = { f32: Number.POSITIVE_INFINITY, bf16: Number.POSITIVE_INFINITY };
  for (const dtype of dtypes) gemm[dtype] = await gemmSpeed(device, dtype, gpu ? 8192 : 1536);
  return { copy, gemm };
}

/** An element-wise op of nothing but traffic. */
async function copySpeed(device: string, count: number): Promise<number> {
  const x = native.createTensor(new Float32Array(count), [count], 'f32', device);
  const seconds = await time(device, async () => {
    const { outputs } = await native.runOp('relu', [x], '{}', { device });
    return () => outputs[0]!.dispose();
  });
  x.dispose();
  return (8 * count) / seconds;
}

async function gemmSpeed(device: string, dtype: 'f32' | 'bf16', n: number): Promise<number> {
  const context = { device, dtype };
  const x = tensorOf(rounded(noise(n * n, 1)), [n, n], context);
  const w = native.createTensor(noise(n * n, 1, 2), [n, n], 'f32', device);
  const seconds = await time(device, async () => {
    const { outputs } = await native.runOp('linear', [x, w], '{}', { device, compute: dtype });
    return () => outputs[0]!.dispose();
  });
  x.dispose();
  w.dispose();
  return (2 * n ** 3) / seconds;
}

/** The fastest is the limit; the median of the three fastest is not one lucky run. */
async function time(device: string, run: () => Promise<() => void>): Promise<number> {
  const seconds: number[] = [];
  for (let i = 0; i < 12; i++) {
    const start = performance.now();
    const drop = await run();
    await native.synchronize(device);
    seconds.push((performance.now() - start) / 1000);
    drop();
  }
  return median(seconds.sort((a, b) => a - b).slice(0, 3));
}
