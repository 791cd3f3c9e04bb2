import type { DecodedImage, Layer } from '../augment/index.js';
import { MixplError } from '../errors.js';
import type { Matrix3 } from '../geometry.js';
import type { CachedView } from './labelling.js';

/** A cached view as JSON: everything but its pixels, which come from the image again. */
export interface CachedRecipe {
  /** Position of the image in the unlabelled data set. */
  image: number;
  sourceWidth: number;
  sourceHeight: number;
  width: number;
  height: number;
  matrix: Matrix3;
  layer: Omit<Layer, 'source'>;
  boxes: number[];
  labels: number[];
  scores: number[];
}

/** A cached view without its pixels; its inverse is viewOfRecipe. */
export function recipeOf({ image, view, instances }: CachedView): CachedRecipe {
  const { source, ...layer } = view.layer;
  return {
    image,
    sourceWidth: source.width,
    sourceHeight: source.height,
    width: view.width,
    height: view.height,
    matrix: view.matrix,
    layer,
    boxes: [...instances.boxes],
    labels: [...instances.labels],
    scores: [...instances.scores],
  };
}

/**
 * The view of a recipe; numbers are the same to the last bit.
 * @param decode the image at a position of the unlabelled data set
 * @throws MixplError ERR_CHECKPOINT when the image changed its size; what decode throws
 */
export async function viewOfRecipe(
  recipe: CachedRecipe,
  decode: (image: number) => Promise<DecodedImage>,
): Promise<CachedView> {
  const { image, sourceWidth, sourceHeight, width, height, matrix, layer } = recipe;
  const source = await decode(image);
  if (source.width !== sourceWidth || source.height !== sourceHeight)
    throw new MixplError(
      'ERR_CHECKPOINT',
      `checkpoint: unlabelled image ${image} must be ${sourceWidth} × ${sourceHeight} (as when it was cached), ` +
        `got ${source.width} × ${source.height}`,
    );
  return {
    image,
    view: { width, height, matrix, layer: { ...layer, source } },
    instances: {
      boxes: Float32Array.from(recipe.boxes),
      labels: Int32Array.from(recipe.labels),
      scores: Float32Array.from(recipe.scores),
    },
  };
}
