import type { DetectorNames } from './names.js';

/** torchvision has no GFL. */
export const gflNames: DetectorNames = {
  classLayers: /^bbox_head\.gfl_cls\./,
  classBias: 'bbox_head.gfl_cls.bias',
  torchvisionHead: () => [],
};
