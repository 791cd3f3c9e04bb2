import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { deflateRawSync } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { MixplError, openWeights, Random, type WeightsFile } from '../../../lib/index.js';
import { temporaryFolder } from '../temporary-folder.js';
import {
  call,
  encode,
  floats,
  global,
  pickle,
  raw,
  tensor,
  torchRow,
  torchZip,
  zip,
} from './torch-bytes.js';

const golden = (name: string) => new URL(`../../golden/weights/${name}`, import.meta.url).pathname;
const folder = await temporaryFolder();
let files = 0;

async function fileOf(bytes: Buffer): Promise<string> {
  const path = join(folder, `${files++}.pth`);
  await writeFile(path, bytes);
  return path;
}

/** Everything in it. */
async function contents(path: string, prefix?: string): Promise<Record<string, number[]>> {
  await using file = await openWeights(path, { prefix });
  return Object.fromEntries(await valuesOf(file));
}

async function valuesOf(file: WeightsFile): Promise<[string, number[]][]> {
  const out: [string, number[]][] = [];
  for (const name of file.entries.keys()) out.push([name, [...(await file.read(name))]]);
  return out;
}

/** The refusal of a file, which must come fast and be one of ours. */
async function refusal(bytes: Buffer): Promise<string> {
  const path = await fileOf(bytes);
  const began = process.cpuUsage();
  const error = await contents(path).then(
    () => expect.fail('must be refused'),
    (e: unknown) => e as MixplError,
  );
  // Work, not time on the clock, which depends on what else the machine does.
  const { user, system } = process.cpuUsage(began);
  expect(user + system).toBeLessThan(2e6);
  expect(error).toBeInstanceOf(MixplError);
  expect(error.code).toBe('ERR_BAD_FILE');
  expect(error.message.startsWith(`${path}: `)).toBe(true);
  return error.message.slice(path.length + 2);
}

const one = { w: tensor({ key: '0', count: 2, shape: [2] }) };

describe('files of torch.save', async () => {
  const expected = JSON.parse(await readFile(golden('views.json'), 'utf8')) as {
    torch: string;
    tensors: Record<string, { shape: number[]; values: number[] }>;
  };
  for (const name of ['views.pth', 'views-legacy.pth', 'views-protocol4.pth'])
    test(`${name} of torch ${expected.torch}: views, types, shared storages`, async () => {
      await using file = await openWeights(golden(name));
      expect(file.format).toBe('pth');
      expect([...file.entries.keys()]).toEqual(Object.keys(expected.tensors));
      for (const [key, { shape, values }] of Object.entries(expected.tensors)) {
        expect(file.entries.get(key)!.shape, key).toEqual(shape);
        expect(await file.read(key), key).toEqual(Float32Array.from(values));
      }
      expect(file.entries.get('half')!.type).toBe('F16');
    });

  test('a whole model is refused with the way out', async () => {
    await expect(openWeights(golden('whole-model.pth'))).rejects.toThrow(
      /asks for torch\.nn\.modules\.linear\.Linear, .*save its state_dict\(\)/,
    );
  });
});

describe('where the state dict is', () => {
  const storages = { 0: floats(1, 2), 1: floats(3, 4) };
  const other = { w: tensor({ key: '1', count: 2, shape: [2] }) };
  const load = async (object: unknown, prefix?: string) =>
    contents(await fileOf(torchZip(object, storages)), prefix);

  test('at the top, or under one of the usual keys', async () => {
    for (const object of [
      one,
      { state_dict: one, epoch: 3 },
      { model: { state_dict: one } },
      { model_state_dict: one },
    ])
      expect(await load(object)).toEqual({ w: [1, 2] });
    const two = { ema_state_dict: other, state_dict: one };
    expect(await load(two)).toEqual({ w: [1, 2] });
    expect(await load(two, 'ema_state_dict')).toEqual({ w: [3, 4] });
  });

  test('behind wrappers and branches', async () => {
    expect(await load({ 'module.w': one.w })).toEqual({ w: [1, 2] });
    const branches = { 'teacher.w': other.w, 'student.w': one.w };
    expect(await load({ state_dict: branches })).toEqual({ w: [3, 4] });
    expect(await load({ state_dict: branches }, 'student')).toEqual({ w: [1, 2] });
    expect(await load({ state_dict: branches }, 'state_dict.student.')).toEqual({ w: [1, 2] });
    expect(await load({ teacher: other, student: one }, 'student')).toEqual({ w: [1, 2] });
    await expect(load({ state_dict: branches }, 'pupil')).rejects.toMatchObject({
      code: 'ERR_CHECKPOINT',
      message: expect.stringContaining('begin with pupil., got teacher, student'),
    });
  });

  test('beside logs and settings that are passed over', async () => {
    const history = raw(call('mmengine.logging.history_buffer', 'HistoryBuffer').bytes, '}b');
    const array = call('numpy.core.multiarray', '_reconstruct', global('numpy', 'ndarray'), [0]);
    const method = call('__builtin__', 'getattr', global('collections', 'Counter'), 'min');
    const message_hub = { history, array, method, pair: call('torch', 'Size', [1]) };
    expect(await load({ state_dict: one, message_hub })).toEqual({ w: [1, 2] });
  });

  test('nowhere', async () => {
    for (const object of [{}, [], 3, { epoch: 1, log: {} }, { state_dict: { w: 1 } }])
      expect(await refusal(torchZip(object))).toMatch(/must hold tensors by name, got /);
  });
});

test('a big-endian file is read in its order', async () => {
  const order = (text: string) => ({ 'archive/byteorder': Buffer.from(text) });
  const swapped = floats(1, -2).swap32();
  const path = await fileOf(torchZip(one, { 0: swapped }, order('big')));
  expect(await contents(path)).toEqual({ w: [1, -2] });
  expect(await contents(await fileOf(torchZip(one, { 0: floats(5, 6) }, order('little'))))).toEqual(
    { w: [5, 6] },
  );
  expect(await refusal(torchZip(one, { 0: swapped }, order('mixed')))).toMatch(
    /byte order 'mixed'/,
  );
});

describe('refuses', () => {
  test.each([
    ['os', 'system'],
    ['posix', 'system'],
    ['__builtin__', 'eval'],
    ['builtins', 'exec'],
    ['torch', 'load'],
    ['torch.hub', 'load'],
    ['torch.nn.modules.linear', 'Linear'],
  ])('to run %s.%s', async (module, name) => {
    const named = new RegExp(`asks for ${module.replaceAll('.', '\\.')}\\.${name}, .*nothing`);
    const attack = call(module, name, 'touch /tmp/pwned');
    expect(await refusal(torchZip({ ...one, attack }, { 0: floats(1, 2) }))).toMatch(named);
    const stacked = raw(encode(module), encode(name), 0x93);
    expect(await refusal(torchZip(stacked))).toMatch(named);
    expect(await refusal(torchRow({ ...one, attack }, { 0: [2, floats(1, 2)] }))).toMatch(named);
  });

  test('pickles that are no state dict or no pickle', async () => {
    const cases: [ReturnType<typeof raw>, RegExp][] = [
      [raw('i', 'os\nsystem\n'), /instruction 0x69/],
      [raw(0x82, 1), /instruction 0x82/],
      [raw('}q\x00h\x07'), /unknown object 7/],
      [raw('t'), /without the mark/],
      [raw('0'), /empty stack/],
      [raw(')R'), /empty stack/],
      [raw('N)R'), /calls something other than a function/],
      [raw('}Nu'), /without the mark/],
      [raw('}(Nu'), /a key and no value/],
      [raw(0x8b, 0xff, 0xff, 0xff, 0x7f), /cut off/],
      [raw('X', 0xff, 0xff, 0xff, 0xff), /cut off/],
      [raw(0x8d, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), /cut off/],
      [raw(0x8a, 17, Buffer.alloc(17)), /integer of 17 bytes/],
      [raw('(X\x01\x00\x00\x00atQ'), /is not a storage of numbers/],
    ];
    for (const [value, message] of cases)
      expect(await refusal(torchZip(value)), String(message)).toMatch(message);
  });

  test('bombs: of nesting, of size, of references', async () => {
    const nested = raw(Buffer.alloc(900_000, ']'));
    expect(await refusal(torchZip(nested))).toMatch(/must hold tensors by name/);
    const tuples = raw('N', Buffer.alloc(900_000, 0x85));
    expect(await refusal(torchZip(tuples))).toMatch(/must hold tensors by name/);
    expect(await refusal(torchZip(raw(Buffer.alloc(20_000_000, '}'))))).toMatch(
      /more than 1000000 instructions/,
    );
    const itself = raw('}q\x00X\x05\x00\x00\x00modelh\x00s');
    expect(await refusal(torchZip(itself))).toMatch(/must hold tensors by name/);
    const doubling = raw(')', ...Array.from({ length: 60 }, () => '2\x86'));
    expect(await refusal(torchZip(doubling))).toMatch(/must hold tensors by name/);
  });

  test('tensors that are not in their storage', async () => {
    const load = (shape: unknown, strides: unknown, offset: unknown = 0) => {
      const t = tensor({
        ...{ key: '0', count: 6, offset: offset as number },
        ...{ shape: shape as number[], strides: strides as number[] },
      });
      return refusal(torchZip({ w: t }, { 0: floats(1, 2, 3, 4, 5, 6) }));
    };
    expect(await load([7], [1])).toMatch(/w must lie in its storage, got \[7\] in .* of 6/);
    expect(await load([2, 2], [5, 1])).toMatch(/up to element 6 of a storage of 6/);
    expect(await load([2], [1], 5)).toMatch(/up to element 6/);
    expect(await load([1e12], [0])).toMatch(/\[1000000000000\] in a storage of 6/);
    expect(await load(Array(16).fill(2 ** 50), Array(16).fill(0))).toMatch(/storage of 6/);
    expect(await load(Array(17).fill(1), Array(17).fill(1))).toMatch(
      /is not a list of whole numbers/,
    );
    expect(await load([-1], [1])).toMatch(/is not a list of whole numbers/);
    expect(await load([2], [-1], 1)).toMatch(/is not a list of whole numbers/);
    expect(await load([2.5], [1])).toMatch(/is not a list of whole numbers/);
    expect(await load([2], [1, 1])).toMatch(/1 axes with 2 strides/);
    expect(await load([2], [1], -1)).toMatch(/at element -1/);
    expect(await load([2], {})).toMatch(/is not a list of whole numbers/);
  });

  test('sizes that the file does not have', async () => {
    const huge = { w: tensor({ key: '0', count: 2_500_000_000, shape: [2] }) };
    expect(await refusal(torchZip(huge, { 0: floats(1, 2) }))).toMatch(
      /storage 0 of 10000000000 bytes .* in an entry of 8/,
    );
    expect(await refusal(torchZip(one))).toMatch(/in no entry/);
    expect(await refusal(torchRow(huge, { 0: [2_500_000_000, floats(1, 2)] }))).toMatch(/cut off/);
    expect(await refusal(torchRow(one, { 0: [3, floats(1, 2)] }))).toMatch(/3 elements/);
    expect(await refusal(torchRow(one, {}))).toMatch(/storage 0 without bytes/);
    const entries = { 'a/data.pkl': pickle(one), 'a/data/0': floats(1, 2) };
    for (const claim of [
      { size: 4_000_000_000 },
      { size64: 10_000_000_000n },
      { size64: 1n << 62n },
    ])
      for (const name of Object.keys(entries))
        expect(await refusal(zip(entries, { [name]: claim }))).toMatch(/of \d+ bytes at byte/);
  });

  test('zip files that torch does not write', async () => {
    const content = pickle(one);
    const packed = deflateRawSync(content);
    const compressed = zip(
      { 'a/data.pkl': packed },
      { 'a/data.pkl': { method: 8, size: packed.length } },
    );
    expect(await refusal(compressed)).toMatch(/a\/data\.pkl compressed \(method 8\)/);
    expect(await refusal(zip({}))).toMatch(/0 entries named data\.pkl/);
    expect(await refusal(zip({ 'a/data.pkl': content, 'b/data.pkl': content }))).toMatch(
      /2 entries named data\.pkl/,
    );
    expect(
      await refusal(
        zip({ 'a/data.pkl': content, 'a/constants.pkl': content, 'a/code/m.py': packed }),
      ),
    ).toMatch(/TorchScript/);
  });

  test('cut files, wherever they are cut', async () => {
    for (const name of ['views.pth', 'views-legacy.pth']) {
      const whole = await readFile(golden(name));
      for (let length = 0; length < whole.length; length += 97)
        await refusal(whole.subarray(0, length));
    }
  });

  test('files of other kinds', async () => {
    for (const bytes of [
      '',
      'P',
      'PK',
      'hello world, this is no file of weights',
      '\x80\x02}.',
      '\x80',
    ])
      await refusal(Buffer.from(bytes, 'latin1'));
    await refusal(Buffer.alloc(1000));
    await refusal(await readFile(golden('views.json')));
    await expect(openWeights(join(folder, 'absent'))).rejects.toMatchObject({ code: 'ERR_IO' });
    await mkdir(join(folder, 'folder'));
    await expect(openWeights(join(folder, 'folder'))).rejects.toMatchObject({ code: 'ERR_IO' });
  });

  test('damaged bytes with an error of its own, or reads them', async () => {
    const random = new Random(20240501);
    for (const name of ['views.pth', 'views-legacy.pth']) {
      const whole = await readFile(golden(name));
      const path = await fileOf(whole);
      for (let i = 0; i < 300; i++) {
        const bytes = Buffer.from(whole);
        for (let k = 0; k < 3; k++)
          bytes[Math.floor(random.uniform(0, bytes.length))] = Math.floor(random.uniform(0, 256));
        await writeFile(path, bytes);
        const error = await contents(path).catch((e: unknown) => e);
        if (error instanceof Error) expect(error, String(error.stack)).toBeInstanceOf(MixplError);
      }
    }
  });
});
