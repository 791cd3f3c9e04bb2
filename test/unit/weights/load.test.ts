import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { resolvePreset, type TorchvisionPreset } from '../../../lib/detector/torchvision.js';
import {
  createDetector,
  type Detector,
  type DetectorOptions,
  readSafetensors,
  type StoredTensor,
  writeSafetensors,
} from '../../../lib/index.js';
import { layoutOf } from '../../../lib/weights/layouts.js';
import { sceneBatch } from '../detector/scenes.js';
import { temporaryFolder } from '../temporary-folder.js';
import { tensor, torchZip } from './torch-bytes.js';

const golden = (name: string) => new URL(`../../golden/weights/${name}`, import.meta.url).pathname;
const folder = await temporaryFolder();
let files = 0;
const fresh = (ending = 'safetensors') => join(folder, `${files++}.${ending}`);

/** As scripts/golden/weights.py makes torchvision's RetinaNet small. */
const small: DetectorOptions = {
  type: 'retinanet',
  numClasses: 3,
  backbone: { depth: 18, baseWidth: 4, style: 'pytorch' },
  neck: { channels: 16, extra: 'on-output', reluBeforeExtra: true },
  head: { channels: 16 },
};

async function valuesOf(detector: Detector): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  for (const { name } of detector.parameters()) values.set(name, await detector.readTensor(name));
  return values;
}

/** OIHW of OHWI, by a formula of its own. */
function oihw(values: Float32Array, [, r, s, c]: readonly number[]): Float32Array {
  if (c === undefined) return values;
  return Float32Array.from(values, (_, i) => {
    const [x, y] = [i % s!, Math.floor(i / s!) % r!];
    const [channel, filter] = [Math.floor(i / (s! * r!)) % c, Math.floor(i / (s! * r! * c))];
    return values[((filter * r! + y) * s! + x) * c + channel]!;
  });
}

async function torchvisionFile(detector: Detector): Promise<Map<string, StoredTensor>> {
  const file = fresh();
  await detector.exportWeights(file, { layout: 'torchvision' });
  return (await readSafetensors(file)).tensors;
}

async function save(tensors: Map<string, StoredTensor>): Promise<string> {
  const file = fresh();
  await writeSafetensors(file, tensors);
  return file;
}

const ones = (...shape: number[]): StoredTensor => ({
  shape,
  data: new Float32Array(shape.reduce((a, b) => a * b, 1)).fill(1),
});

describe('names', async () => {
  const { torchvision, models } = JSON.parse(await readFile(golden('names.json'), 'utf8')) as {
    torchvision: string;
    models: Record<string, string[]>;
  };
  const r50 = (more: object): DetectorOptions => ({
    ...small,
    backbone: { depth: 50, baseWidth: 4, style: 'pytorch' },
    ...more,
  });
  // Names do not depend on widths.
  const preset = (name: TorchvisionPreset): DetectorOptions => {
    const { model } = resolvePreset({ preset: name, numClasses: 4, backbone: { baseWidth: 4 } });
    const thin = { ...model, neck: { ...model.neck, channels: 32 } };
    if (thin.type === 'faster-rcnn')
      return {
        ...thin,
        rpn: { ...thin.rpn, channels: 32 },
        roi: { ...thin.roi, convChannels: 32, fcChannels: 32 },
      } as DetectorOptions;
    return {
      ...thin,
      head: { norm: 'gn', ...('head' in model && model.head), channels: 32 },
    } as DetectorOptions;
  };
  test.each([
    ['resnet18', small],
    ['resnet50', r50({})],
    ['retinanet', r50({})],
    ['retinanet_v2', preset('torchvision/retinanet_resnet50_fpn_v2')],
    ['fcos', preset('torchvision/fcos_resnet50_fpn')],
    ['fasterrcnn', preset('torchvision/fasterrcnn_resnet50_fpn')],
    ['fasterrcnn_v2', preset('torchvision/fasterrcnn_resnet50_fpn_v2')],
  ])(`of %s are those of torchvision ${torchvision}`, async (model, options) => {
    await using detector = await createDetector(options);
    const names = models[model]!.filter((name) => !name.endsWith('.num_batches_tracked'));
    const own = detector.parameters().map(({ name }) => name);
    const layout = layoutOf('torchvision', { type: options.type, own, stored: names });
    const known = names.filter((name) => !layout.isUnused(name));
    expect(own.flatMap((name) => layout.namesOf(name)[0] ?? []).sort()).toEqual(known.sort());
    expect(layout.backboneOnly).toBe(model.startsWith('resnet'));
  });
});

describe('loading', () => {
  test("torchvision's RetinaNet from a .pth of before 0.13, to the last bit", async () => {
    await using detector = await createDetector(small);
    const result = await detector.loadWeights(golden('retinanet-r18.pth'));
    expect(result).toMatchObject({ layout: 'torchvision', missing: [], unexpected: [] });
    expect(result.note).toBeUndefined();
    expect(result.loaded.sort()).toEqual(
      detector
        .parameters()
        .map((p) => p.name)
        .sort(),
    );
    // Tensor number n of the state dict begins at element n of the formula's numbers.
    const number = (i: number) => (((i * 7) % 61) + 1) / 64;
    const { models } = JSON.parse(await readFile(golden('names.json'), 'utf8'));
    const order = (models.resnet18 as string[]).indexOf('layer1.0.bn1.running_var');
    const first = detector.parameters().find((p) => p.name === 'backbone.conv1.weight')!;
    const stem = oihw(await detector.readTensor(first.name), first.shape);
    expect(stem).toEqual(Float32Array.from(stem, (_, i) => number(i)));
    const norm = await detector.readTensor('backbone.layer1.0.bn1.running_var');
    expect(norm).toEqual(Float32Array.from(norm, (_, i) => number(order + i)));
  });

  test.each(['torchvision', 'mmdetection'] as const)(
    'what %s exports, bit by bit',
    async (layout) => {
      await using from = await createDetector(small, { seed: 1 });
      await using to = await createDetector(small, { seed: 2 });
      const file = fresh();
      await from.exportWeights(file, { layout });
      expect((await to.loadWeights(file)).layout).toBe(layout);
      expect(await valuesOf(to)).toEqual(await valuesOf(from));
      const again = fresh();
      await to.exportWeights(again, { layout });
      expect(await readFile(again)).toEqual(await readFile(file));

      const { tensors, metadata } = await readSafetensors(file);
      expect(metadata).toMatchObject({ format: 'pt', layout });
      const { name, shape } = from.parameters().find((p) => p.name.endsWith('retina_cls.weight'))!;
      const stored = tensors.get(
        layout === 'torchvision' ? 'head.classification_head.cls_logits.weight' : name,
      )!;
      expect(stored.shape).toEqual([27, 16, 3, 3]);
      expect(stored.data).toEqual(oihw(await from.readTensor(name), shape));
    },
  );

  test('finds the layout without metadata, by names and by the order of axes', async () => {
    await using from = await createDetector(small, { seed: 1 });
    await using to = await createDetector(small, { seed: 2 });
    for (const layout of ['torchvision', 'mmdetection'] as const) {
      const file = fresh();
      await from.exportWeights(file, { layout });
      const bare = await save((await readSafetensors(file)).tensors);
      expect((await to.loadWeights(bare)).layout).toBe(layout);
    }
    await from.save(fresh());
    const own = new Map<string, StoredTensor>();
    for (const { name, shape } of from.parameters())
      own.set(name, { shape, data: await from.readTensor(name) });
    expect((await to.loadWeights(await save(own))).layout).toBe('mixpl');
    expect(await valuesOf(to)).toEqual(await valuesOf(from));
  });

  test('a checkpoint of mmdetection: the teacher, or the student on request', async () => {
    await using teacher = await createDetector(small, { seed: 1 });
    await using student = await createDetector(small, { seed: 2 });
    await using to = await createDetector(small, { seed: 3 });
    const state: Record<string, unknown> = {};
    const storages: Record<string, Buffer> = {};
    for (const [branch, detector] of [
      ['teacher', teacher],
      ['student', student],
    ] as const)
      for (const { name, shape } of detector.parameters()) {
        const key = String(Object.keys(storages).length);
        const values = oihw(await detector.readTensor(name), shape);
        const [k, r, s, c] = shape;
        storages[key] = Buffer.from(values.buffer);
        state[`${branch}.${name}`] = tensor({
          ...{ key, count: values.length },
          shape: c === undefined ? shape : [k!, c, r!, s!],
        });
        if (name.endsWith('running_var'))
          state[`${branch}.${name.replace('running_var', 'num_batches_tracked')}`] = tensor({
            ...{ key: 'n', type: 'Long', count: 1, shape: [] },
          });
      }
    storages.n = Buffer.alloc(8);
    const file = fresh('pth');
    await writeFile(file, torchZip({ meta: { epoch: 1 }, state_dict: state }, storages));
    const result = await to.loadWeights(file);
    expect(result).toMatchObject({ layout: 'mmdetection', missing: [], unexpected: [] });
    expect(result.note).toBe('only names that begin with teacher. were taken');
    expect(await valuesOf(to)).toEqual(await valuesOf(teacher));
    await to.loadWeights(file, { prefix: 'student' });
    expect(await valuesOf(to)).toEqual(await valuesOf(student));
  });

  test.each(['torchvision', 'timm', 'mmdetection'] as const)(
    'a classification network of %s into the backbone',
    async (layout) => {
      await using from = await createDetector(small, { seed: 1 });
      await using to = await createDetector(small, {
        seed: 2,
        preprocess: { channelOrder: 'bgr' },
      });
      const before = await valuesOf(to);
      const tensors = new Map<string, StoredTensor>([['fc.weight', ones(10, 32)]]);
      for (const [name, stored] of await torchvisionFile(from))
        if (name.startsWith('backbone.body.'))
          tensors.set(name.slice('backbone.body.'.length), stored);
      const result = await to.loadWeights(await save(tensors), { layout });
      expect(result.loaded.every((name) => name.startsWith('backbone.'))).toBe(true);
      expect(result.missing.every((name) => !name.startsWith('backbone.'))).toBe(true);
      expect(result.unexpected).toEqual([]);
      expect(result.note).toMatch(
        /backbone and a classifier, which is not used: neck and head keep/,
      );
      if (layout !== 'mmdetection')
        expect(result.note).toMatch(/take RGB; preprocess\.channelOrder is bgr/);
      const [after, wanted] = [await valuesOf(to), await valuesOf(from)];
      for (const [name, values] of after)
        expect(values, name).toEqual((name.startsWith('backbone.') ? wanted : before).get(name));

      tensors.delete('layer3.1.conv2.weight');
      await expect(to.loadWeights(await save(tensors), { layout })).rejects.toThrow(
        '1 missing: backbone.layer3.1.conv2.weight',
      );
    },
  );

  test("mmdetection's Caffe ResNet, whose stem has a bias, is not taken for torchvision's", async () => {
    const caffe: DetectorOptions = {
      ...small,
      backbone: { depth: 50, baseWidth: 4, style: 'caffe' },
    };
    const input = { preprocess: { channelOrder: 'bgr' } } as const;
    await using from = await createDetector(caffe, { ...input, seed: 1 });
    await using to = await createDetector(caffe, { ...input, seed: 2 });
    const tensors = new Map<string, StoredTensor>([['conv1.bias', ones(4)]]);
    for (const [name, stored] of await torchvisionFile(from))
      if (name.startsWith('backbone.body.'))
        tensors.set(name.slice('backbone.body.'.length), stored);
    const result = await to.loadWeights(await save(tensors), { strict: 'except-classes' });
    expect(result).toMatchObject({ layout: 'mmdetection', unexpected: [] });
    expect(result.note).toBe('the file holds a backbone only: neck and head keep their weights');
    const [after, wanted] = [await valuesOf(to), await valuesOf(from)];
    for (const name of result.loaded) expect(after.get(name), name).toEqual(wanted.get(name));
    expect(result.loaded).toContain('backbone.conv1.weight');

    const pytorch = { ...caffe, backbone: { ...caffe.backbone, style: 'pytorch' } } as const;
    await using other = await createDetector(pytorch);
    const { note } = await other.loadWeights(await save(tensors));
    expect(note).toMatch(/take BGR; preprocess\.channelOrder is rgb/);
    expect(note).toMatch(/stride on the first 1x1; backbone\.style is pytorch/);
  });

  test('says where a detector looks as if it were made for other weights', async () => {
    await using from = await createDetector(small, { seed: 1 });
    await using to = await createDetector({
      ...small,
      neck: { channels: 16, extra: 'on-output' },
    });
    const { note } = await to.loadWeights(await save(await torchvisionFile(from)));
    expect(note).toMatch(/ReLU between P6 and P7; neck\.reluBeforeExtra is false/);
  });

  test('another number of classes: all but the class layer', async () => {
    await using from = await createDetector({ ...small, numClasses: 5 }, { seed: 1 });
    await using to = await createDetector(small, { seed: 2 });
    const before = await valuesOf(to);
    const file = fresh();
    await from.exportWeights(file, { layout: 'torchvision' });
    await expect(to.loadWeights(file)).rejects.toThrow(
      /2 of another shape: head\.classification_head\.cls_logits\.weight \(bbox_head\.retina_cls\.weight\): must be \[27,16,3,3\], got \[45,16,3,3\]; .*try strict: 'except-classes'/,
    );
    expect(await valuesOf(to)).toEqual(before);
    for (const strict of ['except-classes', false] as const) {
      const result = await to.loadWeights(file, { strict });
      expect(result.missing).toEqual(['bbox_head.retina_cls.weight', 'bbox_head.retina_cls.bias']);
      expect(result.note).toBe(
        'the class layer keeps its weights: the file has 5 classes, the detector 3',
      );
    }
    const [after, wanted] = [await valuesOf(to), await valuesOf(from)];
    for (const [name, values] of after)
      expect(values, name).toEqual((name.includes('retina_cls') ? before : wanted).get(name));
  });

  test('refuses with every name, and changes nothing', async () => {
    await using from = await createDetector(small, { seed: 1 });
    await using to = await createDetector(small, { seed: 2 });
    const before = await valuesOf(to);
    const tensors = await torchvisionFile(from);
    const p6 = 'backbone.fpn.extra_blocks.p6.weight';
    tensors.delete('head.regression_head.bbox_reg.bias');
    tensors.set('head.mask.weight', ones(1));
    tensors.set(p6, ones(16, 32, 3, 3));
    const file = await save(tensors);
    await expect(to.loadWeights(file)).rejects.toMatchObject({
      code: 'ERR_CHECKPOINT',
      missing: ['bbox_head.retina_reg.bias'],
      unexpected: ['head.mask.weight'],
      misshapen: [{ stored: p6 }],
      message:
        `${file}: the weights (layout torchvision) do not fit the detector: ` +
        `1 of another shape: ${p6} (neck.fpn_convs.3.conv.weight): must be [16,16,3,3], got [16,32,3,3]; ` +
        '1 missing: bbox_head.retina_reg.bias; 1 unexpected: head.mask.weight',
    });
    // Shapes are never ignored.
    await expect(to.loadWeights(file, { strict: false })).rejects.toThrow('1 of another shape');
    tensors.delete(p6);
    const nan = tensors.get('backbone.body.bn1.bias')!;
    tensors.set('backbone.body.bn1.bias', { ...nan, data: nan.data.map(() => Number.NaN) });
    const broken = await save(tensors);
    await expect(to.loadWeights(broken, { strict: false })).rejects.toMatchObject({
      code: 'ERR_CHECKPOINT',
      message: `${broken}: the weights must be finite, got NaN or infinity in backbone.body.bn1.bias`,
    });
    expect(await valuesOf(to)).toEqual(before);

    tensors.set('backbone.body.bn1.bias', nan);
    const result = await to.loadWeights(await save(tensors), { strict: false });
    expect(result.missing).toEqual(['neck.fpn_convs.3.conv.weight', 'bbox_head.retina_reg.bias']);
    expect(result.unexpected).toEqual(['head.mask.weight']);
  });

  test('refuses files of no layout, of several, and nothing in common', async () => {
    await using detector = await createDetector(small);
    const load = async (names: Record<string, StoredTensor>, options = {}) =>
      detector.loadWeights(await save(new Map(Object.entries(names))), options);
    await expect(load({ 'encoder.weight': ones(1) })).rejects.toThrow(
      /names of one layout \(mixpl, torchvision, mmdetection, timm\), got names of none, e\.g\. encoder\.weight/,
    );
    await expect(
      load({ 'backbone.conv1.weight': ones(4, 3, 7, 7), 'conv1.weight': ones(4, 3, 7, 7) }),
    ).rejects.toThrow(
      /several \(torchvision: conv1\.weight; mmdetection: backbone\.conv1\.weight\); try to name the layout/,
    );
    await expect(load({ 'backbone.bn1.weight': ones(4) })).rejects.toThrow(
      /names that mixpl and mmdetection share, .* order of axes/,
    );
    await expect(load({ 'x.weight': ones(1) }, { layout: 'timm', strict: false })).rejects.toThrow(
      /missing: .* 1 unexpected: x\.weight/,
    );
    await expect(load({}, { layout: 'keras' })).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining('layout must be one of mixpl, torchvision'),
    });
    await expect(load({}, { stric: false })).rejects.toThrow(
      "unknown option 'stric'; did you mean 'strict'?",
    );
  });
});

describe('writing', () => {
  test('a layout that has no name for a parameter is refused', async () => {
    await using detector = await createDetector({
      ...small,
      head: { channels: 16, stackedConvs: 1, norm: 'gn' },
    });
    await detector.exportWeights(fresh(), { layout: 'torchvision' });
    await expect(
      detector.exportWeights(fresh(), { layout: 'timm' as 'torchvision' }),
    ).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: "exportWeights: layout must be one of torchvision, mmdetection, got 'timm'",
    });
  });

  test('gradients under the names and in the order of the layout', async () => {
    await using detector = await createDetector(
      { ...small, numClasses: 6, backbone: { ...small.backbone!, frozenStages: -1 } },
      { dtype: 'fp32' },
    );
    const { batch, targets } = await sceneBatch(1, 'f32');
    await detector.loss(batch, targets);
    await detector.backward();
    batch.dispose();
    for (const [name, layout, stored] of [
      ['backbone.layer2.0.conv1.weight', 'torchvision', 'backbone.body.layer2.0.conv1.weight'],
      ['backbone.layer2.0.conv1.weight', 'timm', 'layer2.0.conv1.weight'],
      ['bbox_head.reg_convs.1.conv.bias', 'torchvision', 'head.regression_head.conv.2.bias'],
      ['bbox_head.retina_cls.weight', 'mmdetection', 'bbox_head.retina_cls.weight'],
    ] as const) {
      const own = (await detector.gradient(name))!;
      expect(own.some((g) => g !== 0)).toBe(true);
      const { shape } = detector.parameters().find((p) => p.name === name)!;
      expect(await detector.gradient(stored, { layout }), stored).toEqual(oihw(own, shape));
    }
    await expect(
      detector.gradient('backbone.body.conv1.weigth', { layout: 'torchvision' }),
    ).rejects.toMatchObject({
      code: 'ERR_RANGE',
      message: expect.stringContaining("did you mean 'backbone.body.conv1.weight'?"),
    });
  });
});
