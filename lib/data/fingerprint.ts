import { createHash } from 'node:crypto';
import type { Category, ImageRecord } from './types.js';

/**
 * SHA-256 (hex) over what training and evaluation see of a data set: categories with ids, and per
 * image in order the file name, size and annotations (boxes, labels, crowd flags, areas). Ids of
 * images and annotations, absolute paths and pixels do not count, so a copied folder keeps its
 * fingerprint.
 */
export function fingerprintOf(dataset: {
  readonly categories: readonly Category[];
  readonly images: readonly ImageRecord[];
}): string {
  const hash = createHash('sha256');
  hash.update(
    `mixpl-dataset-1\n${JSON.stringify(dataset.categories.map(({ id, name }) => [id, name]))}\n`,
  );
  for (const { fileName, width, height, annotations } of dataset.images) {
    const count = annotations ? annotations.labels.length : null;
    hash.update(`${JSON.stringify([fileName, width, height, count])}\n`);
    if (!annotations) continue;
    // Little endian, as on every platform that Node supports.
    for (const values of [
      annotations.boxes,
      annotations.labels,
      annotations.crowd,
      annotations.areas,
    ])
      hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  }
  return hash.digest('hex');
}
