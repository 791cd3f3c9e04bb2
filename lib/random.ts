/**
 * The one seeded generator behind every decision TypeScript takes (augmentation, sampling, splits).
 * xoshiro128** (Blackman and Vigna 2018), seeded through splitmix32; its state is four words, so it
 * can be checkpointed, and `fork` derives independent streams from names and numbers.
 */
export class Random {
  readonly #state: Uint32Array;

  /** The same seed gives the same numbers everywhere. @param seed safe integers */
  constructor(seed: number | readonly number[]) {
    this.#state = new Uint32Array(4);
    let h = 0x9e3779b9;
    const words = typeof seed === 'number' ? [seed] : seed;
    for (const word of words) {
      h = mix(h ^ mix(word >>> 0));
      h = mix(h ^ mix(Math.floor(word / 2 ** 32) >>> 0));
    }
    for (let i = 0; i < 4; i++) {
      h = (h + 0x9e3779b9) >>> 0;
      this.#state[i] = mix(h);
    }
    if (this.#state.every((word) => word === 0)) this.#state[0] = 1;
  }

  /** An independent stream named by `keys`, e.g. `new Random(seed).fork('strong', step, image)`. Does not advance this one. */
  fork(...keys: (string | number)[]): Random {
    const words = [...this.#state];
    for (const key of keys) {
      if (typeof key === 'number') words.push(key);
      else for (let i = 0; i < key.length; i++) words.push(key.charCodeAt(i) + 0x10000);
    }
    return new Random(words);
  }

  /** Uniform 32-bit integer. */
  nextUint32(): number {
    const s = this.#state;
    const result = Math.imul(rotl(Math.imul(s[1]!, 5), 7), 9) >>> 0;
    const t = s[1]! << 9;
    s[2]! ^= s[0]!;
    s[3]! ^= s[1]!;
    s[1]! ^= s[2]!;
    s[0]! ^= s[3]!;
    s[2]! ^= t;
    s[3] = rotl(s[3]!, 11);
    return result;
  }

  /** Uniform in [0, 1), 53 bits. */
  next(): number {
    const high = this.nextUint32() >>> 5;
    const low = this.nextUint32() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }

  /** Uniform in [low, high). */
  uniform(low: number, high: number): number {
    return low + (high - low) * this.next();
  }

  /** Uniform integer in [low, high): `high` is excluded. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low));
  }

  /** Uniformly random permutation of 0 … n-1 (Fisher-Yates). */
  permutation(n: number): number[] {
    const order = Array.from({ length: n }, (_, i) => i);
    for (let i = n - 1; i > 0; i--) {
      const j = this.integer(0, i + 1);
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }

  /** Standard normal (Box-Muller; one value per call). */
  normal(): number {
    const u = 1 - this.next();
    return Math.sqrt(-2 * Math.log(u)) * Math.cos(2 * Math.PI * this.next());
  }

  /** The four state words, for a checkpoint. */
  get state(): number[] {
    return [...this.#state];
  }
  /** Goes on from what `state` gave. */
  set state(words: readonly number[]) {
    this.#state.set(words);
  }
}

function rotl(x: number, k: number): number {
  return ((x << k) | (x >>> (32 - k))) >>> 0;
}

function mix(x: number): number {
  let z = x >>> 0;
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
  return (z ^ (z >>> 15)) >>> 0;
}
