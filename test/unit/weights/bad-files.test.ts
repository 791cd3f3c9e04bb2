// Files that must not become weights, under every layout: refused by name, with nothing changed, and
// with little memory, whatever sizes they claim.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  createDetector,
  type Detector,
  type DetectorOptions,
  type LayoutName,
  MixplError,
  readSafetensors,
  type StoredTensor,
} from '../../../lib/index.js';
import { call, pickle, tensor, torchZip, zip } from './torch-bytes.js';

const options: DetectorOptions = {
  type: 'retinanet',
  numClasses: 3,
  backbone: { depth: 18, baseWidth: 4, style: 'pytorch' },
  neck: { channels: 16, extra: 'on-output', reluBeforeExtra: true },
  head: { channels: 16 },
};
type Tensors = Map<string, StoredTensor>;

let folder: string;
let files = 0;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-bad-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));
const fresh = () => join(folder, `${files++}`);

async function fileOf(bytes: Buffer): Promise<string> {
  const path = fresh();
  await writeFile(path, bytes);
  return path;
}

/** What the layout would have in a file of the detector. */
async function tensorsIn(layout: LayoutName, detector: Detector): Promise<Tensors> {
  const path = fresh();
  if (layout === 'mixpl') await detector.save(path);
  else
    await detector.exportWeights(path, {
      layout: layout === 'mmdetection' ? layout : 'torchvision',
    });
  const { tensors } = await readSafetensors(path);
  if (layout !== 'timm') return tensors;
  const body = 'backbone.body.';
  const own = [...tensors].filter(([name]) => name.startsWith(body));
  return new Map(own.map(([name, stored]) => [name.slice(body.length), stored]));
}

interface Claim {
  dtype?: string;
  shape?: number[];
  data_offsets?: [number, number];
}

/** A safetensors file; `claims` replace what its header says of a tensor. */
function safetensors(tensors: Tensors, claims: Record<string, Claim> = {}): Buffer {
  const header: Record<string, Claim> = {};
  const parts: Buffer[] = [];
  let at = 0;
  for (const [name, { shape, data }] of tensors) {
    const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
    const end = at + bytes.length;
    header[name] = { dtype: 'F32', shape: [...shape], data_offsets: [at, end], ...claims[name] };
    parts.push(bytes);
    at = end;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, ...parts]);
}

/** A checkpoint of torch.save; `more` stands beside the tensors. */
function pth(tensors: Tensors, { more = {}, types = {} as Record<string, string> } = {}): Buffer {
  const state: Record<string, unknown> = {};
  const storages: Record<string, Buffer> = {};
  for (const [name, { shape, data }] of tensors) {
    const key = String(Object.keys(storages).length);
    state[name] = tensor({ key, count: data.length, shape, type: types[name] ?? 'Float' });
    storages[key] = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  }
  return torchZip({ ...state, ...more }, storages);
}

const tenGigabytes = 10_000_000_000;

describe.each(['mixpl', 'torchvision', 'mmdetection', 'timm'] as const)('%s', (layout) => {
  let detector: Detector;
  let good: Tensors;
  let before: Map<string, Float32Array>;
  /** A convolution and the class layer, as the layout calls them. */
  let conv: string;
  let classes: string | undefined;
  beforeAll(async () => {
    detector = await createDetector(options, { dtype: 'fp32', seed: 1 });
    good = await tensorsIn(layout, detector);
    conv = [...good.keys()].find((name) => name.endsWith('layer2.0.conv1.weight'))!;
    classes = [...good.keys()].find((name) => /(retina_cls|cls_logits)\.weight$/.test(name));
    before = await valuesOf(detector);
  });
  afterAll(() => detector.dispose());

  async function valuesOf(of: Detector): Promise<Map<string, Float32Array>> {
    const values = new Map<string, Float32Array>();
    for (const { name } of of.parameters()) values.set(name, await of.readTensor(name));
    return values;
  }

  /** The message of the refusal, behind the file's name. */
  async function refusal(file: string | Buffer, code = 'ERR_BAD_FILE'): Promise<string> {
    const path = typeof file === 'string' ? file : await fileOf(file);
    const [memory, work] = [process.memoryUsage(), process.cpuUsage()];
    const error = await detector.loadWeights(path, { layout }).then(
      () => expect.fail('must be refused'),
      (reason: unknown) => reason as MixplError,
    );
    const after = process.memoryUsage();
    const { user, system } = process.cpuUsage(work);
    expect(error).toBeInstanceOf(MixplError);
    expect(error.code, error.message).toBe(code);
    expect(error.message.startsWith(`${path}: `), error.message).toBe(true);
    // Far below any size that is claimed; the collector may not have run.
    for (const kind of ['rss', 'arrayBuffers', 'heapUsed'] as const)
      expect(after[kind] - memory[kind], kind).toBeLessThan(128 * 2 ** 20);
    // Work, not time on the clock, which depends on what else the machine does.
    expect(user + system).toBeLessThan(2e6);
    for (const [name, values] of await valuesOf(detector))
      expect(Buffer.compare(bytes(values), bytes(before.get(name)!)), name).toBe(0);
    return error.message.slice(path.length + 2);
  }
  const bytes = (v: Float32Array) => new Uint8Array(v.buffer, v.byteOffset, v.byteLength);

  /** The same tensors, one of them changed. */
  const changed = (name: string, change: (data: Float32Array) => void): Tensors => {
    const stored = good.get(name)!;
    const data = stored.data.slice();
    change(data);
    return new Map(good).set(name, { ...stored, data });
  };

  test('takes the files that the bad ones are made from', async () => {
    for (const file of [safetensors(good), pth(good)]) {
      const result = await detector.loadWeights(await fileOf(file), { layout });
      expect(result.unexpected).toEqual([]);
      expect(result.loaded.length).toBeGreaterThan(50);
    }
  });

  test('a zip file that is cut off, wherever', async () => {
    const whole = pth(good);
    for (const share of [0.01, 0.3, 0.7, 0.999])
      expect(await refusal(whole.subarray(0, Math.floor(share * whole.length)))).toMatch(/cut off/);
  });

  test('a safetensors file that is cut off', async () => {
    const whole = safetensors(good);
    expect(await refusal(whole.subarray(0, whole.length - 4))).toMatch(/is cut off$/);
    expect(await refusal(whole.subarray(0, 100))).toMatch(/cut off, or another format/);
  });

  test('a pickle that imports os', async () => {
    const more = { attack: call('os', 'system', 'true') };
    expect(await refusal(pth(good, { more }))).toMatch(/asks for os\.system, /);
  });

  test('numbers of another type, by name', async () => {
    const { shape, data } = good.get(conv)!;
    const whole = `the weights must be floating-point numbers, got I32 in ${conv}`;
    const claim = { [conv]: { dtype: 'I32' } };
    expect(await refusal(safetensors(good, claim), 'ERR_CHECKPOINT')).toBe(whole);
    expect(await refusal(pth(good, { types: { [conv]: 'Int' } }), 'ERR_CHECKPOINT')).toBe(whole);
    expect(await refusal(safetensors(good, { [conv]: { dtype: 'C64' } }))).toMatch(
      new RegExp(`${conv} of type C64`),
    );
    // A type of another size does not fill the bytes.
    expect(await refusal(safetensors(good, { [conv]: { dtype: 'F64' } }))).toContain(
      `${conv} of ${4 * data.length} bytes where [${shape}] needs ${8 * data.length}`,
    );
  });

  test.each([
    ['NaN', Number.NaN],
    ['infinity', Number.NEGATIVE_INFINITY],
  ])('%s, by name', async (_, value) => {
    const bad = changed(conv, (data) => {
      data[data.length - 1] = value;
    });
    const message = `the weights must be finite, got NaN or infinity in ${conv}`;
    expect(await refusal(safetensors(bad), 'ERR_CHECKPOINT')).toBe(message);
    expect(await refusal(pth(bad), 'ERR_CHECKPOINT')).toBe(message);
  });

  test('10 GB in a header, that the file does not have', async () => {
    const first = [...good.keys()][0]!;
    const many = { shape: [tenGigabytes / 4], data_offsets: [0, tenGigabytes] as [number, number] };
    expect(await refusal(safetensors(good, { [first]: many }))).toMatch(/the file is cut off$/);
    const header = safetensors(good);
    header.writeBigUInt64LE(BigInt(tenGigabytes));
    expect(await refusal(header)).toMatch(/a header of 10000000000 bytes/);
    const entries = { 'a/data.pkl': pickle({}), 'a/data/0': Buffer.alloc(8) };
    for (const name of Object.keys(entries))
      expect(await refusal(zip(entries, { [name]: { size64: BigInt(tenGigabytes) } }))).toContain(
        `${name} of 10000000000 bytes`,
      );
    const huge = { w: tensor({ key: '0', count: tenGigabytes / 4, shape: [2] }) };
    expect(await refusal(torchZip(huge, { 0: Buffer.alloc(8) }))).toMatch(
      /storage 0 of 10000000000 bytes/,
    );
  });

  test('another number of classes, by name', async () => {
    if (classes === undefined) return; // a backbone has none
    const stored = good.get(classes)!;
    const shape = [5 * (stored.shape[0]! / 3), ...stored.shape.slice(1)];
    const data = new Float32Array(shape.reduce((a, b) => a * b, 1));
    const other = safetensors(new Map(good).set(classes, { shape, data }));
    expect(await refusal(other, 'ERR_CHECKPOINT')).toContain(
      `must be [${stored.shape}], got [${shape}]`,
    );
  });

  test('a folder, an empty file, no file', async () => {
    const path = fresh();
    await mkdir(path);
    expect(await refusal(path, 'ERR_IO')).toMatch(/must be a readable file/);
    expect(await refusal(Buffer.alloc(0))).toMatch(/must be a safetensors file, got 0 bytes/);
    expect(await refusal(fresh(), 'ERR_IO')).toMatch(/must be a readable file/);
  });
});

test('where a bottleneck has its stride cannot be seen: a note says so', async () => {
  const deep = (style: 'caffe' | 'pytorch'): DetectorOptions => ({
    ...options,
    backbone: { depth: 50, baseWidth: 4, style },
  });
  await using caffe = await createDetector(deep('caffe'));
  await using pytorch = await createDetector(deep('pytorch'));
  const [ours, theirs] = [fresh(), fresh()];
  await caffe.exportWeights(ours, { layout: 'mmdetection' });
  await caffe.exportWeights(theirs, { layout: 'torchvision' });
  expect((await pytorch.loadWeights(ours)).note).toBe(
    'weights do not show where a bottleneck has its stride (backbone.style): it is pytorch here, ' +
      'and must be what they were trained with',
  );
  expect((await caffe.loadWeights(theirs)).note).toMatch(
    /ResNets of torchvision have their stride on the 3x3; backbone\.style is caffe/,
  );
  expect((await pytorch.loadWeights(theirs)).note).toBeUndefined();
});
