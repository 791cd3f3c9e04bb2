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

const detector = {} as never;
const images = [] as never;

/** Every function and class that takes options of its own, and `options` misspelt. */
const withOptions: Record<string, (options: never) => unknown> = {
  loadCoco: (options) => mixpl.loadCoco('a.json', options),
  loadVoc: (options) => mixpl.loadVoc('a', options),
  loadImageFolder: (options) => mixpl.loadImageFolder('a', options),
  loadDataset: (options) => mixpl.loadDataset({ format: 'folder', images: 'a' }, options),
  decodeImage: (options) => mixpl.decodeImage('a.png', options),
  readJsonEntries: (options) => mixpl.readJsonEntries('a.json', () => {}, options),
  checkDataset: (options) => mixpl.checkDataset(dataset, options),
  splitDataset: (options) => mixpl.splitIndices(10, options),
  filterLabelled: (options) => mixpl.filterLabelled(dataset, options),
  selectImages: (options) => mixpl.selectImages(dataset, [], options),
  repeatFactors: (options) => mixpl.repeatFactors(dataset, options),
  prefetch: (options) => mixpl.prefetch([], () => {}, options),
  ImageCache: (options) => new mixpl.ImageCache(options),
  BatchSampler: (options) => new mixpl.BatchSampler([], options),
  loadBatches: (options) => mixpl.loadBatches({} as never, [], options).next(),
  composeBatch: (options) => mixpl.composeBatch([], options),
  viewInstances: (options) => mixpl.viewInstances({} as never, {} as never, options),
  view: (options) => mixpl.weakView({} as never, {} as never, options),
  matchObjects: (options) => mixpl.matchObjects({} as never, {} as never, options),
  groundTruthOf: (options) => mixpl.groundTruthOf(dataset, options),
  detectionsOf: (options) => mixpl.detectionsOf(dataset, [], options),
  evaluateCoco: (options) => mixpl.evaluateCoco({} as never, options),
  evaluateVoc: (options) => mixpl.evaluateVoc({} as never, options),
  readCocoGroundTruth: (options) => mixpl.readCocoGroundTruth('a.json', options),
  readCocoResults: (options) => mixpl.readCocoResults('a.json', {} as never, options),
  parseCocoResults: (options) => mixpl.parseCocoResults([], {} as never, options),
  detectDataset: (options) => mixpl.detectDataset(detector, dataset, options),
  detectReadable: (options) => mixpl.detectReadable(detector, dataset, options),
  evaluateDetector: (options) => mixpl.evaluateDetector(detector, dataset, options),
  evaluateTogether: (options) => mixpl.evaluateTogether({} as never, detector, dataset, options),
  loadConfig: (options) => mixpl.loadConfig('small', options),
  loadRunData: (options) => mixpl.loadRunData({} as never, options),
  loadHiddenTruth: (options) => mixpl.loadHiddenTruth({} as never, options),
  openWeights: (options) => mixpl.openWeights('a.pth', options),
  exportOnnx: (options) => mixpl.exportOnnx(detector, 'a.onnx', options),
  gradCam: (options) => mixpl.gradCam(detector, images, [], options),
  gradientDensity: (options) => mixpl.gradientDensity(detector, {} as never, options),
  annotatedImages: (options) => mixpl.annotatedImages(dataset, options),
  camViews: (options) => mixpl.camViews(detector, [], options).next(),
  analyzeGradients: (options) => mixpl.analyzeGradients(detector, dataset, options),
  analyzePseudoLabels: (options) => mixpl.analyzePseudoLabels(detector, dataset, options),
  startDashboard: (options) => mixpl.startDashboard(options),
  startProcesses: (options) => mixpl.startProcesses(options),
};

test.each(Object.entries(withOptions))(
  '%s says which option it does not know',
  async (name, call) => {
    const refusal = async (options: unknown) => {
      try {
        await call(options as never);
      } catch (error) {
        return error;
      }
      return null;
    };
    expect(await refusal({ nonsense: 1 })).toMatchObject({
      ...{ name: 'MixplError', code: 'ERR_CONFIG' },
      message: expect.stringContaining(`${name}: unknown option 'nonsense'`),
    });
    expect(await refusal(null)).toMatchObject({
      ...{ name: 'MixplError', code: 'ERR_CONFIG' },
      message: `${name}: options must be an object, got null`,
    });
  },
);

test('an unknown option is told with the one that it is near to', async () => {
  await expect(mixpl.loadCoco('a.json', { labeled: false } as object)).rejects.toThrow(
    "loadCoco: unknown option 'labeled'; did you mean 'labelled'?",
  );
  await expect(mixpl.loadDataset({ format: 'cocoo' } as never)).rejects.toThrow(
    "loadDataset: format must be coco, voc or folder, got 'cocoo'",
  );
  await expect(mixpl.checkDataset(dataset, { files: 'heder' } as object)).rejects.toThrow(
    "checkDataset: files must be none, header or decode, got 'heder'",
  );
});

test.each([0, -1, 1.5, Number.NaN])('an evaluation with batches of %s images', async (batch) => {
  const options = { batch } as Parameters<typeof mixpl.evaluateDetector>[2];
  await expect(mixpl.evaluateDetector(detector, dataset, options)).rejects.toMatchObject({
    code: 'ERR_RANGE',
    message: `evaluateDetector: batch must be a whole number >= 1, got ${batch}`,
  });
});
