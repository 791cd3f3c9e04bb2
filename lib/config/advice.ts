import { availableParallelism } from 'node:os';
import { hasLiveBatchNorm } from '../detector/options.js';
import { detectorOptions } from './parts.js';
import type { ResolvedConfig } from './schema.js';

/** Combinations that are allowed and usually a mistake, one sentence each. */
export function adviceFor(config: ResolvedConfig): string[] {
  const { model, semi, data, schedule } = config;
  const { frozenStages } = model.backbone;
  const norm = 'norm' in model.backbone ? model.backbone.norm : undefined;
  const advice: string[] = [];
  const cores = availableParallelism();
  if ((config.threads ?? 1) > 2 * cores)
    advice.push(`threads ${config.threads} is much more than the ${cores} cores here`);
  if (!model.weights && (norm === 'frozen-bn' || norm === 'bn-eval'))
    advice.push(
      `model.backbone.norm ${norm} keeps the statistics of weights that model.weights does not name; try gn to train from scratch`,
    );
  if (!model.weights && frozenStages >= 0)
    advice.push(
      `model.backbone.frozenStages ${frozenStages} freezes random weights: model.weights is not given; try -1`,
    );
  if (semi.method === 'supervised') return advice;
  if (hasLiveBatchNorm(detectorOptions(config, 1)) && semi.ema.buffers === 'skip')
    advice.push(
      'semi.ema.buffers skip leaves the teacher without the statistics of live BatchNorm; try average',
    );
  if (semi.burnIn >= schedule.iterations)
    advice.push(
      `semi.burnIn ${semi.burnIn} leaves no iteration of ${schedule.iterations} for the teacher`,
    );
  if (!data.test) advice.push('data.test is not given: nothing is evaluated');
  return advice;
}
