import { checkKeys, keysOf } from '../arguments.js';
import {
  type Composition,
  composeBatch,
  joinInstances,
  selectInstances,
} from '../augment/index.js';
import type { ImageRecord } from '../data/types.js';
import type { Detector } from '../detector/detector.js';
import { type GradCam, gradCam } from '../detector/probe.js';
import { MixplError } from '../errors.js';
import { matchObjects } from '../eval/matching.js';
import type { Instances } from '../image/index.js';
import {
  composeOptionsOf,
  type StudentView,
  targetsOf,
  type ViewName,
  type ViewStep,
} from './student-views.js';
import { ownThreshold, type StudentViewChoices, walkPictures } from './view-walk.js';

/** Options of camViews. */
export interface CamOptions extends Omit<StudentViewChoices, 'limit'> {
  /** Score threshold of pseudo labels. @defaultValue settings.semi.scoreThr, else the paper's */
  threshold?: number | undefined;
  /** Pyramid level, e.g. 'P3'. @defaultValue 'auto': in each view the level with the largest gradient */
  level?: string | undefined;
}

const optionKeys = keysOf<CamOptions>({
  ...{ teacher: 0, settings: 0, cache: 0, signal: 0 },
  ...{ onProgress: 0, seed: 0, unreadable: 0, onUnreadable: 0 },
  ...{ threshold: 0, level: 0 },
});

/** What the student looks at in one view. */
export interface CamView {
  composition: Composition;
  cam: GradCam;
  /** Annotated objects that a pseudo label found, … */
  found: Instances;
  /** … and those that none found; both empty where nothing is annotated. */
  missed: Instances;
  /** Pseudo labels that found no object; where nothing is annotated all of them are `unjudged`. */
  wrong: Instances;
  unjudged: Instances;
}

/** One image in every kind of view. */
export interface PictureCams {
  image: ImageRecord;
  /** The mosaic is the first one of a training's course that shows the image; null where none came. */
  views: Record<Exclude<ViewName, 'mosaic'>, CamView> & { mosaic: CamView | null };
}

/**
 * Grad-CAM of a student on images in each of its views, as the paper's Figures A8 and A9: what is explained
 * are the annotated objects, found by a pseudo label or not; where the images are not annotated, the pseudo
 * labels. A pseudo label is right that has an IoU of 0.5 with an object of its class in the same view.
 * @param images annotated, all of them, or none is taken to be
 * @throws MixplError ERR_RANGE (threshold, a level that is not there), ERR_BAD_FILE, ERR_IO; `signal.reason`
 */
export async function* camViews(
  student: Detector,
  images: readonly ImageRecord[],
  options: CamOptions = {},
): AsyncGenerator<PictureCams> {
  checkKeys('camViews', options, optionKeys);
  const { threshold = ownThreshold(student, options), level } = options;
  if (!(threshold >= 0 && threshold <= 1))
    throw new MixplError('ERR_RANGE', `camViews: threshold must be in [0, 1], got ${threshold}`);
  if (images.length === 0) return;
  const annotated = images.every(({ annotations }) => annotations);
  const { pictures, walk } = await walkPictures(student, images, options);
  const look = (view: StudentView) => camView(student, view, { threshold, level, annotated });

  const waiting = new Map<number, { step: ViewStep; at: number }>();
  let seen = 0;
  let done = 0;
  let rounds = 0; // batches after the last picture
  for await (const step of walk) {
    if (seen < pictures.length)
      for (const [at, position] of step.pictures.entries()) waiting.set(position, { step, at });
    else rounds++;
    seen += step.pictures.length;
    const [mosaic] = step.mosaic;
    // Of pictures that no mosaic shows by then none is to be expected.
    const last = rounds > 8;
    for (const [position, { step: own, at }] of waiting) {
      const shown = mosaic?.pictures.includes(position) ?? false;
      if (!shown && !last) continue;
      waiting.delete(position);
      yield {
        image: pictures[position]!,
        views: {
          weak: await look(own.weak[at]!),
          strong: await look(own.strong[at]!),
          mixup: await look(own.mixup[at]!),
          mosaic: shown ? await look(mosaic!) : null,
        },
      };
      done++;
      options.onProgress?.(done, pictures.length);
    }
    if (done === pictures.length) return;
  }
}

async function camView(
  student: Detector,
  { composition, pseudo, truth }: StudentView,
  {
    threshold,
    level,
    annotated,
  }: { threshold: number; level: string | undefined; annotated: boolean },
): Promise<CamView> {
  const labels = selectInstances(pseudo, (i) => pseudo.scores[i]! > threshold);
  const none = joinInstances([]);
  const batch = await composeBatch([composition], composeOptionsOf(student));
  try {
    const targets = [targetsOf(annotated ? truth : labels)];
    const [cam] = await gradCam(student, batch, targets, { ...(level !== undefined && { level }) });
    const view = { composition, cam: cam! };
    if (!annotated) return { ...view, found: none, missed: none, wrong: none, unjudged: labels };
    const crowd = new Uint8Array(truth.labels.length);
    const { boxOf, objectOf } = matchObjects(labels, { ...truth, crowd });
    return {
      ...view,
      found: selectInstances(truth, (j) => boxOf[j]! >= 0),
      missed: selectInstances(truth, (j) => boxOf[j]! < 0),
      wrong: selectInstances(labels, (i) => objectOf[i]! < 0),
      unjudged: none,
    };
  } finally {
    batch.dispose();
  }
}
