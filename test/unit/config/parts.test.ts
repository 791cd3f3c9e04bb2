import { describe, expect, test } from 'vitest';
import {
  colorMagnitudes,
  drawView,
  labelledDefaults,
  softTeacherErase,
  strongDefaults,
  testResize,
  viewOptions,
  weakDefaults,
} from '../../../lib/augment/index.js';
import {
  datasetSource,
  detectorOptions,
  loadConfig,
  optimizerOptions,
} from '../../../lib/config/index.js';
import { problemRules } from '../../../lib/data/index.js';
import { createDetector } from '../../../lib/detector/create.js';
import { Random } from '../../../lib/random.js';
import { resolveSemiOptions, semiDefaults } from '../../../lib/semi/index.js';

describe('the layers below take what the schema gives', () => {
  test('the native detector and its optimizers know every option', async () => {
    const groups = 'optimizer.groups=[{match: backbone, lrFactor: 0.1}, {match: neck}]';
    for (const overrides of [
      ...[[], ['optimizer={type: sgd}'], ['model.backbone.baseWidth=16']],
      [groups, 'optimizer.normDecay=0', 'optimizer.biasDecay=0'],
    ]) {
      const config = await loadConfig('bccd-5', { overrides });
      await using detector = await createDetector(detectorOptions(config, 3), {
        optimizer: optimizerOptions(config),
      });
      expect(detector.numClasses).toBe(3);
    }
  });

  test('decays that are not given are the weights’, groups come as they are written', async () => {
    const groups = ['optimizer.groups=[{match: neck, weightDecayFactor: 0}]'];
    const { optimizer } = await loadConfig('bccd-5', { overrides: groups });
    expect(optimizerOptions({ optimizer })).toMatchObject({
      ...{ weightDecay: 1e-4, normDecay: 1e-4, biasDecay: 1e-4 },
      groups: [{ match: 'neck', weightDecayFactor: 0 }],
    });
    const decays = { ...optimizer, normDecay: 0, biasDecay: 0.5 };
    expect(optimizerOptions({ optimizer: decays })).toMatchObject({ normDecay: 0, biasDecay: 0.5 });
  });

  test('the semi-supervised options have the same defaults', async () => {
    const { semi } = await loadConfig('retinanet-r50-coco-10');
    const { method, burnIn, resampling, ...loop } = semi;
    expect(resolveSemiOptions(loop)).toEqual(semiDefaults);
    expect({ method, burnIn, resampling }).toEqual({
      method: 'mixpl',
      burnIn: 0,
      resampling: null,
    });
  });

  test('the views have the same defaults', async () => {
    const { augment } = await loadConfig('retinanet-r50-coco-10');
    const { labelled, weak, strong, test: evaluation } = augment;
    expect(labelled).toEqual({ ...labelledDefaults, colorMagnitudes });
    expect(weak).toEqual({ ...weakDefaults, colorMagnitudes });
    expect(strong).toEqual({ ...strongDefaults, colorMagnitudes });
    expect(evaluation).toEqual(testResize);
    for (const view of [labelled, weak, strong]) expect(viewOptions(view)).toEqual(view);
    const erase = { overrides: ['augment.strong.erase={}'] };
    const { augment: erasing } = await loadConfig('retinanet-r50-coco-10', erase);
    expect(erasing.strong.erase).toEqual(softTeacherErase);
  });

  test('the policy of data problems has the same defaults', async () => {
    const { data } = await loadConfig('bccd-5', {
      overrides: ['data.policy.missing-image=skip'],
    });
    expect(data.policy['missing-image']).toBe('skip');
    expect(data.policy['duplicate-image-id']).toBe(problemRules['duplicate-image-id'].actions[0]);
    expect(Object.keys(data.policy)).toEqual(Object.keys(problemRules));
    await expect(
      loadConfig('bccd-5', { overrides: ['data.policy.box-zero-size=keep'] }),
    ).rejects.toThrow(/data\.policy\.box-zero-size must be one of skip, refuse/);
  });

  test('data sets are looked for from data.root', async () => {
    const bccd = await loadConfig('bccd-5', { overrides: ['data.root=/d'] });
    expect(datasetSource(bccd, 'labelled')).toEqual({
      format: 'voc',
      folder: '/d',
      imageSet: 'trainval',
    });
    expect(datasetSource(bccd, 'unlabelled')).toBeNull();
    const listed = async (imageSet: string) =>
      datasetSource(
        await loadConfig('bccd-5', {
          overrides: ['data.root=/d', `data.labelled.imageSet=${imageSet}`],
        }),
        'labelled',
      );
    expect(await listed('lists/mine')).toMatchObject({ imageSet: '/d/lists/mine' });
    expect(await listed('mine.txt')).toMatchObject({ imageSet: '/d/mine.txt' });
    expect(await listed('/lists/mine.txt')).toMatchObject({ imageSet: '/lists/mine.txt' });
    const coco = await loadConfig('retinanet-r50-coco-full', { overrides: ['data.root=/d'] });
    expect(datasetSource(coco, 'labelled')).toEqual({
      format: 'coco',
      annotations: '/d/annotations/instances_train2017.json',
      images: '/d/train2017',
    });
    expect(datasetSource(coco, 'unlabelled')).toEqual({
      format: 'folder',
      images: '/d/unlabeled2017',
    });
  });

  test('views are drawn by the sections of augment', async () => {
    const { augment } = await loadConfig('bccd-5');
    const source = { data: new Uint8Array(640 * 480 * 3), width: 640, height: 480 };
    for (let i = 0; i < 20; i++) {
      const { width, height } = drawView(source, augment.weak, new Random(i));
      expect(height).toBeGreaterThanOrEqual(192);
      expect(height).toBeLessThanOrEqual(300);
      expect(width / height).toBeCloseTo(4 / 3, 1);
    }
  });
});
