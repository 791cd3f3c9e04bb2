import { torchvisionDefaults, torchvisionPresets } from '../detector/torchvision.js';
import { isMapping, merge } from './merge.js';

/**
 * torchvision's choices below a config whose model follows it: `model.preset` names one of its models,
 * `model.numerics: torchvision` is the plain one of `model.type`. They concern the network, its input and
 * the size of evaluation; every option that is written stands above them. A config of another kind comes
 * back as it is, and so does one that is complete.
 */
export function overTorchvision(written: unknown): unknown {
  if (!isMapping(written) || !isMapping(written.model)) return written;
  const { preset, numerics, type = 'retinanet' } = written.model;
  const named = torchvisionPresets.find((name) => name === preset);
  const defaults = named
    ? torchvisionDefaults({ preset: named })
    : numerics === 'torchvision'
      ? torchvisionDefaults({ type: String(type) })
      : null;
  if (!defaults) return written;
  const { resize, ...preprocess } = defaults.preprocess;
  const { model } = defaults;
  return merge({ model, preprocess, augment: { test: resize } }, written);
}
