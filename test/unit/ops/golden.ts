import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { ndarray } from '../../oracle/array.js';
import { tolerances } from '../tolerances.js';
import { expectClose, type OpSpec, onDevice, runOp, testDevices } from './test-op.js';

interface GoldenArray {
  shape: number[];
  dtype: 'f32' | 'i32';
  data: number[];
}
interface GoldenFile {
  torch: string;
  torchvision: string;
  source: string;
  cases: {
    name: string;
    options: Record<string, unknown>;
    training: boolean;
    inputs: Record<string, GoldenArray>;
    dout?: GoldenArray;
    output: GoldenArray;
    gradients: Record<string, GoldenArray>;
    after: Record<string, GoldenArray>;
  }[];
}

const array = (golden: GoldenArray) => ndarray(golden.shape, golden.data);

/** Declares one test per recorded case of test/golden/ops/<file>.json (see scripts/golden/ops.py). */
export function testGolden(
  op: string,
  file: string,
  spec: Pick<OpSpec, 'activations' | 'integers' | 'bytes'>,
): void {
  const url = new URL(`../../golden/ops/${file}.json`, import.meta.url);
  const golden = JSON.parse(readFileSync(url, 'utf8')) as GoldenFile;
  expect(golden.cases.length).toBeGreaterThan(0);
  for (const recorded of golden.cases)
    for (const device of testDevices)
      test(`${op} equals ${golden.source} of torch ${golden.torch}: ${recorded.name}${onDevice(device)}`, () =>
        checkGolden(op, recorded, spec, device));
}

async function checkGolden(
  op: string,
  recorded: GoldenFile['cases'][number],
  spec: Pick<OpSpec, 'activations' | 'integers' | 'bytes'>,
  device: string,
): Promise<void> {
  const inputs = Object.fromEntries(
    Object.entries(recorded.inputs).map(([name, value]) => [name, array(value)]),
  );
  const call = { ...recorded, inputs };
  const dout = recorded.dout ? array(recorded.dout) : ndarray([], [1]);
  const got = await runOp(op, call, { spec, dout, device });
  expect(got.shape).toEqual(recorded.output.shape);
  expectClose(got.output, recorded.output.data, tolerances.torch, 'output');
  for (const [name, want] of Object.entries(recorded.gradients))
    expectClose(got.gradients[name]!, want.data, tolerances.torch, `gradient of ${name}`);
  Object.values(recorded.after).forEach((want, i) => {
    expectClose(got.outputs[i + 1]!, want.data, tolerances.torch, Object.keys(recorded.after)[i]!);
  });
}

/** Expects the call to be refused with this code and exactly this message. */
export async function expectRefused(
  promise: () => Promise<unknown>,
  code: string,
  message: string,
): Promise<void> {
  const error = await Promise.resolve()
    .then(promise)
    .then(
      () => undefined,
      (reason: unknown) => reason as Error & { code?: string },
    );
  expect(error, 'an error').toBeInstanceOf(Error);
  expect({ name: error!.name, code: error!.code, message: error!.message }).toEqual({
    name: 'MixplError',
    code,
    message,
  });
}
