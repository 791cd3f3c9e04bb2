// One case of a R50-FPN detector, ours: `node scripts/bench/detector.mjs MODEL CASE DTYPE ITERATIONS`.
// MODEL: retinanet, fcos, faster-rcnn (with torchvision's numerics, as the peer).
// CASE: train (BENCH_BATCH pictures, 2), infer (1), mixpl (teacher on 4, student on 1 + 4 mixed + 1 mosaic).
// BENCH_DEVICE: cpu or cuda.
// Prints one JSON line: { ms: [...], peakRssMb, peakDeviceMb?, checked }.
import {
  composeBatch,
  compositionOf,
  createDetector,
  eraseView,
  native,
  prepareCached,
  pseudoMixup,
  pseudoMosaic,
  Random,
  testView,
} from '../../dist/index.js';

const [model, kind, dtype] = process.argv.slice(2);
const iterations = Number(process.argv[5] ?? 3);
const [height, width] = (process.env.BENCH_SIZE ?? '480x640').split('x').map(Number);
const device = process.env.BENCH_DEVICE ?? 'cpu';
const pictures = Number(process.env.BENCH_BATCH ?? 2);
const threads = Number(process.env.OMP_NUM_THREADS ?? 2);
native.setNumThreads(threads);
const random = new Random(1);
const preprocess = {
  mean: [123.675, 116.28, 103.53],
  std: [58.395, 57.12, 57.375],
  channelOrder: 'rgb',
  padDivisor: 32,
};
// Every candidate goes through post-processing, as in the peer.
const presets = {
  retinanet: {
    preset: 'torchvision/retinanet_resnet50_fpn',
    scoreThresh: 0,
    detectionsPerImg: 100,
  },
  fcos: { preset: 'torchvision/fcos_resnet50_fpn', scoreThresh: 0 },
  'faster-rcnn': {
    preset: 'torchvision/fasterrcnn_resnet50_fpn',
    boxScoreThresh: 0,
    rpnPostNmsTopNTrain: 1000,
  },
};
const detector = await createDetector({
  ...presets[model],
  numClasses: 91,
  device,
  dtype,
  optimizer: { type: 'sgd', momentum: 0.9, weightDecay: 1e-4, clipNorm: 20 },
});
const compute = detector.computeDtype;

function picture() {
  const data = new Uint8Array(3 * width * height);
  for (let i = 0; i < data.length; i++) data[i] = random.integer(0, 256);
  return { data, width, height };
}
function instances(w, h) {
  const count = 7;
  const boxes = new Float32Array(4 * count);
  const labels = new Int32Array(count);
  for (let i = 0; i < count; i++) {
    const x = random.uniform(0, 0.7 * w);
    const y = random.uniform(0, 0.7 * h);
    boxes.set(
      [
        x,
        y,
        Math.min(w, x + w * random.uniform(0.03, 0.3)),
        Math.min(h, y + h * random.uniform(0.03, 0.3)),
      ],
      4 * i,
    );
    labels[i] = random.integer(0, 90);
  }
  return { boxes, labels, scores: new Float32Array(count).fill(1) };
}
const view = (image) =>
  testView(image, { long: Math.max(width, height), short: Math.min(width, height) });
const labelled = (image) => ({ view: view(image), instances: instances(width, height) });
const compose = (compositions) =>
  composeBatch(compositions, {
    ...preprocess,
    dtype: compute,
    padTo: 'image',
    device: detector.device,
  });

async function learn(samples, weight) {
  const batch = await compose(samples.map((s) => s.composition));
  const losses = await detector.loss(
    batch,
    samples.map((s) => s.instances),
  );
  await detector.backward({ weight });
  batch.dispose();
  return Object.values(losses);
}

const cases = {
  async train() {
    const samples = Array.from({ length: pictures }, picture).map((image) => ({
      composition: compositionOf(view(image)),
      instances: instances(width, height),
    }));
    return async () => {
      const losses = await learn(samples, 1);
      await detector.step({ lr: 1e-4 });
      return losses.every(Number.isFinite);
    };
  },
  async infer() {
    const image = picture();
    return async () => {
      const batch = await compose([compositionOf(view(image))]);
      const [found] = await detector.predict(batch);
      batch.dispose();
      return found.scores.length > 0;
    };
  },
  async mixpl() {
    const erase = { patches: [1, 20], ratio: [0, 0.1], threshold: 0.7 };
    const tile = Math.floor((Math.min(height, width) * 0.75) / 16) * 16;
    const sample = labelled(picture());
    const weak = Array.from({ length: 4 }, () => view(picture()));
    const strong = Array.from({ length: 4 }, () => labelled(picture()));
    const cache = Array.from({ length: 8 }, () => labelled(picture()));
    const teacher = await detector.createTeacher();
    return async () => {
      const batch = await compose(weak.map(compositionOf));
      const found = await teacher.predict(batch);
      batch.dispose();
      const mixed = strong.map((s, i) =>
        pseudoMixup(
          eraseView(s, erase, random),
          eraseView(prepareCached(cache[i], { width, height }), erase, random),
          random,
        ),
      );
      const mosaic = pseudoMosaic(
        cache
          .slice(4)
          .map((c) => eraseView(prepareCached(c, { width: tile, height: tile }), erase, random)),
      );
      // The canvas is the peer's: twice the tile, not twice what the pictures fill of it.
      const square = {
        ...mosaic,
        composition: { ...mosaic.composition, width: 2 * tile, height: 2 * tile },
      };
      const losses = [
        ...(await learn(
          [{ composition: compositionOf(sample.view), instances: sample.instances }],
          1,
        )),
        ...(await learn(mixed, 2)),
        ...(await learn([square], 1)),
      ];
      await detector.step({ lr: 1e-4 });
      await teacher.ema(detector, 0.0002);
      return found.length === 4 && losses.every(Number.isFinite);
    };
  },
};

const case_ = await cases[kind]();
async function run() {
  const fine = await case_();
  await native.synchronize(detector.device);
  return fine;
}
const onGpu = detector.device !== 'cpu';
let checked = true;
for (let i = 0; i < (onGpu ? 5 : 1); i++) checked = (await run()) && checked;
if (onGpu) native.resetPeakMemory(detector.device);
const ms = [];
for (let i = 0; i < iterations; i++) {
  const start = performance.now();
  checked = (await run()) && checked;
  ms.push(performance.now() - start);
}
const result = { ms, peakRssMb: Math.round(process.resourceUsage().maxRSS / 1024), checked };
if (onGpu)
  result.peakDeviceMb = Math.round(native.memoryStats(detector.device).peakLiveBytes / 2 ** 20);
console.log(JSON.stringify(result));
