import type { DetectorType } from '../detector/options.js';
import { MixplError } from '../errors.js';
import { axisOrderOf } from './axes.js';
import { caffeStemBias, type LayoutName, layoutNames, layoutOf } from './layouts.js';
import { detectorNames } from './names/index.js';
import type { WeightsFile } from './open.js';

/** Names that only one layout has. Bare ResNet names are torchvision's and timm's alike. */
const marks: Record<Exclude<LayoutName, 'mixpl'>, RegExp> = {
  torchvision:
    /^(backbone\.(body|fpn)|head\.(classification|regression)_head|conv1|layer[1-4]\.\d|features\.\d+)\./,
  mmdetection:
    /^(backbone\.(conv1|bn1|gn1|layer[1-4]|patch_embed|stages)|neck|bbox_head|patch_embed\.projection|stages\.\d+)\./,
  timm: /^(patch_embed\.proj|layers\.\d+)\./,
};

/**
 * The layout of a file: what its metadata says, else what its names look like. Our own names are
 * mmdetection's; the order of the axes tells these two apart. Bare ResNet names count as
 * torchvision's, which timm's are equal to, but with the bias of Caffe's stem as mmdetection's.
 * @throws MixplError ERR_CHECKPOINT when nothing fits, or several layouts do
 */
export function detectLayout(file: Pick<WeightsFile, 'path' | 'metadata' | 'entries'>): LayoutName {
  const { path, metadata, entries } = file;
  if (metadata.format === 'mixpl') return 'mixpl';
  const said = layoutNames.find((name) => name === metadata.layout);
  if (said) return said;
  const names = [...entries.keys()];
  const fitting = (['torchvision', 'mmdetection', 'timm'] as const).flatMap((layout) => {
    const example = names.find((name) => marks[layout].test(name));
    return example === undefined ? [] : [{ layout, example }];
  });
  if (fitting.length === 0)
    throw unknown(path, `names of none, e.g. ${names.slice(0, 3).join(', ') || 'no names at all'}`);
  if (fitting.length > 1)
    throw unknown(
      path,
      `names of several (${fitting.map((f) => `${f.layout}: ${f.example}`).join('; ')})`,
    );
  if (fitting[0]!.layout !== 'mmdetection')
    return entries.has(caffeStemBias) ? 'mmdetection' : fitting[0]!.layout;
  const axes = axisOrderOf([...entries.values()].map(({ shape }) => shape));
  if (axes === null)
    throw unknown(
      path,
      'names that mixpl and mmdetection share, with shapes that do not tell the order of axes',
    );
  return axes === 'ohwi' ? 'mixpl' : 'mmdetection';
}

/**
 * Classes of the class layer in a file.
 * @param layout the file's
 * @param rowsPerClass rows of the layer for each class: anchors per cell
 * @returns null when the file has no such layer
 */
export function classCount(
  { entries }: Pick<WeightsFile, 'entries'>,
  { layout, type, rowsPerClass }: { layout: LayoutName; type: DetectorType; rowsPerClass: number },
): number | null {
  const { classBias, backgroundRows = 0 } = detectorNames[type];
  const { namesOf } = layoutOf(layout, { type, own: [classBias], stored: entries.keys() });
  const stored = namesOf(classBias).find((name) => entries.has(name));
  const rows = stored === undefined ? undefined : entries.get(stored)?.shape[0];
  const classes = ((rows ?? 0) - backgroundRows) / rowsPerClass;
  return Number.isInteger(classes) && classes > 0 ? classes : null;
}

function unknown(path: string, got: string): MixplError {
  return new MixplError(
    'ERR_CHECKPOINT',
    `${path}: must have the names of one layout (${layoutNames.join(', ')}), got ${got}; try to name the layout, or the prefix of the names`,
  );
}
