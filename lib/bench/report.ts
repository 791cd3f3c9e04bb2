/** What people read of a bench. */
import type { BenchResult, PeerResult } from './case.js';
import type { Limits } from './limits.js';

const giga = (value: number) => (value / 1e9).toFixed(1);

export function describeLimits({ copy, gemm, source, datasheet }: Limits): string {
  const rates = (['f32', 'bf16'] as const).flatMap((type) =>
    gemm[type] === undefined
      ? []
      : [`${type} products ${giga(gemm[type])} GFLOP/s (${source.gemm[type]})`],
  );
  const lines = [
    `limits of this device, measured now: copy ${giga(copy)} GB/s (${source.copy}), ${rates.join(', ')}`,
  ];
  if (datasheet) {
    const { name, bandwidth, flops } = datasheet;
    lines.push(
      `the vendor's of ${name}: memory ${giga(bandwidth)} GB/s, dense peaks f32 ${giga(flops.f32)}, bf16 ${giga(flops.bf16)} GFLOP/s`,
    );
  }
  return lines.join('\n');
}

export function lineOf(r: BenchResult): string {
  const head = `${r.name.padEnd(36)} ${r.dtype.padEnd(4)}`;
  if (!r.checked) return `${head} ${'FAILED'.padStart(10)}     ${r.error}; not timed`;
  const rate = r.flopPerS ? `${giga(r.flopPerS)} GFLOP/s` : `${r.gbPerS.toFixed(1)} GB/s`;
  return (
    `${head} ${r.medianMs.toFixed(3).padStart(10)} ms ` +
    `[${r.spread.map((v) => v.toFixed(2)).join(', ')}]  ${rate}, ` +
    `${(100 * r.shareOfLimit).toFixed(0)}% of the limit${r.peer ? `  ${peerOf(r.peer)}` : ''}`
  );
}

function peerOf(peer: PeerResult): string {
  return peer.medianMs === null
    ? `torch FAILED: ${peer.error}`
    : `torch ${peer.medianMs.toFixed(3)} ms, ratio ${peer.ratio.toFixed(3)}`;
}

/** One line about what failed, ours and the peer's; null where nothing did. */
export function failuresOf(results: readonly BenchResult[]): string | null {
  const wrong = results.filter((r) => !r.checked).length;
  const peers = results.filter((r) => r.checked && r.peer?.medianMs === null).length;
  const parts = [
    ...(wrong ? [`${wrong} of ${results.length} results are wrong or missing`] : []),
    ...(peers ? [`the peer failed at ${peers}`] : []),
  ];
  return parts.length ? `bench: ${parts.join('; ')}` : null;
}
