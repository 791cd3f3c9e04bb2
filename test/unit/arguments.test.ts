import { expect, test } from 'vitest';
import * as mixpl from '../../lib/index.js';

type Call = (path: never) => Promise<unknown>;
const dataset = { images: [], categories: [] } as never;

/** Every function that takes the path of a file or a folder. */
const calls: Record<string, Call> = {
  loadCoco: (path) => mixpl.loadCoco(path),
  loadVoc: (path) => mixpl.loadVoc(path),
  loadImageFolder: (path) => mixpl.loadImageFolder(path),
  writeCoco: (path) => mixpl.writeCoco(dataset, path),
  readCocoGroundTruth: (path) => mixpl.readCocoGroundTruth(path),
  readCocoResults: (path) => mixpl.readCocoResults(path, {} as never),
  writeCocoResults: (path) => mixpl.writeCocoResults(path, { dataset, detections: [] }),
  readSafetensors: (path) => mixpl.readSafetensors(path),
  writeSafetensors: (path) => mixpl.writeSafetensors(path, new Map()),
  openWeights: (path) => mixpl.openWeights(path),
  openDetector: (path) => mixpl.openDetector(path),
  exportOnnx: (path) => mixpl.exportOnnx('a.safetensors', path, { height: 64, width: 64 }),
  runOnnx: (path) => mixpl.runOnnx(path, {} as never),
  loadConfig: (path) => mixpl.loadConfig(path),
  writeRunReport: (path) => mixpl.writeRunReport(path),
};

test.each(Object.entries(calls))('%s says that it wants a path', async (name, call) => {
  for (const [value, got] of [
    [undefined, 'undefined'],
    [null, 'null'],
    [3, 'Number'],
    [new URL('file:///tmp/a.json'), 'URL; try fileURLToPath() of node:url'],
  ] as [never, string][]) {
    const refusal = await call(value).then(
      () => null,
      (error) => error,
    );
    expect(refusal).toMatchObject({ name: 'MixplError', code: 'ERR_DTYPE' });
    expect(refusal.message).toMatch(
      new RegExp(`^${name}: \\w+ must be a string \\(a path\\), got `),
    );
    expect(refusal.message.endsWith(`got ${got}`)).toBe(true);
  }
});
