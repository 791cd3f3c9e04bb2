/** Compositions of four images: the teacher's and the student's views, mixup, mosaic. */
import {
  type Composition,
  composeBatch,
  compositionOf,
  type DecodedImage,
  eraseView,
  type ImageBatch,
  noInstances,
  prepareCached,
  pseudoMixup,
  pseudoMosaic,
  resizedView,
  strongView,
  type View,
  weakView,
} from '../../augment/index.js';
import { Random } from '../../random.js';
import type { BenchCase, BenchContext, PreparedCase } from '../case.js';
import { expectNear, sizeOf } from '../case.js';

const mean = [123.675, 116.28, 103.53] as const;
const std = [58.395, 57.12, 57.375] as const;
const preprocess = { mean, std, channelOrder: 'rgb', padDivisor: 32 } as const;
const source = { width: 640, height: 480 };

/** Of one image, per channel: v = 20 + x / 4 + y / 8 + 8 c; samples between pixels are known. */
const planeAt = (x: number, y: number, c: number) => 20 + (x - 0.5) / 4 + (y - 0.5) / 8 + 8 * c;

const drawn = new Map<string, Uint8Array>();

/** Its own copy: an image that is shared would be read once. */
function picture(width: number, height: number): DecodedImage {
  const key = `${width}×${height}`;
  let data = drawn.get(key);
  if (!data) {
    data = new Uint8Array(3 * width * height);
    for (let y = 0, i = 0; y < height; y++)
      for (let x = 0; x < width; x++)
        for (let c = 0; c < 3; c++, i++) data[i] = Math.round(planeAt(x + 0.5, y + 0.5, c) % 256);
    drawn.set(key, data);
  }
  return { data: data.slice(), width, height };
}

/** The colour operations change what is known of a pixel; these leave it. */
const plain = ({ width, height, layers }: Composition): Composition => ({
  width,
  height,
  layers: layers.map((layer) => ({ ...layer, color: [] })),
});

function composeCase(
  name: string,
  shape: string,
  make: (picture: () => DecodedImage) => Composition[],
  peer?: BenchCase['peer'],
): BenchCase {
  const views = make(() => picture(source.width, source.height));
  const pixels = views.reduce((sum, c) => sum + c.width * c.height, 0);
  const read = views.reduce(
    (sum, c) => sum + c.layers.reduce((s, l) => s + l.source.width * l.source.height, 0),
    0,
  );
  return {
    name: `compose/${name}`,
    shape: `${views.length} × ${shape}`,
    dtypes: ['f32', 'bf16'],
    // Every source is read once, at most; every number of the network's input is written once.
    bytes: (dtype) => 3 * read + 3 * pixels * sizeOf(dtype),
    ...(peer ? { peer } : {}),
    prepare: (context) => prepareCompose(views, context),
  };
}

async function prepareCompose(
  compositions: readonly Composition[],
  { device, dtype }: BenchContext,
): Promise<PreparedCase> {
  const options = { ...preprocess, device, dtype, padTo: 'image' } as const;
  let batch: ImageBatch | undefined;
  return {
    async run() {
      const composed = await composeBatch(compositions, options);
      batch?.dispose();
      batch = composed;
    },
    async check() {
      const without = await composeBatch(compositions.map(plain), options);
      const got = (await without.tensor.read()) as Float32Array;
      const [, height, width] = without.tensor.shape as [number, number, number];
      without.dispose();
      const want = compositions.flatMap((composition, n) =>
        knownPixels(composition, { n, height, width }),
      );
      if (want.length < 50) throw new Error(`only ${want.length} pixels could be compared`);
      // Half a step of the 8-bit source, bilinear twice at most, over the standard deviation.
      expectNear('compose', got, want, 0.02);
    },
    dispose: () => batch?.dispose(),
  };
}

/** Numbers of the batch whose value follows from the planes that lie there, far from every edge. */
function knownPixels(
  composition: Composition,
  { n, height, width }: { n: number; height: number; width: number },
): (readonly [number, number])[] {
  const known: (readonly [number, number])[] = [];
  const random = new Random(n);
  for (let i = 0; i < 400; i++) {
    const [x, y] = [random.integer(0, composition.width), random.integer(0, composition.height)];
    const values = [0, 0, 0];
    let sure = true;
    for (const { map, rect, weight, erase } of composition.layers) {
      if (x + 3 < rect[0] || x - 3 >= rect[2] || y + 3 < rect[1] || y - 3 >= rect[3]) continue;
      const [a, b, c, d, e, f] = map as unknown as number[];
      const [u, v] = [a! * (x + 0.5) + b! * (y + 0.5) + c!, d! * (x + 0.5) + e! * (y + 0.5) + f!];
      const inside =
        x - 3 >= rect[0] &&
        x + 3 < rect[2] &&
        y - 3 >= rect[1] &&
        y + 3 < rect[3] &&
        u > 4 &&
        u < source.width - 4 &&
        v > 4 &&
        v < source.height - 4;
      const erased = erase.some((r) => x >= r.x1 - 1 && x <= r.x2 && y >= r.y1 - 1 && y <= r.y2);
      // The bright end of the ramp wraps around: no plane there.
      sure &&= inside && !erased && planeAt(u, v, 2) < 250;
      for (let k = 0; k < 3; k++) values[k]! += (weight * (planeAt(u, v, k) - mean[k]!)) / std[k]!;
    }
    if (!sure) continue;
    values.forEach((value, k) => {
      known.push([((n * height + y) * width + x) * 3 + k, value]);
    });
  }
  return known;
}

const labelled = (view: View) => ({ view, instances: noInstances });
const erase = { patches: [1, 20], ratio: [0, 0.1], threshold: 0.7 } as const;
const four = <T>(make: (i: number) => T) => Array.from({ length: 4 }, (_, i) => make(i));

export const imageCases: readonly BenchCase[] = [
  composeCase(
    'normalise',
    '800×1344, as they are',
    () => four(() => compositionOf(resizedView(picture(1344, 800), { width: 1344, height: 800 }))),
    { op: 'normalise', n: 4, h: 800, w: 1344 },
  ),
  composeCase('weak', '480×640 → 400…1000 × 533…1333', (image) => {
    const random = new Random(1);
    return four(() => compositionOf(weakView(image(), random)));
  }),
  composeCase('strong', '480×640, one colour and one geometric operation each', (image) => {
    const random = new Random(2);
    return four(() => compositionOf(strongView(image(), random)));
  }),
  composeCase(
    'warp',
    '480×640 → 800×1066, turned',
    (image) => {
      const random = new Random(3);
      const options = {
        color: [],
        geometric: ['rotate'] as const,
        resize: { width: 1066, height: 800 },
      };
      return four(() => compositionOf(strongView(image(), random, options)));
    },
    { op: 'warp', n: 4, h: 800, w: 1066 },
  ),
  composeCase('mixup', '800×1066 of two strong views', (image) => {
    const random = new Random(4);
    const view = () => strongView(image(), random, { resize: { width: 1066, height: 800 } });
    return four(() => {
      const partner = prepareCached(labelled(view()), { width: 1088, height: 800 });
      return pseudoMixup(
        eraseView(labelled(view()), erase, random),
        eraseView(partner, erase, random),
        random,
      ).composition;
    });
  }),
  composeCase('mosaic', '1200×1600 of four strong views', (image) => {
    const random = new Random(5);
    const view = () => strongView(image(), random, { resize: { width: 1066, height: 800 } });
    const tiles = four(() =>
      eraseView(prepareCached(labelled(view()), { width: 800, height: 600 }), erase, random),
    );
    return [pseudoMosaic(tiles).composition];
  }),
];
