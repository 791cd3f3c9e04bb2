import type { DetectorNames } from './names.js';

/** torchvision has no TOOD. */
export const toodNames: DetectorNames = {
  classLayers: /^bbox_head\.tood_cls\./,
  classBias: 'bbox_head.tood_cls.bias',
  torchvisionHead: () => [],
};
