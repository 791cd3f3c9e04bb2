/** Runs cases: checks each result first, then times it, alternating with the peer. */
import { MixplError } from '../errors.js';
import { native } from '../native.js';
import type { BenchCase, BenchContext, BenchResult } from './case.js';
import type { Limits } from './limits.js';
import type { TorchPeer } from './peer.js';

export interface MeasureOptions {
  /** Runs that count, of each side. @defaultValue at least 5, as many as fit into half a second, at most 50 */
  repeats?: number;
  limits: Limits;
  peer?: TorchPeer | undefined;
  signal?: AbortSignal | undefined;
}

/**
 * @throws MixplError ERR_STATE when the result is wrong (nothing is timed then); `signal.reason`; what
 *   the case throws
 */
export async function measure(
  bench: BenchCase,
  context: BenchContext,
  { repeats, limits, peer, signal }: MeasureOptions,
): Promise<BenchResult> {
  const { dtype } = context;
  const prepared = await bench.prepare(context);
  try {
    const once = async () => {
      signal?.throwIfAborted();
      await prepared.before?.();
      const start = performance.now();
      await prepared.run();
      await native.synchronize(context.device); // work may only be queued
      return performance.now() - start;
    };
    await once();
    await prepared.check().catch((cause: Error) => {
      throw new MixplError('ERR_STATE', `bench: ${bench.name}, ${dtype}: ${cause.message}`, {
        cause,
      });
    });
    const warm = await once();
    const count = repeats ?? Math.min(50, Math.max(5, Math.ceil(500 / warm)));
    const opponent = bench.peer && (await peer?.prepare({ ...bench.peer, dtype }));
    const times: number[] = [];
    const peerTimes: number[] = [];
    for (let i = 0; i < count; i++) {
      times.push(await once());
      if (opponent) peerTimes.push(await opponent.run());
    }
    const medianMs = median(times);
    const bytes = bench.bytes(dtype);
    const floorMs = 1000 * Math.max(bytes / limits.copy, (bench.flops ?? 0) / limits.gemm[dtype]);
    return {
      name: bench.name,
      shape: bench.shape,
      dtype,
      checked: true,
      medianMs,
      spread: [Math.min(...times), Math.max(...times)],
      gbPerS: bytes / medianMs / 1e6,
      flopPerS: bench.flops ? (bench.flops / medianMs) * 1000 : null,
      shareOfLimit: floorMs / medianMs,
      ...(opponent && peer
        ? {
            peer: {
              name: peer.name,
              medianMs: median(peerTimes),
              ratio: medianMs / median(peerTimes),
            },
          }
        : {}),
    };
  } finally {
    prepared.dispose();
  }
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
