import type { CocoMetrics } from '../eval/index.js';
import type { StepReport } from '../semi/index.js';
import type { TrainingWarning } from './watch.js';

/** What the student learns from: annotations alone, before and without a teacher, or both. */
export type Phase = 'supervised' | 'burn-in' | 'semi-supervised';

/** After an iteration; metrics.jsonl has those of every `logging.interval`. */
export interface StepEvent extends StepReport {
  type: 'step';
  /** Steps done, this one included. */
  iteration: number;
  iterations: number;
  phase: Phase;
  /** Learning rate of parameters without a factor of their own. */
  lr: number;
  /** Over the last steps; waiting for data included. */
  imagesPerSecond: number;
  /** Seconds that the step took, and of them waiting for images. */
  seconds: number;
  dataSeconds: number;
  /** Seconds to the last iteration at the present rate, validations left out. */
  etaSeconds: number;
  /** Memory of the process, and of tensors on the student's device, in bytes. */
  memory: { rssBytes: number; tensorBytes: number; peakTensorBytes: number };
}

/** After the test images were looked at. */
export interface ValidationEvent {
  type: 'validation';
  iteration: number;
  /** Whose numbers count: the teacher's, once there is one that learns. */
  headline: 'teacher' | 'student';
  teacher: CocoMetrics | null;
  student: CocoMetrics;
  /** The best AP so far. */
  best: boolean;
}

/** How far a validation is; events wait for its end. */
export interface ValidationProgress {
  branch: 'teacher' | 'student';
  /** Test images looked at, of how many; of several processes, of this one's share. */
  done: number;
  total: number;
}

/** A checkpoint is on the disk. */
export interface CheckpointEvent {
  type: 'checkpoint';
  iteration: number;
  path: string;
}

/** Something that usually ends in a failed run. */
export interface WarningEvent extends TrainingWarning {
  type: 'warning';
  iteration: number;
}

/** The first event of a run that continues from a checkpoint. */
export interface ResumedEvent {
  type: 'resumed';
  iteration: number;
  path: string;
}

/** The last event. */
export interface EndEvent {
  type: 'end';
  iteration: number;
  /** 'aborted': the signal said so; everything up to `iteration` is in a checkpoint. */
  reason: 'finished' | 'aborted';
}

/** What trainSemiSupervised yields; `type` tells them apart. */
export type TrainEvent =
  | StepEvent
  | ValidationEvent
  | CheckpointEvent
  | WarningEvent
  | ResumedEvent
  | EndEvent;
