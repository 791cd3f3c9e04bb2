import { hasLiveBatchNorm, objectLimits } from '../detector/options.js';
import { usableCores } from '../threads.js';
import { detectorOptions } from './parts.js';
import type { ResolvedConfig } from './schema.js';

/** Combinations that are allowed and usually a mistake, one sentence each. */
export function adviceFor(config: ResolvedConfig): string[] {
  const { model, semi, data, schedule } = config;
  const { frozenStages } = model.backbone;
  const norm = 'norm' in model.backbone ? model.backbone.norm : undefined;
  const advice: string[] = [];
  const cores = usableCores();
  if ((config.threads ?? 1) > 2 * cores)
    advice.push(`threads ${config.threads} is far more than the ${cores} cores of this machine`);
  if (!model.weights && (norm === 'frozen-bn' || norm === 'bn-eval'))
    advice.push(
      `model.backbone.norm ${norm} needs the statistics of trained weights, but model.weights is not given; try gn to train from scratch`,
    );
  if (!model.weights && frozenStages >= 0)
    advice.push(
      `model.backbone.frozenStages ${frozenStages} freezes random weights, as model.weights is not given; try -1`,
    );
  if (data.split && data.unlabelled)
    advice.push(
      `data.split takes ${data.split.percent}% of data.labelled, and the rest is not used, as data.unlabelled is given; split: null takes all of it`,
    );
  advice.push(...adviceOnQueries(config));
  if (semi.method === 'supervised') return advice;
  if (hasLiveBatchNorm(detectorOptions(config, 1)) && semi.ema.buffers === 'skip')
    advice.push(
      'semi.ema.buffers skip leaves the teacher without the statistics of live BatchNorm; try average',
    );
  if (semi.burnIn >= schedule.iterations)
    advice.push(
      `semi.burnIn ${semi.burnIn} leaves none of the ${schedule.iterations} iterations for pseudo labels`,
    );
  if (!data.test) advice.push('data.test is not given: nothing is evaluated');
  return advice;
}

/** Numbers beyond what there is are cut off without a word. */
function adviceOnQueries(config: ResolvedConfig): string[] {
  const { model, augment, preprocess } = config;
  const { learned, found } = objectLimits(detectorOptions(config, 1));
  if (!learned) return [];
  const advice: string[] = [];
  if (found && found.count > learned.count)
    advice.push(
      `model.${found.option} ${found.count} is more than model.${learned.option} ${learned.count}: the rest are the same boxes under other classes`,
    );
  const startsAtCells =
    model.type === 'dino' || (model.type === 'deformable-detr' && model.twoStage);
  if (!startsAtCells) return advice;
  const { firstLevel, numOutputs } = model.neck;
  const { long, short } = augment.test;
  const [width, height] = [long, short].map(
    (side) => Math.ceil(side / preprocess.padDivisor) * preprocess.padDivisor,
  ) as [number, number];
  const cells = Array.from({ length: numOutputs }, (_, i) => 2 ** (firstLevel + i)).reduce(
    (sum, stride) => sum + Math.ceil(width / stride) * Math.ceil(height / stride),
    0,
  );
  if (learned.count > cells)
    advice.push(
      `model.${learned.option} ${learned.count} is more than the ${cells} cells of an image of ${long} x ${short} (augment.test), where queries start: the rest find nothing`,
    );
  return advice;
}
