// Small detectors of every kind; compare.py makes the same of mmdetection's configs.
const numClasses = 6;
const backbone = { depth: 18, norm: 'bn-eval', frozenStages: -1, style: 'pytorch' };
const dense = {
  ...{ numClasses, backbone, neck: { channels: 64 } },
  head: { channels: 64, stackedConvs: 2 },
};
// Everything is sampled: what is drawn by chance cannot be compared.
const all = { sampleSize: 1 << 20, posFraction: 1 };
const twoStage = {
  ...{ numClasses, backbone, neck: { channels: 64 } },
  ...{ rpn: { channels: 64, ...all }, roi: { fcChannels: 128, ...all } },
};
const tood = { ...dense, head: { channels: 64, stackedConvs: 3 } };
const queries = (channels, dropout) => ({
  ...{ numClasses, backbone, neck: { channels }, queries: 40, test: { maxPerImage: 200 } },
  transformer: { encoderLayers: 2, decoderLayers: 3, ffnChannels: 96, ...dropout },
});
// Some numbers of channels are written into mmdetection's code.
const dino = { ...queries(256), denoising: { labelNoise: 0, boxNoise: 0 } };
const swin = { type: 'swin', embed: 48, depths: [2, 2, 4, 2], heads: [3, 6, 12, 24], dropPath: 0 };

/** `scales`: of weights, where those of all detectors give boxes that lie outside. */
export const cases = {
  retinanet: { options: { type: 'retinanet', ...dense } },
  fcos: { options: { type: 'fcos', ...dense } },
  atss: { options: { type: 'atss', ...dense } },
  gfl: { options: { type: 'gfl', ...dense } },
  paa: { options: { type: 'paa', ...dense } },
  centernet: { options: { type: 'centernet', ...dense } },
  tood: { options: { type: 'tood', ...tood } },
  'tood-aligned': { options: { type: 'tood', ...tood, train: { iterationsBeforeAlignment: 0 } } },
  'faster-rcnn': { options: { type: 'faster-rcnn', ...twoStage } },
  'cascade-rcnn': { options: { type: 'cascade-rcnn', ...twoStage } },
  'sparse-rcnn': {
    options: {
      ...{ type: 'sparse-rcnn', numClasses, backbone, neck: { channels: 64 } },
      ...{ proposals: 30, head: { stages: 3 } },
    },
    scales: [
      [/fc_reg\.weight$/, 0.06],
      [/fc_cls\.weight$/, 2],
    ],
  },
  'dab-detr': { options: { type: 'dab-detr', ...queries(64) } },
  'deformable-detr': { options: { type: 'deformable-detr', ...queries(256, { dropout: 0 }) } },
  dino: { options: { type: 'dino', ...dino } },
  'dino-swin': {
    options: {
      ...{ type: 'dino', ...dino, backbone: swin },
      neck: { channels: 256, firstLevel: 2, numOutputs: 5 },
    },
  },
};

const some = [
  {
    // One of them is smaller than any anchor.
    boxes: [10.5, 20, 60, 90, 100, 30, 240, 170, 5, 5, 9, 8.5, 30, 40, 130, 175, 120, 60, 128, 140],
    labels: [0, 1, 2, 3, 1],
  },
  { boxes: [20, 20, 190, 240, 50, 60, 82, 95, 150, 200, 199, 249], labels: [5, 4, 0] },
];
export const truths = {
  labelled: { padTo: 'image', images: some },
  mixed: { padTo: 'batch', images: some },
  half: { padTo: 'image', images: [some[0], { boxes: [], labels: [] }] },
  none: { padTo: 'image', images: [0, 1].map(() => ({ boxes: [], labels: [] })) },
  // Equal boxes, centres on top of one another, the whole picture.
  ties: {
    padTo: 'image',
    images: [
      {
        boxes: [
          32, 32, 96, 96, 32, 32, 96, 96, 16, 16, 112, 112, 0, 0, 250, 180, 64, 64, 65.5, 65.5,
        ],
        labels: [0, 1, 2, 3, 4],
      },
      { boxes: [0, 0, 200, 250, 0, 0, 200, 250, 40, 50, 160, 200], labels: [5, 5, 5] },
    ],
  },
};
