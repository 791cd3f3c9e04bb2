import { lastRowFirst, pooledCodec, rowsBefore } from '../codec.js';
import type { DetectorNames } from './names.js';

/** Of RoIAlign; fixed in both detectors. */
const bins = 7;
const firstLayer = /^roi_head\.bbox_head\.(\d+\.)?shared_fcs\.0\.weight$/;

/** @source torchvision 0.14 `fasterrcnn_resnet50_fpn`, `_v2` and files before 0.13 */
export const fasterRcnnNames: DetectorNames = {
  classLayers: /^roi_head\.bbox_head\.fc_(cls|reg)\./,
  classBias: 'roi_head.bbox_head.fc_cls.bias',
  backgroundRows: 1,
  torchvisionHead(own, all) {
    const [, layer, last] = /^rpn_head\.rpn_(conv|cls|reg)\.(\w+)$/.exec(own) ?? [];
    if (layer === 'conv') return [`rpn.head.conv.0.0.${last}`, `rpn.head.conv.${last}`];
    if (layer === 'cls') return [`rpn.head.cls_logits.${last}`];
    if (layer === 'reg') return [`rpn.head.bbox_pred.${last}`];
    const [, conv, weight] = /^rpn_head\.rpn_conv\.(\d+)\.conv\.(\w+)$/.exec(own) ?? [];
    if (conv) return [`rpn.head.conv.${conv}.0.${weight}`];
    const [, at, half, of] =
      /^roi_head\.bbox_head\.shared_convs\.(\d+)\.(conv|bn|gn)\.(\w+)$/.exec(own) ?? [];
    if (at) return [`roi_heads.box_head.${at}.${half === 'conv' ? 0 : 1}.${of}`];
    const [, part, parameter] =
      /^roi_head\.bbox_head\.(shared_fcs\.\d+|fc_cls|fc_reg)\.(\w+)$/.exec(own) ?? [];
    if (part?.startsWith('shared_fcs.'))
      return boxHeadLayer(Number(part.slice('shared_fcs.'.length)), all).map(
        (name) => `roi_heads.box_head.${name}.${parameter}`,
      );
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

/** torchvision's name of a fully connected layer: TwoMLPHead's, or FastRCNNConvFCHead's. */
function boxHeadLayer(layer: number, all: readonly string[]): string[] {
  const convs = all.filter((name) =>
    /^roi_head\.bbox_head\.shared_convs\.\d+\.conv\.weight$/.test(name),
  ).length;
  // Behind the convolutions one flattens; every layer has a ReLU that counts.
  if (convs > 0) return [`${convs + 1 + 2 * layer}`];
  return layer < 2 ? [`fc${6 + layer}`] : [];
}

/** torchvision has no Cascade R-CNN. Boxes do not depend on the class. */
export const cascadeRcnnNames: DetectorNames = {
  classLayers: /^roi_head\.bbox_head\.\d\.fc_cls\./,
  classBias: 'roi_head.bbox_head.0.fc_cls.bias',
  backgroundRows: 1,
  torchvisionHead: () => [],
  codec: (_layout, axes, { name, shape }) =>
    firstLayer.test(name) ? pooledCodec(axes, shape, bins) : undefined,
};
