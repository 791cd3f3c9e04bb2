import type { DetectorNames } from './names.js';

/** torchvision has no DETR with deformable attention. The label embedding has a row for each class, too. */
export const dinoNames: DetectorNames = {
  classLayers: /^(bbox_head\.cls_branches\.\d+|dn_query_generator\.label_embedding)\./,
  classBias: 'bbox_head.cls_branches.0.bias',
  torchvisionHead: () => [],
};

export const deformableDetrNames: DetectorNames = {
  classLayers: /^bbox_head\.cls_branches\.\d+\./,
  classBias: 'bbox_head.cls_branches.0.bias',
  torchvisionHead: () => [],
};
