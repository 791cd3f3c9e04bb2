/**
 * What the layers of a network must at least compute and move. A layer reads its input and its weight
 * once and writes its output once; frozen norm, bias, activation, additions and positions ride along; a
 * residual is one read more. Backward the input's gradient takes dY, the weight and what is read again
 * (Y for a ReLU's mask), the weight's takes X and dY. Arithmetic is that of products: what vector units do
 * in norms, softmax and sampling is not counted.
 */

export type FeatureMap = readonly [channels: number, height: number, width: number];

/** Numbers and operations of one image. */
export interface Layer {
  flops: number;
  /** Of the input's gradient. */
  dxFlops: number;
  /** Read, written, of the weight, and of a residual. */
  x: number;
  y: number;
  weight: number;
  residual: number;
  /** Written in training alone, for the backward pass. */
  kept: number;
  /** Read by the backward pass, beside dY. */
  again: number;
  /** Gradients that are wanted. */
  dx: boolean;
  dweight: boolean;
}

interface LayerOptions {
  residual?: boolean;
  dx?: boolean;
  /** Its weight is that of a layer before. */
  shared?: boolean;
  /** The backward pass reads Y. */
  relu?: boolean;
}

export const half = (size: number) => Math.ceil(size / 2);
export const placesOf = ([, h, w]: FeatureMap) => h * w;

export class Walk {
  readonly layers: Layer[] = [];
  trained = 0;
  all = 0;
  /** Layers that come next are not trained. */
  frozen = false;

  conv(
    [channels, h, w]: FeatureMap,
    filters: number,
    kernel: number,
    { stride = 1, relu = true, ...options }: LayerOptions & { stride?: 1 | 2 | 4 } = {},
  ): FeatureMap {
    const [p, q] = [Math.ceil(h / stride), Math.ceil(w / stride)];
    const weight = channels * filters * kernel ** 2;
    const x = channels * (kernel === 1 ? p * q : h * w); // a strided 1×1 touches the pixels it keeps
    this.#product(weight, p * q, { x, y: filters * p * q }, { relu, ...options });
    return [filters, p, q];
  }

  linear(rows: number, inputs: number, outputs: number, options: LayerOptions = {}): void {
    this.#product(inputs * outputs, rows, { x: rows * inputs, y: rows * outputs }, options);
  }

  /** A layer before an activation whose backward pass wants its input, as GELU's. */
  keep(numbers: number): void {
    const before = this.layers.at(-1)!;
    before.kept += numbers;
    before.again += numbers;
  }

  /** Only traffic; a norm, for one, reads its input or its output again. */
  move(x: number, y: number, again = y): void {
    this.#add({ x, y, again });
  }

  /** LayerNorm of `numbers`, or of their sum with as many. */
  norm(numbers: number, { residual = false } = {}): void {
    this.#add({ x: numbers, y: numbers, residual: residual ? numbers : 0, again: numbers });
  }

  /**
   * Attention of `rows` to `keys` each, of `channels`, values of `valueChannels`: backward all is read again,
   * and the scores, which are not kept, are a fifth product.
   * @param sources of keys and values, where windows share none
   */
  attention(
    rows: number,
    keys: number,
    channels: number,
    { sources = keys, valueChannels = channels } = {},
  ): void {
    const flops = 2 * rows * keys * (channels + valueChannels);
    const x = rows * channels + sources * (channels + valueChannels);
    const y = rows * valueChannels;
    this.#add({ flops, dxFlops: 2.5 * flops, x, y, again: x + y });
  }

  /** What learned numbers choose, weigh or sample: the backward pass reads all of it again. */
  sample(x: number, y: number): void {
    this.#add({ x, y, again: x });
  }

  /** A product of activations: three of them backward. */
  matmul(batches: number, m: number, k: number, n: number): void {
    const flops = 2 * batches * m * k * n;
    const x = batches * (m * k + k * n);
    this.#add({ flops, dxFlops: 2 * flops, x, y: batches * m * n, again: x });
  }

  /** Parameters that no layer reads whole. */
  table(numbers: number): void {
    this.all += numbers;
    if (!this.frozen) this.trained += numbers;
  }

  #product(
    weight: number,
    places: number,
    { x, y }: { x: number; y: number },
    { residual = false, dx = true, shared = false, relu = false }: LayerOptions,
  ): void {
    const flops = 2 * weight * places;
    const traffic = { x, y, residual: residual ? y : 0, again: relu ? y : 0 };
    this.#add({ flops, dxFlops: flops, ...traffic, weight, dx, dweight: true });
    if (!shared) this.table(weight);
  }

  #add({ dx = true, dweight = false, ...layer }: Partial<Layer>): void {
    const none = { flops: 0, dxFlops: 0, x: 0, y: 0, weight: 0, residual: 0, kept: 0, again: 0 };
    const { frozen } = this;
    this.layers.push({ ...none, ...layer, dx: dx && !frozen, dweight: dweight && !frozen });
  }
}
