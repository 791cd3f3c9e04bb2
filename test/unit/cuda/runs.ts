// Short MixPL runs of small detectors on a device.
import { makeDataset } from '../../../lib/data/index.js';
import type { DecodedImage, DetectionDataset } from '../../../lib/data/types.js';
import { drawScene } from '../../../lib/demo/scene.js';
import {
  createDetector,
  type Detector,
  type DetectorOptions,
  Random,
  type StepEvent,
  type TrainEvent,
  type TrainOptions,
  type TrainSettingsInput,
  trainSemiSupervised,
} from '../../../lib/index.js';
import { smallDetectors, withTest } from './small-detectors.js';

const size = { width: 64, height: 64 };
const scene = (path: string) => drawScene(new Random([...path].map((c) => c.charCodeAt(0))), size);

function scenes(name: string, count: number, withBoxes: boolean): DetectionDataset {
  return makeDataset({
    name,
    source: name,
    categories: ['red', 'green', 'blue'].map((category, i) => ({ id: i + 1, name: category })),
    images: Array.from({ length: count }, (_, i) => {
      const path = `${name}/${i}`;
      const { objects } = scene(path);
      const annotations = {
        boxes: Float32Array.from(objects.flatMap((o) => o.box)),
        labels: Int32Array.from(objects, (o) => o.label % 3),
        crowd: new Uint8Array(objects.length),
        areas: Float64Array.from(objects, ({ box: [x1, y1, x2, y2] }) => (x2 - x1) * (y2 - y1)),
        ids: Float64Array.from(objects, (_, k) => 100 * i + k),
      };
      return {
        ...{ id: i + 1, fileName: `${path}.png`, path, ...size },
        annotations: withBoxes ? annotations : null,
      };
    }),
  });
}

export const data = {
  labelled: scenes('labelled', 6, true),
  unlabelled: scenes('unlabelled', 8, false),
};

async function decode(path: string): Promise<DecodedImage> {
  const { data: pixels, width, height } = scene(path);
  return { data: pixels, width, height };
}

const view = { resize: { long: 64, short: [64, 64] as [number, number] } };

/** Pictures, mosaics and cache of fixed sizes: every iteration needs the same memory. */
export const settings = {
  seed: 7,
  lr: 0.005,
  augment: { labelled: view, weak: view, strong: view, test: { long: 64, short: 64 } },
  batch: { labelled: 1, unlabelled: 2 },
  semi: {
    scoreThr: 0.005,
    cacheSize: 6,
    mosaicShape: [
      [64, 64],
      [64, 64],
    ] as [number, number][],
  },
  schedule: { iterations: 6, warmup: { iterations: 2 } },
  validation: { interval: 0, batch: 2 },
  checkpoint: { interval: 2, keep: 9 },
} satisfies TrainSettingsInput;

/**
 * Anchors of one scale have one area, so all that hold a box whole overlap it equally but for the last digit,
 * and those that tie become its positives: a pseudo box that moves by 2e-6 pixels then has two anchors or four,
 * and the box loss of the RPN another tenth, on one device as on two. From the threshold of positives on a tie
 * chooses nothing.
 */
const withoutTies = { minPosIou: 0.7 };

export async function student(type: string, device: string): Promise<Detector> {
  const options = smallDetectors[type]!;
  const rpn = 'rpn' in options ? { rpn: { ...options.rpn, ...withoutTies } } : {};
  return createDetector(
    withTest({ ...options, ...rpn } as DetectorOptions, { scoreThr: 0.001, maxPerImage: 5 }),
    { device, dtype: 'fp32', seed: 3, optimizer: { type: 'sgd', clipNorm: 5 } },
  );
}

export interface Run {
  steps: StepEvent[];
  events: TrainEvent[];
}

/** @param onStep called with every step before the next begins */
export async function train(
  detector: Detector,
  changes: Partial<TrainOptions> = {},
  onStep: (step: StepEvent) => void = () => {},
): Promise<Run> {
  const events: TrainEvent[] = [];
  for await (const event of trainSemiSupervised(detector, { data, decode, settings, ...changes })) {
    events.push(event);
    if (event.type === 'step') onStep(event);
  }
  return { events, steps: events.filter((e) => e.type === 'step') };
}

/** What must be the same to the last bit. */
export const essence = (steps: readonly StepEvent[]) =>
  steps.map(({ iteration, losses, gradNorm, pseudo, silenced }) => ({
    ...{ iteration, losses, gradNorm, pseudo, silenced },
  }));
