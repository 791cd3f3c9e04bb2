/** What is counted of pseudo labels, and of the objects that they should have found. */
import {
  type Matches,
  matchObjects,
  type ObjectBoxes,
  sizeNames,
  sizeOf,
  unmatched,
} from '../eval/matching.js';
import { identity3 } from '../geometry.js';
import { type Instances, mapBoxes, type Size } from '../image/index.js';

/** Values by COCO's sizes, in the order of `sizeNames`. */
export type BySize<T> = [small: T, medium: T, large: T];

/** Pseudo labels of some images. */
export interface PseudoLabelReport {
  images: number;
  /** Boxes above the threshold that the strong views show. */
  boxes: number;
  /** Images without a pseudo label. */
  emptyImages: number;
  /** Mean score of the pseudo labels; null without boxes. */
  meanScore: number | null;
  /** Highest score of any box of the teacher, pseudo label or not; null without boxes. */
  bestScore: number | null;
  perClass: number[];
  /** COCO's small, medium and large, by area in the original image. */
  bySize: BySize<number>;
  /** Of those images that somebody annotated; null without one. Nothing is learned from it. */
  truth: TruthReport | null;
}

/** Pseudo labels beside the objects that are there. */
export interface TruthCounts {
  boxes: number;
  /** Pseudo labels that found an object, see matchObjects. */
  right: number;
  /** Pseudo labels on crowds, neither right nor wrong. */
  onCrowd: number;
  /** Annotated objects, without crowds. */
  objects: number;
  /** Objects that a pseudo label found. */
  found: number;
}

/**
 * Pseudo labels and annotated objects of the same images. A label is right where the original image has
 * the object, and sizes are those in the original image; of both, those count that the strong
 * view shows, by the same rule: an object that the view has lost is no object that the student could be
 * told of. Without geometric augmentation that is all of them, as in the paper's Figures 2 and 3.
 */
export interface TruthReport extends TruthCounts {
  images: number;
  /** By label: of the pseudo label, of the object. */
  perClass: TruthCounts[];
  /** By size: of the pseudo label, of the object. */
  bySize: BySize<TruthCounts>;
}

/** Boxes of one image in the original's pixels, clipped to it, and which of them count. */
export interface CountedBoxes<Boxes> {
  readonly instances: Boxes;
  /** Whether box i is large enough to see, where the student looks. */
  readonly shown: (i: number) => boolean;
}

/** Annotated objects, and which box found which. */
interface MatchedObjects extends CountedBoxes<ObjectBoxes> {
  readonly matches: Matches;
}

/** What a teacher found in one image, and what is there where that is known. */
export interface JudgedPicture {
  readonly found: CountedBoxes<Instances>;
  readonly truth: MatchedObjects | null;
}

/** Objects clipped to their image, as a teacher's boxes are. */
export function clipped(objects: ObjectBoxes, picture: Size): ObjectBoxes {
  return { ...objects, boxes: mapBoxes(identity3, objects.boxes, picture) };
}

/** Matches all boxes, whatever their score: what one above a threshold takes is the same for every threshold. */
export function judgePicture(
  found: CountedBoxes<Instances>,
  truth: CountedBoxes<ObjectBoxes> | null,
): JudgedPicture {
  if (!truth) return { found, truth };
  return { found, truth: { ...truth, matches: matchObjects(found.instances, truth.instances) } };
}

/** The pseudo labels of images at a threshold. @param scoreThr a score must be above it */
export function countPseudoLabels(
  pictures: readonly JudgedPicture[],
  { numClasses, scoreThr }: { numClasses: number; scoreThr: number },
): PseudoLabelReport {
  const report: PseudoLabelReport = {
    images: pictures.length,
    boxes: 0,
    emptyImages: 0,
    meanScore: null,
    bestScore: null,
    perClass: new Array<number>(numClasses).fill(0),
    bySize: [0, 0, 0],
    truth: null,
  };
  let scores = 0;
  for (const { found, truth } of pictures) {
    const { boxes, labels, scores: all } = found.instances;
    for (const score of all) report.bestScore = Math.max(report.bestScore ?? 0, score);
    const isPseudoLabel = (i: number) => all[i]! > scoreThr && found.shown(i);
    if (truth) countTruth((report.truth ??= noTruth(numClasses)), found, truth, isPseudoLabel);
    const before = report.boxes;
    labels.forEach((label, i) => {
      if (!isPseudoLabel(i)) return;
      report.boxes++;
      scores += all[i]!;
      report.perClass[label]!++;
      report.bySize[sizeOf(boxes, i)]++;
    });
    if (report.boxes === before) report.emptyImages++;
  }
  if (report.boxes > 0) report.meanScore = scores / report.boxes;
  return report;
}

function countTruth(
  report: TruthReport,
  { instances }: CountedBoxes<Instances>,
  truth: MatchedObjects,
  isPseudoLabel: (i: number) => boolean,
): void {
  const { instances: objects, matches } = truth;
  const add = (
    of: { boxes: Float32Array; labels: Int32Array },
    i: number,
    counts: Partial<TruthCounts>,
  ) => {
    for (const group of [
      report,
      report.perClass[of.labels[i]!]!,
      report.bySize[sizeOf(of.boxes, i)],
    ])
      addCounts(group, counts);
  };
  report.images++;
  matches.objectOf.forEach((object, i) => {
    if (!isPseudoLabel(i)) return;
    const right = object >= 0 ? 1 : 0;
    add(instances, i, { boxes: 1, right, onCrowd: object === unmatched.onCrowd ? 1 : 0 });
  });
  matches.boxOf.forEach((box, j) => {
    if (objects.crowd[j] || !truth.shown(j)) return;
    add(objects, j, { objects: 1, found: box >= 0 && isPseudoLabel(box) ? 1 : 0 });
  });
}

/** The report of all images of several. */
export function sumReports(reports: readonly PseudoLabelReport[]): PseudoLabelReport | null {
  const [first] = reports;
  if (!first || reports.length === 1) return first ?? null;
  const total = (count: (report: PseudoLabelReport) => number) =>
    reports.reduce((sum, report) => sum + count(report), 0);
  const boxes = total((r) => r.boxes);
  const best = reports.flatMap((r) => r.bestScore ?? []);
  let truth: TruthReport | null = null;
  for (const report of reports)
    if (report.truth) addTruth((truth ??= noTruth(first.perClass.length)), report.truth);
  return {
    images: total((r) => r.images),
    boxes,
    emptyImages: total((r) => r.emptyImages),
    meanScore: boxes > 0 ? total((r) => r.boxes * (r.meanScore ?? 0)) / boxes : null,
    bestScore: best.length > 0 ? Math.max(...best) : null,
    perClass: first.perClass.map((_, label) => total((r) => r.perClass[label] ?? 0)),
    bySize: [0, 1, 2].map((size) => total((r) => r.bySize[size]!)) as BySize<number>,
    truth,
  };
}

/** Share of pseudo labels that are right, those on crowds aside; null without one. */
export function precisionOf({ boxes, onCrowd, right }: TruthCounts): number | null {
  return boxes > onCrowd ? right / (boxes - onCrowd) : null;
}

/** Share of objects that were found; null without one. */
export function recallOf({ objects, found }: TruthCounts): number | null {
  return objects > 0 ? found / objects : null;
}

/**
 * Numbers per image, as a line of metrics.jsonl has them.
 * @param classNames by label
 */
export function perImage(report: PseudoLabelReport, classNames: readonly string[]) {
  const { images, truth } = report;
  return {
    perImage: report.boxes / images,
    emptyShare: report.emptyImages / images,
    meanScore: report.meanScore,
    bestScore: report.bestScore ?? 0,
    perClass: named(classNames, (label) => (report.perClass[label] ?? 0) / images),
    ...named(sizeNames, (size) => report.bySize[size]! / images),
    ...(truth && {
      truth: {
        perImage: truth.objects / truth.images,
        precision: precisionOf(truth),
        recall: recallOf(truth),
        perClass: named(
          classNames,
          (label) => (truth.perClass[label]?.objects ?? 0) / truth.images,
        ),
        ...named(sizeNames, (size) => truth.bySize[size]!.objects / truth.images),
      },
    }),
  };
}

function named<Name extends string, T>(
  names: readonly Name[],
  of: (index: number) => T,
): Record<Name, T> {
  return Object.fromEntries(names.map((name, index) => [name, of(index)])) as Record<Name, T>;
}

function noCounts(): TruthCounts {
  return { boxes: 0, right: 0, onCrowd: 0, objects: 0, found: 0 };
}

function noTruth(numClasses: number): TruthReport {
  return {
    ...{ images: 0, ...noCounts() },
    perClass: Array.from({ length: numClasses }, noCounts),
    bySize: [noCounts(), noCounts(), noCounts()],
  };
}

function addTruth(to: TruthReport, from: TruthReport): void {
  to.images += from.images;
  addCounts(to, from);
  from.perClass.forEach((counts, label) => {
    addCounts(to.perClass[label]!, counts);
  });
  from.bySize.forEach((counts, size) => {
    addCounts(to.bySize[size]!, counts);
  });
}

function addCounts(to: TruthCounts, from: Partial<TruthCounts>): void {
  to.boxes += from.boxes ?? 0;
  to.right += from.right ?? 0;
  to.onCrowd += from.onCrowd ?? 0;
  to.objects += from.objects ?? 0;
  to.found += from.found ?? 0;
}
