/** Rows of `width` f64 numbers in one growing block: a million objects would cost ten times as much. */
export class NumberTable {
  readonly #width: number;
  #values: Float64Array;
  #length = 0;

  constructor(width: number) {
    this.#width = width;
    this.#values = new Float64Array(64 * width);
  }

  get length(): number {
    return this.#length;
  }

  push(row: readonly number[]): void {
    const at = this.#length++ * this.#width;
    if (at + this.#width > this.#values.length) {
      const grown = new Float64Array(2 * this.#values.length);
      grown.set(this.#values);
      this.#values = grown;
    }
    this.#values.set(row, at);
  }

  at(row: number, column: number): number {
    return this.#values[row * this.#width + column]!;
  }
}
