import { lastRowFirst, pooledCodec, rowsBefore } from '../codec.js';
import type { DetectorNames } from './names.js';

/** Of RoIAlign; fixed in both detectors. */
const bins = 7;
const firstLayer = /^roi_head\.bbox_head\.(\d+\.)?shared_fcs\.0\.weight$/;

/** @source torchvision 0.14 `fasterrcnn_resnet50_fpn` and files before 0.13 */
export const fasterRcnnNames: DetectorNames = {
  classLayers: /^roi_head\.bbox_head\.fc_(cls|reg)\./,
  classBias: 'roi_head.bbox_head.fc_cls.bias',
  backgroundRows: 1,
  torchvisionHead(own) {
    const [, layer, last] = /^rpn_head\.rpn_(conv|cls|reg)\.(\w+)$/.exec(own) ?? [];
    if (layer === 'conv') return [`rpn.head.conv.0.0.${last}`, `rpn.head.conv.${last}`];
    if (layer === 'cls') return [`rpn.head.cls_logits.${last}`];
    if (layer === 'reg') return [`rpn.head.bbox_pred.${last}`];
    const [, part, parameter] =
      /^roi_head\.bbox_head\.(shared_fcs\.\d|fc_cls|fc_reg)\.(\w+)$/.exec(own) ?? [];
    if (part === 'shared_fcs.0') return [`roi_heads.box_head.fc6.${parameter}`];
    if (part === 'shared_fcs.1') return [`roi_heads.box_head.fc7.${parameter}`];
    if (part === 'fc_cls') return [`roi_heads.box_predictor.cls_score.${parameter}`];
    if (part === 'fc_reg') return [`roi_heads.box_predictor.bbox_pred.${parameter}`];
    return [];
  },
  codec(layout, axes, { name, shape }) {
    if (firstLayer.test(name)) return pooledCodec(axes, shape, bins);
    if (layout !== 'torchvision') return undefined;
    // torchvision's class 0 is the background; mmdetection's is the last, without a box of its own.
    if (name.startsWith('roi_head.bbox_head.fc_cls.')) return lastRowFirst(shape);
    if (name.startsWith('roi_head.bbox_head.fc_reg.')) return rowsBefore(shape, 4);
    return undefined;
  },
};

/** torchvision has no Cascade R-CNN. Boxes do not depend on the class. */
export const cascadeRcnnNames: DetectorNames = {
  classLayers: /^roi_head\.bbox_head\.\d\.fc_cls\./,
  classBias: 'roi_head.bbox_head.0.fc_cls.bias',
  backgroundRows: 1,
  torchvisionHead: () => [],
  codec: (_layout, axes, { name, shape }) =>
    firstLayer.test(name) ? pooledCodec(axes, shape, bins) : undefined,
};
