import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { drawScene } from '../../../lib/demo/scene.js';
import { createDetector, type Detector, Random, type Targets } from '../../../lib/index.js';
import { temporaryFolder } from '../temporary-folder.js';
import { sceneBatch, tinyDetector } from './scenes.js';

const adam = { type: 'adamw' as const, weightDecay: 1e-4, clipNorm: 10 };

async function train(detector: Detector, steps: number, dtype: 'f32' | 'bf16'): Promise<number[]> {
  const { batch, targets } = await sceneBatch(2, dtype);
  const curve: number[] = [];
  for (let i = 0; i < steps; i++) {
    const losses = await detector.loss(batch, targets);
    curve.push(Object.values(losses).reduce((sum, v) => sum + v, 0));
    await detector.backward();
    await detector.step({ lr: 2e-3 * Math.min(1, (i + 1) / 10) });
  }
  batch.dispose();
  return curve;
}

describe('RetinaNet', () => {
  test('the CPU has no TF32: it computes in f32', async () => {
    const curves = [];
    for (const dtype of ['fp32', 'tf32'] as const) {
      await using detector = await createDetector(tinyDetector, { dtype, seed: 1, device: 'cpu' });
      expect(detector.dtype).toBe(dtype === 'tf32' ? 'tf32' : 'f32');
      curves.push(await train(detector, 2, detector.computeDtype));
    }
    expect(curves[1]).toEqual(curves[0]);
  });

  for (const dtype of ['fp32', 'bf16'] as const)
    test(`learns two scenes by heart in ${dtype}`, async () => {
      await using detector = await createDetector(tinyDetector, {
        dtype,
        seed: 1,
        optimizer: adam,
      });
      const curve = await train(detector, 120, detector.computeDtype);
      expect(curve[0]).toBeGreaterThan(1);
      expect(curve.at(-1)).toBeLessThan(0.25);
      const { batch, targets } = await sceneBatch(2, detector.computeDtype);
      const found = await detector.predict(batch);
      batch.dispose();
      // Every annotated box is among the confident detections, with its class.
      const hit = targets.flatMap(({ boxes, labels }, n) =>
        [...labels].map((label, i) =>
          [...found[n]!.scores].some(
            (score, k) =>
              score > 0.5 &&
              found[n]!.labels[k] === label &&
              iou(found[n]!.boxes.subarray(4 * k), boxes.subarray(4 * i)) > 0.5,
          ),
        ),
      );
      expect(hit.filter(Boolean).length / hit.length).toBeGreaterThan(0.8);
    });

  test('is the same to the last bit when it is trained again', async () => {
    const curves = [];
    for (let run = 0; run < 2; run++) {
      await using detector = await createDetector(tinyDetector, { seed: 5, optimizer: adam });
      curves.push(await train(detector, 6, detector.computeDtype));
    }
    expect(curves[1]).toEqual(curves[0]);
  });

  test('weights one backward by its weight, and adds up several', async () => {
    await using detector = await createDetector(tinyDetector, { dtype: 'fp32', seed: 2 });
    const { batch, targets } = await sceneBatch(1, 'f32');
    const name = 'neck.lateral_convs.0.conv.weight';
    const gradient = async (weights: number[]) => {
      await detector.zeroGradients();
      for (const weight of weights) {
        await detector.loss(batch, targets);
        await detector.backward({ weight });
      }
      return (await detector.gradient(name))!;
    };
    const once = await gradient([1]);
    const sum = await gradient([0.5, 1.5]);
    batch.dispose();
    const scale = Math.max(...once.map(Math.abs));
    expect(scale).toBeGreaterThan(0);
    sum.forEach((v, i) => {
      expect(Math.abs(v - 2 * once[i]!)).toBeLessThan(1e-5 * scale);
    });
  });

  test('has the gradient of its own loss (central differences)', async () => {
    await using detector = await createDetector(tinyDetector, { dtype: 'fp32', seed: 4 });
    const { batch, targets } = await sceneBatch(2, 'f32');
    const total = async () =>
      Object.values(await detector.loss(batch, targets)).reduce((a, b) => a + b, 0);
    for (const name of [
      'bbox_head.retina_cls.bias',
      'bbox_head.cls_convs.0.gn.weight',
      'backbone.layer4.1.conv2.weight',
    ]) {
      await detector.zeroGradients();
      await total();
      await detector.backward();
      const gradient = (await detector.gradient(name))!;
      const norm = Math.sqrt(gradient.reduce((sum, g) => sum + g * g, 0));
      const values = await detector.readTensor(name);
      // Along the gradient itself the slope is its norm.
      const step = 2e-3 / norm;
      const shifted = async (sign: number) => {
        await detector.writeTensor(
          name,
          values.map((v, i) => v + sign * step * gradient[i]!),
        );
        return total();
      };
      const slope = ((await shifted(1)) - (await shifted(-1))) / (2 * step * norm);
      await detector.writeTensor(name, values);
      expect(slope / norm, name).toBeGreaterThan(0.97);
      expect(slope / norm, name).toBeLessThan(1.03);
    }
    batch.dispose();
  });

  test('is defined for no box, one box, 500 boxes and boxes smaller than a pixel', async () => {
    await using detector = await createDetector(tinyDetector, { seed: 2 });
    const { batch } = await sceneBatch(1, detector.computeDtype);
    const boxes = (count: number, size: number): Targets => ({
      boxes: Float32Array.from({ length: 4 * count }, (_, i) => {
        const at = (((i >> 2) * 37) % 80) + 1;
        return i % 4 < 2 ? at : at + size;
      }),
      labels: new Int32Array(count),
    });
    for (const targets of [boxes(0, 1), boxes(1, 20), boxes(500, 12), boxes(3, 0.2)]) {
      const losses = await detector.loss(batch, [targets]);
      for (const value of Object.values(losses)) expect(value).toBeGreaterThanOrEqual(0);
      await detector.backward();
      expect((await detector.step({ lr: 1e-4 })).gradNorm).toBeGreaterThan(0);
    }
    batch.dispose();
  });
});

describe('Detector', () => {
  test('gives its teacher its weights and moves it by EMA', async () => {
    await using student = await createDetector(tinyDetector, { seed: 1 });
    await using teacher = await student.createTeacher();
    const name = 'bbox_head.retina_reg.weight';
    const before = await student.readTensor(name);
    expect(await teacher.readTensor(name)).toEqual(before);
    await student.writeTensor(
      name,
      before.map((v) => v + 1),
    );
    await teacher.ema(student, 0.25);
    (await teacher.readTensor(name)).forEach((v, i) => {
      expect(v).toBeCloseTo(before[i]! + 0.25, 5);
    });
    await teacher.ema(student, 0);
    await teacher.ema(student, 1);
    expect(await teacher.readTensor(name)).toEqual(await student.readTensor(name));
  });

  test('saves and loads its weights', async () => {
    const file = join(await temporaryFolder(), 'weights.safetensors');
    await using a = await createDetector(tinyDetector, { seed: 1 });
    await using b = await createDetector(tinyDetector, { seed: 2 });
    await a.save(file);
    await b.loadWeights(file);
    for (const { name } of a.parameters())
      expect(await b.readTensor(name), name).toEqual(await a.readTensor(name));
    await using other = await createDetector({ ...tinyDetector, numClasses: 2 });
    await expect(other.loadWeights(file)).rejects.toThrow(
      /bbox_head\.retina_cls\.weight: must be \[18,3,3,32\], got \[54,3,3,32\]/,
    );
    const bytes = await readFile(file);
    await writeFile(file, bytes.subarray(0, bytes.length / 2));
    await expect(b.loadWeights(file)).rejects.toMatchObject({ code: 'ERR_BAD_FILE' });
  });

  test('takes pictures of any size, and answers in their pixels', async () => {
    await using detector = await createDetector(tinyDetector, {
      dtype: 'fp32',
      seed: 1, // seed 0 ends near the limit below, where rounding decides
      optimizer: adam,
      preprocess: { resize: { long: 128, short: 96 }, mean: [120, 115, 105] },
    });
    const scene = drawScene(new Random(3), { width: 256, height: 192 });
    const targets = {
      boxes: Float32Array.from(scene.objects.flatMap((o) => o.box)),
      labels: Int32Array.from(scene.objects, (o) => o.label),
    };
    for (let i = 0; i < 160; i++) {
      await detector.loss([scene], [targets]);
      await detector.backward();
      await detector.step({ lr: 2e-3 * Math.min(1, (i + 1) / 10) });
    }
    const [found] = await detector.predict([scene]);
    const best = found!.boxes.subarray(0, 4);
    const overlaps = scene.objects.map((o) => iou(best, Float32Array.from(o.box)));
    expect(Math.max(...overlaps)).toBeGreaterThan(0.6);
    await expect(detector.predict([{ ...scene, width: 255 }])).rejects.toThrow(
      'predict: data of image 0 must hold height x width x 3 numbers (192x255x3), got 147456',
    );
    expect(await detector.predict([])).toEqual([]);
  });

  test('resumes its optimizer from its state', async () => {
    await using a = await createDetector(tinyDetector, { seed: 1, optimizer: adam });
    await train(a, 3, a.computeDtype);
    await using b = await createDetector(tinyDetector, { seed: 9, optimizer: adam });
    await b.loadState(await a.state());
    expect(await train(b, 3, b.computeDtype)).toEqual(await train(a, 3, a.computeDtype));
  });

  test('refuses options that JSON cannot hold, or a native integer', async () => {
    const refused = (more: object) => createDetector({ ...tinyDetector, ...more });
    await expect(refused({ head: { channels: Number.NaN } })).rejects.toThrow(
      'createDetector: channels must be a finite number, got NaN',
    );
    await expect(refused({ head: { channels: 2 ** 40 } })).rejects.toThrow(
      'channels must be an integer in [-2^31, 2^31), got 1099511627776',
    );
    await expect(refused({ backbone: { baseWidth: 2 ** 20 } })).rejects.toThrow(
      'backbone.baseWidth must be a multiple of 4 in [4, 4096], got 1048576',
    );
    await expect(
      refused({ optimizer: { betas: [0.9, Number.POSITIVE_INFINITY] } }),
    ).rejects.toThrow('must be a finite number, got Infinity');
    for (const [preprocess, message] of [
      [{ std: [1, 0, 1] }, 'preprocess.std must be three numbers > 0, got [1,0,1]'],
      [{ mean: [1, 2] }, 'preprocess.mean must be three numbers, got [1,2]'],
      [{ padDivisor: 0 }, 'preprocess.padDivisor must be a whole number >= 1, got 0'],
      [{ resize: { long: 10 } }, 'preprocess.resize.short must be a number in [1, 65536], got'],
      [{ channelOrder: 'gbr' }, "preprocess.channelOrder must be 'rgb' or 'bgr', got"],
    ] as const)
      await expect(refused({ preprocess })).rejects.toThrow(message);
  });

  test('presets and inputs say what does not fit', async () => {
    await expect((createDetector as () => Promise<Detector>)()).rejects.toThrow(
      'createDetector: options must be an object with type and numClasses, or a preset, got undefined',
    );
    const preset = 'torchvision/fcos_resnet50_fpn';
    await expect(createDetector({ preset: 'torchvision/fcos' as typeof preset })).rejects.toThrow(
      'createDetector: preset must be one of torchvision/retinanet_resnet50_fpn',
    );
    await expect(createDetector({ preset, fgIouThresh: 0.5 })).rejects.toThrow(
      "createDetector: torchvision/fcos_resnet50_fpn: unknown option 'fgIouThresh'",
    );
    await expect(createDetector({ preset, trainableBackboneLayers: 6 })).rejects.toThrow(
      'trainableBackboneLayers must be an integer in [0, 5], got 6',
    );
    await using detector = await createDetector(tinyDetector);
    const image = { data: new Float32Array(32 * 32 * 3), height: 32, width: 32 };
    await expect(detector.predict([image], { normalized: true })).rejects.toThrow(
      'predict: resized must be true for normalised images',
    );
    await expect(detector.predict([image])).rejects.toThrow(
      'predict: data of image 0 must be a Uint8Array, RGB, got Float32Array',
    );
    await expect(
      detector.predict([{ ...image, height: 31 }], { normalized: true, resized: true }),
    ).rejects.toThrow('must hold height x width x 3 numbers (31x32x3), got 3072');
    const call = (method: 'predict' | 'loss', ...args: unknown[]) =>
      (detector[method] as (...args: unknown[]) => Promise<unknown>).apply(detector, args);
    await expect(call('predict')).rejects.toThrow(
      'detector.predict: images must be a list of 8-bit images or normalised arrays, or a prepared batch, got undefined',
    );
    await expect(call('predict', image)).rejects.toThrow('prepared batch, got Object');
    await expect(call('loss', [image])).rejects.toThrow(
      'detector.loss: targets must have one entry per image (1), got none',
    );
    // A fused ReLU would make 0 of it, and the losses finite.
    const broken = { ...image, data: image.data.with(1000, Number.NaN) };
    await expect(detector.predict([broken], { normalized: true, resized: true })).rejects.toThrow(
      'predict: data[1000] of image 0 must be finite, got NaN',
    );
    const picture = { data: new Uint8Array(32 * 32 * 3), height: 32, width: 32 };
    await expect(
      detector.predict([picture, { ...image, normalized: true, resized: true }]),
    ).rejects.toThrow('got image 0 not and image 1 normalised');
  });

  test('what has been done to a picture is its own matter', async () => {
    await using detector = await createDetector(
      { ...tinyDetector, test: { scoreThr: 0 } },
      {
        dtype: 'fp32',
        preprocess: { resize: { long: 128, short: 96 } },
      },
    );
    const scene = drawScene(new Random(3), { width: 64, height: 48 });
    const [small] = await detector.predict([{ ...scene, resized: true }]);
    const [large] = await detector.predict([scene]);
    expect(small).not.toEqual(large);
    // In one batch the smaller one is padded, which reaches its border.
    const scores = (found: { scores: Float32Array }) => [...found.scores.subarray(0, 3)];
    for (const order of [
      [true, false],
      [false, true],
    ]) {
      const both = await detector.predict(order.map((resized) => ({ ...scene, resized })));
      expect(scores(both[order.indexOf(false)]!)).toEqual(scores(large!));
      expect(scores(both[order.indexOf(true)]!)).not.toEqual(scores(large!));
    }
  });

  test('boxes that are none in a picture are refused in its own pixels', async () => {
    await using detector = await createDetector(tinyDetector, { dtype: 'fp32' });
    const scene = drawScene(new Random(3), { width: 64, height: 48 });
    const losing = (...box: number[]) =>
      detector.loss(
        [scene, scene],
        [
          { boxes: Float32Array.of(1, 1, 9, 9), labels: Int32Array.of(0) },
          { boxes: Float32Array.of(2, 2, 8, 8, ...box), labels: Int32Array.of(1, 2) },
        ],
      );
    for (const box of [
      [40, 5, 4, 40],
      [5, 40, 9, 40],
      [70, 10, 90, 20],
      [0, -9, 10, -1],
      [0, 0, Number.NaN, 9],
    ])
      await expect(losing(...box)).rejects.toMatchObject({
        code: 'ERR_RANGE',
        message: `detector.loss: boxes[1] of image 1 must be x1 < x2, y1 < y2 in 0 … 64 by 0 … 48, got [${box.join(', ')}]`,
      });
    expect(Object.values(await losing(-5, -5, 90, 90)).every(Number.isFinite)).toBe(true);
  });

  test('calls run in the order in which they are made, pictures or not', async () => {
    const make = () => createDetector(tinyDetector, { dtype: 'fp32', seed: 2, optimizer: adam });
    const scene = drawScene(new Random(3), { width: 64, height: 48 });
    const targets = [
      {
        boxes: Float32Array.from(scene.objects.flatMap((o) => o.box)),
        labels: Int32Array.from(scene.objects, (o) => o.label),
      },
    ];
    await using one = await make();
    const waited = [
      await one.loss([scene], targets),
      await one.backward(),
      await one.predict([scene]),
      await one.step({ lr: 0.5 }),
      await one.predict([scene]),
      await one.state(),
    ];
    await using other = await make();
    const atOnce = await Promise.all([
      other.loss([scene], targets),
      other.backward(),
      other.predict([scene]),
      other.step({ lr: 0.5 }),
      other.predict([scene]),
      other.state(),
      other.writeTensor('backbone.conv1.weight', new Float32Array(16 * 7 * 7 * 3)),
    ]);
    expect(atOnce.slice(0, 6)).toEqual(waited);
    expect(atOnce[2]).not.toEqual(atOnce[4]);
    // What a call that waits was given stays its own.
    const bias = 'neck.fpn_convs.0.conv.bias';
    const { batch } = await sceneBatch(1, 'f32');
    const values = new Float32Array(32).fill(1);
    const ahead = other.predict([scene]);
    const behind = other.predict(batch);
    batch.dispose();
    const written = other.writeTensor(bias, values);
    values.fill(7);
    expect([...new Set(await other.readTensor(bias))]).toEqual([1]);
    expect(await behind).toHaveLength(1);
    await Promise.all([ahead, written]);
    // A call that fails holds up none of those behind it.
    const failing = other.predict([{ ...scene, width: 9 }]);
    const next = other.predict([scene]);
    await expect(failing).rejects.toThrow('must hold');
    expect(await next).toHaveLength(1);
  });

  test('weights are read and written in call order, and a detector lets go in its turn', async () => {
    const folder = await temporaryFolder();
    const [file, exported] = [join(folder, 'a.safetensors'), join(folder, 'b.safetensors')];
    const scene = drawScene(new Random(3), { width: 64, height: 48 });
    const options = { ...tinyDetector, test: { scoreThr: 0 } };
    await using one = await createDetector(options, { dtype: 'fp32', seed: 2 });
    await one.save(file);
    const wanted = await one.predict([scene]);

    const other = await createDetector(options, { dtype: 'fp32', seed: 5 });
    const [before, , after] = await Promise.all([
      other.predict([scene]),
      other.loadWeights(file),
      other.predict([scene]),
    ]);
    expect(after).toEqual(wanted);
    expect(before).not.toEqual(wanted);
    const [, , last] = await Promise.all([
      other.exportWeights(exported, { layout: 'mmdetection' }),
      other.writeTensor('neck.fpn_convs.0.conv.weight', new Float32Array(32 * 9 * 32)),
      other.predict([scene]),
      other.dispose(),
    ]);
    expect(last).not.toEqual(wanted);
    await expect(other.predict([scene])).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    await one.loadWeights(exported, { layout: 'mmdetection' });
    expect(await one.predict([scene])).toEqual(wanted);
  });

  test('a teacher follows its student in the order of both', async () => {
    const scene = drawScene(new Random(3), { width: 64, height: 48 });
    await using student = await createDetector(tinyDetector, { dtype: 'fp32', seed: 2 });
    await using teacher = await student.createTeacher();
    const name = 'neck.fpn_convs.0.conv.bias';
    const fill = (value: number) => student.writeTensor(name, new Float32Array(32).fill(value));
    const [, , , , ofTeacher, ofStudent] = await Promise.all([
      student.predict([scene]),
      fill(1),
      teacher.ema(student, 1),
      fill(2),
      teacher.readTensor(name),
      student.readTensor(name),
    ]);
    expect([ofTeacher[0], ofStudent[0]]).toEqual([1, 2]);
    const [, , , again] = await Promise.all([
      teacher.predict([scene]),
      teacher.ema(student, 1),
      fill(3),
      teacher.readTensor(name),
    ]);
    expect(again[0]).toBe(2);
  });

  test('names what is wrong', async () => {
    await expect(createDetector({ ...tinyDetector, numClasses: 0 })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
    });
    await expect(
      createDetector({ ...tinyDetector, backbone: { depth: 19 as 18 } }),
    ).rejects.toThrow('backbone.depth must be 18, 34, 50 or 101, got 19');
    await expect(createDetector({ ...tinyDetector, heda: {} } as never)).rejects.toThrow(
      "unknown option 'heda'",
    );
    await expect(createDetector(tinyDetector, { device: 'cuda:99' })).rejects.toMatchObject({
      code: 'ERR_DEVICE',
    });
    await expect(
      createDetector(tinyDetector, { optimizer: { type: 'adam' as 'sgd' } }),
    ).rejects.toThrow("optimizer.type must be 'sgd' or 'adamw', got 'adam'");

    const detector = await createDetector(tinyDetector);
    const { batch, targets } = await sceneBatch(1, detector.computeDtype);
    await expect(detector.loss(batch, [])).rejects.toThrow(
      'targets must have one entry per image (1), got 0',
    );
    const wrong = (boxes: number[], labels: number[]) => [
      { boxes: Float32Array.from(boxes), labels: Int32Array.from(labels) },
    ];
    await expect(detector.loss(batch, wrong([0, 0, 9, 9], [6]))).rejects.toThrow(
      'label 0 of image 0 must be in [0, 5], got 6',
    );
    await expect(detector.loss(batch, wrong([9, 0, 0, 9], [0]))).rejects.toMatchObject({
      code: 'ERR_RANGE',
    });
    await expect(detector.loss(batch, wrong([0, 0, Number.NaN, 9], [0]))).rejects.toMatchObject({
      code: 'ERR_RANGE',
    });
    await expect(detector.loss(batch, wrong([0, 0, 9], [0]))).rejects.toMatchObject({
      code: 'ERR_SHAPE',
    });
    await expect(detector.backward()).rejects.toMatchObject({ code: 'ERR_STATE' });
    await detector.loss(batch, targets);
    await detector.backward();
    await expect(detector.backward()).rejects.toThrow('call loss() first');
    await expect(detector.step({ lr: Number.NaN })).rejects.toMatchObject({ code: 'ERR_RANGE' });
    await expect(detector.readTensor('nothing')).rejects.toMatchObject({ code: 'ERR_RANGE' });
    await expect(
      detector.writeTensor('bbox_head.retina_reg.bias', new Float32Array(3)),
    ).rejects.toMatchObject({ code: 'ERR_SHAPE' });
    batch.dispose();
    await expect(detector.predict(batch)).rejects.toMatchObject({ code: 'ERR_DISPOSED' });
    detector.dispose();
    detector.dispose();
    await expect(detector.readTensor('bbox_head.retina_reg.bias')).rejects.toMatchObject({
      code: 'ERR_DISPOSED',
    });
  });

  test('keeps its weights when a gradient is not finite', async () => {
    await using detector = await createDetector(tinyDetector, { dtype: 'fp32' });
    const { batch, targets } = await sceneBatch(1, 'f32');
    const name = 'bbox_head.retina_reg.weight';
    const before = await detector.readTensor(name);
    await detector.loss(batch, targets);
    await detector.backward({ weight: Number.POSITIVE_INFINITY });
    await expect(detector.step({ lr: 0.1 })).rejects.toMatchObject({ code: 'ERR_DIVERGED' });
    expect(await detector.readTensor(name)).toEqual(before);
    await detector.loss(batch, targets);
    await detector.backward();
    expect((await detector.step({ lr: 1e-4 })).gradNorm).toBeGreaterThan(0);
    batch.dispose();
  });

  test('allocates nothing new once it is warm', async () => {
    const { native } = await import('../../../lib/native.js');
    await using detector = await createDetector(tinyDetector, { optimizer: adam });
    await train(detector, 3, detector.computeDtype);
    const before = native.memoryStats().systemAllocations;
    await train(detector, 3, detector.computeDtype);
    expect(native.memoryStats().systemAllocations).toBe(before);
  });
});

function iou(a: Float32Array, b: Float32Array): number {
  const w = Math.min(a[2]!, b[2]!) - Math.max(a[0]!, b[0]!);
  const h = Math.min(a[3]!, b[3]!) - Math.max(a[1]!, b[1]!);
  if (w <= 0 || h <= 0) return 0;
  const area = (x: Float32Array) => (x[2]! - x[0]!) * (x[3]! - x[1]!);
  return (w * h) / (area(a) + area(b) - w * h);
}
