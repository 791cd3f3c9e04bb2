import type { AxisOrder } from '../axes.js';
import type { Codec } from '../codec.js';
import type { LayoutName } from '../layouts.js';

/** How one detector's own names, which are mmdetection's, are found in other layouts. */
export interface DetectorNames {
  /** Layers whose first axis grows with the number of classes. */
  classLayers: RegExp;
  /** The bias of the one that tells the number of classes. */
  classBias: string;
  /** Rows of that layer beside those of the classes. @defaultValue 0 */
  backgroundRows?: number;
  /**
   * torchvision's names of what stands behind the neck: the current one first, then older ones.
   * @param all names of the detector
   */
  torchvisionHead(own: string, all: readonly string[]): string[];
  /**
   * Whether a tensor of mmdetection's is one of ours again, under another name: layers that share weights.
   * @param own names of the detector
   */
  isRepeated?(stored: string, own: readonly string[]): boolean;
  /** How a tensor of ours is stored, where it is not the usual way. */
  codec?(
    layout: LayoutName,
    axes: AxisOrder,
    own: { name: string; shape: readonly number[] },
  ): Codec | undefined;
}

/** torchvision's name of a dense head's tower: `cls` is the classification head, `reg` the other. */
export const torchvisionTowers = {
  cls: 'head.classification_head',
  reg: 'head.regression_head',
} as const;

/** A tower layer of ours: `bbox_head.cls_convs.2.conv.weight`. */
export function towerLayer(
  own: string,
): { tower: string; at: number; part: 'conv' | 'gn'; parameter: string } | null {
  const [, tower, at, part, parameter] =
    /^bbox_head\.(cls|reg)_convs\.(\d+)\.(conv|gn)\.(\w+)$/.exec(own) ?? [];
  if (!tower) return null;
  return {
    tower: torchvisionTowers[tower as 'cls' | 'reg'],
    at: Number(at),
    part: part as 'conv' | 'gn',
    parameter: parameter!,
  };
}
