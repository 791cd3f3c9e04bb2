import {
  type ArrayInput,
  checkNumber,
  checkOptions,
  type KernelOptions,
  type NdArray,
  readArray,
  runKernel,
  take,
} from './arrays.js';

/** Options of sigmoidFocalLoss. */
export interface FocalLossOptions extends KernelOptions {
  /** Weight of positives, 0 … 1. @defaultValue 0.25 */
  alpha?: number;
  /** Focusing exponent, >= 0; 0 is cross-entropy. @defaultValue 2 */
  gamma?: number;
  /** Also computes the gradient. @defaultValue false */
  gradient?: boolean;
}

/**
 * Sigmoid focal loss, summed: -w (1 - p)^gamma log p, p = sigmoid(±logit), w = alpha or 1 - alpha.
 * @param logits f32 [..., C]; a typed array is read as [labels.length, C]
 * @param labels i32 [...]: 0 … C-1 object, C background, -1 ignored
 * @returns the loss in nats and, if asked for, its gradient in the logits' shape
 * @throws MixplError ERR_SHAPE, ERR_DTYPE, ERR_RANGE
 * @source Lin et al. 2017, arXiv:1708.02002, eq. 5
 */
export async function sigmoidFocalLoss(
  logits: ArrayInput<Float32Array>,
  labels: ArrayInput<Int32Array>,
  options: FocalLossOptions = {},
): Promise<{ loss: number; dlogits: NdArray<Float32Array> | null }> {
  const op = 'sigmoidFocalLoss';
  checkOptions(op, options, ['alpha', 'gamma', 'gradient']);
  const { alpha = 0.25, gamma = 2, gradient = false, signal, device } = options;
  checkNumber(op, 'alpha', alpha, { low: 0, high: 1 });
  checkNumber(op, 'gamma', gamma, { low: 0 });
  const own = readArray(op, 'labels', labels, { dtype: 'i32' });
  const scores = readArray(op, 'logits', logits, {
    dtype: 'f32',
    shape: [...own.shape, null],
    axes: [...own.shape, 'C'].join(', '),
  });
  const { outputs, gradients } = await runKernel(
    op,
    [scores, own],
    { alpha, gamma },
    { signal, device, gradient },
  );
  const { data } = await take<Float32Array>(outputs[0]!);
  return { loss: data[0]!, dlogits: gradient ? await take(gradients[0]!) : null };
}

/**
 * One step of an exponential moving average: (1 - momentum) teacher + momentum student.
 * @param teacher f32, any shape; left as it is
 * @param student f32, the same shape
 * @param options.momentum the student's share, 0 … 1
 * @returns f32, the teacher after the step
 * @throws MixplError ERR_SHAPE, ERR_DTYPE, ERR_RANGE
 */
export async function ema(
  teacher: ArrayInput<Float32Array>,
  student: ArrayInput<Float32Array>,
  options: KernelOptions & { momentum: number },
): Promise<NdArray<Float32Array>> {
  checkOptions('ema', options, ['momentum']);
  const { momentum, signal, device } = options;
  checkNumber('ema', 'momentum', momentum, { low: 0, high: 1 });
  const first = readArray('ema', 'teacher', teacher, { dtype: 'f32' });
  const second = readArray('ema', 'student', student, { dtype: 'f32', shape: first.shape });
  const { outputs } = await runKernel('ema', [first, second], { momentum }, { signal, device });
  return take(outputs[0]!);
}
