import { type DetectorNames, torchvisionTowers, towerLayer } from './names.js';

/** @source torchvision 0.14 `fcos_resnet50_fpn`: convolution, GroupNorm and ReLU counted together */
export const fcosNames: DetectorNames = {
  classLayers: /^bbox_head\.conv_cls\./,
  classBias: 'bbox_head.conv_cls.bias',
  torchvisionHead(own) {
    const layer = towerLayer(own);
    if (layer) {
      const { tower, at, part, parameter } = layer;
      return [`${tower}.conv.${3 * at + (part === 'gn' ? 1 : 0)}.${parameter}`];
    }
    const [, output, last] = /^bbox_head\.conv_(cls|reg|centerness)\.(\w+)$/.exec(own) ?? [];
    if (output === 'cls') return [`${torchvisionTowers.cls}.cls_logits.${last}`];
    if (output === 'reg') return [`${torchvisionTowers.reg}.bbox_reg.${last}`];
    if (output === 'centerness') return [`${torchvisionTowers.reg}.bbox_ctrness.${last}`];
    return [];
  },
};
