import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  composeToImage,
  compositionOf,
  drawView,
  dropSmall,
  type Instances,
  type LabelledComposition,
  mapInstances,
  prepareCached,
  pseudoMixup,
  pseudoMosaic,
  selectInstances,
  testView,
  type View,
} from '../augment/index.js';
import { type DetectionDataset, decodeImage, ImageCache, loadCoco } from '../data/index.js';
import { createDetector } from '../detector/create.js';
import type { Detector } from '../detector/detector.js';
import type { DetectorOptions } from '../detector/options.js';
import type { Detections } from '../detector/types.js';
import { type CocoMetrics, statNames } from '../eval/index.js';
import { Random } from '../random.js';
import { type Tile, writePanel } from '../report/pictures.js';
import {
  evaluateDetector,
  resolveTrainSettings,
  type TrainEvent,
  type TrainSettingsInput,
  trainSemiSupervised,
} from '../train/index.js';
import { makeDemoData } from './demo-data.js';
import { demoClasses } from './scene.js';

export const demoMethods = ['supervised', 'mean-teacher', 'mixpl'] as const;
export type DemoMethod = (typeof demoMethods)[number];

export interface DemoOptions {
  /** Folder for data, runs and images. */
  out: string;
  /** Iterations of each training. @defaultValue 800 */
  iterations?: number;
  seed?: number;
  signal?: AbortSignal;
  onEvent?: (method: DemoMethod, event: TrainEvent) => void;
}

export interface DemoResult {
  /** Metrics of the model that each method would hand over: the teacher, or the student alone. */
  metrics: Record<DemoMethod, CocoMetrics>;
  seconds: Record<DemoMethod, number>;
  pictures: string[];
}

const width = 256;
const height = 192;
const data = { labelled: 20, unlabelled: 300, test: 100, width, height };

const model: DetectorOptions = {
  type: 'retinanet',
  numClasses: demoClasses.length,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 32 },
  neck: { channels: 64, numOutputs: 4 },
  head: { channels: 64, stackedConvs: 2, norm: 'gn' },
  anchors: { strides: [8, 16, 32, 64], octaveBaseScale: 2 },
};

/** The recipe: the small-data one, on images of 256 × 192. */
function settingsOf(method: DemoMethod, iterations: number, seed: number): TrainSettingsInput {
  const resize = { long: 320, short: [160, 232] as [number, number] };
  return {
    seed,
    lr: 1e-3,
    augment: {
      labelled: { resize },
      weak: { resize },
      strong: { resize },
      test: { long: width, short: height },
    },
    semi: {
      method,
      emptyImageRule: 'per-image',
      mosaicShape: [
        [96, 128],
        [192, 256],
      ],
      // Long enough for a teacher that finds most objects: one that does not teaches that they are none.
      burnIn: Math.round((iterations * 5) / 8),
      ema: { momentum: 0.002, interval: 1 },
    },
    schedule: { iterations, warmup: { iterations: 100, factor: 0.01 } },
    batch: { labelled: 4, unlabelled: 4 },
    validation: { interval: 0, batch: 8 },
    checkpoint: { interval: 0 },
  };
}

/**
 * The main job on data of its own: few labelled and many unlabelled scenes, learned three ways on the
 * same labels. Writes the data set, a run per method and images below `out`; deterministic.
 * @throws MixplError as trainSemiSupervised; `signal.reason`
 */
export async function runDemo(options: DemoOptions): Promise<DemoResult> {
  const { out, iterations = 800, seed = 1, signal, onEvent } = options;
  await mkdir(out, { recursive: true });
  const files = await makeDemoData(join(out, 'data'), { ...data, seed });
  const [labelled, unlabelled, test] = await Promise.all([
    loadCoco(files.labelled, { images: files.images }),
    loadCoco(files.unlabelled, { images: files.images, labelled: false }),
    loadCoco(files.test, { images: files.images, purpose: 'evaluation' }),
  ]);

  const metrics: Partial<Record<DemoMethod, CocoMetrics>> = {};
  const seconds: Partial<Record<DemoMethod, number>> = {};
  const found: Partial<Record<DemoMethod, Detections[]>> = {};
  const shown = await Promise.all(test.images.slice(0, 4).map(({ path }) => decodeImage(path)));
  let pseudoLabeller: Detector | null = null;
  for (const method of demoMethods) {
    signal?.throwIfAborted();
    const started = performance.now();
    const detector = await createDetector(model, {
      seed,
      optimizer: { type: 'adamw', weightDecay: 1e-4, clipNorm: 20 },
      preprocess: { resize: { long: width, short: height } },
    });
    const folder = join(out, `${method}-${iterations}-${seed}`);
    const events = trainSemiSupervised(detector, {
      data: { labelled, unlabelled, test },
      settings: settingsOf(method, iterations, seed),
      out: folder,
      resume: true,
      ...(signal ? { signal } : {}),
    });
    for await (const event of events) {
      onEvent?.(method, event);
      if (event.type === 'validation') metrics[method] = event.teacher ?? event.student;
    }
    signal?.throwIfAborted();
    seconds[method] = (performance.now() - started) / 1000;
    await detector.loadWeights(join(folder, 'best.safetensors'));
    metrics[method] ??= await evaluated(detector, test); // a run that had ended before says nothing
    found[method] = await detector.predict(shown);
    if (method === 'mixpl') pseudoLabeller = detector;
    else detector.dispose();
  }

  const pictures = [join(out, 'predictions.png'), join(out, 'mixing.png')];
  await writePanel(
    pictures[0]!,
    await Promise.all(shown.map((image, i) => predictionRow(image, test, i, found))),
    demoClasses,
  );
  await writePanel(pictures[1]!, [await mixingRow(pseudoLabeller!, unlabelled, seed)], demoClasses);
  pseudoLabeller!.dispose();
  return {
    metrics: metrics as DemoResult['metrics'],
    seconds: seconds as DemoResult['seconds'],
    pictures,
  };
}

/** As at the end of a training. */
async function evaluated(detector: Detector, test: DetectionDataset): Promise<CocoMetrics> {
  const { preprocess, computeDtype: dtype, device } = detector;
  const options = { preprocess, dtype, device, resize: preprocess.resize, batch: 8 };
  return evaluateDetector(detector, test, { ...options, cache: new ImageCache() });
}

async function predictionRow(
  image: { data: Uint8Array; width: number; height: number },
  test: DetectionDataset,
  index: number,
  found: Partial<Record<DemoMethod, Detections[]>>,
): Promise<Tile[]> {
  const { boxes, labels } = test.images[index]!.annotations!;
  return [
    { image, boxes: { boxes, labels }, title: 'ground truth' },
    ...demoMethods.map((method) => ({
      image,
      boxes: above(found[method]![index]!, 0.4),
      title: `${method}, score > 0.4`,
    })),
  ];
}

/** A weak view with its pseudo labels, a mixup and a mosaic of them. */
async function mixingRow(
  teacher: Detector,
  unlabelled: DetectionDataset,
  seed: number,
): Promise<Tile[]> {
  const random = new Random(seed).fork('mixing picture');
  const { augment, semi } = resolveTrainSettings(settingsOf('mixpl', 3, seed));
  const images = await Promise.all(
    unlabelled.images.slice(0, 6).map(({ path }) => decodeImage(path)),
  );
  const found = await teacher.predict(images);
  const views = images.map((image, i) => {
    const original: Instances = above(found[i]!, 0.4);
    const view = drawView(image, augment.strong, random.fork(i));
    return { view, instances: mapped(original, view) };
  });
  const tile = async (
    title: string,
    { composition, instances }: LabelledComposition,
  ): Promise<Tile> => ({
    image: await composeToImage(composition),
    boxes: instances,
    title,
  });
  const canvas = { width: 320, height: 256 };
  const box = { height: semi.mosaicShape[1]![0], width: semi.mosaicShape[1]![1] };
  const plain = testView(images[0]!, { long: width, short: height });
  return [
    await tile('pseudo labels', {
      composition: compositionOf(plain),
      instances: mapped(above(found[0]!, 0.4), plain),
    }),
    await tile('pseudo mixup', pseudoMixup(views[0]!, prepareCached(views[1]!, canvas), random)),
    await tile(
      'pseudo mosaic',
      pseudoMosaic(views.slice(2, 6).map((view) => prepareCached(view, box))),
    ),
  ];
}

function mapped(instances: Instances, view: View): Instances {
  return dropSmall(mapInstances(view.matrix, instances, view), 1);
}

function above(detections: Detections, threshold: number): Instances {
  return selectInstances(detections, (i) => detections.scores[i]! > threshold);
}

/** The demo's table: a row per method. */
export async function formatDemo(result: DemoResult): Promise<string> {
  const { default: Table } = await import('cli-table3');
  const names = statNames(result.metrics.mixpl).slice(0, 6);
  const table = new Table({
    head: ['', ...names, ...demoClasses, 'seconds'],
    style: { head: [], border: [], compact: true },
    colAligns: [
      'left',
      ...names.map(() => 'right' as const),
      ...demoClasses.map(() => 'right' as const),
      'right',
    ],
  });
  const cell = (value: number | null) => (value === null || value < 0 ? '-' : value.toFixed(3));
  for (const method of demoMethods) {
    const { stats, perClass } = result.metrics[method];
    table.push([
      method,
      ...stats.slice(0, 6).map(cell),
      ...perClass.map((c) => cell(c.ap)),
      result.seconds[method].toFixed(0),
    ]);
  }
  return table.toString();
}
