/**
 * What the globals in a torch checkpoint stand for. Nothing is imported or run: a tensor becomes a
 * description of where its numbers are, things that hold no weights become placeholders, and every
 * other global is refused by name. Source: torch/_utils.py and torch/serialization.py of PyTorch 1.13.
 */
import type { ElementType } from '../element-types.js';
import { PickleError, type PickleRules } from './pickle.js';

/** A run of numbers in the file. */
export class TorchStorage {
  constructor(
    readonly key: string,
    readonly type: ElementType,
    /** Elements. */
    readonly count: number,
  ) {}
}

/** A tensor: some elements of a storage, which others may share. */
export class TorchTensor {
  constructor(
    readonly storage: TorchStorage,
    /** In elements, as the strides. */
    readonly offset: number,
    readonly shape: readonly number[],
    readonly strides: readonly number[],
  ) {}
}

/** An object that no weights come from. */
class Placeholder {
  constructor(readonly name: string) {}
}

class StorageType {
  constructor(readonly type: ElementType) {}
}

class TorchFunction {
  constructor(
    readonly name: string,
    readonly run: (args: readonly unknown[]) => unknown,
  ) {}
}

const storageTypes: Record<string, ElementType> = {
  DoubleStorage: 'F64',
  FloatStorage: 'F32',
  HalfStorage: 'F16',
  BFloat16Storage: 'BF16',
  LongStorage: 'I64',
  IntStorage: 'I32',
  ShortStorage: 'I16',
  CharStorage: 'I8',
  ByteStorage: 'U8',
  BoolStorage: 'BOOL',
};

const mostAxes = 16;

/** What an offset, a size and a stride may be. */
function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

function countsOf(value: unknown, what: string): number[] {
  if (!Array.isArray(value) || value.length > mostAxes || !value.every(isCount))
    throw new PickleError(`a tensor whose ${what} is not a list of whole numbers`);
  return [...value];
}

/** _rebuild_tensor(storage, offset, shape, strides), and _v2 with more behind it. */
function rebuildTensor([storage, offset, size, stride]: readonly unknown[]): TorchTensor {
  if (!(storage instanceof TorchStorage)) throw new PickleError('a tensor without a storage');
  if (!isCount(offset)) throw new PickleError(`a tensor at element ${String(offset)}`);
  const [shape, strides] = [countsOf(size, 'shape'), countsOf(stride, 'stride')];
  if (shape.length !== strides.length)
    throw new PickleError(`a tensor of ${shape.length} axes with ${strides.length} strides`);
  return new TorchTensor(storage, offset, shape, strides);
}

/** _rebuild_parameter(tensor, requires_grad, hooks). */
function rebuildParameter([data]: readonly unknown[]): unknown {
  if (!(data instanceof TorchTensor)) throw new PickleError('a parameter without a tensor');
  return data;
}

/** _rebuild_from_type_v2(function, class, arguments, attributes): a tensor with attributes. */
function rebuildFromType([inner, , args]: readonly unknown[]): unknown {
  if (!(inner instanceof TorchFunction) || inner.run === rebuildFromType || !Array.isArray(args))
    throw new PickleError('a tensor that is built in an unknown way');
  return inner.run(args);
}

const functions = new Map<string, (args: readonly unknown[]) => unknown>([
  ['collections.OrderedDict', ([items]) => mapOfPairs(items)],
  ['collections.defaultdict', () => new Map()],
  ['builtins.dict', ([items]) => mapOfPairs(items)],
  ['torch._utils._rebuild_tensor', rebuildTensor],
  ['torch._utils._rebuild_tensor_v2', rebuildTensor],
  ['torch._utils._rebuild_parameter', rebuildParameter],
  ['torch._utils._rebuild_parameter_with_state', rebuildParameter],
  ['torch._tensor._rebuild_from_type_v2', rebuildFromType],
  ['torch.Size', ([sizes]) => sizes],
]);

/**
 * What checkpoints of trainings hold beside weights: numbers of numpy, settings, logs. None of it is
 * looked at; a call of one gives another placeholder.
 */
const ignored = new Set([
  'argparse.Namespace',
  'builtins.bytearray',
  'builtins.complex',
  'builtins.float',
  'builtins.frozenset',
  'builtins.getattr', // the log buffers of mmengine name their own methods with it
  'builtins.int',
  'builtins.list',
  'builtins.range',
  'builtins.set',
  'builtins.slice',
  'builtins.str',
  'builtins.tuple',
  'collections.Counter',
  'collections.deque',
  'copy_reg._reconstructor',
  'copyreg._reconstructor',
  'builtins.object',
  'datetime.datetime',
  'datetime.timedelta',
  '_codecs.encode',
  'mmengine.logging.history_buffer.HistoryBuffer',
  'numpy.dtype',
  'numpy.ndarray',
  'numpy.core.multiarray._reconstruct',
  'numpy.core.multiarray.scalar',
  'numpy._core.multiarray._reconstruct',
  'numpy._core.multiarray.scalar',
  'numpy.dtypes.Float32DType',
  'numpy.dtypes.Float64DType',
  'numpy.dtypes.Int64DType',
  'pathlib.Path',
  'pathlib.PosixPath',
  'pathlib.PurePosixPath',
  'pathlib.WindowsPath',
  'torch.device',
  'torch.Tensor',
  'torch.nn.parameter.Parameter',
  'types.SimpleNamespace',
]);

const dtypeName = /^torch\.(bool|(b?float|u?int|complex)\d+)$/;

function mapOfPairs(items: unknown): Map<unknown, unknown> {
  if (items === undefined) return new Map();
  if (items instanceof Map) return items;
  if (Array.isArray(items) && items.every((pair) => Array.isArray(pair) && pair.length === 2))
    return new Map(items as [unknown, unknown][]);
  throw new PickleError('a dictionary that is not made of pairs');
}

/** `('storage', type, key, device, elements)`, in old files with a view of it behind. */
function storageOf(id: unknown): TorchStorage {
  const [kind, type, key, , count, view] = Array.isArray(id) ? id : [];
  if (kind !== 'storage' || !(type instanceof StorageType))
    throw new PickleError('an object outside the pickle that is not a storage of numbers');
  if (typeof key !== 'string' || !isCount(count))
    throw new PickleError('a storage without key and size');
  if (view !== undefined && view !== null)
    throw new PickleError('a storage that is a view of another (torch before 0.4)');
  return new TorchStorage(key, type.type, count);
}

/** The rules for checkpoints. A refused global is named in the error. */
export const torchRules: PickleRules = {
  global(module, name) {
    // Python 2 had other names for two modules.
    const full = `${module.replace('__builtin__', 'builtins')}.${name}`;
    const run = functions.get(full);
    if (run) return new TorchFunction(full, run);
    if (module === 'torch' && Object.hasOwn(storageTypes, name))
      return new StorageType(storageTypes[name]!);
    if (ignored.has(full) || dtypeName.test(full)) return new Placeholder(full);
    throw new PickleError(
      `a pickle that asks for ${module}.${name}, which no state dict needs (nothing of it was executed); ` +
        'a whole model cannot be read: save its state_dict() with torch.save',
    );
  },
  call(callee, args) {
    if (callee instanceof TorchFunction) return callee.run(args);
    if (callee instanceof Placeholder) return new Placeholder(callee.name);
    throw new PickleError('a pickle that calls something other than a function');
  },
  persistent: storageOf,
};
