import type { DetectorNames } from './names.js';

/** mmdetection's PAA head is its ATSS head; torchvision has none. */
export const paaNames: DetectorNames = {
  classLayers: /^bbox_head\.atss_cls\./,
  classBias: 'bbox_head.atss_cls.bias',
  torchvisionHead: () => [],
};
