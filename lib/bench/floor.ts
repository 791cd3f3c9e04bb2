/** What a device could do a case in at best. */
import type { BenchCase, Work } from './case.js';
import type { Limits } from './limits.js';

/** Of a kernel its one part, of a step its layers. */
export function workOf(bench: BenchCase, dtype: 'f32' | 'bf16'): readonly Work[] {
  return bench.work?.(dtype) ?? [{ bytes: bench.bytes(dtype), flops: bench.flops ?? 0 }];
}

/**
 * Part after part: each waits for memory or for arithmetic, and no two overlap. Stricter than the larger
 * one of all bytes and all operations.
 * @throws RangeError where the matrix products of `dtype` were not measured
 */
export function floorMs(work: readonly Work[], limits: Limits, dtype: 'f32' | 'bf16'): number {
  const rate = limits.gemm[dtype];
  if (rate === undefined) throw new RangeError(`the products of ${dtype} were not measured`);
  return work.reduce(
    (sum, { bytes, flops }) => sum + 1000 * Math.max(bytes / limits.copy, flops / rate),
    0,
  );
}
