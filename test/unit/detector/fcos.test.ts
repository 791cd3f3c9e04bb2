import { expect, test } from 'vitest';
import { createDetector, type DetectorOptions, loadConfig, native } from '../../../lib/index.js';
import { Random } from '../../../lib/random.js';
import { ndarray } from '../../oracle/array.js';
import { fcosTargetsLoop } from '../../oracle/fcos.js';
import { tensor } from '../ops/test-op.js';
import { testDetector } from './suite.js';

const options: DetectorOptions = {
  type: 'fcos',
  numClasses: 6,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 16 },
  neck: { channels: 32, numOutputs: 4 },
  head: { channels: 32, stackedConvs: 1 },
  points: { strides: [8, 16, 32, 64] },
  train: { regressBounds: [24, 48, 96] },
};

const layer = (name: string) => ({
  [`${name}.conv.weight`]: [32, 32, 3, 3],
  [`${name}.conv.bias`]: [32],
  [`${name}.gn.weight`]: [32],
  [`${name}.gn.bias`]: [32],
});

testDetector('FCOS', {
  options,
  losses: ['loss_cls', 'loss_bbox', 'loss_centerness'],
  // Centre-ness is a soft target: its cross-entropy does not go to 0.
  overfit: { steps: 200, loss: 1.05 },
  gradients: [
    'bbox_head.conv_cls.bias',
    // Distances begin near 0, where they are held: conv_reg has a kink there (see the golden test).
    'bbox_head.conv_centerness.weight',
    'bbox_head.cls_convs.0.gn.weight',
    'backbone.layer4.1.conv2.weight',
  ],
  head: {
    ...layer('cls_convs.0'),
    ...layer('reg_convs.0'),
    'conv_cls.weight': [6, 32, 3, 3],
    'conv_cls.bias': [6],
    'conv_reg.weight': [4, 32, 3, 3],
    'conv_reg.bias': [4],
    'conv_centerness.weight': [1, 32, 3, 3],
    'conv_centerness.bias': [1],
    ...Object.fromEntries([0, 1, 2, 3].map((l) => [`scales.${l}.scale`, []])),
  },
});

test.each([false, true])(
  'targets are those of a plain loop (torchvision: %s)',
  async (torchvision) => {
    for (let seed = 0; seed < 40; seed++) {
      const random = new Random(seed);
      const count = [0, 1, 2, 7, 40][seed % 5]!;
      const boxes = Array.from({ length: count }, () => {
        const [x, y] = [random.uniform(-20, 150), random.uniform(-20, 110)];
        const side = 200 * random.next() ** 2 + 0.5;
        // Whole numbers meet points and bounds exactly.
        const grid = seed % 2 ? Math.fround : Math.round;
        return [x, y, x + 1 + side * random.uniform(0.3, 1), y + 1 + side].map(grid);
      });
      const labels = boxes.map(() => random.integer(0, 5));
      const heights = [16, 8, 4];
      const widths = [20, 10, 5];
      const strides = [8, 16, 32];
      const setup = {
        ...{ classes: 5, heights, widths, strides, regressBounds: [40, 90] },
        ...{ offset: torchvision ? 0 : 0.5, centerRadius: seed % 3 ? 1.5 : 0, torchvision },
      };
      const inputs = [
        tensor(ndarray([count, 4], boxes.flat())),
        tensor(ndarray([count], labels), 'i32'),
      ];
      const { outputs } = await native.runOp('fcosTargets', inputs, JSON.stringify(setup));
      const truth = fcosTargetsLoop(boxes, labels, setup);
      for (const [l, expected] of truth.entries()) {
        expect([...(await outputs[3 * l]!.read())], `seed ${seed}`).toEqual(expected.labels);
        const sides = await outputs[3 * l + 1]!.read();
        expected.sides.forEach((v, i) => {
          expect(Math.abs(sides[i]! - v)).toBeLessThan(1e-4 * Math.max(1, Math.abs(v)));
        });
        const centerness = await outputs[3 * l + 2]!.read();
        expected.centerness.forEach((v, i) => {
          expect(Math.abs(centerness[i]! - v)).toBeLessThan(1e-4);
        });
      }
    }
  },
);

test('FCOS says what does not fit', async () => {
  const refused = (more: object) => createDetector({ ...options, ...more } as DetectorOptions);
  await expect(refused({ numerics: 'detectron' })).rejects.toThrow(
    "model.numerics must be 'mmdetection' or 'torchvision', got 'detectron'",
  );
  await expect(refused({ points: { strides: [8, 16] } })).rejects.toThrow(
    'points.strides must hold one stride per output of the neck (4), got 2',
  );
  await expect(refused({ train: { regressBounds: [64, 32, 128] } })).rejects.toThrow(
    'train.regressBounds must be rising numbers > 0, got 32',
  );
  await expect(refused({ train: { centerRadius: -1 } })).rejects.toThrow(
    'train.centerRadius must be >= 0, got -1',
  );
});

test("the preset is mmdetection's network with the paper's threshold", async () => {
  const { model, semi } = await loadConfig('fcos-r50-coco-10');
  expect(model).toMatchObject({
    type: 'fcos',
    backbone: { depth: 50, style: 'caffe', norm: 'frozen-bn', frozenStages: 1 },
    neck: { extra: 'on-output', reluBeforeExtra: true },
    head: { channels: 256, stackedConvs: 4, norm: 'gn' },
    test: { nmsIou: 0.6, scoreThr: 0.05 },
  });
  expect(semi).toMatchObject({ method: 'mixpl', scoreThr: 0.3 });
});
