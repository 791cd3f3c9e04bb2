// Short runs of a fake detector on pictures that exist only as names.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type StepEvent,
  type TrainEvent,
  type TrainOptions,
  type TrainSettingsInput,
  trainSemiSupervised,
} from '../../../lib/train/index.js';
import { detections, FakeDetector } from '../semi/fake-detector.js';
import { decodeTiny, tinyData, tinySettings } from './tiny-data.js';

/** Finds a box whose place depends on the pixels. */
export function newStudent() {
  const student = new FakeDetector({ who: 'student' });
  student.predict_ = async (batch) => {
    const pixels = (await batch.tensor.read()) as Float32Array;
    const per = pixels.length / batch.sizes.length;
    return batch.sizes.map((_, i) => {
      const at = Math.abs(pixels[i * per + 100]!) % 10;
      return detections([at, 2, at + 20, 24, 0.5 + at / 30, i % 3], [1, 1, 9, 9, 0.2, 0]);
    });
  };
  return student;
}

export function options(
  changes: Partial<TrainOptions> = {},
  settings: TrainSettingsInput = {},
): TrainOptions {
  return {
    data: tinyData(),
    settings: { ...tinySettings, ...settings },
    decode: decodeTiny,
    ...changes,
  };
}

export async function train(
  changes: Partial<TrainOptions> = {},
  settings: TrainSettingsInput = {},
  student = newStudent(),
) {
  const events: TrainEvent[] = [];
  for await (const event of trainSemiSupervised(student, options(changes, settings)))
    events.push(event);
  return { events, steps: stepsOf(events), student };
}

export const stepsOf = (events: TrainEvent[]) =>
  events.filter((e): e is StepEvent => e.type === 'step');
/** What must be the same to the last bit. */
export const essence = (steps: StepEvent[]) =>
  steps.map(({ iteration, losses, gradNorm, lr, emaMomentum, pseudo, silenced }) => ({
    ...{ iteration, losses, gradNorm, lr, emaMomentum, pseudo, silenced },
  }));
export const kinds = (events: TrainEvent[]) => events.map((e) => `${e.type} ${e.iteration}`);

export async function stoppedAfter(
  stop: number,
  changes: Partial<TrainOptions>,
  settings: TrainSettingsInput = {},
): Promise<StepEvent[]> {
  const controller = new AbortController();
  const steps: StepEvent[] = [];
  const run = options({ ...changes, signal: controller.signal }, settings);
  for await (const event of trainSemiSupervised(newStudent(), run)) {
    if (event.type !== 'step') continue;
    steps.push(event);
    if (event.iteration === stop) controller.abort();
  }
  return steps;
}

export async function metrics(folder: string): Promise<Record<string, unknown>[]> {
  const text = await readFile(join(folder, 'metrics.jsonl'), 'utf8');
  return text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}
