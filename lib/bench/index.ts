/** `mixpl bench`: kernels and whole steps, checked first, then timed against this device's limits. */
import { didYouMean, MixplError } from '../errors.js';
import { native } from '../native.js';
import type { BenchCase, BenchResult } from './case.js';
import { batchedProductCases } from './cases/batched-products.js';
import { boxCases } from './cases/box-ops.js';
import { convolutionCases } from './cases/convolutions.js';
import { deformableAttentionCases } from './cases/deformable-attention.js';
import { detectionCases } from './cases/detection.js';
import { imageCases } from './cases/images.js';
import { levelCases } from './cases/levels.js';
import { mapCases } from './cases/maps.js';
import { matchQueries } from './cases/matching.js';
import { optimizerCases } from './cases/optimizers.js';
import { productCases } from './cases/products.js';
import { stepCases } from './cases/steps.js';
import { transformerCases } from './cases/transformers.js';
import { measure } from './harness.js';
import { type Limits, measureLimits } from './limits.js';
import { TorchPeer } from './peer.js';
import type { StepSize } from './steps.js';

export type { BenchCase, BenchResult } from './case.js';
export type { Limits } from './limits.js';
export { describeLimits, failuresOf, lineOf } from './report.js';

export interface BenchOptions {
  /** Cases in this order, or their beginnings up to a slash: 'conv', 'conv/stem', 'ema'; empty: all. */
  names?: readonly string[];
  /** @defaultValue 'cpu' */
  device?: string;
  /** @defaultValue f32, and bf16 where the device has it */
  dtypes?: readonly ('f32' | 'bf16')[];
  /** Of train, infer, teacher and mixpl. @defaultValue 480 × 640 on the CPU, 800 × 1344 on a GPU */
  size?: StepSize;
  repeats?: number;
  peer?: 'torch';
  signal?: AbortSignal;
  /** Sees what the device can do at best before the first result. */
  onLimits?: (limits: Limits) => void;
}

/** All cases. */
export function benchCases(size: StepSize = { height: 800, width: 1344 }): BenchCase[] {
  return [
    ...convolutionCases,
    ...levelCases,
    ...productCases,
    ...batchedProductCases,
    ...mapCases,
    ...detectionCases,
    ...deformableAttentionCases,
    ...transformerCases,
    matchQueries,
    ...boxCases,
    ...imageCases,
    ...optimizerCases,
    ...stepCases(size),
  ];
}

/**
 * Measures case by case. A wrong result, ours or the peer's, is told in its place and ends nothing.
 * @throws MixplError ERR_CONFIG for a name that no case has, ERR_DEVICE, ERR_STATE for a peer that does
 *   not start; `signal.reason`
 */
export async function* runBench(options: BenchOptions = {}): AsyncGenerator<BenchResult, void> {
  const { names = [], repeats, signal } = options;
  const device = native.resolveDevice(options.device ?? 'cpu');
  const onCpu = device === 'cpu';
  const size = options.size ?? (onCpu ? { height: 480, width: 640 } : { height: 800, width: 1344 });
  const cases = chosen(benchCases(size), names, onCpu);
  const hasBf16 = !onCpu || native.buildInfo().cpuFeatures.includes('avx512_bf16');
  const dtypes = options.dtypes ?? (hasBf16 ? ['f32', 'bf16'] : ['f32']);
  using peer = options.peer
    ? await TorchPeer.start({ device, threads: native.buildInfo().threads })
    : undefined;
  const limits = await measureLimits(device, dtypes, peer, signal);
  options.onLimits?.(limits);
  for (const bench of cases)
    for (const dtype of dtypes.filter((type) => bench.dtypes.includes(type)))
      yield await measure(bench, { device, dtype }, { repeats, limits, peer, signal });
}

/**
 * In the order of the names. On the CPU what is large is chosen by more than the first word of its name.
 * @throws MixplError ERR_CONFIG for a name that no case has
 */
export function chosen(
  cases: readonly BenchCase[],
  names: readonly string[],
  onCpu: boolean,
): BenchCase[] {
  const has = (bench: BenchCase, name: string) =>
    bench.name === name || bench.name.startsWith(`${name}/`);
  for (const name of names) {
    if (cases.some((bench) => has(bench, name))) continue;
    const known = cases.flatMap(({ name }) => [name, name.split('/')[0]!]);
    throw new MixplError(
      'ERR_CONFIG',
      `bench: there is no case '${name}'${didYouMean(name, known)} (--list shows all)`,
    );
  }
  const wanted = names.length
    ? [...new Set(names.flatMap((name) => cases.filter((bench) => has(bench, name))))]
    : cases;
  const isMeant = (bench: BenchCase) =>
    names.some((name) => name.includes('/') && has(bench, name));
  return wanted.filter((bench) => !(bench.large && onCpu) || isMeant(bench));
}
