// What fresh weights are, of every detector, against mmdetection's rules: each parameter outside the
// backbone (which starts from ImageNet there) has its law here. Golden values cannot see them: they are
// recorded with weights of their own.
import { describe, expect, test } from 'vitest';
import { createDetector, type DetectorOptions } from '../../../lib/index.js';

/** Whether numbers of a parameter of this shape (weights OHWI) look drawn as they should. */
type Law = (values: Float32Array, shape: readonly number[]) => void;

const spread = (values: Float32Array) =>
  Math.sqrt(values.reduce((sum, v) => sum + v * v, 0) / values.length);
const largest = (values: Float32Array) =>
  values.reduce((most, v) => Math.max(most, Math.abs(v)), 0);
/** Five deviations of a mean square. */
const expectSpread = (values: Float32Array, wanted: number) => {
  expect(Math.abs(spread(values) / wanted - 1)).toBeLessThan(5 / Math.sqrt(values.length));
};

const constant =
  (value: number): Law =>
  (values) => {
    for (const v of values) expect(v).toBeCloseTo(value, 5);
  };
const normal =
  (deviation: number): Law =>
  (values) => {
    expectSpread(values, deviation);
    // A uniform law ends at 1.73 deviations.
    if (values.length > 150) expect(largest(values)).toBeGreaterThan(1.9 * deviation);
  };
/** Even between ± the bound that the shape gives. */
const uniform =
  (bound: (shape: readonly number[]) => number): Law =>
  (values, shape) => {
    const most = bound(shape);
    expectSpread(values, most / Math.sqrt(3));
    expect(largest(values)).toBeLessThanOrEqual(most * (1 + 1e-6));
  };
const product = (sizes: readonly number[]) => sizes.reduce((all, size) => all * size, 1);
const fanIn = (shape: readonly number[]) => product(shape.slice(1));
const fanOut = (shape: readonly number[]) => product(shape.slice(0, -1));
const xavier = uniform((shape) => Math.sqrt(6 / (fanIn(shape) + fanOut(shape))));
const caffe2Xavier = uniform((shape) => Math.sqrt(3 / fanIn(shape)));
/** torch's own of a layer. */
const torch = uniform((shape) => 1 / Math.sqrt(fanIn(shape)));
/** Its biases, of a layer with so many inputs. */
const torchBias = (inputs: number) => uniform(() => 1 / Math.sqrt(inputs));
const zero = constant(0);
const one = constant(1);
const prior = constant(-Math.log(99));

/** The first pattern that a path has counts. */
type Laws = readonly (readonly [pattern: RegExp, law: Law])[];

const channels = 64;
const points = 4;
const norms: Laws = [
  [/(norms?\d?|norm_in|norm_out|_norm|gn|norms\.\d)\.weight$/, one],
  [/(norms?\d?|norm_in|norm_out|_norm|gn|norms\.\d)\.bias$/, zero],
];
const fpn: Laws = [[/^neck\..*weight$/, xavier]];
const dense: Laws = [
  ...norms,
  ...fpn,
  [/^bbox_head\.(conv|retina|atss|gfl)_cls\.bias$/, prior],
  [/^bbox_head\.scales\.\d\.scale$/, one],
  [/^bbox_head\..*weight$/, normal(0.01)],
  [/bias$/, zero],
];
const tood: Laws = [
  [/^bbox_head\.(tood_cls|cls_prob_module\.2)\.bias$/, prior],
  [/^bbox_head\.(.*layer_attention|reg_offset_module)\..*weight$/, normal(0.001)],
  ...dense,
];
const twoStage: Laws = [
  ...fpn,
  [/^rpn_head\..*weight$/, normal(0.01)],
  [/shared_fcs\.\d\.weight$/, xavier],
  [/fc_cls\.weight$/, normal(0.01)],
  [/fc_reg\.weight$/, normal(0.001)],
  [/bias$/, zero],
];
const sparse: Laws = [
  [
    /init_proposal_bboxes/,
    (values) => expect([...values.subarray(0, 4)]).toEqual([0.5, 0.5, 1, 1]),
  ],
  [/init_proposal_features/, normal(1)],
  [/dynamic_layer\.bias$/, torchBias(channels)],
  [/fc_layer\.bias$/, torchBias(49 * channels)],
  [/fc_cls\.bias$/, prior],
  [/(cls_fcs|reg_fcs)\.[147]\.weight$/, one],
  ...norms,
  [/weight$/, xavier],
  [/bias$/, zero],
];
/**
 * Deviation: biases of feed-forward layers and of what makes queries of proposals are 0 (feed_forward.h),
 * where the reference leaves torch's.
 */
const transformer: Laws = [
  ...norms,
  [/sampling_offsets\.weight$/, zero],
  [
    // [heads, levels, points, (x, y)]: head 0 looks to the right, point p is p + 1 cells away.
    /sampling_offsets\.bias$/,
    (values) => expect([...values.subarray(0, 2 * points)]).toEqual([1, 0, 2, 0, 3, 0, 4, 0]),
  ],
  [/attention_weights\.(weight|bias)$/, zero],
  [/ffn\.layers\.0\.1\.weight$/, constant(0.25)],
  [/(cls_branches\.\d|fc_cls)\.bias$/, prior],
  [/(cls_branches\.\d|fc_cls)\.weight$/, torch],
  [/reg_branches\.\d\.4\.|fc_reg\.layers\.2\./, zero],
  [/(reg_branches\.\d\.[02]|fc_reg\.layers\.[01])\.weight$/, torch],
  [/(reg_branches\.\d\.[02]|fc_reg\.layers\.[01])\.bias$/, torchBias(channels)],
  [/ref_point_head\.layers\.0\.bias$/, torchBias(2 * channels)],
  [/(query_scale|ref_point_head|ref_anchor_head)\.layers\.\d\.bias$/, torchBias(channels)],
  [/([qk](content|pos)|\.v|qpos_sine)_proj\.bias$/, torchBias(channels)],
  [/^level_embed$|label_embedding\.weight$/, normal(1)],
  [/weight$/, xavier],
  [/bias$/, zero],
];
const plainQueries: Laws = [
  [/^query_embedding\.weight$/, normal(1)],
  // Boxes are small at first.
  [/reg_branches\.0\.4\.bias$/, (values) => expect([...values]).toEqual([0, 0, -2, -2])],
  ...transformer,
];

const backbone = { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 8 } as const;
const common = { numClasses: 20, backbone, neck: { channels } };
const head = { channels, stackedConvs: 2 };
const twoStages = { ...common, rpn: { channels } };
const layers = { heads: 4, encoderLayers: 1, decoderLayers: 2, ffnChannels: 96 };
const deformable = { ...common, queries: 150, transformer: { ...layers, points } };

const cases: Record<string, [options: DetectorOptions, laws: Laws]> = {
  RetinaNet: [{ type: 'retinanet', ...common, head }, dense],
  FCOS: [{ type: 'fcos', ...common, head }, dense],
  ATSS: [{ type: 'atss', ...common, head }, dense],
  GFL: [{ type: 'gfl', ...common, head }, dense],
  PAA: [{ type: 'paa', ...common, head }, dense],
  CenterNet: [
    { type: 'centernet', ...common, head },
    [[/^neck\..*weight$/, caffe2Xavier], ...dense],
  ],
  TOOD: [{ type: 'tood', ...common, head }, tood],
  'Faster R-CNN': [{ type: 'faster-rcnn', ...twoStages, roi: { fcChannels: 128 } }, twoStage],
  'Cascade R-CNN': [{ type: 'cascade-rcnn', ...twoStages, roi: { fcChannels: 128 } }, twoStage],
  'Sparse R-CNN': [
    { type: 'sparse-rcnn', ...common, head: { stages: 1, heads: 4, dynamicChannels: 16 } },
    sparse,
  ],
  DINO: [{ type: 'dino', ...deformable }, transformer],
  'Deformable DETR': [{ type: 'deformable-detr', ...deformable }, transformer],
  'Deformable DETR without proposals': [
    { type: 'deformable-detr', ...deformable, refine: false, twoStage: false },
    plainQueries,
  ],
  'DAB-DETR': [{ type: 'dab-detr', ...common, queries: 150, transformer: layers }, plainQueries],
};

describe('fresh weights are drawn as mmdetection draws them', () => {
  test.each(Object.entries(cases))('%s', async (_, [options, laws]) => {
    await using detector = await createDetector(options, { device: 'cpu', dtype: 'fp32', seed: 3 });
    for (const { name, shape, kind } of detector.parameters()) {
      if (kind === 'buffer' || name.startsWith('backbone.')) continue;
      const law = laws.find(([pattern]) => pattern.test(name))?.[1];
      expect(law, `a law for ${name}`).toBeDefined();
      const values = await detector.readTensor(name);
      try {
        law!(values, shape);
      } catch (error) {
        throw new Error(`${name} [${shape}]: ${(error as Error).message}`, { cause: error });
      }
    }
  });
});
