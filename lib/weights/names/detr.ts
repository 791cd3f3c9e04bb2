import type { DetectorNames } from './names.js';

/** torchvision has no DETR. The label embedding has a row for each class, too. */
export const dinoNames: DetectorNames = {
  classLayers: /^(bbox_head\.cls_branches\.\d+|dn_query_generator\.label_embedding)\./,
  classBias: 'bbox_head.cls_branches.0.bias',
  torchvisionHead: () => [],
};

export const deformableDetrNames: DetectorNames = {
  classLayers: /^bbox_head\.cls_branches\.\d+\./,
  classBias: 'bbox_head.cls_branches.0.bias',
  torchvisionHead: () => [],
  // Without refined boxes all layers have branch 0, which state dicts of torch name once a layer.
  isRepeated: (stored, own) =>
    !own.includes('bbox_head.cls_branches.1.bias') &&
    /^bbox_head\.(cls|reg)_branches\.[1-9]\d*\./.test(stored),
};

export const dabDetrNames: DetectorNames = {
  classLayers: /^bbox_head\.fc_cls\./,
  classBias: 'bbox_head.fc_cls.bias',
  torchvisionHead: () => [],
  // The slope of an FFN's PReLU, which mmcv 1 and the first of 2 list under a name of its own, too.
  isRepeated: (stored) => stored.endsWith('.ffn.activate.weight'),
};
