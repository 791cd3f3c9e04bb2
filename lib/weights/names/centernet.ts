import type { DetectorNames } from './names.js';

/** torchvision has no CenterNet. */
export const centernetNames: DetectorNames = {
  classLayers: /^bbox_head\.conv_cls\./,
  classBias: 'bbox_head.conv_cls.bias',
  torchvisionHead: () => [],
};
