import { Option } from 'commander';
import type { DetectorRuntime } from '../detector/create.js';
import { type DtypeChoice, dtypeChoices } from '../detector/dtype.js';

/** Flags of commands that compute. */
export interface RuntimeFlags {
  device: string;
  dtype?: DtypeChoice;
}

export const deviceOption = () =>
  new Option('--device <name>', 'auto, cpu, cuda or cuda:N').default('auto');
export const dtypeOption = () =>
  new Option(
    '--dtype <name>',
    'what it computes in (default: what the weights were made with)',
  ).choices(dtypeChoices);

export function runtimeOf({
  device,
  dtype,
}: RuntimeFlags): Pick<DetectorRuntime, 'device' | 'dtype'> {
  return { device, ...(dtype ? { dtype } : {}) };
}
