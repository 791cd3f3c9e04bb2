// One case of a detector, ours: `node scripts/bench/detector.mjs MODEL CASE DTYPE ITERATIONS`.
// MODEL: retinanet, fcos, faster-rcnn (with torchvision's numerics, as the peer), dino, dino-swin-l and the
// others of lib/bench/models.ts.
// CASE: train (BENCH_BATCH images, 2), infer (1), mixpl (teacher on 4, student on 1 + 4 mixed + 1 mosaic):
// those of `mixpl bench`, in a process of their own, whose memory is counted.
// BENCH_DEVICE: cpu or cuda.
// Prints one JSON line: { ms: [...], peakRssMb, peakDeviceMb?, checked }.
import { inference, mixplIteration, trainingStep } from '../../dist/bench/steps.js';
import { native } from '../../dist/index.js';

const [model, kind, type] = process.argv.slice(2);
const iterations = Number(process.argv[5] ?? 3);
const [height, width] = (process.env.BENCH_SIZE ?? '480x640').split('x').map(Number);
const size = { height, width };
const images = Number(process.env.BENCH_BATCH ?? 2);
native.setNumThreads(Number(process.env.OMP_NUM_THREADS ?? 2));
const device = native.resolveDevice(process.env.BENCH_DEVICE ?? 'cpu');
const context = { device, dtype: type === 'bf16' ? 'bf16' : 'f32' };

const cases = {
  train: () => trainingStep(model, { ...size, images }, context),
  infer: () => inference(model, { ...size, images: 1 }, context),
  mixpl: () => mixplIteration(model, { ...size, labelled: 1, unlabelled: 4 }, context),
};
const step = await cases[kind]();
async function run() {
  await step.run();
  await native.synchronize(device);
}
const onGpu = device !== 'cpu';
for (let i = 0; i < (onGpu ? 5 : 1); i++) await run();
await step.check();
if (onGpu) native.resetPeakMemory(device);
const ms = [];
for (let i = 0; i < iterations; i++) {
  const start = performance.now();
  await run();
  ms.push(performance.now() - start);
}
await step.check();
const result = { ms, peakRssMb: Math.round(process.resourceUsage().maxRSS / 1024), checked: true };
if (onGpu) result.peakDeviceMb = Math.round(native.memoryStats(device).peakLiveBytes / 2 ** 20);
console.log(JSON.stringify(result));
