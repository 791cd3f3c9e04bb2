// Detectors as ONNX files, run by onnxruntime beside our own prediction.
import { mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BinaryReader, WireType } from '@bufbuild/protobuf/wire';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { drawScene } from '../../../lib/demo/scene.js';
import {
  compareOnnx,
  createDetector,
  type DetectorOptions,
  type DetectorPreprocess,
  exportOnnx,
  Random,
  runOnnx,
} from '../../../lib/index.js';
import { packageVersion } from '../../../lib/version.js';
import { smallDetectors, withTest } from '../cuda/small-detectors.js';

const hasRuntime = (() => {
  try {
    createRequire(import.meta.url).resolve('onnxruntime-node');
    return true;
  } catch {
    return false;
  }
})();

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-onnx-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

const open = (options: DetectorOptions, preprocess: Partial<DetectorPreprocess> = {}) =>
  createDetector(options, { dtype: 'fp32', device: 'cpu', seed: 3, preprocess });

const picture = (height: number, width: number) => {
  const { data } = drawScene(new Random(height + width), { width, height });
  return { data, height, width };
};

// Untrained scores lie about a prior of 0.01: some 40 of them are detections.
const seen = (name: string, test: object = {}): DetectorOptions => {
  const options = withTest(smallDetectors[name]!, { scoreThr: 0.0095, maxPerImage: 60 });
  return { ...options, test: { ...options.test, ...test } } as DetectorOptions;
};
const backbone = { depth: 18, frozenStages: -1, baseWidth: 8 } as const;
const withRoi = (roi: object) => {
  const options = seen('faster-rcnn', { scoreThr: 0.2 });
  return { ...options, roi: { ...('roi' in options && options.roi), ...roi } } as DetectorOptions;
};
const retinanet = (of: object) => ({ ...seen('retinanet'), ...of }) as DetectorOptions;

const cases: [string, DetectorOptions, Partial<DetectorPreprocess>?][] = [
  ['retinanet', seen('retinanet')],
  ['fcos', seen('fcos')],
  ['atss', seen('atss')],
  ['gfl', seen('gfl')],
  ['paa', seen('paa', { scoreVoting: false })],
  ['centernet', seen('centernet')],
  ['tood', seen('tood')],
  ['sparse-rcnn', seen('sparse-rcnn')],
  ['dab-detr', seen('dab-detr')],
  ['dino', seen('dino')],
  ['deformable-detr', seen('deformable-detr')],
  ['plain deformable-detr', seen('plain deformable-detr')],
  ['retinanet over swin', seen('retinanet over swin')],
  ['faster-rcnn', seen('faster-rcnn', { scoreThr: 0.2 })],
  ['cascade-rcnn', seen('cascade-rcnn', { scoreThr: 0.2 })],
  [
    'torchvision numerics, Faster R-CNN',
    { ...seen('faster-rcnn', { scoreThr: 0.2 }), numerics: 'torchvision' } as DetectorOptions,
  ],
  ['convolutions of regions', withRoi({ convs: 2, norm: 'gn', convChannels: 16, fcs: 1 })],
  ['no detection of regions', seen('faster-rcnn', { scoreThr: 0.99 })],
  ['bottlenecks of live norms', retinanet({ backbone: { ...backbone, depth: 50, norm: 'bn' } })],
  [
    'bottlenecks of frozen norms, Caffe',
    retinanet({
      backbone: { ...backbone, depth: 50, norm: 'frozen-bn', style: 'caffe' },
    }),
  ],
  [
    'norms in neck and head',
    retinanet({
      neck: { channels: 16, numOutputs: 3, norm: 'gn', extra: 'on-output', reluBeforeExtra: true },
      head: { channels: 16, stackedConvs: 2, norm: 'gn' },
    }),
  ],
  [
    'a pooled level',
    retinanet({
      neck: { channels: 16, numOutputs: 4, extra: 'none' },
      anchors: { strides: [8, 16, 32, 64], octaveBaseScale: 4 },
    }),
  ],
  ['torchvision numerics, RetinaNet', retinanet({ numerics: 'torchvision' })],
  ['torchvision numerics, FCOS', { ...seen('fcos'), numerics: 'torchvision' } as DetectorOptions],
  ['one class', { ...seen('atss'), numClasses: 1 } as DetectorOptions],
  ['few candidates', seen('retinanet', { nmsPre: 7, maxPerImage: 5 })],
  ['no detection', seen('retinanet', { scoreThr: 0.9 })],
  [
    'BGR, whole multiples of 1',
    seen('retinanet'),
    {
      channelOrder: 'bgr',
      mean: [103.5, 116.3, 123.7],
      std: [1, 1, 1],
      padDivisor: 1,
    },
  ],
];

interface Field {
  field: number;
  number: number;
  bytes: Buffer;
}
/** Of a message: numbers and what has a length. */
function fieldsOf(data: Uint8Array): Field[] {
  const reader = new BinaryReader(data);
  const fields: Field[] = [];
  while (reader.pos < reader.len) {
    const [field, type] = reader.tag();
    if (type === WireType.Varint)
      fields.push({ field, number: Number(reader.int64()), bytes: Buffer.alloc(0) });
    else if (type === WireType.LengthDelimited)
      fields.push({ field, number: 0, bytes: Buffer.from(reader.bytes()) });
    else reader.skip(type, field);
  }
  return fields;
}
/** Who made a file, and what it says about itself. */
async function headOf(file: string) {
  const fields = fieldsOf(await readFile(file));
  const metadata = fields
    .filter(({ field }) => field === 14)
    .map(({ bytes }) => fieldsOf(bytes).map((entry) => entry.bytes.toString()));
  return {
    producer: fields.find(({ field }) => field === 2)?.bytes.toString(),
    metadata: Object.fromEntries(metadata) as Record<string, string>,
  };
}
/** Of an element type. */
async function initializersOf(file: string, type: number) {
  const graph = fieldsOf(await readFile(file)).find(({ field }) => field === 7)!;
  return fieldsOf(graph.bytes)
    .filter(({ field }) => field === 5)
    .map(({ bytes }) => fieldsOf(bytes))
    .filter((fields) => fields.some((f) => f.field === 2 && f.number === type))
    .map((fields) => ({
      shape: fields.filter((f) => f.field === 1).map((f) => f.number),
      values: fields.find((f) => f.field === 9)!.bytes,
    }));
}

describe.skipIf(!hasRuntime)('an ONNX file', () => {
  test.each(cases)('%s: finds what the detector finds', async (name, options, preprocess) => {
    await using detector = await open(options, preprocess);
    for (const [height, width] of [
      [64, 96],
      [70, 101],
      [224, 320],
    ] as const) {
      const file = join(folder, 'x.onnx');
      const { bytes } = await exportOnnx(detector, file, { height, width });
      expect((await stat(file)).size).toBe(bytes);
      const report = await compareOnnx(file, detector, picture(height, width));
      if (name.startsWith('no detection')) expect(report.detections).toBe(0);
      else expect(report.detections).toBeGreaterThan(2);
      expect(report).toMatchObject({ matched: report.detections, others: 0 });
      expect(report.score).toBeLessThan(1e-5);
      expect(report.pixels).toBeLessThan(2e-3);
    }
  });

  test('its detections come by falling score, labels count from the first one', async () => {
    await using detector = await createDetector(
      { ...seen('retinanet'), numerics: 'torchvision' } as DetectorOptions,
      { dtype: 'fp32', device: 'cpu', seed: 3, firstLabel: 1 },
    );
    const file = join(folder, 'x.onnx');
    await exportOnnx(detector, file, { height: 64, width: 64 });
    const { boxes, scores, labels } = await runOnnx(file, picture(64, 64));
    expect(scores.length).toBeGreaterThan(3);
    expect([...scores]).toEqual([...scores].sort((a, b) => b - a));
    expect(boxes).toHaveLength(4 * scores.length);
    expect(Math.min(...labels)).toBeGreaterThanOrEqual(1);
    expect(Math.max(...labels)).toBeLessThanOrEqual(3);
  });

  test('a comparison sees another detector', async () => {
    await using detector = await open(seen('retinanet'));
    const file = join(folder, 'x.onnx');
    await exportOnnx(detector, file, { height: 64, width: 64 });
    await using other = await createDetector(seen('retinanet'), {
      ...{ dtype: 'fp32', device: 'cpu', seed: 4 },
    });
    const { detections, matched } = await compareOnnx(file, other, picture(64, 64));
    expect(detections).toBeGreaterThan(3);
    expect(matched).toBeLessThan(detections / 2);
  });

  test('what is no such file is told', async () => {
    await using detector = await open(seen('retinanet'));
    await expect(
      compareOnnx(join(folder, 'none.onnx'), detector, picture(64, 64)),
    ).rejects.toMatchObject({ code: 'ERR_BAD_FILE' });
  });
});

describe('exportOnnx', () => {
  test('writes who made it, and the classes', async () => {
    await using detector = await open(seen('retinanet'));
    const categories = [
      { id: 1, name: 'red' },
      { id: 7, name: 'größer' },
      { id: 9, name: 'blue' },
    ];
    const file = join(folder, 'x.onnx');
    await exportOnnx(detector, file, {
      ...{ height: 64, width: 64, categories, metadata: { run: 'mine' } },
    });
    const { producer, metadata } = await headOf(file);
    expect(producer).toBe('mixpl');
    expect(metadata.run).toBe('mine');
    expect(metadata.detector).toBe('retinanet');
    expect(metadata.mixpl).toBe(packageVersion());
    expect(JSON.parse(metadata.resize!)).toEqual(detector.preprocess.resize);
    expect(JSON.parse(metadata.categories!)).toEqual(categories);
  });

  test('takes a weights file, too, and what that says', async () => {
    const [weights, a, b] = ['w.safetensors', 'a.onnx', 'b.onnx'].map((name) => join(folder, name));
    const categories = ['red', 'green', 'blue'].map((name, id) => ({ id, name }));
    const size = { height: 64, width: 96 };
    await using detector = await open(seen('retinanet'), { resize: { long: 96, short: 64 } });
    await detector.save(weights!, { name: 'mine', categories: JSON.stringify(categories) });
    await exportOnnx(weights!, a!, size);
    expect((await headOf(a!)).metadata).toMatchObject({
      ...{ name: 'mine', categories: JSON.stringify(categories) },
      resize: JSON.stringify(detector.preprocess.resize),
    });
    await exportOnnx(detector, b!, { ...size, categories, metadata: { name: 'mine' } });
    expect(await readFile(a!)).toEqual(await readFile(b!));
    await exportOnnx(weights!, a!, { ...size, categories: [], metadata: { run: '7' } });
    expect((await headOf(a!)).metadata).toMatchObject({ name: 'mine', run: '7', categories: '[]' });
    await expect(exportOnnx(join(folder, 'none'), a!, size)).rejects.toMatchObject({
      code: 'ERR_IO',
    });
  });

  test('masks take a byte a number, and are there once', async () => {
    await using detector = await open(seen('retinanet over swin'));
    const file = join(folder, 'x.onnx');
    const { bytes } = await exportOnnx(detector, file, { height: 224, width: 320 });
    const masks = await initializersOf(file, 9);
    expect(masks.length).toBeGreaterThan(0);
    expect(new Set(masks.map((m) => m.values.toString('hex'))).size).toBe(masks.length);
    for (const { shape, values } of masks) {
      expect(values).toHaveLength(shape.reduce((a, b) => a * b, 1));
      expect(new Set(values)).toEqual(new Set([0, 1]));
    }
    expect((await stat(file)).size).toBe(bytes);
  });

  test('weights that levels share are there once', async () => {
    await using detector = await open(seen('retinanet'));
    const values = (
      await Promise.all(
        detector.parameters().map(async ({ name }) => (await detector.readTensor(name)).length),
      )
    ).reduce((a, b) => a + b, 0);
    const { bytes } = await exportOnnx(detector, join(folder, 'x.onnx'), { height: 64, width: 64 });
    expect(bytes).toBeLessThan(4 * values + 120_000);
  });

  test('refuses score voting, other types, sizes', async () => {
    const file = join(folder, 'x.onnx');
    const size = { height: 64, width: 64 };
    await using paa = await open(seen('paa'));
    await expect(exportOnnx(paa, file, size)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: 'onnx: test.scoreVoting must be false (ONNX has no form for it), got true',
    });
    await using half = await createDetector(seen('retinanet'), { dtype: 'bf16', device: 'cpu' });
    await expect(exportOnnx(half, file, size)).rejects.toMatchObject({
      code: 'ERR_CONFIG',
      message: expect.stringContaining('must compute in fp32 on the CPU, got bf16 on cpu'),
    });
    await using detector = await open(seen('retinanet'));
    for (const height of [0, 31, 64.5, Number.NaN, 20_000])
      await expect(exportOnnx(detector, file, { height, width: 64 })).rejects.toMatchObject({
        code: 'ERR_RANGE',
        message: `onnx: height must be a whole number of pixels in [32, 16384], got ${height}`,
      });
    await expect(exportOnnx(detector, join(folder, 'no', 'x.onnx'), size)).rejects.toMatchObject({
      code: 'ERR_IO',
    });
    expect(await readdir(folder)).toEqual([]);
  });
});
