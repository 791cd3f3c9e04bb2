// Times the norm, loss and small ops at the sizes of an 800x1344 step, after checking each result.
//
//   node test/bench/ops.mjs [--threads 1] [--repeats 9] [--peer /usr/bin/python3] [--json out.json]
//
// --peer alternates every measurement with PyTorch's (test/bench/peer_ops.py) on equal input sizes and
// prints ratio = ours / peer. `bytes` is what an op must at least move; % is of the copy speed measured
// in this run. Times include the call from JavaScript, and for fwd+bwd the copy of the incoming gradient.
import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { cpus } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const require = createRequire(import.meta.url);
const root = fileURLToPath(new URL('../..', import.meta.url));
const native = require('node-gyp-build')(root);
native.setErrorClass(Error);

const anchors = 201600; // 9 at each place of P3 to P7, 800x1344
const classes = 90;
const featureMap = [2, 100, 168, 256];

const values = (n, scale, seed = 12345) => {
  const out = new Float32Array(n);
  let x = seed;
  for (let i = 0; i < n; i++) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    out[i] = (x / 2 ** 32 - 0.5) * 2 * scale;
  }
  return out;
};
const numel = (shape) => shape.reduce((n, s) => n * s, 1);

function tensor(data, shape, dtype = 'f32') {
  if (dtype !== 'bf16') return native.createTensor(data, shape, dtype);
  const words = new Uint32Array(data.buffer, data.byteOffset, data.length);
  return native.createTensor(
    Uint16Array.from(words, (w) => w >>> 16),
    shape,
    'bf16',
  );
}

const median = (list) => [...list].sort((a, b) => a - b)[list.length >> 1];
const near = (got, want, what) => {
  if (!(Math.abs(got - want) <= 1e-2 * Math.max(1, Math.abs(want))))
    throw new Error(`${what}: got ${got}, want ${want}; not timed`);
};

function focalCase(dtype, backward) {
  const labels = new Int32Array(anchors).fill(classes);
  for (let i = 0; i < anchors; i += 1000) labels[i] = 1;
  const data = values(anchors * classes, 6);
  const inputs = [tensor(data, [anchors, classes], dtype), tensor(labels, [anchors], 'i32')];
  return {
    name: `focal ${dtype} ${backward ? 'fwd+bwd' : 'fwd'}`,
    op: 'sigmoidFocalLoss',
    inputs,
    douts: backward && [tensor(new Float32Array([0.01]), [])],
    bytes: data.length * (dtype === 'bf16' ? 2 : 4) * (backward ? 2 : 1),
    async check({ outputs: [loss] }) {
      const [stored, [got]] = [await inputs[0].read(), await loss.read()];
      let want = 0;
      for (let i = 0; i < stored.length; i++) {
        const positive = labels[Math.floor(i / classes)] === i % classes;
        const z = positive ? stored[i] : -stored[i];
        want += (positive ? 0.25 : 0.75) * (1 + Math.exp(z)) ** -2 * Math.log1p(Math.exp(-z));
      }
      near(got / want, 1, 'focal loss over its sum in double');
    },
  };
}

function normCase(op, dtype, backward) {
  const n = numel(featureMap);
  const [channels, groups] = [256, op === 'groupNorm' ? 32 : 256];
  const x = tensor(values(n, 1), featureMap, dtype);
  const parameter = (v) => tensor(new Float32Array(channels).fill(v), [channels]);
  const inputs = [x, parameter(1), parameter(0)];
  if (op === 'batchNorm') inputs.push(parameter(0), parameter(1));
  const dout = backward && tensor(values(n, 1, 99), featureMap, dtype);
  return {
    name: `${op} ${dtype} ${backward ? 'fwd+bwd' : 'fwd'}`,
    op,
    inputs,
    options: op === 'groupNorm' ? { groups } : {},
    training: true,
    douts: dout && [dout, ...(op === 'batchNorm' ? [null, null] : [])],
    bytes: n * (dtype === 'bf16' ? 2 : 4) * (backward ? 5 : 2),
    async check({ outputs: [y] }) {
      const out = await y.read();
      const images = op === 'groupNorm' ? 1 : 2; // statistics of one image, or of all
      const per = channels / groups;
      let [sum, square, count] = [0, 0, 0];
      for (let i = 0; i < (images * n) / 2; i += channels)
        for (let c = 0; c < per; c++, count++) {
          sum += out[i + c];
          square += out[i + c] ** 2;
        }
      near(sum / count, 0, `${op}: mean of a group`);
      near(square / count, 1, `${op}: mean square of a group`);
    },
  };
}

function mapCase(op, dtype, backward) {
  const n = numel(featureMap);
  const [images, height, width, channels] = featureMap;
  const inputs = [tensor(values(n, 1), featureMap, dtype)];
  if (op === 'upsampleAdd')
    inputs.push(tensor(values(n / 4, 1, 7), [images, height / 2, width / 2, channels], dtype));
  return {
    name: `${op} ${dtype} ${backward ? 'fwd+bwd' : 'fwd'}`,
    op,
    inputs,
    douts: backward && [tensor(values(n, 1, 99), featureMap, dtype)],
    bytes: n * (dtype === 'bf16' ? 2 : 4) * (op === 'relu' ? 2 : 2.25) * (backward ? 2 : 1),
    async check({ outputs: [y] }) {
      const [out, x, top] = await Promise.all([y, ...inputs].map((t) => t.read()));
      for (let i = 0; i < n; i += 10007) {
        const [column, row] = [Math.floor(i / channels) % width, Math.floor(i / channels / width)];
        const source = ((row >> 1) * (width / 2) + (column >> 1)) * channels + (i % channels);
        near(out[i], op === 'relu' ? Math.max(0, x[i]) : x[i] + top[source], `${op}[${i}]`);
      }
    },
  };
}

/** The peer's clock: sends a case, gets milliseconds, or null where it has no such op. */
function startPeer(python, threads) {
  const script = fileURLToPath(new URL('peer_ops.py', import.meta.url));
  const child = spawn(python, [script, String(threads)], {
    stdio: ['pipe', 'pipe', 'inherit'],
    env: { ...process.env, OMP_NUM_THREADS: String(threads) },
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const ask = async (line) => {
    child.stdin.write(`${line}\n`);
    const { value, done } = await lines.next();
    if (done) throw new Error(`${python} ${script} ended before it answered '${line}'`);
    return JSON.parse(value);
  };
  return { ask, stop: () => child.stdin.end() };
}

function copySpeed() {
  const [from, to] = [Buffer.alloc(128 << 20, 1), Buffer.alloc(128 << 20, 2)];
  const times = Array.from({ length: 7 }, () => {
    const start = performance.now();
    from.copy(to);
    return performance.now() - start;
  });
  return (2 * from.length) / median(times) / 1e6;
}

/** One record a case: { name, ms, spread, gbPerSecond, copyShare, peerMs, ratio }. */
export async function benchOps({ threads = 1, repeats = 9, peer, report = () => {} } = {}) {
  native.setNumThreads(threads);
  const clock = peer ? startPeer(peer, threads) : undefined;
  const copy = copySpeed();
  const machine = { cpu: cpus()[0]?.model, node: process.version, threads, copyGBPerSecond: copy };
  if (clock) machine.peer = await clock.ask('version');
  const makers = [];
  for (const dtype of ['f32', 'bf16'])
    for (const backward of [false, true]) {
      makers.push(() => focalCase(dtype, backward));
      for (const op of ['groupNorm', 'batchNorm']) makers.push(() => normCase(op, dtype, backward));
      for (const op of ['relu', 'upsampleAdd']) makers.push(() => mapCase(op, dtype, backward));
    }
  const records = [];
  for (const make of makers) {
    const item = make();
    const mode = { training: item.training ?? false };
    if (item.douts) mode.douts = item.douts;
    const json = JSON.stringify(item.options ?? {});
    const once = async (use) => {
      const start = performance.now();
      const result = await native.runOp(item.op, item.inputs, json, mode);
      const elapsed = performance.now() - start;
      await use?.(result);
      for (const t of [...result.outputs, ...result.gradients]) t?.dispose();
      return elapsed;
    };
    await once(item.check);
    const [ours, theirs] = [[], []];
    for (let i = 0; i < repeats; i++) {
      ours.push(await once());
      const answer = clock ? await clock.ask(item.name) : null;
      if (answer !== null) theirs.push(answer);
    }
    for (const t of [...item.inputs, ...(item.douts || [])]) t?.dispose();
    const ms = median(ours);
    const gbPerSecond = item.bytes / ms / 1e6;
    const record = {
      name: item.name,
      ms,
      spread: [Math.min(...ours), Math.max(...ours)],
      gbPerSecond,
      copyShare: gbPerSecond / copy,
      ...(theirs.length && { peerMs: median(theirs), ratio: ms / median(theirs) }),
    };
    records.push(record);
    report(record);
  }
  clock?.stop();
  return { machine, records };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values: flags } = parseArgs({
    options: {
      threads: { type: 'string', default: '1' },
      repeats: { type: 'string', default: '9' },
      peer: { type: 'string' },
      json: { type: 'string' },
    },
  });
  const result = await benchOps({
    threads: Number(flags.threads),
    repeats: Number(flags.repeats),
    peer: flags.peer,
    report: (r) => {
      const peer = r.ratio ? `  peer ${r.peerMs.toFixed(1)} ms  ratio ${r.ratio.toFixed(3)}` : '';
      console.log(
        `${r.name.padEnd(26)} ${r.ms.toFixed(2).padStart(8)} ms ` +
          `[${r.spread.map((v) => v.toFixed(1)).join(', ')}]  ${r.gbPerSecond.toFixed(1)} GB/s ` +
          `(${(100 * r.copyShare).toFixed(0)}% of copy)${peer}`,
      );
    },
  });
  console.log(JSON.stringify(result.machine));
  if (flags.json) writeFileSync(flags.json, `${JSON.stringify(result, null, 2)}\n`);
}
