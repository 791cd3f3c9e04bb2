import { checkKeys, checkPath } from '../arguments.js';
import type { ElementType } from '../element-types.js';
import { MixplError } from '../errors.js';
import { FileBytes } from '../file-bytes.js';
import { SafetensorsReader, type TensorEntry } from '../safetensors.js';
import { chooseBranch } from './branch.js';
import { openTorchFile } from './pth.js';
import { findTensors } from './state-dict.js';
import { misplacement, readTensor } from './torch-tensors.js';

/** Tensors of a file by name; their numbers are read when they are asked for. */
export interface WeightsFile extends AsyncDisposable {
  readonly path: string;
  readonly format: 'safetensors' | 'pth';
  /** Texts of the file about itself (safetensors). */
  readonly metadata: Readonly<Record<string, string>>;
  /** What was cut off the names: '' or e.g. `teacher.`. */
  readonly prefix: string;
  readonly entries: ReadonlyMap<string, TensorEntry>;
  /** The numbers as f32, row-major. @throws MixplError ERR_BAD_FILE, ERR_IO */
  read(name: string): Promise<Float32Array>;
  /** Closes the file. */
  close(): Promise<void>;
}

/**
 * Opens a safetensors file or a checkpoint of torch.save, which it is by its first bytes. Only names,
 * shapes and places are read; all of them are checked against the file.
 * @param options.prefix of the wanted names, e.g. `student`; absent: the likeliest, see LoadWeightsOptions
 * @throws MixplError ERR_IO, ERR_BAD_FILE (damaged, cut off, something else than tensors by name,
 *   globals that no state dict needs), ERR_CHECKPOINT (no such prefix)
 */
export async function openWeights(
  path: string,
  options: { prefix?: string | undefined } = {},
): Promise<WeightsFile> {
  checkPath('openWeights', 'path', path);
  checkKeys('openWeights', options, ['prefix']);
  const { prefix } = options;
  const file = await FileBytes.open(path);
  try {
    const first = await file.read(0, Math.min(2, file.size), 'its first bytes');
    const isTorch = first.toString('latin1') === 'PK' || (first[0] === 0x80 && first[1]! <= 5);
    return await (isTorch && !(await isSafetensors(file))
      ? openPth(file, prefix)
      : openSafetensors(file, prefix));
  } catch (error) {
    await file.close();
    throw error;
  }
}

/** The length of a header may begin with any two bytes; behind it stands a brace. */
async function isSafetensors(file: FileBytes): Promise<boolean> {
  if (file.size < 10) return false;
  const head = await file.read(0, 9, 'its first bytes');
  return head[8] === 0x7b && head.readBigUInt64LE() <= BigInt(file.size - 8);
}

async function openSafetensors(file: FileBytes, prefix?: string): Promise<WeightsFile> {
  const reader = await SafetensorsReader.open(file);
  const branch = chooseBranch(file.path, reader.entries, prefix);
  return {
    path: file.path,
    format: 'safetensors',
    metadata: reader.metadata,
    prefix: branch.prefix,
    entries: branch.entries,
    read: (name) => reader.read(branch.prefix + name),
    close: () => reader.close(),
    [Symbol.asyncDispose]: () => reader.close(),
  };
}

async function openPth(file: FileBytes, prefix?: string): Promise<WeightsFile> {
  const torch = await openTorchFile(file);
  const found = findTensors(torch.root, prefix);
  if (!found)
    throw new MixplError(
      'ERR_BAD_FILE',
      `${file.path}: must hold tensors by name, got ${describe(torch.root)}`,
    );
  const branch = chooseBranch(file.path, found.tensors, found.prefix);
  const entries = new Map<string, { shape: readonly number[]; type: ElementType }>();
  for (const [name, tensor] of branch.entries) {
    const problem = misplacement(tensor);
    if (problem)
      throw new MixplError(
        'ERR_BAD_FILE',
        `${file.path}: ${name} must lie in its storage, got ${problem}`,
      );
    torch.locate(tensor.storage);
    entries.set(name, { shape: tensor.shape, type: tensor.storage.type });
  }
  return {
    path: file.path,
    format: 'pth',
    metadata: {},
    prefix: branch.prefix,
    entries,
    read: (name) => {
      const tensor = branch.entries.get(name)!;
      return readTensor(tensor, torch.locate(tensor.storage));
    },
    close: () => file.close(),
    [Symbol.asyncDispose]: () => file.close(),
  };
}

function describe(root: unknown): string {
  if (!(root instanceof Map)) return Array.isArray(root) ? 'a list' : 'a single object';
  const keys = [...root.keys()].slice(0, 8).map((key) => String(key).slice(0, 40));
  return keys.length ? `a dictionary of ${keys.join(', ')}` : 'an empty dictionary';
}
