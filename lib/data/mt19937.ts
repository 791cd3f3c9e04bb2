/**
 * MT19937 as numpy's legacy generator seeds and uses it (Matsumoto and Nishimura 1998, init_genrand).
 * Only here to repeat the reference's splits; everything else draws from lib/random.ts.
 */
export class Mt19937 {
  readonly #state = new Uint32Array(624);
  #at = 624;

  /** As numpy.random.seed(seed), 0 … 2^32 - 1. */
  constructor(seed: number) {
    const state = this.#state;
    state[0] = seed;
    for (let i = 1; i < 624; i++) {
      const previous = state[i - 1]! ^ (state[i - 1]! >>> 30);
      state[i] = Math.imul(1812433253, previous) + i;
    }
  }

  nextUint32(): number {
    if (this.#at === 624) this.#twist();
    let y = this.#state[this.#at++]!;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** As numpy.random.choice(n, count): with replacement, masked rejection. */
  choice(n: number, count: number): number[] {
    if (n === 1) return new Array<number>(count).fill(0);
    const mask = 2 ** Math.ceil(Math.log2(n)) - 1;
    return Array.from({ length: count }, () => {
      for (;;) {
        const value = (this.nextUint32() & mask) >>> 0;
        if (value < n) return value;
      }
    });
  }

  #twist(): void {
    const state = this.#state;
    for (let i = 0; i < 624; i++) {
      const y = (state[i]! & 0x80000000) | (state[(i + 1) % 624]! & 0x7fffffff);
      state[i] = state[(i + 397) % 624]! ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#at = 0;
  }
}
