/** The walk round a student's views, from what a caller of an analysis says. */
import { ImageCache } from '../data/index.js';
import type { DetectionDataset, ImageRecord } from '../data/types.js';
import type { Detector } from '../detector/detector.js';
import type { TeachableDetector } from '../detector/types.js';
import { MixplError } from '../errors.js';
import { Random } from '../random.js';
import type { UnreadableOptions } from '../train/evaluate.js';
import { resolveTrainSettings, semiOptionsOf, type TrainSettingsInput } from '../train/settings.js';
import type { SampleOptions } from './annotated-images.js';
import { readablePictures, studentViews, type ViewStep } from './student-views.js';

/** Options of the analyses of a student's views. */
export interface StudentViewChoices extends SampleOptions, UnreadableOptions {
  /** Detector whose boxes are the pseudo labels. @defaultValue the student itself */
  teacher?: TeachableDetector | undefined;
  /** How views are drawn and mixed, as a training takes it. @defaultValue the paper's */
  settings?: Pick<TrainSettingsInput, 'augment' | 'semi' | 'batch'> | undefined;
  /** @defaultValue one of its own */
  cache?: ImageCache | undefined;
  /** Stops between batches, with its reason. */
  signal?: AbortSignal | undefined;
  /** Called with the number of images done, and of all. */
  onProgress?: ((done: number, total: number) => void) | undefined;
}

/** The student's views of those of the images that can be read; it goes round them for ever. */
export async function walkPictures(
  student: Detector,
  listed: readonly ImageRecord[],
  choices: StudentViewChoices,
): Promise<{ pictures: readonly ImageRecord[]; walk: AsyncGenerator<ViewStep> }> {
  const { seed = 0, cache = new ImageCache(), teacher = student, signal } = choices;
  const settings = resolveTrainSettings(choices.settings);
  const pictures = await readablePictures(listed, cache, choices);
  const walk = studentViews(pictures, {
    ...{ teacher, settings, cache, signal },
    semi: semiOptionsOf(settings, student.options.type),
    preprocess: student.preprocess,
    dtype: student.computeDtype,
    device: student.device,
    random: new Random(seed).fork('student views'),
  });
  return { pictures, walk };
}

/** The score that the run's pseudo labels are above, else the paper's. */
export function ownThreshold(student: Detector, { settings }: StudentViewChoices): number {
  return semiOptionsOf(resolveTrainSettings(settings), student.options.type).scoreThr;
}

/** @throws MixplError ERR_CONFIG */
export function checkClassCount(
  method: string,
  { numClasses }: TeachableDetector,
  { name, categories }: DetectionDataset,
): void {
  if (categories.length === numClasses) return;
  throw new MixplError(
    'ERR_CONFIG',
    `${method}: detector must have ${categories.length} classes (those of ${name}: ` +
      `${categories.map((category) => category.name).join(', ')}), got ${numClasses}`,
  );
}
