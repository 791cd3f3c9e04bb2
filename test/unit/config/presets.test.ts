import { readFile } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import {
  adviceFor,
  formatConfig,
  jsonSchema,
  listPresets,
  loadConfig,
  parseConfig,
  type ResolvedConfig,
} from '../../../lib/config/index.js';
import { batchWarning, picturesOf, recipeFor } from '../../../lib/train/watch.js';
import { violations } from './json-schema.js';

const presets = await listPresets();

/** `small` and its kin are a start for somebody's own data, and have none. */
const isBare = (name: string) => /^small(-|$)/.test(name);
const someData = [
  'data.root=/data',
  'data.labelled={ format: coco, annotations: a.json, images: . }',
  'data.unlabelled={ format: folder, images: . }',
];

describe('every preset', () => {
  test.each(presets)(
    '$name is a whole config that carries its own name',
    async ({ name, description }) => {
      const overrides = isBare(name) ? someData : [];
      const config = await loadConfig(name, { cwd: '/data', overrides });
      expect(config.name).toBe(name);
      expect(config.data.root).toBe('/data');
      expect(description.length).toBeGreaterThan(20);
      expect(parseConfig(config)).toEqual(config);
      expect(formatConfig(config)).toContain(`name: ${name}`);
    },
  );

  test('the list is in natural order', () => {
    expect(presets.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['bccd-2', 'bccd-5', 'bccd-10', 'retinanet-r50-coco-10', 'small']),
    );
    expect(presets.findIndex(({ name }) => name === 'bccd-5')).toBeLessThan(
      presets.findIndex(({ name }) => name === 'bccd-10'),
    );
  });

  test('of the paper keeps the values of the paper', async () => {
    const config = await loadConfig('retinanet-r50-coco-10');
    expect(config.model.backbone).toMatchObject({ depth: 50, style: 'caffe', norm: 'frozen-bn' });
    expect(config.data.split).toMatchObject({ percent: 10, fold: 1 });
    expect(config.schedule.iterations).toBe(180_000);
    expect(config.semi).toMatchObject({ method: 'mixpl', scoreThr: 0.4 });
  });
});

test.each(['retinanet', 'fcos', 'faster-rcnn'])("the paper's settings of %s", async (type) => {
  const load = (setting: string) =>
    loadConfig(`${type}-r50-${setting}`, { overrides: ['data.root=/d'] });
  const scoreThr = { retinanet: 0.4, fcos: 0.3, 'faster-rcnn': 0.7 }[type];
  for (const percent of [1, 2, 5, 10])
    expect(await load(`coco-${percent}`)).toMatchObject({
      model: { type },
      data: { split: { percent, fold: 1, scheme: 'reference' } },
      batch: { labelled: 1, unlabelled: 4, accumulate: 8 },
      semi: { method: 'mixpl', scoreThr },
      schedule: { iterations: 180_000, decay: { type: 'constant' } },
    });
  expect(await load('coco-full')).toMatchObject({
    model: { type },
    data: { split: null, unlabelled: { format: 'folder' } },
    batch: { labelled: 4, unlabelled: 4, accumulate: 8 },
    semi: { method: 'mixpl', scoreThr },
    schedule: { iterations: 540_000, decay: { milestones: [360_000], factor: 0.1 } },
  });
  expect(await load('voc-mixture')).toMatchObject({
    model: { type },
    data: { split: null, test: { format: 'voc' } },
    batch: { labelled: 4, unlabelled: 4, accumulate: 8 },
    semi: { method: 'mixpl', scoreThr },
    schedule: { iterations: 36_000 },
    validation: { voc: '11point' },
  });
});

/** Figures of MixPL's five configs; of its other detectors those of mmdetection's own. */
describe('the figures of the reference', () => {
  const sgd = { type: 'sgd', lr: 0.01, momentum: 0.9, weightDecay: 1e-4, clipNorm: 20 };
  const adamw = { type: 'adamw', lr: 1e-4, weightDecay: 1e-4, clipNorm: 0.1 };
  const ofDetrs = { ...adamw, backboneLrFactor: 0.1 };
  const caffe = { style: 'caffe', norm: 'frozen-bn', channelOrder: 'bgr', padDivisor: 32 };
  const pytorch = { style: 'pytorch', norm: 'bn-eval', channelOrder: 'rgb', padDivisor: 32 };
  const frozen = { style: 'pytorch', norm: 'frozen-bn', channelOrder: 'rgb', padDivisor: 1 };
  const dense = (nmsIou: number) => ({ scoreThr: 0.05, nmsPre: 1000, nmsIou, maxPerImage: 100 });
  const regions = { scoreThr: 0.05, nmsIou: 0.5, maxPerImage: 100 };
  const queries = (maxPerImage: number) => ({ maxPerImage });
  const long = { iterations: 180_000, warmup: { iterations: 500, factor: 0.001 } };
  const short = { iterations: 90_000, warmup: { iterations: 0 } };

  test.each([
    ['retinanet', caffe, dense(0.5), 0.4, sgd, long, 10_000],
    ['fcos', caffe, dense(0.6), 0.3, sgd, long, 5000],
    ['tood', pytorch, dense(0.6), 0.4, sgd, long, 5000],
    // Its config has an interval of an epoch, which is the whole run.
    ['faster-rcnn', caffe, regions, 0.7, sgd, long, 10_000],
    ['dino', frozen, queries(300), 0.4, ofDetrs, short, 5000],
    ['centernet', caffe, dense(0.6), 0.4, sgd, long, 10_000],
    ['atss', pytorch, dense(0.6), 0.4, sgd, long, 10_000],
    ['cascade-rcnn', caffe, regions, 0.7, sgd, long, 10_000],
    [
      'sparse-rcnn',
      pytorch,
      queries(100),
      0.4,
      { ...adamw, lr: 2.5e-5, clipNorm: 1 },
      long,
      10_000,
    ],
    ['deformable-detr', frozen, queries(100), 0.4, { ...ofDetrs, lr: 2e-4 }, short, 5000],
    ['dab-detr', frozen, queries(300), 0.4, ofDetrs, short, 5000],
  ] as const)(
    'are those of %s',
    async (type, input, found, scoreThr, optimizer, schedule, saves) => {
      const config = await loadConfig(`${type}-r50-coco-10`, { overrides: ['data.root=/d'] });
      const { style, norm, channelOrder, padDivisor } = input;
      expect(config).toMatchObject({
        ...{ optimizer, schedule: { ...schedule, decay: { type: 'constant' } } },
        model: { type, backbone: { depth: 50, frozenStages: 1, style, norm } },
        preprocess: { channelOrder, padDivisor },
        ...{ validation: { interval: 5000, batch: 1 }, checkpoint: { interval: saves, keep: 1 } },
      });
      expect(config.model.test).toEqual(found);
      expect(config.semi).toMatchObject({
        ...{ scoreThr, minBoxSize: 0.01, emptyImageRule: 'branch-gate', leastNum: 1, burnIn: 0 },
        ...{ supWeight: 1, unsupWeight: 2, mosaicWeight: 0.5, mixup: true, mosaic: true },
        ...{
          indexRule: 'reference',
          cacheSize: 8,
          mosaicShape: [
            [400, 400],
            [800, 800],
          ],
        },
        erase: { patches: [1, 20], ratio: [0, 0.1], threshold: 0.7 },
        ema: { momentum: 2e-4, gamma: 4, interval: 3, buffers: 'skip' },
      });
      const drawn = { flip: 0.5, resize: { long: 1333, short: [400, 1200] }, erase: null };
      const { labelled, weak, strong, test: shown } = config.augment;
      expect(labelled).toMatchObject({ ...drawn, geometric: [] });
      expect(labelled.color).toHaveLength(9);
      expect(weak).toMatchObject({ ...drawn, color: [], geometric: [] });
      expect(strong).toMatchObject({ ...drawn, color: labelled.color });
      expect(strong).toMatchObject({ rotate: 30, shear: 30, translate: 0.1 });
      expect(strong.geometric).toHaveLength(5);
      expect(shown).toMatchObject({ long: 1333, short: 800 });
    },
  );
});

describe('pictures of an iteration', () => {
  const named = presets.map(({ name }) => name);
  const load = (name: string) =>
    loadConfig(name, { overrides: isBare(name) ? someData : ['data.root=/d'] });
  const pictures = ({ batch, semi }: ResolvedConfig) =>
    picturesOf(batch, { supervised: semi.method === 'supervised' });

  test.each(named.filter((name) => /-coco-\d+$/.test(name)))(
    '%s has those of 8 processes with 1 + 4',
    async (name) => {
      const config = await load(name);
      expect(config.batch).toMatchObject({ labelled: 1, unlabelled: 4 });
      expect(pictures(config)).toEqual({ labelled: 8, unlabelled: 32 });
    },
  );

  test.each(named.filter((name) => /-(full|mixture)$/.test(name)))(
    '%s has those of 8 processes with 4 + 4',
    async (name) => {
      const config = await load(name);
      expect(config.batch).toMatchObject({ labelled: 4, unlabelled: 4 });
      expect(pictures(config)).toEqual({ labelled: 32, unlabelled: 32 });
    },
  );

  test.each(named.filter((name) => name.endsWith('-coco')))(
    "%s has mmdetection's, 2 a process",
    async (name) => {
      const config = await load(name);
      expect(config.batch.labelled).toBe(2);
      // Its rate is of 16 processes.
      const processes = name.startsWith('deformable-detr') ? 16 : 8;
      expect(pictures(config)).toEqual({ labelled: 2 * processes, unlabelled: 0 });
    },
  );

  test('of a start for own data are one part', async () => {
    for (const name of named.filter((n) => isBare(n) || n.startsWith('bccd')))
      expect((await load(name)).batch.accumulate).toBe(1);
  });

  test('fit the rate, where the recipe has one', async () => {
    for (const name of named.filter((n) => n.includes('-r50-'))) {
      const config = await load(name);
      if (config.optimizer.type !== 'sgd') continue;
      const run = { ...pictures(config), lr: config.optimizer.lr };
      expect(batchWarning(run, recipeFor(run)), name).toEqual([]);
    }
  });
});

describe('advice', () => {
  test('there is none for the small preset', async () => {
    expect(adviceFor(await loadConfig('bccd-5'))).toEqual([]);
  });

  test('names frozen random weights', async () => {
    const advice = adviceFor(await loadConfig('retinanet-r50-coco-10'));
    expect(advice.join('\n')).toMatch(/frozen-bn .*model\.weights/);
    expect(advice.join('\n')).toMatch(/frozenStages 1 freezes random weights/);
  });

  test('names a teacher without statistics', async () => {
    const overrides = ['model.backbone.norm=bn'];
    const skipped = adviceFor(await loadConfig('bccd-5', { overrides }));
    expect(skipped.join('\n')).toMatch(/semi\.ema\.buffers skip .* try average/);
    overrides.push('semi.ema.buffers=average');
    expect(adviceFor(await loadConfig('bccd-5', { overrides }))).toEqual([]);
  });

  test.each([
    [
      ['model.queries=1500'],
      /^model\.queries 1500 is more than the 1020 cells of an image of 240 x 180 \(augment\.test\)/,
    ],
    [
      ['model.test.maxPerImage=101'],
      /^model\.test\.maxPerImage 101 is more than model\.queries 100: /,
    ],
    [['model.queries=1020', 'model.test.maxPerImage=1020'], null],
    [['model.queries=1500', 'model.type=dab-detr', 'model.neck.numOutputs=1'], null],
  ])('names queries beyond what there is: %j', async (overrides, says) => {
    const size = ['augment.test={ long: 240, short: 180 }', ...someData, ...overrides];
    const advice = adviceFor(await loadConfig('small-dino', { overrides: size }));
    const ofQueries = advice.filter((line) => /quer/.test(line));
    expect(ofQueries).toEqual(says ? [expect.stringMatching(says)] : []);
  });

  test('names a split beside unlabelled data, which leaves out the rest', async () => {
    const both = [...someData, 'data.split={ percent: 10 }'];
    const ofSplit = async (name: string, overrides: string[]) =>
      adviceFor(await loadConfig(name, { overrides })).filter((line) => /split/.test(line));
    for (const more of [[], ['semi.method=supervised']])
      expect(await ofSplit('small', [...both, ...more])).toEqual([
        'data.split takes 10% of data.labelled, and the rest is not used, as data.unlabelled is given; split: null takes all of it',
      ]);
    expect(await ofSplit('small', [...both, 'data.split=null'])).toEqual([]);
    expect(await ofSplit('small', [...both, 'data.unlabelled=null'])).toEqual([]);
    for (const { name } of presets)
      expect(await ofSplit(name, isBare(name) ? someData : ['data.root=/d']), name).toEqual([]);
  });

  test('names a burn-in that never ends', async () => {
    const config = await loadConfig('bccd-5', { overrides: ['semi.burnIn=2500'] });
    expect(adviceFor(config).join('\n')).toMatch(/burnIn 2500 leaves none of the 2500 iterations/);
  });
});

describe('the JSON schema', () => {
  const schema = jsonSchema() as { properties: Record<string, object> };

  test('has every section and its defaults', () => {
    expect(Object.keys(schema.properties)).toEqual(
      expect.arrayContaining(['extends', 'model', 'data', 'augment', 'semi', 'optimizer']),
    );
    expect(JSON.stringify(schema.properties.semi)).toContain('"default":8');
  });

  test.each(presets)('takes the file of $name as it is, and its config', async ({ name, file }) => {
    expect(violations(schema, parse(await readFile(file, 'utf8')))).toEqual([]);
    expect(violations(schema, await loadConfig(name, { withoutData: true }))).toEqual([]);
  });

  test.each([
    ['extends: small-dino\nmodel: { queries: 50 }', []],
    ['optimizer: { lr: 1.0e-4 }', []],
    ['optimizer: { type: adamw, momentum: 0.9 }', ['config.optimizer.type is not sgd']],
    ['extends: 3', ['config.extends is no string']],
    ['semi: { scoreThr: 2 }', ['config.semi.scoreThr is too large']],
    ['seed: 1.5', ['config.seed is no integer']],
    ['modell: {}', ['config.modell is unknown']],
  ])('%j: %j', (text, problems) => {
    expect(violations(schema, parse(text))).toEqual(problems);
  });
});
