import { afterAll, describe, expect, expectTypeOf, test } from 'vitest';
import {
  createDetector,
  type Detections,
  type Detector,
  type Targets,
} from '../../../lib/index.js';
import { native, optionsJson } from '../../../lib/native.js';
import { tinyDetector } from './scenes.js';

const detector = await createDetector(tinyDetector, { device: 'cpu', dtype: 'fp32' });
afterAll(() => detector.dispose());
const picture = { data: new Uint8Array(3 * 64 * 64), width: 64, height: 64 };
const target = { boxes: Float32Array.of(1, 1, 20, 20), labels: Int32Array.of(0) };

/** What no TypeScript would let through. */
const anything = <T>(value: unknown) => value as T;

describe('what is wrong with a call is said by name and code', () => {
  const predict = (images: unknown, options?: unknown) => () =>
    detector.predict(anything<never[]>(images), anything(options));
  const loss =
    (targets: unknown, images: unknown = [picture]) =>
    () =>
      detector.loss(anything<never[]>(images), anything<Targets[]>(targets));
  const create = (options: object, runtime?: object) => () =>
    createDetector({ ...tinyDetector, ...options }, anything(runtime));
  test.each([
    [predict([null]), 'ERR_DTYPE', 'predict: image 0 must be { data, height, width }, got null'],
    [predict([picture, undefined]), 'ERR_DTYPE', /^predict: image 1 must be .* got undefined$/],
    [predict(['a.jpg']), 'ERR_DTYPE', /^predict: image 0 must be .* got String$/],
    [
      predict({ tensor: 1 }),
      'ERR_DTYPE',
      /^detector.predict: images must be a list .* got Object$/,
    ],
    [predict([picture], null), 'ERR_CONFIG', 'predict: options must be an object, got null'],
    [predict([picture], { resizd: true }), 'ERR_CONFIG', /'resizd'; did you mean 'resized'\?$/],
    [predict([picture], { signal: 1 }), 'ERR_CONFIG', /signal must be an AbortSignal, got number$/],
    [loss([null]), 'ERR_DTYPE', /boxes of image 0 must be a Float32Array, got undefined$/],
    [loss([{ ...target, boxes: [1, 1, 2, 2] }]), 'ERR_DTYPE', /Float32Array, got Array$/],
    [loss([{ ...target, labels: new Float32Array(1) }]), 'ERR_DTYPE', /an Int32Array, got Float/],
    [
      loss([{ ...target, labels: Int32Array.of(0, 1) }]),
      'ERR_SHAPE',
      /4 numbers a label \(8\), got 4$/,
    ],
    [loss([], []), 'ERR_SHAPE', 'detector.loss: images must hold one at least, got none'],
    [() => detector.step(anything(undefined)), 'ERR_CONFIG', /must be an object, got undefined$/],
    [() => detector.step(anything({})), 'ERR_DTYPE', /lr must be a number, got undefined$/],
    [() => detector.loadState(anything({})), 'ERR_DTYPE', /state must be a Map/],
    [() => detector.backward(anything(null)), 'ERR_CONFIG', /must be an object, got null$/],
    [() => detector.backward(anything({ wieght: 2 })), 'ERR_CONFIG', /did you mean 'weight'\?$/],
    [
      () => detector.gradient('neck.w', anything(null)),
      'ERR_CONFIG',
      'detector.gradient: options must be an object, got null',
    ],
    [
      () => detector.gradient('neck.w', anything('torchvision')),
      'ERR_CONFIG',
      'detector.gradient: options must be an object, got string',
    ],
    [
      () => detector.ema(detector, 1, anything('copy')),
      'ERR_CONFIG',
      'detector.ema: options must be an object, got string',
    ],
    [() => detector.ema(detector, 1), 'ERR_CONFIG', /student must be another detector$/],
    [
      () => detector.stepStudent(detector, anything({ rate: 1 })),
      'ERR_CONFIG',
      /^detector.stepStudent: unknown option 'rate'/,
    ],
    [
      () => detector.save(anything(undefined)),
      'ERR_DTYPE',
      /path must be a string \(a path\), got undefined$/,
    ],
    [
      () => detector.save(anything(new URL('file:///tmp/weights.safetensors'))),
      'ERR_DTYPE',
      'detector.save: path must be a string (a path), got URL; try fileURLToPath() of node:url',
    ],
    [
      () => detector.loadWeights(anything(7)),
      'ERR_DTYPE',
      'loadWeights: path must be a string (a path), got Number',
    ],
    [() => detector.loadWeights('a.pth', anything(null)), 'ERR_CONFIG', /an object, got null$/],
    [
      () => detector.loadWeights('a.pth', anything({ strct: false })),
      'ERR_CONFIG',
      "loadWeights: unknown option 'strct'; did you mean 'strict'?",
    ],
    [
      () => detector.exportWeights('a.safetensors', anything(undefined)),
      'ERR_CONFIG',
      'detector.exportWeights: options must be an object, got undefined',
    ],
    [create({}, { devce: 'cpu' }), 'ERR_CONFIG', /'devce'; did you mean 'device'\?$/],
    [create({ preprocess: { maen: 1 } }), 'ERR_CONFIG', /'maen'; did you mean 'mean'\?$/],
    [
      create({ dtype: 'fp16' }),
      'ERR_DTYPE',
      /dtype must be one of auto, fp32, tf32, bf16, got 'fp16'$/,
    ],
  ] as [() => Promise<unknown>, string, string | RegExp][])('%#', async (call, code, message) => {
    const refusal = await call().then(
      () => 'none',
      (error) => error,
    );
    expect(refusal).toMatchObject({ name: 'MixplError', code });
    if (typeof message === 'string') expect(refusal.message).toBe(message);
    else expect(refusal.message).toMatch(message);
  });
});

test('a label is named as the caller counts them', async () => {
  await using fromOne = await createDetector(tinyDetector, { device: 'cpu', firstLabel: 1 });
  const { numClasses } = tinyDetector;
  for (const label of [0, numClasses + 1]) {
    const targets = [{ ...target, labels: Int32Array.of(label) }];
    await expect(fromOne.loss([picture], targets)).rejects.toMatchObject({
      code: 'ERR_RANGE',
      message: `detector.loss: label 0 of image 0 must be in [1, ${numClasses}], got ${label}`,
    });
  }
  await fromOne.loss([picture], [{ ...target, labels: Int32Array.of(numClasses) }]);
});

describe('pixels', () => {
  const big = (value: number) => {
    const data = new Uint8Array(3 * 512 * 512).fill(value);
    return { data, width: 512, height: 512 };
  };

  test('are those of the call, though they are overwritten or transferred while it waits', async () => {
    const [alone] = await detector.predict([big(200)]);
    const busy = detector.predict([big(1)]);
    const [overwritten, transferred] = [big(200), big(200)];
    const calls = [detector.predict([overwritten]), detector.predict([transferred])];
    overwritten.data.fill(0);
    structuredClone(transferred.data.buffer, { transfer: [transferred.data.buffer] });
    await busy;
    for (const [found] of await Promise.all(calls)) expect(found).toEqual(alone);
  });

  test('may lie in shared memory', async () => {
    const data = new Uint8Array(new SharedArrayBuffer(picture.data.length));
    expect(await detector.predict([{ ...picture, data }])).toEqual(
      await detector.predict([picture]),
    );
  });
});

describe('predict() with a signal', () => {
  test('rejects with its reason', async () => {
    const stop = new AbortController();
    const waiting = Array.from({ length: 20 }, () =>
      detector.predict([picture], { signal: stop.signal }),
    );
    const settled = Promise.allSettled(waiting);
    const after = detector.predict([picture]);
    stop.abort(new Error('gone'));
    for (const result of await settled)
      expect(result).toMatchObject({ status: 'rejected', reason: new Error('gone') });
    await expect(detector.predict([picture], { signal: stop.signal })).rejects.toThrow('gone');
    expect(await detector.predict([picture], { signal: new AbortController().signal })).toEqual(
      await after,
    );
  });

  test('is not made when its turn has not come', async () => {
    const options = optionsJson('test', tinyDetector);
    const handle = await native.createDetector(options, 'cpu', 'f32', 0);
    const tensor = native.createTensor(new Float32Array(128 * 128 * 3), [1, 128, 128, 3], 'f32');
    const sizes = Float32Array.of(128, 128);
    const cancellation = native.cancellation();
    const ahead = [0, 1, 2].map(() => handle.predict(tensor, sizes));
    const cancelled = handle.predict(tensor, sizes, cancellation);
    const behind = handle.predict(tensor, sizes);
    cancellation.cancel();
    await expect(cancelled).rejects.toMatchObject({
      code: 'ERR_STATE',
      message: 'detector.predict: was cancelled before it began',
    });
    expect(await behind).toEqual(await ahead[0]);
    tensor.dispose();
    handle.dispose();
  });
});

test('predict() has a result for each image of a list, by type too', () => {
  type Predict = Detector['predict'];
  const use = async (predict: Predict, list: (typeof picture)[]) => {
    const [one] = await predict([picture]);
    expectTypeOf(one).toEqualTypeOf<Detections>();
    expectTypeOf(await predict(list)).toEqualTypeOf<Detections[]>();
  };
  expect(use).toBeTypeOf('function');
});
