import { describe, expect, test } from 'vitest';
import { drawView } from '../../../lib/augment/index.js';
import {
  detectorOptions,
  loadConfig,
  optimizerOptions,
  semiOptions,
} from '../../../lib/config/index.js';
import { createDetector } from '../../../lib/detector/detector.js';
import { Random } from '../../../lib/random.js';
import { resolveSemiOptions, semiDefaults } from '../../../lib/semi/index.js';

describe('the layers below take what the schema gives', () => {
  test('the native detector and its optimizers know every option', async () => {
    for (const overrides of [[], ['optimizer={type: sgd}'], ['model.backbone.baseWidth=16']]) {
      const config = await loadConfig('bccd-5', { overrides });
      await using detector = await createDetector(detectorOptions(config, 3), {
        optimizer: optimizerOptions(config),
      });
      expect(detector.numClasses).toBe(3);
    }
  });

  test('the semi-supervised options have the same defaults', async () => {
    const { semi, ...rest } = await loadConfig('retinanet-r50-coco-10');
    expect(resolveSemiOptions(semiOptions({ semi }))).toEqual(semiDefaults);
    expect(rest.optimizer.type).toBe('sgd');
  });

  test('a plain mean teacher mixes nothing', async () => {
    const config = await loadConfig('bccd-5', { overrides: ['semi.method=mean-teacher'] });
    expect(semiOptions(config)).toMatchObject({ mixup: false, mosaic: false });
  });

  test('views are drawn by the sections of augment', async () => {
    const { augment } = await loadConfig('bccd-5');
    const source = { data: new Uint8Array(640 * 480 * 3), width: 640, height: 480 };
    const view = drawView(source, augment.weak, new Random(1));
    expect([view.width, view.height]).toEqual([320, 240]);
  });
});
