/** What a pass of loss() shows of itself: for analyses. Nothing of the detector changes by them. */
import { checkKeys } from '../arguments.js';
import { MixplError } from '../errors.js';
import type { Size, View } from '../image/index.js';
import type { NativeProbe } from '../native.js';
import type { InputImage, InputOptions } from './batch.js';
import type { Detector } from './detector.js';
import { flatTargets } from './pass.js';
import type { ImageBatch, Targets } from './types.js';

/**
 * A sample, which is an (anchor, class) entry: positive in the assignment by pseudo labels and by the
 * truth (tp), in the first alone (fp), in the second alone (fn), in none (tn).
 */
export const sampleTypes = ['tp', 'fp', 'fn', 'tn'] as const;
/** A type of sample: positive by both assignments, by one, by none. */
export type SampleType = (typeof sampleTypes)[number];

/** Samples by the norm of their gradient, g = |p - p*| in [0, 1]; exact counts. */
export interface GradientDensity {
  /** Bin b of n holds the norms in [b, b + 1) / n; the last one holds 1, too. */
  counts: Record<SampleType, Float64Array>;
  /** How many norms are above 0.5. */
  aboveHalf: Record<SampleType, number>;
}

/** What gradientDensity compares. */
export interface GradientDensityInput {
  /** What the images really show. */
  truth: readonly Targets[];
  /** Sets of pseudo labels, one per image each: say, one set a threshold. */
  pseudo: readonly (readonly Targets[])[];
  /** @defaultValue 30 */
  bins?: number;
}

/**
 * How large the gradients of the class scores are, by type of sample: for detectors whose class loss has
 * a sigmoid and a target of 0 or 1 for each class of each anchor or point (RetinaNet, FCOS, ATSS, PAA, and
 * TOOD before it aligns its tasks). Rows that either assignment ignores are left out. The network is as in
 * evaluation.
 * @param batch with all targets in its pixels, labels from 0
 * @returns a density for every set of `pseudo` and image
 * @throws MixplError ERR_CONFIG (another kind of class loss), ERR_RANGE, ERR_SHAPE, ERR_DIVERGED (NaN)
 */
export async function gradientDensity(
  detector: Detector,
  batch: ImageBatch,
  input: GradientDensityInput,
): Promise<GradientDensity[][]> {
  const method = 'gradientDensity';
  checkKeys(method, input, ['truth', 'pseudo', 'bins']);
  const { truth, pseudo, bins = 30 } = input;
  if (!Number.isInteger(bins) || bins < 1 || bins > 1000)
    throw new MixplError(
      'ERR_RANGE',
      `${method}: bins must be a whole number in [1, 1000], got ${bins}`,
    );
  const sets = pseudo.flatMap(flatTargets);
  const found = await detector.withPass(method, { images: batch, targets: truth }, (handle, pass) =>
    handle.gradientDensity(...pass, bins, ...sets),
  );
  return found.map(({ counts, aboveHalf }) =>
    truth.map((_, n) => ({
      counts: byType((t) => counts.slice((4 * n + t) * bins, (4 * n + t + 1) * bins)),
      aboveHalf: byType((t) => aboveHalf[4 * n + t]!),
    })),
  );
}

function byType<T>(of: (index: number) => T): Record<SampleType, T> {
  return Object.fromEntries(sampleTypes.map((type, t) => [type, of(t)])) as Record<SampleType, T>;
}

/** Numbers in rows. */
export interface HeatMap {
  height: number;
  width: number;
  /** [height, width], at least 0. */
  values: Float32Array;
}

/** Where the detector looks in one image for the objects that it was to find. */
export interface GradCam {
  /** Level of the pyramid, e.g. 'P3'. */
  level: string;
  /** Heat per pixel of the image: without padding for a batch, at its own size for an image. */
  heat: HeatMap;
  /** Heat per cell of the level, padding included. */
  cells: HeatMap;
  /** Anchors, points, regions or queries that were assigned to an object. */
  rows: number;
  /** Sum of their class logits: what the heat explains. */
  score: number;
}

export interface GradCamOptions extends InputOptions {
  /** A level of the pyramid, e.g. 'P3'. @defaultValue 'auto': of each image the one with most gradient */
  level?: string;
}

/**
 * Grad-CAM of every detector: y is the sum of the class logits of the rows that are assigned to an object
 * (anchors and points of all levels, regions of the last second stage, queries of the last layer); the mean
 * of dy / dfeature over the cells of a level of the pyramid weighs its channels, and the heat is what is
 * positive of their weighted sum. The network is as in evaluation.
 * @param images a batch (targets in its pixels, labels from 0), or images or arrays as loss() takes them
 * @throws MixplError ERR_RANGE (a level that is not there), ERR_CONFIG, ERR_DIVERGED, and as loss()
 * @source Selvaraju et al. 2017, arXiv:1610.02391
 */
export async function gradCam(
  detector: Detector,
  images: ImageBatch | readonly InputImage[],
  targets: readonly Targets[],
  options: GradCamOptions = {},
): Promise<GradCam[]> {
  checkKeys('gradCam', options, ['level', 'normalized', 'resized']);
  const { level = 'auto', ...input } = options;
  const number = level === 'auto' ? 0 : Number(/^P([1-9])$/.exec(level)?.[1]);
  if (Number.isNaN(number))
    throw new MixplError(
      'ERR_RANGE',
      `gradCam: level must be 'auto' or a level of the pyramid like 'P3', got '${level}'`,
    );
  return detector.withPass(
    'gradCam',
    { images, targets, options: input },
    async (handle, pass, views) => {
      const [tensor, sizes] = pass;
      const padded = { height: tensor.shape[1]!, width: tensor.shape[2]! };
      const maps = await handle.gradCam(...pass, number);
      return maps.map(({ level, height, width, heat, rows, score }, n) => {
        const cells = { height, width, values: heat };
        const seen = { height: sizes[2 * n]!, width: sizes[2 * n + 1]! };
        return {
          level: `P${level}`,
          heat: enlarged(cells, { padded, seen, shown: pictureSize(views?.[n]) ?? seen }),
          cells,
          rows,
          score,
        };
      });
    },
  );
}

function pictureSize(view: View | undefined): Size | undefined {
  return view && { height: view.layer.source.height, width: view.layer.source.width };
}

/**
 * Cells between pixels, bilinearly, the outermost ones to the edge.
 * @param padded what the cells cover; `seen` the part of it that is the image; `shown` the image's pixels
 */
function enlarged(
  cells: HeatMap,
  { padded, seen, shown }: { padded: Size; seen: Size; shown: Size },
): HeatMap {
  const places = (axis: 'height' | 'width') =>
    Array.from({ length: shown[axis] }, (_, i) => {
      const at = (((i + 0.5) * seen[axis]) / shown[axis]) * (cells[axis] / padded[axis]) - 0.5;
      const inside = Math.min(Math.max(at, 0), cells[axis] - 1);
      const low = Math.floor(inside);
      return { low, high: Math.min(low + 1, cells[axis] - 1), share: inside - low };
    });
  const columns = places('width');
  const values = new Float32Array(shown.height * shown.width);
  places('height').forEach((row, y) => {
    const above = row.low * cells.width;
    const below = row.high * cells.width;
    columns.forEach(({ low, high, share }, x) => {
      const top = mix(cells.values[above + low]!, cells.values[above + high]!, share);
      const bottom = mix(cells.values[below + low]!, cells.values[below + high]!, share);
      values[y * shown.width + x] = mix(top, bottom, row.share);
    });
  });
  return { height: shown.height, width: shown.width, values };
}

function mix(a: number, b: number, share: number): number {
  return a + (b - a) * share;
}

/** Everything that a pass of loss() shows, on the host: for tests and other analyses. @internal */
export function probePass(
  detector: Detector,
  images: ImageBatch | readonly InputImage[],
  targets: readonly Targets[],
): Promise<NativeProbe> {
  return detector.withPass('probe', { images, targets }, (handle, pass) => handle.probe(...pass));
}
