import type { PreprocessOptions } from '../augment/index.js';
import type { DecodedImage, DetectionDataset } from '../data/types.js';
import type { ProcessGroup } from '../processes/index.js';
import type { CachedView, MixingPolicy } from '../semi/index.js';
import type { ValidationProgress } from './events.js';
import type { TrainSettingsInput } from './settings.js';
import type { BatchAndRate } from './watch.js';

/** What trainSemiSupervised takes. */
export interface TrainOptions {
  data: {
    labelled: DetectionDataset;
    /**
     * Needed by every method but 'supervised'. Nothing is learned from its annotations: where it has some, of
     * the classes of `labelled`, pseudo labels are compared with them (PseudoLabelReport.truth).
     */
    unlabelled?: DetectionDataset | null;
    /** Read with `purpose: 'evaluation'`. Without one nothing is evaluated. */
    test?: DetectionDataset | null;
  };
  /** What is left out is the paper's. */
  settings?: TrainSettingsInput;
  /** Defaults to the detector's own, else to ImageNet's statistics. */
  preprocess?: PreprocessOptions;
  /** Type of the images that the detector takes. Defaults to the detector's own, else f32. */
  dtype?: 'f32' | 'bf16';
  /** Where they are composed. Defaults to the detector's own, else the CPU. */
  device?: string;
  /** Folder for metrics, checkpoints and the best weights; without one nothing is written. */
  out?: string;
  /** true: continue from the newest checkpoint in `out`, if there is one; a path: from that checkpoint. */
  resume?: boolean | string;
  /** Options that may differ from the checkpoint's, e.g. `schedule.iterations`. */
  allowChanges?: readonly string[];
  /** The whole config that the run was made from: recorded and compared instead of `settings`. */
  config?: Record<string, unknown>;
  /** The batch and rate that the recipe was tuned for: a warning says when the run's do not fit. */
  recipe?: BatchAndRate | null;
  /**
   * Defaults to MixPL, or nothing but the strong views, by `settings.semi`. Each of several parts
   * (`batch.accumulate`) has one of its own: then a function that makes them.
   */
  policy?: MixingPolicy<CachedView> | (() => MixingPolicy<CachedView>);
  /**
   * Labelled images that cannot be decoded end the run, or are replaced and told, as unlabelled ones
   * always are; test images end it, or are left out of the metrics and told. @defaultValue 'refuse'
   */
  unreadable?: 'refuse' | 'skip';
  /**
   * Labelled images of another size than their record, which boxes would not fit: end the run, are
   * replaced and told, or are used, of which the first is told. @defaultValue 'refuse'
   */
  sizeMismatch?: 'refuse' | 'skip' | 'keep';
  /**
   * The pixels of an image by its record's path, which need not be that of a file. They are kept: nobody may write into
   * them or transfer them afterwards. @defaultValue decodeImage
   */
  decode?: (path: string) => Promise<DecodedImage>;
  /** Goes into every weights file. */
  metadata?: Record<string, string>;
  /**
   * Processes that train together: each makes this call with the same options, a detector of its own with the same
   * weights, and takes the events, which are the same in all. Each has an equal number of the parts of an iteration
   * (`batch.accumulate`) and a share of the test images; rank 0 writes the files. An error in one, or a loop that
   * is left, ends all of them with ERR_PROCESS, without a checkpoint. @defaultValue this process alone
   */
  processes?: ProcessGroup | null;
  /** Called between the batches of a validation. */
  onValidating?: (progress: ValidationProgress) => void;
  /** The step under way is finished and a checkpoint written before the iterator ends. */
  signal?: AbortSignal;
}
