import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { createDetector, type DetectorState } from '../../../lib/index.js';
import { native, optionsJson } from '../../../lib/native.js';
import { temporaryFolder } from '../temporary-folder.js';
import { sceneBatch, tinyDetector } from './scenes.js';

const bytesOf = (state: DetectorState) =>
  Buffer.concat([...state.values()].map(({ data }) => Buffer.from(data.buffer)));

test('what is saved, read and exported is of the moment of the call, whatever is called next', async () => {
  const file = join(await temporaryFolder(), 'weights.safetensors');
  await using detector = await createDetector(tinyDetector, { dtype: 'fp32', seed: 1 });
  const { batch, targets } = await sceneBatch(1, 'f32');
  for (const read of [
    async () => bytesOf(await detector.state()),
    async () => {
      await detector.save(file);
      return readFile(file);
    },
    async () => {
      await detector.exportWeights(file, { layout: 'mmdetection' });
      return readFile(file);
    },
  ]) {
    await detector.loss(batch, targets);
    await detector.backward();
    const before = await read();
    const [atOnce] = await Promise.all([read(), detector.step({ lr: 0.01 })]);
    expect(atOnce.equals(before)).toBe(true);
    expect((await read()).equals(before)).toBe(false);
  }
  batch.dispose();
});

test('a state is loaded in call order', async () => {
  await using one = await createDetector(tinyDetector, { dtype: 'fp32', seed: 1 });
  await using other = await createDetector(tinyDetector, { dtype: 'fp32', seed: 2 });
  const [own, others] = [await one.state(), await other.state()];
  const [before, , between, , after] = await Promise.all([
    one.state(),
    one.loadState(others),
    one.state(),
    one.loadState(own),
    one.state(),
  ]);
  expect(bytesOf(before).equals(bytesOf(own))).toBe(true);
  expect(bytesOf(between).equals(bytesOf(others))).toBe(true);
  expect(bytesOf(after).equals(bytesOf(own))).toBe(true);
  expect(bytesOf(own).equals(bytesOf(others))).toBe(false);
});

test('the thread of the device fills the arrays that tensors are read into', async () => {
  const handle = await native.createDetector(optionsJson('test', tinyDetector), 'cpu', 'f32', 1);
  const name = 'backbone.conv1.weight';
  const read = await handle.read(name);
  const values = new Float32Array(read.length);
  await handle.readInto(name, values);
  expect(values).toEqual(read);
  await expect(handle.readInto(name, new Float32Array(3))).rejects.toMatchObject({
    code: 'ERR_SHAPE',
    message: `detector.read: ${name} has ${read.length} numbers, got an array of 3`,
  });
  handle.dispose();
});
