import { Option } from 'commander';
import type { DetectorRuntime } from '../detector/create.js';

/** Flags of commands that compute. */
export interface RuntimeFlags {
  device: string;
  dtype?: NonNullable<DetectorRuntime['dtype']>;
}

export const deviceOption = () =>
  new Option('--device <name>', 'auto, cpu, cuda or cuda:N').default('auto');
export const dtypeOption = () =>
  new Option(
    '--dtype <name>',
    'what it computes in (default: what the weights were made with)',
  ).choices(['auto', 'fp32', 'tf32', 'bf16']);

export function runtimeOf({
  device,
  dtype,
}: RuntimeFlags): Pick<DetectorRuntime, 'device' | 'dtype'> {
  return { device, ...(dtype ? { dtype } : {}) };
}
