import { makeDataset } from '../../../lib/data/dataset.js';
import type { DetectionDataset, ImageRecord } from '../../../lib/data/types.js';

/** A labelled data set without files: per image the labels, and sizes where they matter. */
export function memoryDataset(
  labels: readonly (readonly number[])[],
  options: {
    classes?: number;
    crowd?: (image: number, object: number) => boolean;
    size?: (image: number) => { width: number; height: number };
    folder?: string;
  } = {},
): DetectionDataset {
  const { classes = 3, crowd = () => false, size = () => ({ width: 64, height: 48 }) } = options;
  const { folder = '/nowhere' } = options;
  const images = labels.map((of, i): ImageRecord => {
    const fileName = `${String(i).padStart(6, '0')}.png`;
    return {
      id: i + 1,
      fileName,
      path: `${folder}/${fileName}`,
      ...size(i),
      annotations: {
        boxes: Float32Array.from(of.flatMap(() => [0, 0, 10, 10])),
        labels: Int32Array.from(of),
        crowd: Uint8Array.from(of, (_, k) => (crowd(i, k) ? 1 : 0)),
        areas: new Float64Array(of.length).fill(100),
        ids: Float64Array.from(of, (_, k) => 100 * i + k),
      },
    };
  });
  const categories = Array.from({ length: classes }, (_, k) => ({ id: k + 1, name: `class ${k}` }));
  return makeDataset({ name: 'memory', source: 'memory', categories, images });
}
