import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { formatConfig, loadConfig, parseConfig } from '../../../lib/config/index.js';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'mixpl-config-'));
});
afterAll(() => rm(folder, { recursive: true }));

async function write(name: string, text: string): Promise<string> {
  const file = join(folder, name);
  await writeFile(file, text);
  return file;
}

const data = `data:
  labelled: { format: coco, annotations: a.json }
  split: { percent: 10 }
`;

async function messageOf(text: string, overrides: string[] = []): Promise<string> {
  const file = await write('bad.yaml', text);
  const error = await loadConfig(file, { overrides }).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toMatchObject({ name: 'MixplError', code: 'ERR_CONFIG' });
  return (error as Error).message.replaceAll(`${folder}/`, '');
}

describe('defaults', () => {
  test('are the values of the paper', () => {
    const config = parseConfig({
      data: { labelled: { format: 'coco', annotations: 'a.json' }, split: { percent: 10 } },
    });
    expect(config.semi).toEqual({
      method: 'mixpl',
      scoreThr: 0.4,
      minBoxSize: 0.01,
      emptyImageRule: 'branch-gate',
      leastNum: 1,
      supWeight: 1,
      unsupWeight: 2,
      mosaicWeight: 0.5,
      mixup: true,
      mosaic: true,
      indexRule: 'reference',
      cacheSize: 8,
      mosaicShape: [
        [400, 400],
        [800, 800],
      ],
      erase: { patches: [1, 20], ratio: [0, 0.1], threshold: 0.7 },
      burnIn: 0,
      ema: { momentum: 2e-4, gamma: 4, interval: 3, buffers: 'skip' },
      resampling: null,
    });
    expect(config.optimizer).toMatchObject({
      type: 'sgd',
      lr: 0.01,
      momentum: 0.9,
      weightDecay: 1e-4,
      clipNorm: 20,
    });
    expect(config.schedule).toEqual({
      iterations: 180_000,
      warmup: { iterations: 500, factor: 0.001 },
      decay: { type: 'constant' },
    });
    expect(config.augment.strong.resize).toEqual({ long: 1333, short: [400, 1200] });
    expect(config.augment.test).toEqual({ long: 1333, short: 800 });
    expect(config.preprocess).toEqual({
      mean: [103.53, 116.28, 123.675],
      std: [1, 1, 1],
      channelOrder: 'bgr',
      padDivisor: 32,
    });
  });

  test('of a view differ by its use: colour for the student, geometry for the strong view', () => {
    const { augment } = parseConfig({
      data: { labelled: { format: 'coco', annotations: 'a.json' }, split: { percent: 10 } },
    });
    expect(augment.labelled.color).toHaveLength(9);
    expect(augment.labelled.geometric).toEqual([]);
    expect(augment.weak.color).toEqual([]);
    expect(augment.strong.geometric).toHaveLength(5);
  });
});

describe('problems are named with their place', () => {
  test('an unknown key: file, line, column and the nearest name', async () => {
    expect(await messageOf(`${data}semi:\n  scoreThrr: 0.4\n`)).toBe(
      'bad.yaml:5:3: semi.scoreThrr: unknown key; nearest is scoreThr',
    );
  });

  test('an unknown key of one kind of a union lists what that kind has', async () => {
    expect(await messageOf(`${data}optimizer: { type: adamw, momentum: 0.9 }\n`)).toMatch(
      /^bad\.yaml:4:27: optimizer\.momentum: unknown key; known are type, lr, betas/,
    );
  });

  test('an unknown key at the top', async () => {
    expect(await messageOf(`${data}semmi: {}\n`)).toBe(
      'bad.yaml:4:1: semmi: unknown key; nearest is semi',
    );
  });

  test.each([
    ['seed: abc', 'seed must be a number, got "abc"'],
    ['seed: 1.5', 'seed must be an integer, got 1.5'],
    ['seed: -1', 'seed must be >= 0, got -1'],
    ['seed: 1_000', 'seed must be a number, got "1_000"'],
    ['optimizer: { type: sgd, lr: 0 }', 'optimizer.lr must be > 0, got 0'],
    ['optimizer: { type: sgd, lr: .nan }', 'optimizer.lr must be a number, got NaN'],
    ['semi: { mixup: yes }', 'semi.mixup must be true or false, got "yes"'],
    ['semi: [1]', 'semi must be a mapping, got [1]'],
    ['semi: { ema: { momentum: 2 } }', 'semi.ema.momentum must be <= 1, got 2'],
    [
      'semi: { indexRule: papre }',
      'semi.indexRule must be one of reference, paper (nearest is paper), got "papre"',
    ],
    [
      'semi: { mosaicShape: [[400]] }',
      'semi.mosaicShape.0 must hold at least 2 entries, got [400]',
    ],
    [
      'semi: { cacheSize: 4 }',
      'semi.cacheSize must be >= 8 with batch.unlabelled 4 and semi.indexRule reference, got 4',
    ],
    [
      'semi: { cacheSize: 4, indexRule: paper }\nbatch: { unlabelled: 5 }',
      'semi.cacheSize must be >= 5 with batch.unlabelled 5 and semi.indexRule paper, got 4',
    ],
    [
      'semi: { indexRule: paper }\nbatch: { unlabelled: 1 }',
      'batch.unlabelled must be >= 2 with semi.indexRule paper and semi.mosaic true, got 1',
    ],
    [
      'semi: { erase: { patches: [3, 3] } }',
      'semi.erase.patches must be [low, high) with low < high, got [3,3]',
    ],
    ['preprocess: { mean: [1, 2] }', 'preprocess.mean must hold at least 3 entries, got [1,2]'],
    [
      'model: { backbone: { depth: 19 } }',
      'model.backbone.depth must be one of 18, 34, 50, 101, got 19',
    ],
    [
      'model: { neck: { numOutputs: 4 } }',
      'model.anchors.strides must hold one stride per output of the neck (model.neck.numOutputs is 4), got [8,16,32,64,128]',
    ],
    [
      'optimizer: { type: sdg }',
      'optimizer.type must be one of sgd, adamw (nearest is sgd), got "sdg"',
    ],
    ['optimizer: 3', 'optimizer must be a mapping, got 3'],
    [
      'optimizer: { groups: [{ match: backbone, lrFactor: 0 }] }',
      'optimizer.groups.0.lrFactor must be > 0, got 0',
    ],
    [
      'optimizer: { groups: [{ match: a }, { match: b, weightDecayFactor: -1 }] }',
      'optimizer.groups.1.weightDecayFactor must be >= 0, got -1',
    ],
    [
      'optimizer: { groups: [{ lrFactor: 2 }] }',
      'optimizer.groups.0.match must be a string, got nothing',
    ],
    [
      'optimizer: { groups: [{ match: a, lr: 2 }] }',
      'optimizer.groups.0.lr: unknown key; known are match, lrFactor, weightDecayFactor, optional',
    ],
    [
      'optimizer: { groups: [{ match: a }, { match: a }] }',
      'optimizer.groups must have each match only once, got [{"match":"a"},{"match":"a"}]',
    ],
    ['device: gpu', 'device must be auto, cpu, cuda or cuda:N, got "gpu"'],
    ['name: a/b', 'name must consist of letters, digits and . _ - @, got "a/b"'],
    [
      'augment: { weak: { resize: { short: [3, 1] } } }',
      'augment.weak.resize.short must be [low, high] with low <= high, got [3,1]',
    ],
    [
      'schedule: { decay: { type: step, milestones: [2, 1] } }',
      'schedule.decay.milestones must ascend, got [2,1]',
    ],
  ])('%s', async (line, expected) => {
    const message = await messageOf(`${data}${line}\n`);
    expect(message).toMatch(/^bad\.yaml:\d+:\d+: /);
    expect(message.replace(/^bad\.yaml:\d+:\d+: /, '')).toBe(expected);
  });

  test.each([
    [
      ['model.transformer.heads=7'],
      'model.transformer.heads must divide model.neck.channels (64), got 7',
    ],
    [['model.neck.channels=68', 'model.transformer.heads=8'], 'channels (68), got 8'],
    [['model.transformer.heads=8', 'model.neck.channels=68'], 'channels (68), got 8'],
    [['model.neck.channels=62'], 'model.neck.channels must be a multiple of 4, got 62'],
    [['model.transformer.heads=0'], 'model.transformer.heads must be >= 1, got 0'],
    [
      ['model.neck.firstLevel=2', 'model.neck.numOutputs=3'],
      'model.neck.numOutputs must be >= 4, the levels from C2 (firstLevel) to C5, got 3',
    ],
  ])('options that do not fit together: the place of the last one, once: %j', async (set, says) => {
    const preset = { withoutData: true, overrides: set };
    const message = await loadConfig('small-dino', preset).catch((error: Error) => error.message);
    expect(message).toContain(`--set ${set.at(-1)}: `);
    expect(message).toContain(says);
    expect(message).not.toContain('\n');
  });

  test.each([
    ['small-swin', 'backbone: { embed: 50 }', '[50,100,200,400], got [3,6,12,24] of size tiny'],
    ['small-sparse-rcnn', 'neck: { channels: 50 }', 'model.head.heads must divide'],
    ['small-dab-detr', 'transformer: { heads: 24 }', 'neck.channels (64), got 24'],
    ['small-gfl', 'neck: { numOutputs: 3 }', 'one stride per output of the neck'],
    ['small-faster-rcnn', 'neck: { numOutputs: 3 }', 'model.rpn.strides must hold one stride'],
    [
      'small-faster-rcnn',
      'rpn: { negIou: 0.9 }',
      'model.rpn.negIou must be <= model.rpn.posIou (0.7)',
    ],
    [
      'small-faster-rcnn',
      'roi: { posIou: 0.4 }',
      'model.roi.negIou must be <= model.roi.posIou (0.4)',
    ],
    ['small-tood', 'train: { topK: 65537 }', 'model.train.topK must be <= 65536, got 65537'],
    ['small', 'test: { nmsPre: 2147483648 }', 'model.test.nmsPre must be <= 2147483647'],
    ['small', 'train: { posIou: 0.3 }', 'model.train.negIou must be <= model.train.posIou (0.3)'],
    ['small-deformable-detr', 'refine: false', 'model.twoStage must be false without model.refine'],
    ['small', 'preset: torchvision/fcos_resnet50_fpn', 'model.type must be fcos with model.preset'],
  ])('over %s, model: { %s } is where the problem is', async (preset, line, says) => {
    const message = await messageOf(`${data}extends: ${preset}\nmodel:\n  ${line}\n`);
    expect(message).toMatch(/^bad\.yaml:6:\d+: /);
    expect(message).toContain(says);
    expect(message).not.toContain('\n');
  });

  test('an unknown detector is answered with those that there are', async () => {
    expect(await messageOf(`${data}model: { type: fcso }\n`)).toMatch(
      /^bad\.yaml:4:10: model\.type must be one of retinanet, .*\(nearest is fcos\), got "fcso"$/,
    );
  });

  test('several problems come in one message', async () => {
    const message = await messageOf(`${data}seed: x\nsemi: { cachSize: 8 }\n`);
    expect(message.split('\n').sort()).toEqual([
      'bad.yaml:4:1: seed must be a number, got "x"',
      'bad.yaml:5:9: semi.cachSize: unknown key; nearest is cacheSize',
    ]);
  });

  test('what is missing is located by its section', async () => {
    expect(await messageOf('data:\n  labelled: { format: coco }\n  split: { percent: 1 }\n')).toBe(
      'bad.yaml:2:3: data.labelled.annotations must be a string, got nothing',
    );
  });

  test.each([
    ['seed: 1\n', 'bad.yaml'],
    ['seed: 1\ndata:\n', 'bad.yaml:2:1'],
    ['data:\n  unlabelled: { format: folder, images: x }\n', 'bad.yaml:1:1'],
    ['data:\n  labelled: null\n', 'bad.yaml:2:3'],
  ])('%j has no labelled pictures: what to write, which is enough', async (text, place) => {
    const message = await messageOf(text);
    const [first, ...lines] = message.split('\n');
    expect(first).toBe(
      `${place}: data.labelled must be given (the annotated images), got nothing; for example:`,
    );
    expect(lines.pop()).toContain("or use --set 'data.labelled={ format: coco,");
    const config = await loadConfig(await write('said.yaml', lines.join('\n')));
    expect(config.data.labelled).toMatchObject({ annotations: 'labels.json', images: 'photos' });
  });

  test('so has a preset; what else is wrong is told, too', async () => {
    for (const [preset, start] of [
      ['small', 'extends: small'],
      ['torchvision/fcos_resnet50_fpn', 'model: { preset: torchvision/fcos_resnet50_fpn }'],
    ] as const) {
      const message = await loadConfig(preset).catch((error: Error) => error.message);
      expect(message).toMatch(`${preset}: data.labelled must be given`);
      const [, ...lines] = String(message).split('\n').slice(0, -1);
      expect(lines[0]).toBe(`    ${start}`);
      await loadConfig(await write('said.yaml', lines.join('\n')));
    }
    await expect(loadConfig('small', { overrides: ['seed=x'] })).rejects.toThrow(
      /^small: data\.labelled must.*\n--set seed=x: seed must be a number, got "x"$/s,
    );
  });

  test('a teacher needs unlabelled pictures', async () => {
    expect(await messageOf('data:\n  labelled: { format: coco, annotations: a.json }\n')).toMatch(
      /data\.unlabelled must be given for semi\.method mixpl .*labels\)$/,
    );
  });

  test('YAML mistakes have a place too', async () => {
    expect(await messageOf('seed: [1\n')).toMatch(/^bad\.yaml:2:1: /);
    expect(await messageOf('seed: 1\nseed: 2\n')).toMatch(/^bad\.yaml:2:1: .*unique/i);
    expect(await messageOf('- 1\n')).toBe(
      'bad.yaml:1:1: a config must be a mapping of options, got a list',
    );
  });

  test('an override is named as it was written', async () => {
    expect(await messageOf(data, ['semi.scoreThrr=1'])).toBe(
      '--set semi.scoreThrr=1: semi.scoreThrr: unknown key; nearest is scoreThr',
    );
    expect(await messageOf(data, ['seed'])).toBe(
      "--set seed: must be of the form option.name=value, got 'seed'",
    );
    expect(await messageOf(data, ['__proto__.x=1'])).toMatch(/__proto__: unknown key/);
    expect(({} as { x?: number }).x).toBeUndefined();
  });

  test('a file that is not there', async () => {
    await expect(loadConfig(join(folder, 'none.yaml'))).rejects.toMatchObject({ code: 'ERR_IO' });
    await expect(loadConfig('bcdc-5')).rejects.toThrow('nearest is bccd-5');
  });
});

describe('extends', () => {
  test('goes through files and presets; maps are merged, lists replaced', async () => {
    await write('base.yaml', `extends: small\n${data}optimizer: { lr: 0.25 }\nseed: 3\n`);
    const file = await write(
      'child.yaml',
      'extends: ./base.yaml\nseed: 4\nmodel: { anchors: { ratios: [1] } }\n',
    );
    const config = await loadConfig(file);
    expect(config.seed).toBe(4);
    expect(config.optimizer).toMatchObject({ type: 'adamw', lr: 0.25, clipNorm: 10 });
    expect(config.model).toMatchObject({ anchors: { ratios: [1], scalesPerOctave: 3 } });
    expect(config.model.backbone).toMatchObject({ depth: 18 });
    expect(config.data.root).toBe(folder);
  });

  test('another kind of thing replaces the one below', async () => {
    await write(
      'voc.yaml',
      'data: { labelled: { format: voc, imageSet: train }, split: { percent: 5 } }\n',
    );
    const file = await write(
      'coco.yaml',
      'extends: ./voc.yaml\ndata: { labelled: { format: coco, annotations: a.json } }\n',
    );
    expect((await loadConfig(file)).data.labelled).toEqual({
      format: 'coco',
      annotations: 'a.json',
      images: null,
    });
  });

  test('another detector keeps the backbone and the number of classes, nothing else', async () => {
    const file = await write(
      'other.yaml',
      `extends: small\n${data}model: { type: fcos, backbone: { depth: 34 } }\n`,
    );
    const { model } = await loadConfig(file, { overrides: ['model.numClasses=7'] });
    expect(model.backbone).toMatchObject({ depth: 34, norm: 'gn', baseWidth: 32 });
    expect(model.neck).toMatchObject({ channels: 256, numOutputs: 5 });
    const set = await loadConfig('small-gfl', {
      overrides: ['model.numClasses=7', 'model.type=atss'],
      withoutData: true,
    });
    expect(set.model).toMatchObject({ type: 'atss', numClasses: 7, backbone: { norm: 'gn' } });
    expect(set.model.neck.numOutputs).toBe(5);
  });

  test('another backbone has none of the options of the one below', async () => {
    const swin = { type: 'swin', size: 'small', window: 7, dropPath: 0.2, frozenStages: -1 };
    const file = await write(
      'swin.yaml',
      `extends: small\n${data}model: { backbone: { type: swin, size: small } }\n`,
    );
    const { backbone } = (await loadConfig(file)).model;
    expect(backbone).toMatchObject(swin);
    expect(backbone).not.toHaveProperty('norm');
    const set = (...overrides: string[]) => loadConfig('small', { overrides, withoutData: true });
    expect(
      (await set('model.backbone.type=swin', 'model.backbone.size=small')).model.backbone,
    ).toEqual(backbone);
    expect((await set('model.backbone.type=resnet')).model.backbone).toMatchObject({ depth: 18 });
    const back = await loadConfig(file, { overrides: ['model.backbone.type=resnet'] });
    expect(back.model.backbone).toMatchObject({ type: 'resnet', depth: 50, norm: 'frozen-bn' });
    await expect(set('model.backbone.type=vit')).rejects.toThrow(
      /model\.backbone\.type must be one of resnet, swin, got "vit"/,
    );
    await expect(loadConfig(file, { overrides: ['model.backbone.depth=50'] })).rejects.toThrow(
      /model\.backbone\.depth: unknown key; nearest is depths/,
    );
  });

  test('an exact size replaces one by ratio', async () => {
    const file = await write(
      'exact.yaml',
      `extends: small\n${data}augment: { weak: { resize: { width: 320, height: 240 } } }\n`,
    );
    expect((await loadConfig(file)).augment.weak.resize).toEqual({ width: 320, height: 240 });
  });

  test('a circle is refused with its path', async () => {
    await write('one.yaml', 'extends: ./two.yaml\n');
    const file = await write('two.yaml', 'extends: ./one.yaml\n');
    await expect(loadConfig(file)).rejects.toThrow(
      /extends must not lead back to its own file, got .*two\.yaml → .*one\.yaml → .*two\.yaml/,
    );
  });

  test('what is not there is named where it was asked for', async () => {
    expect(await messageOf(`extends: smal\n${data}`)).toMatch(/^bad\.yaml:1:1: .*nearest is small/);
    expect(await messageOf(`extends: ./none.yaml\n${data}`)).toMatch(
      /^bad\.yaml:1:1: .*does not exist/,
    );
    expect(await messageOf(`extends: [1]\n${data}`)).toMatch(/^bad\.yaml:1:1: extends must be/);
  });
});

describe('overrides', () => {
  test('are typed as YAML types them and come last', async () => {
    const file = await write(
      'good.yaml',
      `${data}seed: 1\naugment: { strong: { resize: { short: [400, 1200] } } }\n`,
    );
    const config = await loadConfig(file, {
      overrides: [
        'seed=7',
        'optimizer.lr=1e-4',
        'semi.mixup=false',
        'semi.erase=null',
        'augment.weak.resize.short=[300, 400]',
        'augment.strong.resize.short.0=500',
        'name=run-a',
      ],
    });
    expect(config).toMatchObject({ seed: 7, name: 'run-a' });
    expect(config.optimizer.lr).toBe(1e-4);
    expect(config.semi).toMatchObject({ mixup: false, erase: null });
    expect(config.augment.weak.resize).toMatchObject({ short: [300, 400] });
    expect(config.augment.strong.resize).toMatchObject({ short: [500, 1200] });
  });

  test('file names start from the working folder, in a file from the file', async () => {
    const file = await write('rooted.yaml', `${data.replace('data:', 'data:\n  root: images')}`);
    expect((await loadConfig(file)).data.root).toBe(join(folder, 'images'));
    expect((await loadConfig(file, { overrides: ['data.root=x'], cwd: '/w' })).data.root).toBe(
      '/w/x',
    );
    const weights = await loadConfig(file, {
      overrides: ['model.weights=w.safetensors'],
      cwd: '/w',
    });
    expect(weights.model.weights).toBe('/w/w.safetensors');
  });
});

test('a detector alone needs no data, and torchvision presets have names of their own', async () => {
  const file = await write('model.yaml', 'model: { type: atss, numClasses: 3 }\n');
  await expect(loadConfig(file)).rejects.toMatchObject({ code: 'ERR_CONFIG' });
  const { model } = await loadConfig(file, { withoutData: true });
  expect(model).toMatchObject({ type: 'atss', numClasses: 3 });
  const preset = 'torchvision/fasterrcnn_resnet50_fpn_v2';
  const { model: theirs } = await loadConfig(preset, { withoutData: true });
  expect(theirs).toMatchObject({ type: 'faster-rcnn', numerics: 'torchvision', preset });
  await expect(loadConfig(preset)).rejects.toThrow(/^torchvision.*: data\.labelled must be given/);
});

test('a resolved config reads back as the same config', async () => {
  const file = await write('source.yaml', `${data}semi: { erase: null, scoreThr: 0.35 }\n`);
  const config = await loadConfig(file, {
    overrides: [
      'optimizer.lr=0.000123456789',
      'optimizer.groups=[{ match: backbone, lrFactor: 0.1 }, { match: bias, weightDecayFactor: 0 }]',
      'optimizer.groups.0.lrFactor=0.2',
    ],
  });
  expect(config.optimizer.groups).toEqual([
    { match: 'backbone', lrFactor: 0.2 },
    { match: 'bias', weightDecayFactor: 0 },
  ]);
  const again = await loadConfig(await write('resolved.yaml', formatConfig(config)));
  expect(again).toEqual(config);
  expect(JSON.stringify(again)).toBe(JSON.stringify(config));
  expect(formatConfig(again)).toBe(formatConfig(config));
});
