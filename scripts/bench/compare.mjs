// Ours against torchvision on the CPU, alternating in one run: `node scripts/bench/compare.mjs [CASE …]`.
// Needs python3 with torch and torchvision (BENCH_PYTHON names another one). Prints ratios of medians
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
const wanted = process.argv.length > 2 ? process.argv.slice(2) : ['train', 'mixpl', 'infer'];
const iterations = { train: 3, mixpl: 1, infer: 5 };
// The peers' allocator settings that make them fastest; ours has its own pool.
const environment = {
  ...process.env,
  OMP_NUM_THREADS: threads,
  MALLOC_MMAP_THRESHOLD_: '4294967296',
  MALLOC_TRIM_THRESHOLD_: '4294967296',
};

function measure(command, args) {
  const child = spawnSync(command, args, { env: environment, encoding: 'utf8' });
  if (child.status !== 0) throw new Error(`${command} ${args.join(' ')}: ${child.stderr}`);
  const result = JSON.parse(child.stdout.trim().split('\n').at(-1));
  if (!result.checked) throw new Error(`${command} ${args.join(' ')}: the result is wrong`);
  return result;
}
const median = (values) => values.sort((a, b) => a - b)[values.length >> 1];

const folder = mkdtempSync(join(tmpdir(), 'mixpl-compare-'));
const onnx = join(folder, 'retinanet.onnx');
if (wanted.includes('infer') && process.env.BENCH_ONNXRUNTIME) {
  const size = (process.env.BENCH_SIZE ?? '480x640').split('x');
  const child = spawnSync(python, ['scripts/peers/retinanet_onnx.py', onnx, ...size], {
    encoding: 'utf8',
  });
  if (child.status !== 0) throw new Error(`the ONNX file: ${child.stderr}`);
}

const results = [];
for (const kind of wanted) {
  const sides = {
    'ours fp32': () =>
      measure('node', ['scripts/bench/retinanet.mjs', kind, 'fp32', iterations[kind]]),
    'torchvision fp32': () =>
      measure(python, ['scripts/peers/retinanet_torchvision.py', kind, 'fp32', iterations[kind]]),
    'ours bf16': () =>
      measure('node', ['scripts/bench/retinanet.mjs', kind, 'bf16', iterations[kind]]),
    'torchvision bf16': () =>
      measure(python, ['scripts/peers/retinanet_torchvision.py', kind, 'bf16', iterations[kind]]),
  };
  if (kind === 'infer' && process.env.BENCH_ONNXRUNTIME)
    sides['onnxruntime fp32'] = () =>
      measure('node', ['scripts/bench/onnxruntime.mjs', onnx, iterations[kind]]);
  const times = {};
  const memory = {};
  for (let round = 0; round < rounds; round++)
    for (const [name, run] of Object.entries(sides)) {
      const { ms, peakRssMb } = run();
      times[name] = [...(times[name] ?? []), ...ms];
      memory[name] = Math.max(memory[name] ?? 0, peakRssMb);
    }
  const medians = Object.fromEntries(Object.entries(times).map(([name, ms]) => [name, median(ms)]));
  const ratio = (peer, own) => Number((medians[peer] / medians[own]).toFixed(2));
  const result = {
    case: kind,
    medianMs: medians,
    peakRssMb: memory,
    ratios: {
      'fp32 over torchvision fp32': ratio('torchvision fp32', 'ours fp32'),
      'bf16 over torchvision fp32': ratio('torchvision fp32', 'ours bf16'),
      'bf16 over torchvision bf16': ratio('torchvision bf16', 'ours bf16'),
      ...(medians['onnxruntime fp32']
        ? {
            'fp32 over onnxruntime fp32': ratio('onnxruntime fp32', 'ours fp32'),
            'bf16 over onnxruntime fp32': ratio('onnxruntime fp32', 'ours bf16'),
          }
        : {}),
    },
    memoryOverTorchvisionBf16: Number(
      (memory['ours bf16'] / memory['torchvision bf16']).toFixed(2),
    ),
  };
  results.push(result);
  console.log(JSON.stringify(result, null, 1));
}
rmSync(folder, { recursive: true });
if (process.env.BENCH_OUT)
  writeFileSync(
    process.env.BENCH_OUT,
    `${JSON.stringify({ cpu: cpus()[0].model, threads, size: process.env.BENCH_SIZE ?? '480x640', onednn: native.buildInfo().onednnVersion, results }, null, 1)}\n`,
  );
