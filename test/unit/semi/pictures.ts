import { noInstances, testView, type View } from '../../../lib/augment/index.js';
import type { DecodedImage } from '../../../lib/image/composition.js';
import type { CachedView, UnlabelledPair } from '../../../lib/semi/index.js';

/** A picture of one grey level, told apart by it. */
export function picture(level: number, { width = 64, height = 48 } = {}): DecodedImage {
  return { width, height, data: new Uint8Array(3 * width * height).fill(level) };
}

/** The picture as it is, unscaled. */
export function plainView(source: DecodedImage): View {
  return testView(source, {
    long: Math.max(source.width, source.height),
    short: Math.min(source.width, source.height),
  });
}

export function plainPair(image: number): UnlabelledPair {
  const source = picture(image);
  return { weak: plainView(source), strong: plainView(source), image };
}

/** A strong view of picture `image` with one box of the given score. */
export function cached(image: number, { score = 0.9, width = 64 } = {}): CachedView {
  return {
    image,
    view: plainView(picture(image, { width })),
    instances: {
      boxes: Float32Array.of(8, 8, 40, 40),
      labels: Int32Array.of(image % 3),
      scores: Float32Array.of(score),
    },
  };
}

export { noInstances };
