// Weights of Swin Transformers from files of others.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import {
  createDetector,
  type Detector,
  type DetectorOptions,
  readSafetensors,
  type StoredTensor,
  writeSafetensors,
} from '../../../lib/index.js';
import { resizedTable } from '../../../lib/weights/codec.js';
import { detectLayout } from '../../../lib/weights/detect-layout.js';
import { layoutOf } from '../../../lib/weights/layouts.js';
import { temporaryFolder } from '../temporary-folder.js';

const golden = async (name: string) =>
  JSON.parse(await readFile(new URL(`../../golden/weights/${name}`, import.meta.url), 'utf8'));
const folder = await temporaryFolder();
let files = 0;
async function save(tensors: Map<string, StoredTensor>): Promise<string> {
  const file = join(folder, `${files++}.safetensors`);
  await writeSafetensors(file, tensors);
  return file;
}

const small = (window = 3): DetectorOptions => ({
  ...{ type: 'retinanet', numClasses: 2, neck: { channels: 16 }, head: { channels: 16 } },
  backbone: { type: 'swin', embed: 8, depths: [1, 1, 2, 1], heads: [1, 2, 2, 4], window },
});

type Tensors = Map<string, StoredTensor>;

async function mmdetectionFile(detector: Detector): Promise<Tensors> {
  const file = join(folder, `${files++}.safetensors`);
  await detector.exportWeights(file, { layout: 'mmdetection' });
  return (await readSafetensors(file)).tensors;
}

/** The backbone alone under other names, without the norms of outputs. */
function bare(whole: Tensors, nameOf: (own: string) => string): Tensors {
  const out: Tensors = new Map();
  for (const [name, tensor] of whole)
    if (/^backbone\.(patch_embed|stages)/.test(name))
      out.set(nameOf(name.slice('backbone.'.length)), tensor);
  return out;
}

/**
 * What becomes mmdetection's by its converter, which views an official row as [4, C], takes its cells in
 * the order 0, 2, 1, 3 and turns it.
 */
function official({ shape, data }: StoredTensor): StoredTensor {
  const columns = shape.at(-1)!;
  const channels = columns / 4;
  const values = data as Float32Array;
  const out = new Float32Array(values.length);
  for (let row = 0; row < values.length; row += columns)
    for (let channel = 0; channel < channels; channel++)
      [0, 2, 1, 3].forEach((cell, place) => {
        out[row + cell * channels + channel] = values[row + 4 * channel + place]!;
      });
  return { shape, data: out };
}

const inOfficialOrder = (tensors: Tensors): Tensors =>
  new Map(
    [...tensors].map(([name, tensor]) => [
      name,
      /downsample\.(norm|reduction)/.test(name) ? official(tensor) : tensor,
    ]),
  );

const officialName = (own: string) =>
  own
    .replace('patch_embed.projection', 'patch_embed.proj')
    .replace('stages', 'layers')
    .replace('.w_msa', '')
    .replace('ffn.layers.0.0', 'mlp.fc1')
    .replace('ffn.layers.1', 'mlp.fc2');

const numbers = (...shape: number[]): StoredTensor => ({
  shape,
  data: new Float32Array(shape.reduce((a, b) => a * b, 1)),
});

/** Every trunk's tensor but the fresh norms equals the other's. */
async function expectSameBackbone(to: Detector, from: Detector): Promise<void> {
  for (const { name } of from.parameters())
    if (/^backbone\.(patch_embed|stages)/.test(name))
      expect(await to.readTensor(name), name).toEqual(await from.readTensor(name));
}

describe('weights of a Swin Transformer', () => {
  test("have mmdetection's order where cells are merged", async () => {
    await using detector = await createDetector(small(), { seed: 1 });
    const name = 'backbone.stages.1.downsample.reduction.weight';
    const own = await detector.readTensor(name);
    const stored = (await mmdetectionFile(detector)).get(name)!;
    // An unfolded cell has the four places of its first channel first.
    expect(stored.shape).toEqual([32, 64]);
    const first = [0, 16, 32, 48, 1, 17, 33, 49].map((i) => own[64 + i]);
    expect([...(stored.data as Float32Array).subarray(64, 72)]).toEqual(first);
  });

  test('come back from a whole file of mmdetection, with its buffers', async () => {
    await using from = await createDetector(small(), { seed: 1 });
    await using to = await createDetector(small(), { seed: 2 });
    const tensors = await mmdetectionFile(from);
    const block = 'backbone.stages.0.blocks.0.attn.w_msa';
    tensors.set(`${block}.relative_position_index`, numbers(9, 9));
    const result = await to.loadWeights(await save(tensors));
    expect(result).toMatchObject({ layout: 'mmdetection', missing: [], unexpected: [] });
    for (const { name } of from.parameters())
      expect(await to.readTensor(name), name).toEqual(await from.readTensor(name));
  });

  test('of the official files and of timm, whose stages begin or end with merging', async () => {
    await using from = await createDetector(small(), { seed: 1 });
    const whole = await mmdetectionFile(from);
    const old = inOfficialOrder(bare(whole, officialName));
    const current: Tensors = new Map(
      [...inOfficialOrder(bare(whole, (n) => n))].map(([name, tensor]) => [
        officialName(name.replace(/stages\.(\d)\.down/, (_, s) => `stages.${Number(s) + 1}.down`)),
        tensor,
      ]),
    );
    for (const tensors of [old, current]) {
      tensors.set('norm.weight', numbers(64));
      tensors.set('head.weight', numbers(10, 64));
      tensors.set('layers.0.blocks.0.attn_mask', numbers(4, 9, 9));
      tensors.set('layers.0.blocks.0.attn.relative_position_index', numbers(9, 9));
      await using to = await createDetector(small(), { seed: 2 });
      const result = await to.loadWeights(await save(tensors));
      expect(result).toMatchObject({ layout: 'timm', unexpected: [] });
      expect(result.missing.filter((n) => n.startsWith('backbone.'))).toEqual(
        [1, 2, 3].flatMap((s) => [`backbone.norm${s}.weight`, `backbone.norm${s}.bias`]),
      );
      expect(result.note).toContain('norms of the backbone’s outputs'.replace('’', "'"));
      await expectSameBackbone(to, from);
    }
    const names = [...old.keys()];
    for (const name of [
      'patch_embed.proj.weight',
      'layers.0.blocks.0.attn.relative_position_bias_table',
      'layers.2.blocks.1.mlp.fc2.bias',
      'layers.2.downsample.reduction.weight',
    ])
      expect(names).toContain(name);
  });

  test('of torchvision, with its names', async () => {
    const { models } = (await golden('names.json')) as { models: Record<string, string[]> };
    const tiny: DetectorOptions = { ...small(), backbone: { type: 'swin', window: 7 } };
    await using detector = await createDetector(tiny);
    const own = detector.parameters().map(({ name }) => name);
    const stored = models.swin_t!;
    const layout = layoutOf('torchvision', { type: 'retinanet', own, stored });
    const known = stored.filter((name) => !layout.isUnused(name));
    expect(own.flatMap((name) => layout.namesOf(name)).sort()).toEqual(known.sort());
    expect(stored.filter(layout.isUnused).filter((n) => !/index$/.test(n))).toEqual([
      ...['norm.weight', 'norm.bias', 'head.weight', 'head.bias'],
    ]);
    const file = { path: 'a', metadata: {}, entries: new Map(stored.map((n) => [n, numbers(1)])) };
    expect(detectLayout(file as never)).toBe('torchvision');

    await using from = await createDetector(small(), { seed: 1 });
    await using to = await createDetector(small(), { seed: 2 });
    const whole = await mmdetectionFile(from);
    const tensors = inOfficialOrder(bare(whole, (n) => n));
    const renamed: Tensors = new Map(
      [...tensors].map(([name, tensor]) => [layout.namesOf(`backbone.${name}`)[0] ?? '', tensor]),
    );
    expect((await to.loadWeights(await save(renamed))).layout).toBe('torchvision');
    await expectSameBackbone(to, from);
  });

  test("of mmdetection's backbone alone", async () => {
    await using from = await createDetector(small(), { seed: 1 });
    await using to = await createDetector(small(), { seed: 2 });
    const result = await to.loadWeights(await save(bare(await mmdetectionFile(from), (n) => n)));
    expect(result.layout).toBe('mmdetection');
    await expectSameBackbone(to, from);
  });

  test('torchvision has no such detector', async () => {
    await using detector = await createDetector(small());
    await expect(
      detector.exportWeights(join(folder, 'x.safetensors'), { layout: 'torchvision' }),
    ).rejects.toThrow(
      /must be mmdetection for this retinanet detector, got '?torchvision'?, which has no name for .*backbone\.patch_embed/,
    );
  });

  test('of other windows have their tables resized', async () => {
    await using from = await createDetector(small(3), { seed: 1 });
    await using to = await createDetector(small(4), { seed: 2 });
    const result = await to.loadWeights(await save(await mmdetectionFile(from)));
    expect(result).toMatchObject({ missing: [], unexpected: [] });
    expect(result.note).toContain('5 tables of relative positions were resized');
    const name = 'backbone.stages.2.blocks.1.attn.w_msa.relative_position_bias_table';
    const table = await from.readTensor(name);
    expect(await to.readTensor(name)).toEqual(await resizedTable([49, 2]).toOwn(table));
  });

  test('a table of other heads is refused', async () => {
    await using detector = await createDetector(small(), { seed: 1 });
    const tensors = await mmdetectionFile(detector);
    const name = 'backbone.stages.0.blocks.0.attn.w_msa.relative_position_bias_table';
    tensors.set(name, numbers(25, 2));
    await expect(detector.loadWeights(await save(tensors))).rejects.toThrow(
      `${name}: must be [25,1], got [25,2]`,
    );
    tensors.set(name, numbers(24, 1));
    await expect(detector.loadWeights(await save(tensors))).rejects.toThrow(
      `${name}: must be [25,1], got [24,1]`,
    );
  });
});

describe('tables of relative positions', async () => {
  const { torch, cases } = (await golden('position-tables.json')) as {
    torch: string;
    cases: { before: number; after: number; table: number[]; resized: number[] }[];
  };
  test.each(cases)(
    `of windows of $before for windows of $after, as bicubic interpolation of torch ${torch}`,
    async ({ after, table, resized }) => {
      const codec = resizedTable([(2 * after - 1) ** 2, 2]);
      expect(codec.fits!([table.length / 2, 2])).toBe(true);
      const got = await codec.toOwn(Float32Array.from(table));
      expect(got.length).toBe(resized.length);
      resized.forEach((value, i) => {
        expect(Math.abs(got[i]! - value)).toBeLessThan(2e-6);
      });
    },
  );
  test('of the same windows stay as they are', async () => {
    const table = new Float32Array(18);
    expect(await resizedTable([9, 2]).toOwn(table)).toBe(table);
  });
});
