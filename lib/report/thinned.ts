/**
 * Every n-th of the values that come, and the last one: between half of `most` and `most` of them, however many
 * came. n is a power of two, so the values of a longer run are some of those of a shorter one.
 */
export class Thinned<T> {
  readonly #most: number;
  #kept: T[] = [];
  #every = 1;
  #count = 0;
  #last: T | undefined;

  constructor(most: number) {
    this.#most = most;
  }

  /** @returns whether the value stays when others follow */
  add(value: T): boolean {
    this.#last = value;
    if (this.#count++ % this.#every !== 0) return false;
    this.#kept.push(value);
    if (this.#kept.length > this.#most) {
      this.#kept = this.#kept.filter((_, i) => i % 2 === 0);
      this.#every *= 2;
    }
    return true;
  }

  get last(): T | undefined {
    return this.#last;
  }

  get values(): T[] {
    const isKept = this.#kept.at(-1) === this.#last;
    return isKept ? [...this.#kept] : [...this.#kept, this.#last!];
  }
}
