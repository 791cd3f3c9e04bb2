import type { Composition, DecodedImage, Layer } from '../../../lib/image/composition.js';
import type { Random } from '../../../lib/random.js';

/** A picture of independent random values. */
export function noise(width: number, height: number, random: Random): DecodedImage {
  return {
    width,
    height,
    data: Uint8Array.from({ length: width * height * 3 }, () => random.integer(0, 256)),
  };
}

/** A picture of one colour. */
export function plain(width: number, height: number, value: number): DecodedImage {
  return { width, height, data: new Uint8Array(width * height * 3).fill(value) };
}

/** The whole of `source` as it is. */
export function identityLayer(source: DecodedImage, changes: Partial<Layer> = {}): Layer {
  return {
    source,
    map: [1, 0, 0, 0, 1, 0, 0, 0, 1],
    rect: [0, 0, source.width, source.height],
    weight: 1,
    fill: [0, 0, 0],
    colorFill: false,
    color: [],
    erase: [],
    ...changes,
  };
}

export function single(layer: Layer): Composition {
  return { width: layer.rect[2], height: layer.rect[3], layers: [layer] };
}
