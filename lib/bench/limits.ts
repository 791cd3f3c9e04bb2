/** What a device can do at best, measured in the run that quotes it. */
import { type NativeTensor, native } from '../native.js';
import { RepeatedNoise } from './data.js';
import { type Datasheet, datasheetOf } from './datasheets.js';
import type { TorchPeer } from './peer.js';
import { runsFor, sample } from './sample.js';
import { median } from './statistics.js';

export interface Limits {
  /** Bytes read and written per second. */
  copy: number;
  /** Operations per second of a large matrix product; of the types that are measured. */
  gemm: Partial<Record<'f32' | 'bf16', number>>;
  /** What reached them. */
  source: { copy: string; gemm: Partial<Record<'f32' | 'bf16', string>> };
  /** What the vendor says of this GPU: beside, not in place of, what was measured. */
  datasheet?: Datasheet;
}

interface Rate {
  rate: number;
  source: string;
}

/**
 * @param peer its product counts where it is the faster one; it may lack or fail it
 * @throws `signal.reason`
 */
export async function measureLimits(
  device: string,
  dtypes: readonly ('f32' | 'bf16')[],
  peer?: Pick<TorchPeer, 'name' | 'prepare'>,
  signal?: AbortSignal,
): Promise<Limits> {
  const gpu = device !== 'cpu';
  const copy = await copySpeed(device, gpu ? 1 << 28 : 1 << 24);
  const limits: Limits = {
    copy: copy.rate,
    gemm: {},
    source: { copy: copy.source, gemm: {} },
  };
  for (const dtype of dtypes) {
    const n = gpu ? 8192 : 1536;
    const rates = [await gemmSpeed(device, dtype, n)];
    const other = peer && (await peerGemmSpeed(peer, dtype, n).catch(() => null));
    signal?.throwIfAborted(); // Ctrl-C ends the peer, too
    if (other) rates.push(other);
    const best = fastest(rates);
    limits.gemm[dtype] = best.rate;
    limits.source.gemm[dtype] = best.source;
  }
  const name = native.devices().find(({ id }) => id === device)?.name ?? device;
  const datasheet = gpu ? datasheetOf(name) : undefined;
  return datasheet ? { ...limits, datasheet } : limits;
}

const fastest = (rates: readonly Rate[]) => rates.reduce((a, b) => (b.rate > a.rate ? b : a));

/** The driver's own copy; on the CPU also an op of nothing but traffic, should it be faster. */
async function copySpeed(device: string, count: number): Promise<Rate> {
  const zeros = new Float32Array(count);
  const x = native.createTensor(zeros, [count], 'f32', device);
  const y = native.createTensor(zeros, [count], 'f32', device);
  try {
    const copyMs = await best(device, () => native.copyTensor(x, y));
    const rate = (ms: number) => (8 * count) / (ms / 1000);
    if (device !== 'cpu') return { rate: rate(copyMs), source: 'cudaMemcpyAsync on the device' };
    const reluMs = await best(device, () => dropped(native.runOp('relu', [x], '{}', { device })));
    return fastest([
      { rate: rate(copyMs), source: 'memcpy on all threads' },
      { rate: rate(reluMs), source: 'relu' },
    ]);
  } finally {
    x.dispose();
    y.dispose();
  }
}

async function gemmSpeed(device: string, dtype: 'f32' | 'bf16', n: number): Promise<Rate> {
  const context = { device, dtype };
  const x = new RepeatedNoise(1).tensor([n, n], context);
  const w = new RepeatedNoise(1, 2).tensor([n, n], { device, dtype: 'f32' });
  try {
    const mode = { device, compute: dtype };
    const ms = await best(device, () => dropped(native.runOp('linear', [x, w], '{}', mode)));
    return { rate: (2 * n ** 3) / (ms / 1000), source: `linear, ${n}×${n}×${n}` };
  } finally {
    x.dispose();
    w.dispose();
  }
}

async function peerGemmSpeed(
  peer: Pick<TorchPeer, 'name' | 'prepare'>,
  dtype: 'f32' | 'bf16',
  n: number,
): Promise<Rate | null> {
  const side = await peer.prepare({ op: 'linear', m: n, k: n, n, dtype });
  if (!side) return null;
  const ms = await bestOf((runs) => side.run(runs), 1);
  return { rate: (2 * n ** 3) / (ms / 1000), source: `${peer.name}: linear, ${n}×${n}×${n}` };
}

async function dropped(result: Promise<{ outputs: NativeTensor[] }>): Promise<void> {
  for (const output of (await result).outputs) output.dispose();
}

async function best(device: string, run: () => Promise<void>): Promise<number> {
  const sampleOf = (runs: number) => sample(device, run, runs);
  return bestOf(sampleOf, await runsFor(device, sampleOf));
}

/** ms. The fastest is the limit; the median of the three fastest is not one lucky run. */
async function bestOf(sampleOf: (runs: number) => Promise<number>, runs: number): Promise<number> {
  const times: number[] = [];
  for (let i = 0; i < 12; i++) times.push(await sampleOf(runs));
  return median(times.sort((a, b) => a - b).slice(0, 3));
}
