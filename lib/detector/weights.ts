/** Weights of a detector from files of others, and for them. */
import { checkKeys, checkPath } from '../arguments.js';
import { didYouMean, MixplError } from '../errors.js';
import { type StoredTensor, writeTensors } from '../safetensors.js';
import { rangesInTurns } from '../turns.js';
import type { Codec } from '../weights/codec.js';
import { detectLayout } from '../weights/detect-layout.js';
import {
  caffeStemBias,
  type Layout,
  type LayoutName,
  layoutNames,
  layoutOf,
} from '../weights/layouts.js';
import { differsInClasses, matchWeights, WeightsMisfit } from '../weights/match.js';
import { detectorNames } from '../weights/names/index.js';
import { openWeights, type WeightsFile } from '../weights/open.js';
import type { DetectorPreprocess } from './create.js';
import type { ParameterInfo } from './detector.js';
import type { DetectorOptions } from './options.js';

/** Options of loadWeights: how names of a file become those of a detector. */
export interface LoadWeightsOptions {
  /** Whose parameter names the file has. @defaultValue recognised from them; see detectLayout */
  layout?: LayoutName;
  /**
   * true: every parameter has to be in the file, and nothing else; a backbone alone counts as whole.
   * 'except-classes': the same, but a class layer for another number of classes is left out.
   * false: missing and unexpected names are left out too; other shapes are still refused.
   * @defaultValue true
   */
  strict?: boolean | 'except-classes';
  /**
   * What stands before the names, e.g. `student`, or `ema_state_dict` for a dictionary in the file.
   * @defaultValue the likeliest dictionary, `module.` and `model.` cut off; of `teacher.` and
   *   `student.` the teacher
   */
  prefix?: string;
}

/** What was taken from a file of weights. */
export interface LoadedWeights {
  layout: LayoutName;
  /** Parameters that have the file's values now. */
  loaded: string[];
  /** Parameters that keep their values. */
  missing: string[];
  /** Names of the file that have no place in the detector. */
  unexpected: string[];
  /** What somebody should know about it, in sentences. */
  note?: string;
}

/** Libraries whose names exported weights can have. */
export type ExportLayout = 'torchvision' | 'mmdetection';
const exportLayouts: readonly ExportLayout[] = ['torchvision', 'mmdetection'];

/** What loading and writing need of a detector. */
interface WeightsOwner {
  readonly options: DetectorOptions;
  readonly preprocess: DetectorPreprocess;
  parameters(): ParameterInfo[];
}

/** What a file has for a detector: values by its own names, and what to tell. @throws as Detector.loadWeights */
export async function readWeights(
  detector: WeightsOwner,
  path: string,
  options: LoadWeightsOptions = {},
): Promise<{ values: Map<string, Float32Array>; loaded: LoadedWeights }> {
  checkPath('loadWeights', 'path', path);
  checkKeys('loadWeights', options, ['layout', 'strict', 'prefix']);
  const { layout: asked, strict = true, prefix } = options;
  await using file = await openWeights(path, { prefix });
  const own = detector.parameters();
  const { type } = detector.options;
  const layout = layoutOf(checkLayout('loadWeights', asked, layoutNames) ?? detectLayout(file), {
    type,
    own: own.map(({ name }) => name),
    stored: file.entries.keys(),
  });
  const match = matchWeights(own, file.entries, layout);
  const { classLayers } = detectorNames[type];
  const classes = match.misshapen.filter((m) => differsInClasses(m, classLayers));
  refuseMisfit(path, { match, classes, layout, strict });
  refuseWholeNumbers(file, match.pairs);

  const values = await readValues(file, match.pairs, layout);
  const notes = notesOn(detector, { file, layout, classes: classes[0], match });
  return {
    values,
    loaded: {
      layout: layout.name,
      loaded: [...values.keys()],
      missing: [...match.missing, ...classes.map(({ name }) => name)],
      unexpected: match.unexpected,
      ...(notes.length ? { note: notes.join('; ') } : {}),
    },
  };
}

function checkLayout<T extends string>(
  method: string,
  layout: T | undefined,
  allowed: readonly T[],
): T | undefined {
  if (layout === undefined || allowed.includes(layout)) return layout;
  throw new MixplError(
    'ERR_CONFIG',
    `${method}: layout must be one of ${allowed.join(', ')}, got '${layout}'`,
  );
}

type Match = ReturnType<typeof matchWeights>;

function refuseMisfit(
  path: string,
  found: {
    match: Match;
    classes: Match['misshapen'];
    layout: Layout;
    strict: boolean | 'except-classes';
  },
): void {
  const { match, classes, layout, strict } = found;
  const needed = layout.backboneOnly
    ? match.missing.filter((name) => name.startsWith('backbone.') && !layout.isFresh(name))
    : match.missing;
  const problems = {
    missing: strict === false ? [] : needed,
    unexpected: strict === false ? [] : match.unexpected,
    misshapen:
      strict === true ? match.misshapen : match.misshapen.filter((m) => !classes.includes(m)),
  };
  const what = `${path}: the weights (layout ${layout.name}) do not fit the detector`;
  if (match.pairs.length === 0) throw new WeightsMisfit(what, match);
  const { missing, unexpected, misshapen } = problems;
  if (missing.length + unexpected.length + misshapen.length === 0) return;
  const onlyClasses =
    missing.length + unexpected.length === 0 && misshapen.every((m) => classes.includes(m));
  const hint = onlyClasses
    ? "; try strict: 'except-classes', which leaves the class layer out"
    : '';
  throw new WeightsMisfit(what, problems, hint);
}

/** Weights are fractions; whole numbers are something else under their names. */
function refuseWholeNumbers(file: WeightsFile, pairs: Match['pairs']): void {
  const odd = pairs.flatMap(({ stored }) => {
    const { type } = file.entries.get(stored)!;
    return /^B?F\d/.test(type) ? [] : [`${type} in ${stored}`];
  });
  if (odd.length)
    throw new MixplError(
      'ERR_CHECKPOINT',
      `${file.path}: the weights must be floating-point numbers, got ${odd.join(', ')}`,
    );
}

/** All values before the first is written, so that a refused file changes nothing. */
async function readValues(
  file: WeightsFile,
  pairs: Match['pairs'],
  layout: Layout,
): Promise<Map<string, Float32Array>> {
  const values = new Map<string, Float32Array>();
  const broken: string[] = [];
  for (const { name, shape, stored } of pairs) {
    const numbers = await file.read(stored);
    if (!(await areFinite(numbers))) broken.push(stored);
    else if (broken.length === 0)
      values.set(name, await layout.codec({ name, shape }).toOwn(numbers));
  }
  if (broken.length)
    throw new MixplError(
      'ERR_CHECKPOINT',
      `${file.path}: the weights must be finite, got NaN or infinity in ${broken.join(', ')}`,
    );
  return values;
}

async function areFinite(numbers: Float32Array): Promise<boolean> {
  for await (const [from, to] of rangesInTurns(numbers.length))
    for (let i = from; i < to; i++) if (!Number.isFinite(numbers[i])) return false;
  return true;
}

/** What the names cannot say, where the detector looks as if it were made for other weights. */
function notesOn(
  { options, preprocess }: WeightsOwner,
  about: {
    file: WeightsFile;
    layout: Layout;
    classes: Match['misshapen'][number] | undefined;
    match: Match;
  },
): string[] {
  const { file, layout, classes, match } = about;
  const notes: string[] = [];
  if (file.prefix) notes.push(`only names that begin with ${file.prefix} were taken`);
  if (layout.backboneOnly) {
    const classifier = match.unused.some((name) => /^(fc|head)\./.test(name));
    notes.push(
      `the file holds a backbone${classifier ? ' and a classifier, which is not used' : ' only'}: ` +
        `${match.missing.some(layout.isFresh) ? "norms of the backbone's outputs, neck" : 'neck'} and head keep their weights`,
    );
  }
  const resized = match.pairs.filter((pair) => pair.resized).length;
  if (resized)
    notes.push(
      `${resized} tables of relative positions were resized, as the file's windows are not of size backbone.window`,
    );
  if (classes) {
    const { backgroundRows = 0 } = detectorNames[options.type];
    const perClass = (classes.wanted[0]! - backgroundRows) / options.numClasses;
    notes.push(
      `the class layer keeps its weights: the file has ${(classes.got[0]! - backgroundRows) / perClass} classes, the detector ${options.numClasses}`,
    );
  }
  const { backbone = {} } = options;
  const { depth = 50, style = 'pytorch' } = backbone.type === 'swin' ? { depth: 0 } : backbone;
  if (match.unused.includes(caffeStemBias)) {
    if (preprocess.channelOrder === 'rgb')
      notes.push("Detectron's Caffe ResNets take BGR; preprocess.channelOrder is rgb");
    if (depth >= 50 && style === 'pytorch')
      notes.push(
        "Detectron's Caffe ResNets have their stride on the first 1x1; backbone.style is pytorch, not caffe",
      );
    return notes;
  }
  if (layout.name === 'mmdetection' && depth >= 50)
    notes.push(
      `weights do not show where a bottleneck has its stride (backbone.style): it is ${style} here, and must be what they were trained with`,
    );
  if (layout.name !== 'torchvision' && layout.name !== 'timm') return notes;
  if (preprocess.channelOrder === 'bgr')
    notes.push(`networks of ${layout.name} take RGB; preprocess.channelOrder is bgr`);
  if (depth >= 50 && style === 'caffe')
    notes.push(
      `ResNets of ${layout.name} have their stride on the 3x3; backbone.style is caffe, not pytorch`,
    );
  // Two-stage detectors have no such levels: theirs are pooled.
  const neck = options.neck ?? {};
  if (
    !layout.backboneOnly &&
    'extra' in neck &&
    neck.extra &&
    neck.extra !== 'none' &&
    !neck.reluBeforeExtra
  )
    notes.push(`torchvision has a ReLU between P6 and P7; neck.reluBeforeExtra is false`);
  return notes;
}

/** Writes a detector's weights, by our names, into another library's file. */
type ExportWriter = (
  path: string,
  weights: ReadonlyMap<string, StoredTensor>,
  metadata: Record<string, string>,
) => Promise<void>;

/** @throws MixplError ERR_CONFIG: no such layout, or one without a name for a parameter, with those that have them */
export function exportWriter(detector: WeightsOwner, asked: ExportLayout): ExportWriter {
  checkLayout('exportWeights', asked ?? '', exportLayouts);
  const layout = foreignLayout(detector, asked);
  const parameters = detector.parameters();
  const nameless = parameters.filter(({ name }) => layout.namesOf(name).length === 0);
  if (nameless.length > 0) {
    const fitting = exportLayouts.filter((other) => {
      const { namesOf } = foreignLayout(detector, other);
      return parameters.every(({ name }) => namesOf(name).length > 0);
    });
    throw new MixplError(
      'ERR_CONFIG',
      `exportWeights: layout must be ${fitting.join(' or ')} for this ${detector.options.type} detector, got ${asked}, ` +
        `which has no name for ${nameless.length} of its ${parameters.length} parameters, e.g. ${nameless[0]!.name}`,
    );
  }
  const entries = parameters.map(({ name, shape }) => ({
    name,
    stored: layout.namesOf(name)[0]!,
    codec: layout.codec({ name, shape }),
  }));
  return async (path, weights, metadata) => {
    const sources = entries.map(({ name, stored, codec }) => ({
      name: stored,
      shape: codec.shape,
      values: () => codec.fromOwn(weights.get(name)!.data),
    }));
    // Readers of other libraries look for format 'pt'.
    await writeTensors(path, sources, { ...metadata, format: 'pt', layout: asked });
  };
}

/** The parameter that a layout calls so. @throws MixplError ERR_RANGE naming the nearest */
export function parameterNamed(
  detector: Pick<WeightsOwner, 'options' | 'parameters'>,
  name: string,
  layoutName: LayoutName,
): { parameter: ParameterInfo; fromOwn: Codec['fromOwn'] } {
  const layout = foreignLayout(detector, checkLayout('gradient', layoutName, layoutNames)!);
  const parameters = detector.parameters();
  const parameter = parameters.find((p) => layout.namesOf(p.name).includes(name));
  if (!parameter) {
    const names = parameters.flatMap((p) => layout.namesOf(p.name));
    throw new MixplError(
      'ERR_RANGE',
      `gradient: name must be a parameter in layout ${layoutName}, got '${name}'${didYouMean(name, names)}`,
    );
  }
  return { parameter, fromOwn: layout.codec(parameter).fromOwn };
}

/** For a whole detector, whatever names a file has. */
function foreignLayout(
  detector: Pick<WeightsOwner, 'options' | 'parameters'>,
  name: LayoutName,
): Layout {
  const { type } = detector.options;
  return layoutOf(name, { type, own: detector.parameters().map((p) => p.name), stored: [] });
}
