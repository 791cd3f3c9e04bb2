import type { DetectorNames } from './names.js';

/** torchvision has no ATSS. */
export const atssNames: DetectorNames = {
  classLayers: /^bbox_head\.atss_cls\./,
  classBias: 'bbox_head.atss_cls.bias',
  torchvisionHead: () => [],
};
