import type {
  BufferPolicy,
  Detections,
  DetectorState,
  ImageBatch,
  Targets,
  TeachableDetector,
} from '../../../lib/detector/types.js';
import { MixplError } from '../../../lib/errors.js';

export interface Call {
  who: string;
  what: string;
  [detail: string]: unknown;
}

/** What a fake predicts for a batch; the default finds nothing. */
export type Prediction = (batch: ImageBatch) => Detections[] | Promise<Detections[]>;

/**
 * A detector of one weight: loss = mean pixel × weight + number of boxes × bias term, momentum SGD. It
 * reads the composed pixels, so that its losses depend on everything that made them. Records every
 * call and refuses orders that the contract forbids.
 */
export class FakeDetector implements TeachableDetector {
  readonly calls: Call[];
  readonly who: string;
  readonly numClasses: number;
  weight = 0.5;
  momentum = 0;
  gradient = 0;
  predict_: Prediction = (batch) => batch.sizes.map(() => ({ ...noDetections() }));
  /** Replaces the value of the next loss. */
  nextLoss: number | undefined;
  disposed = false;
  #graph: number | null = null;

  constructor({ who = 'student', numClasses = 3, calls = [] as Call[] } = {}) {
    this.who = who;
    this.numClasses = numClasses;
    this.calls = calls;
  }

  async loss(batch: ImageBatch, targets: readonly Targets[]): Promise<Record<string, number>> {
    if (this.#graph !== null) throw new Error('loss called with a graph alive');
    if (targets.length !== batch.sizes.length) throw new Error('one target per image');
    const pixels = (await batch.tensor.read()) as Float32Array;
    const mean = pixels.reduce((sum, v) => sum + v, 0) / pixels.length / 100;
    const boxes = targets.reduce((sum, t) => sum + t.boxes.reduce((a, b) => a + b, 0), 0) / 1000;
    this.record('loss', {
      sizes: batch.sizes,
      padSizes: batch.padSizes,
      labels: targets.map((t) => [...t.labels]),
      boxes: targets.map((t) => [...t.boxes]),
    });
    this.#graph = mean + 0.1 * boxes;
    const value = this.nextLoss ?? this.weight * mean;
    this.nextLoss = undefined;
    return { loss_cls: value, loss_bbox: this.weight * 0.1 * boxes, acc: 7 };
  }

  async backward({ weight = 1 } = {}): Promise<void> {
    if (this.#graph === null) throw new Error('backward without a graph');
    this.record('backward', { weight });
    this.gradient += weight * this.#graph;
    this.#graph = null;
  }

  async discard(): Promise<void> {
    this.record('discard');
    this.#graph = null;
  }

  async step({ lr }: { lr: number }): Promise<{ gradNorm: number }> {
    if (this.#graph !== null) throw new Error('step with a graph alive');
    this.record('step', { lr });
    const gradNorm = Math.abs(this.gradient);
    if (!Number.isFinite(gradNorm)) {
      this.gradient = 0;
      throw new MixplError('ERR_DIVERGED', 'step: the gradient is not finite');
    }
    this.momentum = Math.fround(0.9 * this.momentum + this.gradient);
    this.weight = Math.fround(this.weight - lr * this.momentum);
    this.gradient = 0;
    return { gradNorm };
  }

  async predict(batch: ImageBatch): Promise<Detections[]> {
    this.record('predict', { sizes: batch.sizes });
    return this.predict_(batch);
  }

  async createTeacher(): Promise<FakeDetector> {
    this.record('createTeacher');
    const teacher = new FakeDetector({
      who: 'teacher',
      numClasses: this.numClasses,
      calls: this.calls,
    });
    teacher.weight = this.weight;
    teacher.predict_ = this.predict_;
    return teacher;
  }

  async ema(student: FakeDetector, momentum: number, { buffers = 'skip' } = {}): Promise<void> {
    this.record('ema', { momentum, buffers });
    this.weight = Math.fround((1 - momentum) * this.weight + momentum * student.weight);
  }

  async state(): Promise<DetectorState> {
    return new Map([
      ['weight', { shape: [1], data: Float32Array.of(this.weight) }],
      ['optimizer.momentum', { shape: [1], data: Float32Array.of(this.momentum) }],
    ]);
  }

  async loadState(state: DetectorState): Promise<void> {
    const weight = state.get('weight');
    if (!weight) throw new MixplError('ERR_CHECKPOINT', 'fake.loadState: weight: missing');
    this.weight = weight.data[0]!;
    this.momentum = state.get('optimizer.momentum')?.data[0] ?? 0;
  }

  dispose(): void {
    this.disposed = true;
  }

  protected record(what: string, details: object = {}): void {
    if (this.disposed) throw new MixplError('ERR_DISPOSED', `fake.${what}: disposed`);
    this.calls.push({ who: this.who, what, ...details });
  }
}

/** One whose step() reads the losses of all passes. */
export class DeferredDetector extends FakeDetector {
  /** The pass of the next step whose loss is NaN. */
  badPass: number | undefined;
  #losses: Record<string, number>[] = [];
  #read: Record<string, number>[] = [];

  async forward(batch: ImageBatch, targets: readonly Targets[]): Promise<void> {
    if (this.#losses.length === this.badPass) this.nextLoss = Number.NaN;
    this.#losses.push(await this.loss(batch, targets));
  }

  async lossValues(): Promise<Record<string, number>[]> {
    this.record('lossValues');
    return this.#read;
  }

  async zeroGradients(): Promise<void> {
    this.record('zeroGradients');
    this.gradient = 0;
    this.#losses = [];
  }

  override async step(options: { lr: number }): Promise<{ gradNorm: number }> {
    this.#read = this.#losses;
    this.#losses = [];
    if (this.#read.some(({ loss_cls }) => Number.isNaN(loss_cls))) this.gradient = Number.NaN;
    return super.step(options);
  }
}

/** A teacher that takes its student's step and its own at once. */
export class SteppingTeacher extends FakeDetector {
  async stepStudent(
    student: FakeDetector,
    { lr, momentum, buffers }: { lr: number; momentum: number; buffers: BufferPolicy },
  ): Promise<{ gradNorm: number }> {
    this.record('stepStudent');
    const report = await student.step({ lr });
    await this.ema(student, momentum, { buffers });
    return report;
  }
}

export function noDetections(): Detections {
  return {
    boxes: new Float32Array(0),
    scores: new Float32Array(0),
    labels: new Int32Array(0),
  };
}

/** Detections from rows of [x1, y1, x2, y2, score, label]. */
export function detections(...rows: number[][]): Detections {
  return {
    boxes: Float32Array.from(rows.flatMap((r) => r.slice(0, 4))),
    scores: Float32Array.from(rows, (r) => r[4]!),
    labels: Int32Array.from(rows, (r) => r[5]!),
  };
}

/** One whose boxes are read later. */
export class PatientTeacher extends FakeDetector {
  #found: Detections[][] = [];

  async predictLater(batch: ImageBatch): Promise<void> {
    this.record('predictLater', { sizes: batch.sizes });
    this.#found.push(await this.predict_(batch));
  }

  async predictions(): Promise<Detections[][]> {
    this.record('predictions');
    return this.#found.splice(0);
  }
}
