import { abortable, checkSignal } from '../abort.js';
import { checkKeys, checkPath } from '../arguments.js';
import { MixplError } from '../errors.js';
import {
  composeBatch,
  compositionOf,
  type DecodedImage,
  mapBoxes,
  resizedView,
  testView,
  type View,
} from '../image/index.js';
import {
  type NativeCancellation,
  type NativeDetector,
  type NativeTensor,
  type NativeTrace,
  native,
  optionsJson,
} from '../native.js';
import type { ProcessGroup } from '../processes/index.js';
import { type StoredTensor, writeSafetensors } from '../safetensors.js';
import { rangesInTurns, unsetFloats } from '../turns.js';
import type { LayoutName } from '../weights/layouts.js';
import {
  batchOfArrays,
  type InputImage,
  type InputOptions,
  inputOptions,
  type NormalizedImage,
  type PredictOptions,
} from './batch.js';
import { CallOrder, inTurn, now } from './call-order.js';
import type { DetectorPreprocess } from './create.js';
import type { DtypeChoice } from './dtype.js';
import type { DetectorOptions } from './options.js';
import {
  boxesIn,
  checkTargets,
  flatten,
  isBatch,
  type NativePass,
  ownLabels,
  passOf,
} from './pass.js';
import type {
  BufferPolicy,
  Detections,
  DetectorState,
  ImageBatch,
  LabelledBatch,
  Size,
  Targets,
  TeachableDetector,
} from './types.js';
import {
  type ExportLayout,
  exportWriter,
  type LoadedWeights,
  type LoadWeightsOptions,
  parameterNamed,
  readWeights,
} from './weights.js';

/** Shape, kind and name of one parameter or buffer. */
export interface ParameterInfo {
  /** Path in mmdetection's manner, e.g. `backbone.layer1.0.conv1.weight`. */
  name: string;
  /** Weights are OHWI. */
  shape: number[];
  kind: 'weight' | 'buffer';
  /** Part of a normalisation layer. */
  norm: boolean;
  trainable: boolean;
}

/** Activations and products: f32, f32 with the products of TF32, or bf16. */
export type ComputeType = 'f32' | 'tf32' | 'bf16';

/** Input of loss(). */
export interface PassInput {
  images: ImageBatch | readonly InputImage[];
  targets: readonly Targets[];
  options?: InputOptions;
}

interface ResolvedRuntime {
  device: string;
  dtype: ComputeType;
  /** What was asked for. */
  asked: DtypeChoice;
  seed: number;
  preprocess: DetectorPreprocess;
  /** What the API calls class 0. */
  firstLabel: number;
}

/** A native detector; its calls are queued on its device and run in the order in which they are made. */
export class Detector implements TeachableDetector, AsyncDisposable {
  readonly #handle: NativeDetector;
  readonly options: DetectorOptions;
  readonly #runtime: ResolvedRuntime;
  readonly #order = new CallOrder();

  /** @internal use createDetector */
  constructor(handle: NativeDetector, options: DetectorOptions, runtime: ResolvedRuntime) {
    this.#handle = handle;
    this.options = options;
    this.#runtime = runtime;
  }

  /** How images become the network's input. */
  get preprocess(): DetectorPreprocess {
    return this.#runtime.preprocess;
  }
  /** Object classes, without background. */
  get numClasses(): number {
    return this.options.numClasses;
  }
  /** Data type of activations and products: what 'auto' became. */
  get dtype(): ComputeType {
    return this.#runtime.dtype;
  }
  /** Type of activations; image batches are composed in it. */
  get computeDtype(): 'f32' | 'bf16' {
    return this.dtype === 'bf16' ? 'bf16' : 'f32';
  }
  /** Where it computes: 'cpu', 'cuda:0', …; batches that are composed there need not be copied. */
  get device(): string {
    return this.#runtime.device;
  }

  /** Every parameter and buffer, in order of construction. */
  parameters(): ParameterInfo[] {
    return this.#handle.parameters();
  }

  /** What loss() and predict() call class 0 where they take images or arrays. */
  get firstLabel(): number {
    return this.#runtime.firstLabel;
  }

  /**
   * Forward pass in training mode; keeps its graph until backward() or discard().
   * @param images a prepared batch with targets in its pixels (labels from 0), or images or arrays with
   *   targets in theirs (labels from firstLabel)
   * @returns named scalars
   * @throws MixplError ERR_SHAPE, ERR_DTYPE, ERR_RANGE (labels beyond the classes, boxes without area)
   */
  async loss(
    images: ImageBatch | readonly InputImage[],
    targets: readonly Targets[],
    options: InputOptions = {},
  ): Promise<Record<string, number>> {
    return this.withPass('loss', { images, targets, options }, (handle, pass) =>
      handle.loss(...pass),
    );
  }

  /**
   * Queues a pass over images as loss() takes them.
   * @param queue `views`: of images that were resized
   * @internal
   */
  async withPass<T>(
    method: string,
    input: PassInput,
    queue: (handle: NativeDetector, pass: NativePass, views: View[] | null) => Promise<T>,
  ): Promise<T> {
    const { images, targets, options = {} } = input;
    if (isBatch(method, images)) {
      const [tensor, ...rest] = passOf(method, images, targets);
      return this.#nowWith([tensor], ([held]) => queue(this.#handle, [held!, ...rest], null));
    }
    checkTargets(method, targets, images.length);
    const { firstLabel: first, numClasses: classes } = this;
    const wanted = targets.map(({ boxes, labels }, image) => ({
      boxes: boxes.slice(),
      labels: ownLabels(labels, { method, image, first, classes }),
    }));
    return this.#withBatch(method, { images, options }, ({ batch, views }) => {
      const own = wanted.map((target, i) => {
        const view = views?.[i];
        const boxes = view
          ? boxesIn(view, target.boxes, { method, picture: images[i]!, image: i })
          : target.boxes;
        return { labels: target.labels, boxes };
      });
      return queue(this.#handle, passOf(method, batch, own), views);
    });
  }

  /** Queues a call in call order. */
  #now<T>(queue: () => Promise<T>): Promise<T> {
    return now([this.#order], queue);
  }
  /** Queues one that has something to wait for. */
  #after<P, T>(ready: Promise<P>, queue: (prepared: P) => Promise<T>): Promise<T> {
    return inTurn([this.#order], ready, queue);
  }
  /** Queues one that reads tensors, which the caller may dispose of while the call waits. */
  #nowWith<T>(
    tensors: readonly NativeTensor[],
    queue: (held: readonly NativeTensor[]) => Promise<T>,
  ): Promise<T> {
    if (!this.#order.waiting) return queue(tensors);
    const held = tensors.map((tensor) => tensor.retain());
    return this.#now(() => queue(held)).finally(() => {
      for (const tensor of held) tensor.dispose();
    });
  }

  /** Prepares images or arrays, queues the job in call order, and lets go of the batch after it. */
  async #withBatch<T>(
    method: string,
    { images, options }: { images: readonly InputImage[]; options: InputOptions },
    queue: (input: { batch: ImageBatch; views: View[] | null }) => Promise<T>,
  ): Promise<T> {
    const ready = this.#prepare(method, images, options);
    try {
      return await this.#after(ready, queue);
    } finally {
      await ready.then(
        ({ batch }) => batch.dispose(),
        () => undefined,
      );
    }
  }

  /** The network's input, and the views where images were resized. */
  async #prepare(
    method: string,
    images: readonly InputImage[],
    options: InputOptions,
  ): Promise<{ batch: ImageBatch; views: View[] | null }> {
    const { normalized, resized } = inputOptions(method, images, options);
    const { preprocess, computeDtype: dtype, device } = this;
    if (normalized) {
      const batch = batchOfArrays(images as NormalizedImage[], { ...preprocess, dtype, device });
      return { batch, views: null };
    }
    const pictures = images as readonly DecodedImage[];
    const views = pictures.map((image, i) =>
      resized[i] ? resizedView(image, image) : testView(image, preprocess.resize),
    );
    const batch = await composeBatch(views.map(compositionOf), {
      ...preprocess,
      dtype,
      device,
      padTo: 'image',
    });
    return { batch, views };
  }

  /**
   * The forward pass of a prepared batch without a wait for its losses: step() reads them, and lossValues()
   * has them then; for loops of several passes a step.
   * @throws as loss()
   */
  async forward(batch: ImageBatch, targets: readonly Targets[]): Promise<void> {
    await this.forwardTogether([{ batch, targets }]);
  }

  /**
   * forward() of several batches in one graph, for which backward() takes a weight each: a GPU convolves
   * all of them at once in the backbone and the neck, heads see them one by one. Losses and gradients are
   * those of one forward() and backward() after the other but for rounding; the graph holds all of them.
   * @param passes 1 to 8 of them
   * @throws as loss(); MixplError ERR_SHAPE for none or too many
   */
  async forwardTogether(passes: readonly LabelledBatch[]): Promise<void> {
    if (!passes.length)
      throw new MixplError(
        'ERR_SHAPE',
        'detector.forward: passes must have at least one entry, got none',
      );
    const all = passes.map(({ batch, targets }) => passOf('forward', batch, targets));
    await this.#nowWith(
      all.map(([tensor]) => tensor),
      (held) => this.#handle.forward(...all.flatMap(([, ...rest], i) => [held[i], ...rest])),
    );
  }

  /**
   * Named scalars of every forward() of the step just made, or of those since it; in order, each once, and
   * no more than the last 256. Before step() a GPU has to be waited for.
   */
  async lossValues(): Promise<Record<string, number>[]> {
    return this.#now(() => this.#handle.lossValues());
  }

  /**
   * Adds weight times the gradient of the last pass to what has gathered, and frees its graph.
   * @param options.weight of a pass that was made alone
   * @param options.weights one for each pass of forwardTogether()
   * @throws MixplError ERR_STATE without a graph; ERR_SHAPE for weights that are not as many as the passes
   */
  async backward(options: { weight?: number; weights?: readonly number[] } = {}): Promise<void> {
    checkKeys('detector.backward', options, ['weight', 'weights']);
    const { weight = 1, weights = [weight] } = options;
    await this.#now(() => this.#handle.backward(Float32Array.from(weights)));
  }

  /**
   * What passes draw at random from here on follows from the number of the part alone, not from those before:
   * for processes that share the parts of an iteration.
   * @param part in [0, 2^31). @throws MixplError ERR_RANGE
   */
  async startPart(part: number): Promise<void> {
    await this.#now(() => this.#handle.startPart(part));
  }

  /**
   * Gradients become their sums over the processes, the same bits in all of them, and BatchNorm's live statistics
   * their means. Every process calls it, on the same detector.
   * @throws MixplError ERR_PROCESS when one has gone, ERR_CONFIG for another detector, ERR_STATE without what sums
   */
  async sumGradients(processes: ProcessGroup): Promise<void> {
    const own = await this.#now(() => this.#handle.reached());
    const all = await processes.allGather(own);
    if (all.some(({ length }) => length !== own.length))
      throw new MixplError(
        'ERR_CONFIG',
        `detector.sumGradients: all detectors must have the same number of parameters, got ${all.map(({ length }) => length).join(', ')}`,
      );
    const reached = own.map((_, i) => Number(all.some((one) => one[i])));
    try {
      const collective = await processes.collective(this.device);
      await this.#now(() => this.#handle.sumGradients(collective, reached));
    } catch (error) {
      throw await processes.explain(error);
    }
  }

  /**
   * The steps of predict() for one image of a size, which lies in an input of a size.
   * @throws MixplError ERR_CONFIG for a detector of which a part cannot be written down
   * @internal
   */
  async trace(input: Size, picture: Size): Promise<NativeTrace> {
    return this.#now(() =>
      this.#handle.trace(input.height, input.width, picture.height, picture.width),
    );
  }

  async discard(): Promise<void> {
    await this.#now(() => this.#handle.discard());
  }

  /**
   * Clips, updates, clears the gradients; a GPU is waited for once, for the norm and the losses of forward().
   * @returns the gradient's L2 norm before clipping
   * @throws MixplError ERR_DIVERGED when one of them is not finite: the weights stay, the gradients are cleared
   */
  async step(options: { lr: number }): Promise<{ gradNorm: number }> {
    checkKeys('detector.step', options, ['lr']);
    return { gradNorm: await this.#now(() => this.#handle.step(options.lr)) };
  }

  /**
   * Detections per image, best first, in evaluation mode.
   * @param images a prepared batch (boxes in its pixels, labels from 0), or images or arrays (boxes in
   *   theirs, labels from firstLabel); pixels are those of the call
   * @throws MixplError ERR_SHAPE, ERR_DTYPE, ERR_CONFIG, ERR_DISPOSED; the reason of `options.signal`
   */
  predict<const I extends readonly InputImage[]>(
    images: I,
    options?: PredictOptions,
  ): Promise<{ -readonly [K in keyof I]: Detections }>;
  predict(
    images: ImageBatch | readonly InputImage[],
    options?: PredictOptions,
  ): Promise<Detections[]>;
  async predict(
    images: ImageBatch | readonly InputImage[],
    options: PredictOptions = {},
  ): Promise<Detections[]> {
    checkKeys('predict', options, ['normalized', 'resized', 'signal']);
    const { signal, ...input } = options;
    checkSignal('predict', signal);
    signal?.throwIfAborted();
    const cancellation = signal && native.cancellation();
    const work = this.#predict({ images, options: input }, cancellation);
    return abortable(signal, work, { cancel: () => cancellation?.cancel() });
  }

  async #predict(
    { images, options }: Omit<PassInput, 'targets'>,
    cancellation?: NativeCancellation,
  ): Promise<Detections[]> {
    if (isBatch('predict', images)) {
      const sizes = flatten(images.sizes);
      return this.#nowWith([images.tensor], ([held]) =>
        this.#handle.predict(held!, sizes, cancellation),
      );
    }
    return this.#withBatch(
      'predict',
      { images, options: options ?? {} },
      async ({ batch, views }) => {
        const found = await this.#handle.predict(batch.tensor, flatten(batch.sizes), cancellation);
        return found.map(({ boxes, scores, labels }, i) => ({
          boxes: views ? mapBoxes(views[i]!.layer.map, boxes, images[i]!) : boxes,
          scores,
          labels: this.firstLabel ? labels.map((label) => label + this.firstLabel) : labels,
        }));
      },
    );
  }

  /**
   * predict() of a prepared batch without a wait for its boxes, which predictions() has. The weights and
   * the batch are those of now, whatever happens to them later.
   * @throws as predict()
   */
  async predictLater(batch: ImageBatch): Promise<void> {
    const sizes = flatten(batch.sizes);
    await this.#nowWith([batch.tensor], ([held]) => this.#handle.predictLater(held!, sizes));
  }

  /**
   * Boxes of every predictLater() so far, in order, each once, and no more than the last 256. A GPU is
   * waited for until it has them, not until it has done what it was given after them.
   */
  async predictions(): Promise<Detections[][]> {
    return this.#now(() => this.#handle.predictions());
  }

  async createTeacher(): Promise<Detector> {
    const { device, dtype, seed } = this.#runtime;
    const made = native.createDetector(
      optionsJson('createTeacher', this.options),
      device,
      dtype,
      seed,
    );
    await this.#after(made, (handle) => handle.ema(this.#handle, 1, 'copy'));
    return new Detector(await made, this.options, this.#runtime);
  }

  async ema(
    student: TeachableDetector,
    momentum: number,
    options: { buffers?: BufferPolicy } = {},
  ): Promise<void> {
    checkKeys('detector.ema', options, ['buffers']);
    const { buffers = 'skip' } = options;
    const { handle, orders } = this.#with(student);
    await now(orders, () => this.#handle.ema(handle, momentum, buffers));
  }

  /**
   * student.step({ lr }), then ema(student, momentum, { buffers }); a GPU is given both before it is waited
   * for. A step that is refused changes neither of the two.
   * @returns the gradient's L2 norm before clipping
   * @throws as step() and ema()
   */
  async stepStudent(
    student: TeachableDetector,
    options: { lr: number; momentum: number; buffers?: BufferPolicy },
  ): Promise<{ gradNorm: number }> {
    checkKeys('detector.stepStudent', options, ['lr', 'momentum', 'buffers']);
    const { lr, momentum, buffers = 'skip' } = options;
    const { handle, orders } = this.#with(student);
    const stepping = () => this.#handle.stepStudent(handle, lr, momentum, buffers);
    return { gradNorm: await now(orders, stepping) };
  }

  /** Of a call that concerns both: it has a place in the order of either. */
  #with(student: TeachableDetector): { handle: NativeDetector; orders: CallOrder[] } {
    if (!(student instanceof Detector))
      throw new MixplError('ERR_CONFIG', 'detector.ema: student must be a mixpl Detector');
    if (student === this)
      throw new MixplError('ERR_CONFIG', 'detector.ema: student must be another detector');
    return { handle: student.#handle, orders: [this.#order, student.#order] };
  }

  /**
   * Gradient gathered since the last step, or null. Weights OHWI; in another layout `name` is that
   * layout's, and so is the order (OIHW).
   * @throws MixplError ERR_RANGE unknown name
   */
  async gradient(
    name: string,
    options: { layout?: LayoutName } = {},
  ): Promise<Float32Array | null> {
    checkKeys('detector.gradient', options, ['layout']);
    const { layout = 'mixpl' } = options;
    const read = (own: string) => this.#now(() => this.#handle.gradient(own));
    if (layout === 'mixpl') return read(name);
    const { parameter, fromOwn } = parameterNamed(this, name, layout);
    const gradient = await read(parameter.name);
    return gradient && fromOwn(gradient);
  }

  /** Forgets the gradients gathered so far, and the losses of their forward(). */
  async zeroGradients(): Promise<void> {
    await this.#now(() => this.#handle.zeroGradients());
  }

  /** Values of one parameter, buffer or optimizer state. @throws MixplError ERR_RANGE unknown name */
  async readTensor(name: string): Promise<Float32Array> {
    return this.#now(() => this.#handle.read(name));
  }

  /** Overwrites one parameter, buffer or optimizer state. @throws MixplError ERR_SHAPE */
  async writeTensor(name: string, values: Float32Array): Promise<void> {
    const own = this.#order.waiting ? values.slice() : values;
    await this.#now(() => this.#handle.write(name, own));
  }

  /** All of one moment, whatever is called meanwhile. */
  async state(): Promise<DetectorState> {
    const parameters = this.parameters();
    const room = this.#optimizerState().then((lengths) => {
      const optimizer = Object.entries(lengths).map(([name, length]) => ({
        name,
        shape: [length],
      }));
      return roomFor([...parameters, ...optimizer]);
    });
    return this.#after(room, (tensors) => this.#fill(tensors));
  }

  #optimizerState(): Promise<Record<string, number>> {
    return this.#now(() => this.#handle.optimizerState());
  }

  /** Parameters and buffers, of one moment. */
  #weights(): Promise<DetectorState> {
    return this.#after(roomFor(this.parameters()), (tensors) => this.#fill(tensors));
  }

  /** Queues every read before it waits for one. The device's thread copies: here it would take long. */
  async #fill(tensors: DetectorState): Promise<DetectorState> {
    await Promise.all([...tensors].map(([name, { data }]) => this.#handle.readInto(name, data)));
    return tensors;
  }

  /**
   * Takes what state() gave: weights, buffers and, where both have one, the optimizer's state.
   * @param state must stay as it is until it is loaded
   * @throws MixplError ERR_DTYPE; ERR_CHECKPOINT with what does not fit, nothing is loaded then
   */
  async loadState(state: DetectorState): Promise<void> {
    if (!(state instanceof Map))
      throw new MixplError(
        'ERR_DTYPE',
        'detector.loadState: state must be a Map, as state() gives',
      );
    const values = this.#optimizerState().then((optimizer) => {
      const problems = this.#misfits(state, new Set(Object.keys(optimizer)));
      if (problems.length) throw misfit('detector.loadState: the weights do not fit', problems);
      return [...state].map(([name, { data }]) => [name, data] as const);
    });
    await this.#writeAll(values);
  }

  /** Queues the writes over several turns, as each copies its numbers, in one place of the call order. */
  async #writeAll(ready: Promise<Iterable<readonly [string, Float32Array]>>): Promise<void> {
    const turn = this.#now(async () => undefined); // all earlier calls are queued then
    const queued = Promise.all([ready, turn]).then(async ([values]) => {
      const writes: Promise<void>[] = [];
      for (const [name, numbers] of values)
        for await (const _ of rangesInTurns(1, numbers.length)) {
          const write = this.#handle.write(name, numbers);
          write.catch(() => undefined); // told when all are queued
          writes.push(write);
        }
      return writes;
    });
    await this.#after(queued, (writes) => Promise.all(writes));
  }

  /**
   * Writes parameters and buffers as safetensors in our own layout (weights OHWI), with the options
   * that rebuild the detector as metadata: openDetector reads it. Atomic.
   * @param metadata goes into the file too
   * @throws MixplError ERR_IO
   */
  async save(path: string, metadata: Readonly<Record<string, string>> = {}): Promise<void> {
    checkPath('detector.save', 'path', path);
    const tensors = await this.#weights();
    await writeSafetensors(path, tensors, { ...this.metadata(), ...metadata });
  }

  /**
   * Reads weights into this detector: what save() wrote, or a file of torchvision, mmdetection or timm,
   * as safetensors or as a checkpoint of torch.save (whose pickle is read without running anything).
   * Class layers are taken row by row: torchvision's has a row for the background before the others.
   * @throws MixplError ERR_IO, ERR_BAD_FILE, ERR_CONFIG, ERR_CHECKPOINT listing every name that is missing,
   *   unexpected, of another shape or not finite; then nothing was changed
   */
  async loadWeights(path: string, options: LoadWeightsOptions = {}): Promise<LoadedWeights> {
    const reading = readWeights(this, path, options);
    await this.#writeAll(reading.then(({ values }) => values));
    return (await reading).loaded;
  }

  /**
   * Writes parameters and buffers as safetensors under another library's names, weights OIHW; loading the
   * file gives the same bits. Atomic. (PyTorch's num_batches_tracked is not written.)
   * @throws MixplError ERR_IO, ERR_CONFIG (no such layout, or one without a name for a parameter)
   */
  async exportWeights(path: string, options: { layout: ExportLayout }): Promise<void> {
    checkPath('detector.exportWeights', 'path', path);
    checkKeys('detector.exportWeights', options, ['layout']);
    const write = exportWriter(this, options.layout);
    await write(path, await this.#weights(), this.metadata());
  }

  #misfits(tensors: ReadonlyMap<string, StoredTensor>, optional = new Set<string>()): string[] {
    const own = new Map(this.parameters().map((p) => [p.name, p.shape]));
    const problems: string[] = [];
    for (const [name, shape] of own) {
      const found = tensors.get(name);
      if (!found) problems.push(`${name}: missing`);
      else if (String(found.shape) !== String(shape))
        problems.push(`${name}: must be [${shape}], got [${found.shape}]`);
    }
    for (const name of tensors.keys())
      if (!own.has(name) && !optional.has(name)) problems.push(`${name}: unexpected`);
    return problems;
  }

  /** What a weights file says about itself: enough to rebuild the detector and its input. */
  metadata(): Record<string, string> {
    return {
      format: 'mixpl',
      layout: 'ohwi',
      detector: JSON.stringify(this.options),
      preprocess: JSON.stringify(this.preprocess),
      dtype: this.#runtime.asked,
      ...(this.firstLabel ? { firstLabel: String(this.firstLabel) } : {}),
    };
  }

  /** Frees the native memory; idempotent. Calls already made still finish. */
  dispose(): void {
    void this.#now(async () => this.#handle.dispose());
  }
  /** dispose(), for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.dispose();
  }
}

/** For so many numbers memory is taken in the time in which one is copied. */
const memoryPerWork = 8;

/** Arrays to be filled. Over several turns, as V8 collects garbage where much is taken. */
async function roomFor(
  tensors: readonly { name: string; shape: readonly number[] }[],
): Promise<DetectorState> {
  const room: DetectorState = new Map();
  for (const { name, shape } of tensors) {
    const count = shape.reduce((a, b) => a * b, 1);
    for await (const _ of rangesInTurns(1, count / memoryPerWork))
      room.set(name, { shape, data: unsetFloats(count) });
  }
  return room;
}

function misfit(what: string, problems: readonly string[]): MixplError {
  const shown = problems.slice(0, 10).join('; ');
  const more = problems.length > 10 ? `; and ${problems.length - 10} more` : '';
  return new MixplError('ERR_CHECKPOINT', `${what}: ${shown}${more}`);
}
