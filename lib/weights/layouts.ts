/**
 * How others name the tensors of our detectors, and in which order their weights are. Our own names are
 * mmdetection's.
 *
 * A layout says nothing of the input: torchvision's and timm's networks take RGB with ImageNet's mean
 * and std, Caffe-style ResNets of mmdetection BGR with a mean alone. The first convolution is never
 * reordered; `preprocess.channelOrder` has to be what the weights were trained with.
 *
 * Here stand the layouts and what all detectors share; the names of heads stand in names/, a file a
 * detector. Sources: the state dicts of torchvision 0.14 and its files before 0.13, mmdetection 3.x,
 * timm's `resnet*`; of Swin Transformers see names/swin.ts.
 */
import type { DetectorType } from '../detector/options.js';
import type { AxisOrder } from './axes.js';
import { axisCodec, type Codec } from './codec.js';
import { detectorNames } from './names/index.js';
import {
  bareSwinName,
  isBareSwin,
  isClassifierOfSwin,
  isFreshInSwin,
  isSwin,
  isUnusedOfSwin,
  swinCodec,
} from './names/swin.js';

/** Libraries whose names of weights can be read. */
export const layoutNames = ['mixpl', 'torchvision', 'mmdetection', 'timm'] as const;
/** One of layoutNames. */
export type LayoutName = (typeof layoutNames)[number];

export interface Layout {
  name: LayoutName;
  axes: AxisOrder;
  /** How one of our tensors is stored. */
  codec(own: { name: string; shape: readonly number[] }): Codec;
  /** The file holds a backbone alone; the other parameters have no name in it. */
  backboneOnly: boolean;
  /** Names of one of our parameters: the current one first, then older ones. None: not part of it. */
  namesOf(own: string): readonly string[];
  /** Whether files of this form never have it: it keeps its values. */
  isFresh(own: string): boolean;
  /** A name that belongs to the layout and has no place in a detector. */
  isUnused(stored: string): boolean;
}

const backbone = 'backbone.';
const isState = (name: string) => name.endsWith('.num_batches_tracked') || isUnusedOfSwin(name);
/**
 * The stem of Detectron's Caffe ResNets has a bias, for which mmdetection, whose `caffe` style starts from
 * them, has no place either. No other library's files have it.
 */
export const caffeStemBias = 'conv1.bias';
const nothing = () => false;

/**
 * The layout in the form that names of a file show: of a whole detector, or of a backbone.
 * @param type of the detector
 * @param own our parameters' names
 */
export function layoutOf(
  name: LayoutName,
  { type, own, stored }: { type: DetectorType; own: readonly string[]; stored: Iterable<string> },
): Layout {
  const layout = namesIn(name, { type, own, names: [...stored] });
  const { codec } = detectorNames[type];
  const { axes } = layout;
  return {
    ...layout,
    codec: (tensor) =>
      swinCodec(name, tensor) ?? codec?.(name, axes, tensor) ?? axisCodec(axes, tensor.shape),
  };
}

function namesIn(
  name: LayoutName,
  { type, own, names }: { type: DetectorType; own: readonly string[]; names: readonly string[] },
): Omit<Layout, 'codec'> {
  switch (name) {
    case 'mixpl':
      return {
        ...{ name, axes: 'ohwi', namesOf: (n) => [n] },
        backboneOnly: names.every((n) => n.startsWith(backbone) || isOptimizer(n)),
        isUnused: isOptimizer,
        isFresh: nothing,
      };
    case 'mmdetection':
      if (names.some(isBareBackbone)) return bareBackbone(name, names);
      return {
        ...{ name, axes: 'oihw', namesOf: (n) => [n] },
        backboneOnly: names.every((n) => n.startsWith(backbone)),
        isUnused: (n) => isState(n) || (detectorNames[type].isRepeated?.(n, own) ?? false),
        isFresh: nothing,
      };
    case 'torchvision':
      return names.some(isBareBackbone)
        ? bareBackbone(name, names)
        : torchvisionDetector(type, own, names);
    case 'timm':
      return bareBackbone(name, names);
  }
}

/** A student's checkpoint holds more than its weights. */
const isOptimizer = (name: string) => name.startsWith('optimizer.');
const isBareBackbone = (name: string) => /^(conv1|layer[1-4])\./.test(name) || isBareSwin(name);

/** A classification network: the names begin at the stem, and end in a classifier. */
function bareBackbone(name: LayoutName, names: readonly string[]): Omit<Layout, 'codec'> {
  return {
    ...{ name, axes: 'oihw', backboneOnly: true, isFresh: isFreshInSwin },
    namesOf: (own) => {
      if (isSwin(own)) return [bareSwinName(name, own, names) ?? []].flat();
      return own.startsWith(backbone) ? [batchNormName(own.slice(backbone.length))] : [];
    },
    isUnused: (stored) =>
      isState(stored) ||
      stored === caffeStemBias ||
      /^(fc|head)\./.test(stored) ||
      isClassifierOfSwin(stored),
  };
}

/** torchvision and timm name a norm bn whatever it is. */
function batchNormName(own: string): string {
  return own.replace(/(^|\.)gn(\d)\./, '$1bn$2.');
}

function torchvisionDetector(
  type: DetectorType,
  own: readonly string[],
  stored: readonly string[],
): Omit<Layout, 'codec'> {
  const { torchvisionHead } = detectorNames[type];
  const laterals = new Set(own.flatMap((n) => n.match(/^neck\.lateral_convs\.\d+/) ?? [])).size;
  return {
    ...{ name: 'torchvision', axes: 'oihw', isUnused: isState, isFresh: nothing },
    backboneOnly: stored.every((n) => n.startsWith('backbone.body.')),
    namesOf: (n) => torchvisionTrunk(n, laterals) ?? torchvisionHead(n, own),
  };
}

/**
 * Names of the backbone and the pyramid; null for what stands behind them.
 * @param laterals pyramid levels that come from the backbone; the others are `extra_blocks`
 */
function torchvisionTrunk(own: string, laterals: number): string[] | null {
  if (isSwin(own)) return [];
  if (own.startsWith(backbone))
    return [`backbone.body.${batchNormName(own.slice(backbone.length))}`];
  const [, kind, index, part, rest] =
    /^neck\.(lateral_convs|fpn_convs)\.(\d+)\.(conv|bn|gn)\.(\w+)$/.exec(own) ?? [];
  if (!kind) return null;
  const level = Number(index);
  const isConv = part === 'conv';
  if (kind === 'fpn_convs' && level >= laterals)
    return isConv ? [`backbone.fpn.extra_blocks.p${6 + level - laterals}.${rest}`] : [];
  const blocks = `backbone.fpn.${kind === 'fpn_convs' ? 'layer' : 'inner'}_blocks.${level}`;
  return isConv ? [`${blocks}.0.${rest}`, `${blocks}.${rest}`] : [`${blocks}.1.${rest}`];
}
