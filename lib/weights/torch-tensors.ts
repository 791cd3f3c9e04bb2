/** The numbers of a checkpoint's tensors, whatever part of a storage they are, in what order. */
import { elementSizes, toFloat32 } from '../element-types.js';
import type { StorageBytes } from './pth.js';
import type { TorchTensor } from './torch-objects.js';

export function elementCount(shape: readonly number[]): number {
  return shape.includes(0) ? 0 : shape.reduce((product, size) => product * size, 1);
}

/** What keeps a tensor from being read, or null: its elements must be in its storage. */
export function misplacement({ storage, offset, shape, strides }: TorchTensor): string | null {
  const count = elementCount(shape);
  if (count === 0) return null;
  if (count > storage.count) return `[${shape}] in a storage of ${storage.count} elements`;
  const last = offset + shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis]!, 0);
  if (last >= storage.count)
    return `[${shape}] up to element ${last} of a storage of ${storage.count} elements`;
  return null;
}

/** The elements as f32, row-major in the tensor's shape. @param tensor one without misplacement */
export async function readTensor(tensor: TorchTensor, bytes: StorageBytes): Promise<Float32Array> {
  const { storage, offset, shape, strides } = tensor;
  const count = elementCount(shape);
  if (count === 0) return new Float32Array(0);
  const span = 1 + shape.reduce((sum, size, axis) => sum + (size - 1) * strides[axis]!, 0);
  const size = elementSizes[storage.type];
  const stored = await toFloat32(await bytes.read(offset * size, span * size), storage.type);
  return isRowMajor(shape, strides) ? stored : gather(stored, shape, strides);
}

function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let step = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] !== 1 && strides[axis] !== step) return false;
    step *= shape[axis]!;
  }
  return true;
}

/** Walks the index like an odometer. */
function gather(
  stored: Float32Array,
  shape: readonly number[],
  strides: readonly number[],
): Float32Array {
  const out = new Float32Array(elementCount(shape));
  const index = shape.map(() => 0);
  let from = 0;
  for (let i = 0; i < out.length; i++) {
    out[i] = stored[from]!;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      from += strides[axis]!;
      if (++index[axis]! < shape[axis]!) break;
      from -= shape[axis]! * strides[axis]!;
      index[axis] = 0;
    }
  }
  return out;
}
