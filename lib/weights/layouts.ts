/**
 * How others name the tensors of our detectors, and in which order their weights are. Our own names are
 * mmdetection's.
 *
 * A layout says nothing of the input: torchvision's and timm's networks take RGB with ImageNet's mean
 * and std, Caffe-style ResNets of mmdetection BGR with a mean alone. The first convolution is never
 * reordered; `preprocess.channelOrder` has to be what the weights were trained with.
 *
 * Sources: the state dicts of torchvision 0.14 (`resnet*`, `retinanet_resnet50_fpn`, `_v2`) and its
 * files before 0.13, mmdetection 3.x RetinaNet, timm's `resnet*`.
 */
import type { AxisOrder } from './axes.js';

export const layoutNames = ['mixpl', 'torchvision', 'mmdetection', 'timm'] as const;
export type LayoutName = (typeof layoutNames)[number];

export interface Layout {
  name: LayoutName;
  axes: AxisOrder;
  /** The file holds a backbone alone; the other parameters have no name in it. */
  backboneOnly: boolean;
  /** Names of one of our parameters: the current one first, then older ones. None: not part of it. */
  namesOf(own: string): readonly string[];
  /** A name that belongs to the layout and has no place in a detector. */
  isUnused(stored: string): boolean;
}

const backbone = 'backbone.';
/** Layers whose first axis grows with the number of classes. */
const classLayer = /^bbox_head\.retina_cls\./;

export function isClassLayer(own: string): boolean {
  return classLayer.test(own);
}

const countsBatches = (name: string) => name.endsWith('.num_batches_tracked');

/**
 * The layout in the form that names of a file show: of a whole detector, or of a backbone.
 * @param own our parameters' names
 */
export function layoutOf(
  name: LayoutName,
  { own, stored }: { own: readonly string[]; stored: Iterable<string> },
): Layout {
  const names = [...stored];
  switch (name) {
    case 'mixpl':
      return {
        ...{ name, axes: 'ohwi', namesOf: (n) => [n] },
        backboneOnly: names.every((n) => n.startsWith(backbone) || isOptimizer(n)),
        isUnused: isOptimizer,
      };
    case 'mmdetection':
      if (names.some(isBareBackbone)) return bareBackbone(name);
      return {
        ...{ name, axes: 'oihw', namesOf: (n) => [n] },
        backboneOnly: names.every((n) => n.startsWith(backbone)),
        isUnused: countsBatches,
      };
    case 'torchvision':
      return names.some(isBareBackbone) ? bareBackbone(name) : torchvisionDetector(own, names);
    case 'timm':
      return bareBackbone(name);
  }
}

/** A student's checkpoint holds more than its weights. */
const isOptimizer = (name: string) => name.startsWith('optimizer.');
const isBareBackbone = (name: string) => /^(conv1|layer[1-4])\./.test(name);

/** A classification network: the names begin at the stem, and end in a classifier. */
function bareBackbone(name: LayoutName): Layout {
  return {
    ...{ name, axes: 'oihw', backboneOnly: true },
    namesOf: (own) => (own.startsWith(backbone) ? [batchNormName(own.slice(backbone.length))] : []),
    isUnused: (stored) => countsBatches(stored) || /^(fc|head)\./.test(stored),
  };
}

/** torchvision and timm name a norm bn whatever it is. */
function batchNormName(own: string): string {
  return own.replace(/(^|\.)gn(\d)\./, '$1bn$2.');
}

function torchvisionDetector(own: readonly string[], stored: readonly string[]): Layout {
  const laterals = new Set(own.flatMap((n) => n.match(/^neck\.lateral_convs\.\d+/) ?? [])).size;
  return {
    ...{ name: 'torchvision', axes: 'oihw', isUnused: countsBatches },
    backboneOnly: stored.every((n) => n.startsWith('backbone.body.')),
    namesOf: (n) => torchvisionNames(n, laterals),
  };
}

/** @param laterals pyramid levels that come from the backbone; the others are `extra_blocks` */
function torchvisionNames(own: string, laterals: number): string[] {
  if (own.startsWith(backbone))
    return [`backbone.body.${batchNormName(own.slice(backbone.length))}`];
  const [, kind, index, rest] =
    /^neck\.(lateral_convs|fpn_convs)\.(\d+)\.conv\.(\w+)$/.exec(own) ?? [];
  if (kind) {
    const level = Number(index);
    if (kind === 'fpn_convs' && level >= laterals)
      return [`backbone.fpn.extra_blocks.p${6 + level - laterals}.${rest}`];
    const blocks = `backbone.fpn.${kind === 'fpn_convs' ? 'layer' : 'inner'}_blocks.${level}`;
    return [`${blocks}.0.${rest}`, `${blocks}.${rest}`];
  }
  const [, tower, at, part, parameter] =
    /^bbox_head\.(cls|reg)_convs\.(\d+)\.(conv|gn)\.(\w+)$/.exec(own) ?? [];
  if (tower) {
    const convs = `head.${heads[tower as 'cls' | 'reg']}.conv`;
    if (part === 'gn') return [`${convs}.${at}.1.${parameter}`];
    // Before 0.13 convolutions and ReLUs were counted together.
    return [`${convs}.${at}.0.${parameter}`, `${convs}.${2 * Number(at)}.${parameter}`];
  }
  const [, output, last] = /^bbox_head\.retina_(cls|reg)\.(\w+)$/.exec(own) ?? [];
  if (output === 'cls') return [`head.${heads.cls}.cls_logits.${last}`];
  if (output === 'reg') return [`head.${heads.reg}.bbox_reg.${last}`];
  return [];
}

const heads = { cls: 'classification_head', reg: 'regression_head' } as const;
