import { expect, test } from 'vitest';
import { prepareCached, pseudoMosaic, resizedView } from '../../../lib/augment/index.js';
import { inference, mixplIteration, mosaicSize, trainingStep } from '../../../lib/bench/steps.js';

const context = { device: 'cpu', dtype: 'f32' } as const;
const size = { height: 64, width: 96 };

test.each([
  [480, 640, 352],
  [800, 1344, 592],
  [64, 96, 48],
])('the mosaic of %i × %i has the size that its floor is counted for', (height, width, tile) => {
  const view = resizedView(
    { data: new Uint8Array(3 * height * width), height, width },
    {
      ...{ height, width },
    },
  );
  const instances = {
    ...{ boxes: new Float32Array(), labels: new Int32Array(), scores: new Float32Array() },
  };
  const cached = prepareCached({ view, instances }, { width: tile, height: tile });
  const { composition } = pseudoMosaic([cached, cached, cached, cached]);
  expect(mosaicSize({ height, width })).toEqual({
    height: composition.height,
    width: composition.width,
  });
});

// All but those whose sizes alone are others.
test.each([
  'retinanet',
  'fcos',
  'faster-rcnn',
  'retinanet-swin-t',
  'sparse-rcnn',
  'dab-detr',
  'deformable-detr',
  'dino',
] as const)(
  'an iteration of %s learns from every branch, time after time',
  async (model) => {
    const step = await mixplIteration(model, { ...size, labelled: 1, unlabelled: 2 }, context);
    try {
      for (let i = 0; i < 2; i++) {
        await step.run();
        await step.check();
      }
    } finally {
      step.dispose();
    }
  },
  240_000, // of R50, where the machine has other work
);

test('a training step and an inference end with sound results', async () => {
  for (const step of [
    await trainingStep('fcos', { ...size, images: 2 }, context),
    await inference('retinanet', { ...size, images: 2 }, context),
  ]) {
    await step.run();
    await step.check();
    step.dispose();
  }
}, 240_000);
