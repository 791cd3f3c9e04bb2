import { checkKeys, keysOf } from '../arguments.js';
import { MixplError } from '../errors.js';
import { type NativeTensor, native } from '../native.js';
import { type Composition, colorOps, type DecodedImage } from './composition.js';

/** Height and width in pixels of the network input. */
export interface Size {
  height: number;
  width: number;
}

/** A batch ready for the network. */
export interface ImageBatch {
  /** [N, H, W, 3], normalised, zero padded. */
  readonly tensor: NativeTensor;
  /** Unpadded size per image; predictions are clipped to it. */
  readonly sizes: readonly Size[];
  /** Per image: anchors beyond this size are ignored in training. */
  readonly padSizes: readonly Size[];
  /** Frees the tensor; idempotent. */
  dispose(): void;
}

/** How pixels become the network's numbers: (value - mean) / std per channel. */
export interface PreprocessOptions {
  /** In the order of the network's channels. */
  mean: readonly [number, number, number];
  /** In the same order. */
  std: readonly [number, number, number];
  channelOrder: 'rgb' | 'bgr';
  /** Batches are padded with zeros to a multiple of this. */
  padDivisor: number;
}

/** How composeBatch makes a batch. */
export interface ComposeOptions extends PreprocessOptions {
  /** Data type of the batch: the one that the detector takes. */
  dtype: 'f32' | 'bf16';
  /** Where the batch is made, and stays. @defaultValue 'cpu' */
  device?: string;
  /** What counts as padding for anchors: beyond the image's own rounded size, or the batch's. */
  padTo: 'image' | 'batch';
}

/** `resize` is of what a detector's own preprocessing says beside, which may be given whole. */
const optionKeys = keysOf<ComposeOptions & { resize: never }>({
  ...{ mean: 0, std: 0, channelOrder: 0, padDivisor: 0, resize: 0 },
  ...{ dtype: 0, device: 0, padTo: 0 },
});

/**
 * Runs the compositions in one native call.
 * @returns a batch [N, H, W, 3], H and W the largest rounded up to padDivisor; dispose it
 * @throws MixplError ERR_SHAPE, ERR_RANGE on an impossible composition, ERR_DEVICE
 */
export async function composeBatch(
  compositions: readonly Composition[],
  options: ComposeOptions,
): Promise<ImageBatch> {
  checkCompositions(compositions);
  checkKeys('composeBatch', options, optionKeys);
  const { padDivisor, padTo } = options;
  if (!Number.isInteger(padDivisor) || padDivisor < 1)
    throw new MixplError(
      'ERR_RANGE',
      `compose: padDivisor must be a whole number >= 1, got ${padDivisor}`,
    );
  const height = roundUp(Math.max(0, ...compositions.map((c) => c.height)), padDivisor);
  const width = roundUp(Math.max(0, ...compositions.map((c) => c.width)), padDivisor);
  const tensor = await run(compositions, { width, height }, options);
  const sizes = compositions.map(({ width, height }) => ({ width, height }));
  const padSizes = sizes.map((s) =>
    padTo === 'batch'
      ? { width, height }
      : { width: roundUp(s.width, padDivisor), height: roundUp(s.height, padDivisor) },
  );
  return { tensor, sizes, padSizes, dispose: () => tensor.dispose() };
}

/** A composition as an 8-bit RGB image: what the network sees, with 'mean' where nothing lies. */
export async function composeToImage(
  composition: Composition,
  mean: readonly [number, number, number] = [123.675, 116.28, 103.53],
): Promise<DecodedImage> {
  checkCompositions([composition]);
  const { width, height } = composition;
  const tensor = await run([composition], composition, {
    mean,
    std: [1, 1, 1],
    channelOrder: 'rgb',
    dtype: 'f32',
  });
  const values = await tensor.read();
  tensor.dispose();
  return {
    width,
    height,
    data: Uint8Array.from(values, (v, i) =>
      Math.max(0, Math.min(255, Math.round(v + mean[i % 3]!))),
    ),
  };
}

/** Pixels that never change, by the number that names them on devices. */
const unchanging = new WeakMap<Uint8Array, number>();

/**
 * Says that nobody will write into an image any more: a GPU may keep its copy for later batches, instead
 * of getting the pixels again for each.
 */
export function neverChanges(image: DecodedImage): void {
  if (!unchanging.has(image.data)) unchanging.set(image.data, native.sourceId());
}

/** What the native side could not say in the caller's words. @throws MixplError ERR_SHAPE */
function checkCompositions(compositions: readonly Composition[]): void {
  const refuse = (what: string, expected: string, got: unknown): never => {
    throw new MixplError(
      'ERR_SHAPE',
      `compose: ${what} must be ${expected}, got ${got === null ? 'null' : typeof got}`,
    );
  };
  if (!Array.isArray(compositions)) refuse('compositions', 'an array', compositions);
  compositions.forEach((composition, i) => {
    if (typeof composition !== 'object' || composition === null)
      refuse(`composition ${i}`, 'an object', composition);
    if (!Array.isArray(composition.layers))
      refuse(`layers of composition ${i}`, 'an array', composition.layers);
    composition.layers.forEach((layer, l) => {
      const name = `layer ${l} of composition ${i}`;
      if (typeof layer !== 'object' || layer === null) refuse(name, 'an object', layer);
      for (const key of ['map', 'rect', 'fill', 'color', 'erase'] as const)
        if (!Array.isArray(layer[key])) refuse(`${key} of ${name}`, 'an array', layer[key]);
      if (!(layer.source?.data instanceof Uint8Array))
        refuse(`source.data of ${name}`, 'a Uint8Array', layer.source?.data);
    });
  });
}

async function run(
  compositions: readonly Composition[],
  batch: Size,
  options: Pick<ComposeOptions, 'mean' | 'std' | 'channelOrder' | 'dtype' | 'device'>,
): Promise<NativeTensor> {
  const { sources, plan } = packPlan(compositions);
  return native.compose(
    sources.map(({ data, width, height }) => ({
      data,
      width,
      height,
      id: unchanging.get(data) ?? 0,
    })),
    plan,
    compositions.length,
    batch.height,
    batch.width,
    Float32Array.from(options.mean),
    Float32Array.from(options.std),
    options.channelOrder === 'bgr',
    options.dtype,
    options.device ?? 'cpu',
  );
}

/** The flat form that native/binding/image_binding.cpp reads. */
function packPlan(compositions: readonly Composition[]): {
  sources: DecodedImage[];
  plan: Float64Array;
} {
  const indices = new Map<DecodedImage, number>();
  const plan: number[] = [];
  for (const { width, height, layers } of compositions) {
    plan.push(width, height, layers.length);
    for (const layer of layers) {
      if (layer.map.length !== 9 || layer.rect.length !== 4 || layer.fill.length !== 3)
        throw new MixplError(
          'ERR_SHAPE',
          'compose: layer must have map [9], rect [4] and fill [3], ' +
            `got [${layer.map.length}], [${layer.rect.length}], [${layer.fill.length}]`,
        );
      let index = indices.get(layer.source);
      if (index === undefined) {
        index = indices.size;
        indices.set(layer.source, index);
      }
      plan.push(index, ...layer.map, ...layer.rect, layer.weight, ...layer.fill);
      plan.push(layer.colorFill ? 1 : 0, layer.antialias === false ? 0 : 1, layer.color.length);
      for (const step of layer.color) {
        const op = colorOps.indexOf(step.op);
        if (op < 0)
          throw new MixplError(
            'ERR_RANGE',
            `compose: colour operation must be one of ${colorOps.join(', ')}, got '${step.op}'`,
          );
        plan.push(op, step.magnitude);
      }
      plan.push(layer.erase.length);
      for (const r of layer.erase)
        plan.push(r.x1, r.y1, r.x2, r.y2, r.value === 'mean' ? -1 : r.value);
    }
  }
  return { sources: [...indices.keys()], plan: Float64Array.from(plan) };
}

function roundUp(value: number, multiple: number): number {
  return Math.ceil(value / multiple) * multiple;
}
