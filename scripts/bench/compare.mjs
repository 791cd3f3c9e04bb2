// Ours against torchvision, alternating in one run:
// `node scripts/bench/compare.mjs [MODEL:]CASE …`; MODEL is retinanet (default), fcos or faster-rcnn, CASE train,
// mixpl or infer. bf16 is left out where the processor has no instructions for it. Needs python3 with torch
// and torchvision (BENCH_PYTHON names another one). On a GPU (BENCH_DEVICE=cuda) torch.compile takes part, too,
// and memory is the device's. BENCH_SIZE, BENCH_BATCH: images (480x640), how many (2). Prints ratios of medians
// (peer ÷ ours: above 1 is faster than the peer) and writes JSON when BENCH_OUT names a file. With
// BENCH_ONNXRUNTIME (a folder whose node_modules has onnxruntime-node) inference meets that peer too.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { native } from '../../dist/index.js';

const python = process.env.BENCH_PYTHON ?? 'python3';
const rounds = Number(process.env.BENCH_ROUNDS ?? 3);
const threads = process.env.OMP_NUM_THREADS ?? '2';
const wanted = (process.argv.length > 2 ? process.argv.slice(2) : ['train', 'mixpl', 'infer']).map(
  (text) => (text.includes(':') ? text.split(':') : ['retinanet', text]),
);
const onGpu = (process.env.BENCH_DEVICE ?? 'cpu') !== 'cpu';
const dtypes =
  onGpu || native.buildInfo().cpuFeatures.includes('avx512_bf16') ? ['fp32', 'bf16'] : ['fp32'];
const iterations = onGpu ? { train: 10, mixpl: 10, infer: 20 } : { train: 3, mixpl: 1, infer: 5 };
// The allocator settings that make the peers fastest; ours has its own pool.
const peerSettings = {
  MALLOC_MMAP_THRESHOLD_: '4294967296',
  MALLOC_TRIM_THRESHOLD_: '4294967296',
};

function measure(command, args, settings = {}) {
  const env = { ...process.env, OMP_NUM_THREADS: threads, ...settings };
  const child = spawnSync(command, args, { env, encoding: 'utf8' });
  if (child.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${child.stderr}`);
  const result = JSON.parse(child.stdout.trim().split('\n').at(-1));
  if (!result.checked) throw new Error(`${command} ${args.join(' ')}: the result is wrong`);
  return result;
}
const measurePeer = (command, args) => measure(command, args, peerSettings);
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

const folder = mkdtempSync(join(tmpdir(), 'mixpl-compare-'));
const onnx = join(folder, 'retinanet.onnx');
if (wanted.some((w) => `${w}` === 'retinanet,infer') && process.env.BENCH_ONNXRUNTIME) {
  const size = (process.env.BENCH_SIZE ?? '480x640').split('x');
  const child = spawnSync(python, ['scripts/peers/retinanet_onnx.py', onnx, ...size], {
    encoding: 'utf8',
  });
  if (child.status !== 0) throw new Error(`the ONNX file: ${child.stderr}`);
}

const results = [];
for (const [model, kind] of wanted) {
  const arguments_ = (dtype) => [model, kind, dtype, iterations[kind]];
  const sides = {};
  for (const dtype of dtypes) {
    sides[`ours ${dtype}`] = () =>
      measure('node', ['scripts/bench/detector.mjs', ...arguments_(dtype)]);
    sides[`torchvision ${dtype}`] = () =>
      measurePeer(python, ['scripts/peers/detector_torchvision.py', ...arguments_(dtype)]);
  }
  if (model === 'retinanet' && kind === 'infer' && process.env.BENCH_ONNXRUNTIME)
    sides['onnxruntime fp32'] = () =>
      measurePeer('node', ['scripts/bench/onnxruntime.mjs', onnx, iterations[kind]]);
  if (onGpu)
    sides['torch.compile bf16'] = () =>
      measurePeer(python, [
        'scripts/peers/detector_torchvision.py',
        ...arguments_('bf16'),
        'compile',
      ]);
  const times = {};
  const memory = {};
  for (let round = 0; round < rounds; round++)
    for (const [name, run] of Object.entries(sides)) {
      const { ms, peakRssMb, peakDeviceMb = peakRssMb } = run();
      times[name] = [...(times[name] ?? []), ...ms];
      memory[name] = Math.max(memory[name] ?? 0, peakDeviceMb);
    }
  const medians = Object.fromEntries(Object.entries(times).map(([name, ms]) => [name, median(ms)]));
  const ratios = {};
  for (const [own, peer] of [
    ['ours fp32', 'torchvision fp32'],
    ['ours bf16', 'torchvision fp32'],
    ['ours bf16', 'torchvision bf16'],
    ['ours fp32', 'onnxruntime fp32'],
    ['ours bf16', 'onnxruntime fp32'],
    ['ours bf16', 'torch.compile bf16'],
  ])
    if (medians[own] && medians[peer])
      ratios[`${own.slice(5)} over ${peer}`] = Number((medians[peer] / medians[own]).toFixed(2));
  const last = dtypes.at(-1);
  const result = {
    model,
    case: kind,
    medianMs: medians,
    [onGpu ? 'peakDeviceMb' : 'peakRssMb']: memory,
    ratios,
    [`memoryOverTorchvision ${last}`]: Number(
      (memory[`ours ${last}`] / memory[`torchvision ${last}`]).toFixed(2),
    ),
  };
  results.push(result);
  console.log(JSON.stringify(result, null, 1));
}
rmSync(folder, { recursive: true });
if (process.env.BENCH_OUT)
  writeFileSync(
    process.env.BENCH_OUT,
    `${JSON.stringify({ device: native.devices().find(({ id }) => id === native.resolveDevice(process.env.BENCH_DEVICE ?? 'cpu')).name, cpu: cpus()[0].model, threads, size: process.env.BENCH_SIZE ?? '480x640', onednn: native.buildInfo().onednnVersion, results }, null, 1)}\n`,
  );
