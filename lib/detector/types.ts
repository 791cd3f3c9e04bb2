import type { ImageBatch } from '../image/compose.js';
import type { ProcessGroup } from '../processes/index.js';
import type { StoredTensor } from '../safetensors.js';

export type { ImageBatch, Size } from '../image/compose.js';

/** What the network should find in one image. */
export interface Targets {
  /** [4 G] xyxy, pixels of the network input. */
  boxes: Float32Array;
  /** [G], 0 … K-1. */
  labels: Int32Array;
}

/** What the network found in one image, best first. */
export interface Detections {
  /** [4 n] xyxy. */
  boxes: Float32Array;
  /** [n] in [0, 1]. */
  scores: Float32Array;
  /** [n], 0 … K-1. */
  labels: Int32Array;
}

/** How a teacher treats what no gradient reaches (BatchNorm statistics). */
export type BufferPolicy = 'skip' | 'copy' | 'average';

/** Tensors by name: parameters, buffers and "optimizer." state, as a checkpoint keeps them. */
export type DetectorState = Map<string, StoredTensor>;

/** A prepared batch with what is in its images. */
export interface LabelledBatch {
  batch: ImageBatch;
  targets: readonly Targets[];
}

/**
 * What the MeanTeacher loop needs of a detector. Implement it to teach a detector of your own; the
 * loop calls the methods in the order loss → backward (or discard), …, step, and never two at once.
 */
export interface TeachableDetector {
  readonly numClasses: number;
  /** Forward pass in training mode; keeps its graph until backward() or discard(). Named scalars. */
  loss(batch: ImageBatch, targets: readonly Targets[]): Promise<Record<string, number>>;
  /**
   * With lossValues(), optional: loss() whose values are not waited for, so that a GPU has its work in
   * front of it all the time. step() looks at them and refuses when one is not finite.
   */
  forward?(batch: ImageBatch, targets: readonly Targets[]): Promise<void>;
  /** After step(), also one that failed: what loss() would have given for each of its forward(), in order. */
  lossValues?(): Promise<Record<string, number>[]>;
  /**
   * Optional: forward() of several batches in one graph. backward() then takes a weight for each, and
   * lossValues() has an entry for each.
   */
  forwardTogether?(passes: readonly LabelledBatch[]): Promise<void>;
  /**
   * With sumGradients(), for a training of several processes: what passes draw at random from here on follows
   * from the number of the part, whichever process has it.
   */
  startPart?(part: number): Promise<void>;
  /** Optional: gradients become their sums over the processes, and statistics of normalisation their means. */
  sumGradients?(processes: ProcessGroup): Promise<void>;
  /** Optional: forgets the gradients of a step that will not be made. */
  zeroGradients?(): Promise<void>;
  /**
   * Adds weight (default 1) times the gradient of the last loss() and frees its graph.
   * @param options.weights one for each pass of forwardTogether(), instead of `weight`
   */
  backward(options?: { weight?: number; weights?: readonly number[] }): Promise<void>;
  /** Frees the graph of the last loss() without a backward pass. */
  discard(): Promise<void>;
  /**
   * Clips, updates, clears the gradients. `lr` is the rate of parameters without a factor of their own.
   * @returns the gradient's L2 norm before clipping
   * @throws MixplError ERR_DIVERGED on a non-finite gradient or loss of forward(); the weights stay as they
   *   were, the gradients are cleared
   */
  step(options: { lr: number }): Promise<{ gradNorm: number }>;
  /** Detections per image in evaluation mode, in pixels of the network input. */
  predict(batch: ImageBatch): Promise<Detections[]>;
  /**
   * With predictions(), optional: predict() whose boxes are not waited for, so that a GPU learns from
   * labelled images while the teacher's boxes are on their way.
   */
  predictLater?(batch: ImageBatch): Promise<void>;
  /** What predict() would have given for every predictLater() so far, in order, each once. */
  predictions?(): Promise<Detections[][]>;
  /** A copy with the same weights that is never trained by gradient. */
  createTeacher(): Promise<TeachableDetector>;
  /** On the teacher: this = (1 - momentum) this + momentum student, over parameters; buffers by policy. */
  ema(
    student: TeachableDetector,
    momentum: number,
    options?: { buffers?: BufferPolicy },
  ): Promise<void>;
  /**
   * On the teacher, optional: student.step({ lr }), then ema(student, momentum, { buffers }) in one, so that
   * a GPU has both before it is waited for.
   * @throws as step(), and then the teacher stays as it was, too
   */
  stepStudent?(
    student: TeachableDetector,
    options: { lr: number; momentum: number; buffers: BufferPolicy },
  ): Promise<{ gradNorm: number }>;
  /** Everything a checkpoint needs. */
  state(): Promise<DetectorState>;
  /** Restores what state() gave. @throws MixplError ERR_CHECKPOINT listing what does not fit */
  loadState(state: DetectorState): Promise<void>;
  /** Frees the detector's memory; calls already made still finish. Idempotent. */
  dispose(): void;
}
