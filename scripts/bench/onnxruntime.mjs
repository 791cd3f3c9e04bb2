// RetinaNet R50-FPN inference with onnxruntime-node, fp32, without post-processing (ours has it):
// `node scripts/bench/onnxruntime.mjs FILE.onnx ITERATIONS`. BENCH_ONNXRUNTIME names the folder whose
// node_modules has onnxruntime-node. Prints one JSON line as retinanet.mjs does.
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';

const [file, iterations] = [process.argv[2], Number(process.argv[3] ?? 5)];
const [height, width] = (process.env.BENCH_SIZE ?? '480x640').split('x').map(Number);
const threads = Number(process.env.OMP_NUM_THREADS ?? 2);
const at = resolve(process.env.BENCH_ONNXRUNTIME ?? '.');
const ort = createRequire(join(at, 'package.json'))('onnxruntime-node');

const session = await ort.InferenceSession.create(file, {
  intraOpNumThreads: threads,
  interOpNumThreads: 1,
  graphOptimizationLevel: 'all',
});
const images = Float32Array.from({ length: 3 * height * width }, Math.random);
const feeds = { images: new ort.Tensor('float32', images, [1, 3, height, width]) };
const { cls_logits: logits } = await session.run(feeds);
await session.run(feeds);
const ms = [];
for (let i = 0; i < iterations; i++) {
  const began = performance.now();
  await session.run(feeds);
  ms.push(performance.now() - began);
}
console.log(
  JSON.stringify({
    ms,
    peakRssMb: Math.round(process.resourceUsage().maxRSS / 1024),
    checked: logits.dims[2] === 91 && logits.data.every(Number.isFinite),
  }),
);
