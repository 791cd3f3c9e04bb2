/** Finds the tensors in what a checkpoint holds, and the part of them that is meant. */
import { TorchTensor } from './torch-objects.js';

/** Keys under which trainings keep the state dict, the likeliest first. */
const wrappers = [
  'state_dict',
  'model_state_dict',
  'model',
  'ema_state_dict',
  'model_ema',
  'state_dict_ema',
  'ema',
  'network',
  'net',
  'module',
  'weights',
];

const mostWrappers = 4;

export interface FoundTensors {
  tensors: Map<string, TorchTensor>;
  /** What of the asked prefix is still to be cut off the names. */
  prefix: string | undefined;
}

/**
 * The tensors by name. A prefix may begin with keys of dictionaries, e.g. `ema_state_dict.module.`.
 * @returns null when there are none
 */
export function findTensors(root: unknown, prefix?: string): FoundTensors | null {
  let at = root;
  let rest = prefix;
  for (let depth = 0; depth <= mostWrappers && at instanceof Map; depth++) {
    const tensors = tensorsIn(at);
    if (tensors.size > 0) return { tensors, prefix: rest };
    const [key = ''] = rest?.split('.', 1) ?? [];
    if (at.get(key) instanceof Map) {
      at = at.get(key);
      rest = rest!.slice(key.length + 1) || undefined;
      continue;
    }
    const wrapper = wrappers.find((name) => hasTensors((at as Map<unknown, unknown>).get(name)));
    if (wrapper === undefined) {
      const joined = joinParts(at);
      return joined.size > 0 ? { tensors: joined, prefix: rest } : null;
    }
    at = at.get(wrapper);
  }
  return null;
}

function tensorsIn(map: ReadonlyMap<unknown, unknown>): Map<string, TorchTensor> {
  const tensors = new Map<string, TorchTensor>();
  for (const [name, value] of map)
    if (typeof name === 'string' && value instanceof TorchTensor) tensors.set(name, value);
  return tensors;
}

/** Of dictionaries of tensors (`teacher`, `student`), the tensors with the key before their names. */
function joinParts(map: ReadonlyMap<unknown, unknown>): Map<string, TorchTensor> {
  const joined = new Map<string, TorchTensor>();
  for (const [part, inner] of map)
    if (typeof part === 'string' && inner instanceof Map)
      for (const [name, tensor] of tensorsIn(inner)) joined.set(`${part}.${name}`, tensor);
  return joined;
}

/** At this level or, for a wrapper in a wrapper, the next. */
function hasTensors(value: unknown): boolean {
  if (!(value instanceof Map)) return false;
  return [value, ...value.values()].some(
    (inner) => inner instanceof Map && [...inner.values()].some((v) => v instanceof TorchTensor),
  );
}
