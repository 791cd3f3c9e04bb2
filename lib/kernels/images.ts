import { abortable, checkSignal } from '../abort.js';
import { type Composition, composeBatch, type PreprocessOptions } from '../image/index.js';
import { checkOptions, type KernelOptions, type NdArray, take } from './arrays.js';

/** How compose normalises and pads. */
export interface ComposeKernelOptions extends KernelOptions, Partial<PreprocessOptions> {}

/**
 * Runs compositions (resized, warped, coloured, erased, mixed and tiled images) in one pass: 8-bit
 * pixels are read once, the network's input is written once.
 * @param compositions what each image of the batch is made of
 * @param options as PreprocessOptions. @defaultValue 8-bit RGB as it is, unpadded
 * @returns f32 [N, H, W, 3], H and W the largest of the batch, zeros around smaller ones
 * @throws MixplError ERR_SHAPE, ERR_RANGE on an impossible composition
 */
export async function compose(
  compositions: readonly Composition[],
  options: ComposeKernelOptions = {},
): Promise<NdArray<Float32Array>> {
  checkOptions('compose', options, ['mean', 'std', 'channelOrder', 'padDivisor']);
  const {
    mean = [0, 0, 0],
    std = [1, 1, 1],
    channelOrder = 'rgb',
    padDivisor = 1,
    device = 'cpu',
  } = options;
  const { signal } = options;
  checkSignal('compose', signal);
  signal?.throwIfAborted();
  const work = composeBatch(compositions, {
    ...{ mean, std, channelOrder, padDivisor, dtype: 'f32', device, padTo: 'batch' },
  });
  const { tensor } = await abortable(signal, work, { late: (batch) => batch.dispose() });
  return take(tensor);
}
