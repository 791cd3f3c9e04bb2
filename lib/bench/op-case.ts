/** A case that runs one native op, forward or with its gradients. */
import { type NativeTensor, native } from '../native.js';
import type { BenchContext, PreparedCase } from './case.js';

export interface OpCall {
  op: string;
  inputs: NativeTensor[];
  options?: Record<string, unknown>;
  training?: boolean;
  /** Gradients of the outputs: the op runs with its gradients. */
  douts?: (NativeTensor | null)[];
  check(outputs: NativeTensor[], gradients: (NativeTensor | null)[]): Promise<void>;
}

export function opCase(call: OpCall, { device, dtype }: BenchContext): PreparedCase {
  let last: { outputs: NativeTensor[]; gradients: (NativeTensor | null)[] } | undefined;
  const options = JSON.stringify(call.options ?? {});
  const mode = {
    device,
    compute: dtype,
    training: call.training ?? false,
    // As with the peer: the next run needs them, and a copy of them is no work of the op's.
    ...(call.douts ? { douts: call.douts, keepsDouts: true } : {}),
  };
  const drop = () => {
    for (const t of [...(last?.outputs ?? []), ...(last?.gradients ?? [])]) t?.dispose();
    last = undefined;
  };
  return {
    async run() {
      const result = await native.runOp(call.op, call.inputs, options, mode);
      drop();
      last = result;
    },
    check: () => call.check(last!.outputs, last!.gradients),
    dispose() {
      drop();
      for (const t of [...call.inputs, ...(call.douts ?? [])]) t?.dispose();
    },
  };
}
