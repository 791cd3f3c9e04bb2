// What our detectors make of small pictures, for compare.py, which asks mmdetection's own code the same.
//   node scripts/mmdetection/record.mjs FOLDER [case …]      after npm run build
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  composeBatch,
  compositionOf,
  createDetector,
  Random,
  readSafetensors,
  resizedView,
  writeSafetensors,
} from '../../dist/index.js';
import { cases, truths } from './cases.mjs';

const [folder, ...only] = process.argv.slice(2);
if (!folder) throw new Error('usage: record.mjs FOLDER [case …]');
await mkdir(folder, { recursive: true });

/** Waves and noise, so that features differ from place to place. */
function picture(width, height, seed) {
  const random = new Random(seed);
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < data.length; i++) {
    const c = i % 3;
    const x = Math.floor(i / 3) % width;
    const y = Math.floor(i / 3 / width);
    const wave = Math.sin(x / (9 + 5 * c) + seed) * Math.cos(y / (13 - 3 * c));
    data[i] = 128 + 90 * wave + random.integer(-25, 25);
  }
  return { data, width, height };
}
const pictures = [picture(250, 180, 1), picture(200, 250, 2)];

/**
 * Other weights than fresh ones, with which scores and boxes differ: no bias is 0 (where padding is 0 a
 * ReLU would stand on its kink, and rounding decide), no sampled place on a pixel's centre (another kink).
 */
async function stir(detector, { scales = [] }) {
  const laws = [
    [/(_cls|fc_cls|cls_branches\.\d|cls_prob_module\.2)\.bias$/, (_, draw) => -2 + 0.3 * draw()],
    [/sampling_offsets\.bias$/, (v, draw) => v + 0.3 * draw()],
    [/reg_branches\.\d\.4\.weight$|fc_reg\.layers\.2\.weight$/, (_, draw) => 0.2 * draw()],
    [/(conv_reg|tood_reg|gfl_reg|atss_reg)\.bias$/, (v) => v + 0.5],
    [/^(neck|backbone).*bias$|(gn|norm\w*|_convs\.\d\.conv)\.bias$/, (_, draw) => 0.2 * draw()],
    ...scales.map(([pattern, scale]) => [pattern, (v) => v * scale]),
    [/(cls_branches\.\d|fc_cls)\.weight$/, (v) => 8 * v],
    [/(_cls|cls_prob_module\.2)\.weight$/, (v) => 25 * v],
    [/reg_offset_module\.2\.weight$/, (v) => 1500 * v],
    [/fc_reg\.weight$/, (v) => 20 * v],
    [/(_reg|_iou|_centerness)\.weight$/, (v) => 15 * v],
  ];
  for (const { name, kind } of detector.parameters()) {
    const law = kind === 'weight' && laws.find(([pattern]) => pattern.test(name))?.[1];
    if (!law) continue;
    const random = new Random([...name].map((letter) => letter.charCodeAt(0)));
    const values = await detector.readTensor(name);
    await detector.writeTensor(
      name,
      values.map((v) => law(v, () => random.normal())),
    );
  }
}

/** Gradients under mmdetection's names, beside the pixels that they are of. */
async function gradientsOf(detector, names, batch) {
  const pixels = await batch.tensor.read();
  const out = new Map([['pixels', { shape: [...batch.tensor.shape], data: pixels }]]);
  const trained = new Set(
    detector.parameters().flatMap((p) => (p.kind === 'weight' && p.trainable ? p.name : [])),
  );
  for (const [name, { shape }] of names) {
    if (!trained.has(name)) continue;
    const data = await detector.gradient(name, { layout: 'mmdetection' });
    if (data) out.set(name, { shape: [...shape], data });
  }
  return out;
}

for (const [name, setup] of Object.entries(cases)) {
  if (only.length > 0 && !only.includes(name)) continue;
  for (const [scene, truth] of Object.entries(truths)) {
    const at = (what) => join(folder, `${name}.${scene}.${what}`);
    const runtime = { device: 'cpu', dtype: 'fp32', seed: 5 };
    const detector = await createDetector(setup.options, runtime);
    await detector.exportWeights(at('fresh.safetensors'), { layout: 'mmdetection' });
    await stir(detector, setup);
    await detector.exportWeights(at('weights.safetensors'), { layout: 'mmdetection' });
    const { tensors } = await readSafetensors(at('weights.safetensors'));
    const batch = await composeBatch(
      pictures.map((p) => compositionOf(resizedView(p, p))),
      {
        mean: [120, 115, 105],
        std: [58, 57, 57],
        channelOrder: 'rgb',
        padDivisor: 32,
        dtype: 'f32',
        padTo: truth.padTo,
      },
    );
    const losses = await detector.loss(
      batch,
      truth.images.map(({ boxes, labels }) => ({
        boxes: Float32Array.from(boxes),
        labels: Int32Array.from(labels),
      })),
    );
    await detector.backward();
    await writeSafetensors(
      at('gradients.safetensors'),
      await gradientsOf(detector, tensors, batch),
    );
    const found = (await detector.predict(batch)).map(({ boxes, scores, labels }) => ({
      boxes: [...boxes],
      scores: [...scores],
      labels: [...labels],
    }));
    const { sizes, padSizes } = batch;
    const images = truth.images;
    await writeFile(at('json'), JSON.stringify({ name, losses, sizes, padSizes, images, found }));
    batch.dispose();
    await detector.dispose();
  }
  console.log(name);
}
