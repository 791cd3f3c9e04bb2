/** What the benchmark measures. */

/** A case's own words for PyTorch (scripts/peers/ops_torch.py). */
export type PeerCase = Readonly<Record<string, number | string | boolean | readonly number[]>>;

export interface BenchContext {
  /** 'cpu', 'cuda:0', … */
  device: string;
  dtype: 'f32' | 'bf16';
}

/** A part of a case that must be done before the next one. */
export interface Work {
  bytes: number;
  flops: number;
}

export interface BenchCase {
  /** Words with slashes between, the general one first: `conv/layer2.conv2/forward`. */
  readonly name: string;
  /** Sizes, in the letters of native/README.md. */
  readonly shape: string;
  /** Types that it runs in. */
  readonly dtypes: readonly ('f32' | 'bf16')[];
  /** What it must at least move and compute, in bytes and floating-point operations. */
  bytes(dtype: 'f32' | 'bf16'): number;
  readonly flops?: number;
  /** Of steps: the same layer by layer, in place of both. */
  work?(dtype: 'f32' | 'bf16'): readonly Work[];
  /** Takes minutes and gigabytes on a CPU: there it runs only where it is named. */
  readonly large?: true;
  /** The same in PyTorch, where it has it. */
  readonly peer?: PeerCase;
  prepare(context: BenchContext): Promise<PreparedCase>;
}

export interface PreparedCase {
  /** Outside the clock, before every sample. */
  before?(): Promise<void>;
  /** What is timed. May be called again before it has ended, unless it runs alone. */
  run(): Promise<void>;
  /** A sample holds one run: before() makes what it uses up, or the host waits within it. */
  readonly alone?: true;
  /** Compares the result of the last run with one computed otherwise. @throws Error saying what differs */
  check(): Promise<void>;
  dispose(): void;
}

interface Measured {
  name: string;
  shape: string;
  dtype: 'f32' | 'bf16';
}

/** A right result with its times. */
export interface RightResult extends Measured {
  /** The result was compared and is right. */
  checked: true;
  /** Of one run: time of a sample over its runs. */
  medianMs: number;
  /** The fastest and the slowest sample, in ms of one run. */
  spread: [number, number];
  gbPerS: number;
  flopPerS: number | null;
  /** Of what memory and arithmetic of this device allow (measured in this run), the tighter of both. */
  shareOfLimit: number;
  /** In a sample, back to back, with one wait at its end: as many for the peer. */
  runs: number;
  /** Absent where no peer was asked for or it has no such case. */
  peer?: PeerResult;
}

/** A case that failed: nothing of it was timed. */
export interface FailedResult extends Measured {
  checked: false;
  /** What differed from the result wanted, or why there was none. */
  error: string;
  medianMs: null;
  spread: null;
  gbPerS: null;
  flopPerS: null;
  shareOfLimit: null;
}

export type BenchResult = RightResult | FailedResult;

/** Ours over the peer's in `ratio`: below 1 is faster than the peer. */
export type PeerResult =
  | { name: string; medianMs: number; ratio: number }
  | { name: string; medianMs: null; ratio: null; error: string };

export const sizeOf = (dtype: 'f32' | 'bf16') => (dtype === 'f32' ? 4 : 2);

/** Places spread over a tensor. */
export const spread = (length: number, count = 200) =>
  Array.from({ length: count }, (_, i) => Math.floor(((i + 0.37) / count) * length));

/** @throws Error where a number is not the one wanted, within `relative` of the largest. */
export function expectNear(
  what: string,
  got: ArrayLike<number>,
  want: readonly (readonly [index: number, value: number])[],
  relative: number,
): void {
  const largest = Math.max(1e-30, ...want.map(([, value]) => Math.abs(value)));
  for (const [index, value] of want)
    if (!(Math.abs(got[index]! - value) <= relative * largest))
      throw new Error(`${what}[${index}]: got ${got[index]}, want ${value}`);
}
