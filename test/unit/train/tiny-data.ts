import { makeDataset } from '../../../lib/data/index.js';
import type { DecodedImage, DetectionDataset, ImageRecord } from '../../../lib/data/types.js';
import { Random } from '../../../lib/random.js';

export interface TinyData {
  labelled: DetectionDataset;
  unlabelled: DetectionDataset;
  test: DetectionDataset;
}

const categories = ['red', 'green', 'blue'].map((name, i) => ({ id: i + 1, name }));

/** Pictures that exist only as names: see decodeTiny. */
export function tinyData({ labelled = 6, unlabelled = 12, test = 4 } = {}): TinyData {
  const make = (name: string, count: number, withBoxes: boolean) =>
    makeDataset({
      name,
      source: name,
      categories,
      images: Array.from({ length: count }, (_, i) => record(`${name}/${i}`, i, withBoxes)),
    });
  return {
    labelled: make('labelled', labelled, true),
    unlabelled: make('unlabelled', unlabelled, false),
    test: make('test', test, true),
  };
}

function record(path: string, index: number, withBoxes: boolean): ImageRecord {
  const size = sizeOf(path);
  const x = 4 + index;
  return {
    id: index + 1,
    fileName: `${path}.png`,
    path,
    ...size,
    annotations: withBoxes
      ? {
          boxes: Float32Array.of(x, 4, x + 20, 30),
          labels: Int32Array.of(index % 3),
          crowd: Uint8Array.of(0),
          areas: Float64Array.of(520),
          ids: Float64Array.of(index + 1),
        }
      : null,
  };
}

function sizeOf(path: string): { width: number; height: number } {
  const wide = Number(path.split('/')[1]) % 3 !== 0;
  return wide ? { width: 48, height: 40 } : { width: 40, height: 48 };
}

/** The picture that a name stands for; takes a moment of random length, as a disk does. */
export async function decodeTiny(path: string): Promise<DecodedImage> {
  await new Promise((resolve) => setTimeout(resolve, 3 * Math.random()));
  const { width, height } = sizeOf(path);
  const random = new Random([...path].map((c) => c.charCodeAt(0)));
  return {
    width,
    height,
    data: Uint8Array.from({ length: 3 * width * height }, () => random.integer(0, 256)),
  };
}

/** Settings of a run of seconds; views small enough for tiny pictures. */
export const tinySettings = {
  seed: 7,
  lr: 0.01,
  augment: {
    labelled: { resize: { long: 64, short: [32, 48] as [number, number] } },
    weak: { resize: { long: 64, short: [32, 48] as [number, number] } },
    strong: { resize: { long: 64, short: [32, 48] as [number, number] } },
    test: { long: 64, short: 48 },
  },
  semi: {
    mosaicShape: [
      [24, 24],
      [40, 40],
    ] as [number, number][],
  },
  schedule: { iterations: 12, warmup: { iterations: 4 } },
  validation: { interval: 6, batch: 2 },
  checkpoint: { interval: 5, keep: 2 },
  logging: { interval: 4 },
};
