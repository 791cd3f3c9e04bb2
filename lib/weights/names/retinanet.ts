import { type DetectorNames, torchvisionTowers, towerLayer } from './names.js';

/** @source torchvision 0.14 `retinanet_resnet50_fpn`, `_v2` and files before 0.13 */
export const retinanetNames: DetectorNames = {
  classLayers: /^bbox_head\.retina_cls\./,
  classBias: 'bbox_head.retina_cls.bias',
  torchvisionHead(own) {
    const layer = towerLayer(own);
    if (layer) {
      const { tower, at, part, parameter } = layer;
      if (part === 'gn') return [`${tower}.conv.${at}.1.${parameter}`];
      // Before 0.13 convolutions and ReLUs were counted together.
      return [`${tower}.conv.${at}.0.${parameter}`, `${tower}.conv.${2 * at}.${parameter}`];
    }
    const [, output, last] = /^bbox_head\.retina_(cls|reg)\.(\w+)$/.exec(own) ?? [];
    if (output === 'cls') return [`${torchvisionTowers.cls}.cls_logits.${last}`];
    if (output === 'reg') return [`${torchvisionTowers.reg}.bbox_reg.${last}`];
    return [];
  },
};
