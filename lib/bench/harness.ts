/** Runs cases: checks each result first, then times it, alternating with the peer. */
import type { BenchCase, BenchContext, BenchResult, PeerResult, RightResult } from './case.js';
import { floorMs, workOf } from './floor.js';
import type { Limits } from './limits.js';
import type { PeerRun, TorchPeer } from './peer.js';
import { runsFor, sample } from './sample.js';
import { median } from './statistics.js';

export interface MeasureOptions {
  /**
   * Samples that count, of each side; no more than these are warm-up.
   * @defaultValue at least 5, as many as fit into half a second of the slower side, at most 50
   */
  repeats?: number;
  limits: Limits;
  peer?: Pick<TorchPeer, 'name' | 'prepare'> | undefined;
  signal?: AbortSignal | undefined;
}

/** A case that fails or whose result is wrong is a result, too. @throws only `signal.reason` */
export async function measure(
  bench: BenchCase,
  context: BenchContext,
  options: MeasureOptions,
): Promise<BenchResult> {
  const facts = { name: bench.name, shape: bench.shape, dtype: context.dtype };
  try {
    return { ...facts, ...(await measureRight(bench, context, options)) };
  } catch (error) {
    options.signal?.throwIfAborted();
    const none = { medianMs: null, spread: null, gbPerS: null, flopPerS: null, shareOfLimit: null };
    return { ...facts, checked: false, error: messageOf(error), ...none };
  }
}

async function measureRight(
  bench: BenchCase,
  context: BenchContext,
  { repeats, limits, peer, signal }: MeasureOptions,
): Promise<Omit<RightResult, 'name' | 'shape' | 'dtype'>> {
  const { dtype } = context;
  const prepared = await bench.prepare(context);
  try {
    const sampleOf = async (runs: number) => {
      signal?.throwIfAborted();
      await prepared.before?.();
      return sample(context.device, () => prepared.run(), runs);
    };
    await sampleOf(1);
    await prepared.check();
    const runs = prepared.alone ? 1 : await runsFor(context.device, sampleOf, repeats);
    // One run was warm-up already.
    const ours = repeats === 1 ? 0 : await sampleOf(runs);
    const opponent = bench.peer && peer && (await Opponent.prepare(peer, { ...bench.peer, dtype }));
    const theirs = repeats ? 0 : ((await opponent?.warmUp(runs)) ?? 0);
    const count = repeats ?? samplesIn(500, runs * Math.max(ours, theirs));
    const times: number[] = [];
    for (let i = 0; i < count; i++) {
      times.push(await sampleOf(runs));
      await opponent?.run(runs);
    }
    signal?.throwIfAborted(); // Ctrl-C ends the peer, too
    const medianMs = median(times);
    const work = workOf(bench, dtype);
    const bytes = work.reduce((sum, part) => sum + part.bytes, 0);
    const flops = work.reduce((sum, part) => sum + part.flops, 0);
    return {
      checked: true,
      medianMs,
      spread: [Math.min(...times), Math.max(...times)],
      gbPerS: bytes / medianMs / 1e6,
      flopPerS: flops ? (flops / medianMs) * 1000 : null,
      shareOfLimit: floorMs(work, limits, dtype) / medianMs,
      runs,
      ...(opponent ? { peer: opponent.result(medianMs) } : {}),
    };
  } finally {
    prepared.dispose();
  }
}

const samplesIn = (budgetMs: number, ms: number) =>
  Math.min(50, Math.max(5, Math.ceil(budgetMs / ms)));

/** The peer at one case. Where it fails ours is measured all the same. */
class Opponent {
  readonly #name: string;
  readonly #times: number[] = [];
  #side: PeerRun | undefined;
  #error: string | undefined;

  private constructor(name: string) {
    this.#name = name;
  }

  /** Null: the peer has no such case. */
  static async prepare(
    peer: NonNullable<MeasureOptions['peer']>,
    spec: Parameters<TorchPeer['prepare']>[0],
  ): Promise<Opponent | null> {
    const opponent = new Opponent(peer.name);
    try {
      const side = await peer.prepare(spec);
      if (!side) return null;
      opponent.#side = side;
    } catch (error) {
      opponent.#error = messageOf(error);
    }
    return opponent;
  }

  /** @returns ms of one run, after few; 0 where it failed */
  async warmUp(runs: number): Promise<number> {
    return (await this.#timed(Math.min(runs, 3))) ?? 0;
  }

  async run(runs: number): Promise<void> {
    const ms = await this.#timed(runs);
    if (ms !== null) this.#times.push(ms);
  }

  async #timed(runs: number): Promise<number | null> {
    if (!this.#side || this.#error !== undefined) return null;
    try {
      return await this.#side.run(runs);
    } catch (error) {
      this.#error = messageOf(error);
      return null;
    }
  }

  result(ours: number): PeerResult {
    const name = this.#name;
    if (this.#error !== undefined) return { name, medianMs: null, ratio: null, error: this.#error };
    const medianMs = median(this.#times);
    return { name, medianMs, ratio: ours / medianMs };
  }
}

const messageOf = (error: unknown) => (error instanceof Error ? error.message : String(error));
