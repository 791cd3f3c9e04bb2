import type { DetectorNames } from './names.js';

/** torchvision has no Sparse R-CNN. */
export const sparseRcnnNames: DetectorNames = {
  classLayers: /^roi_head\.bbox_head\.\d+\.fc_cls\./,
  classBias: 'roi_head.bbox_head.0.fc_cls.bias',
  torchvisionHead: () => [],
};
