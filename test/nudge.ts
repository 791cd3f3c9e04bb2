// Moves every weight of every detector by a last place of f32 before its first pass. What a suite says may not turn on
// that: another compiler, processor or order of a sum does the same. MIXPL_TEST_NUDGE (1, 2, …) chooses the numbers:
//   MIXPL_TEST_NUDGE=1 npx vitest run test/unit/detector
import { Detector } from '../lib/index.js';
import { hashed } from './unit/detector/formula.js';

const nudged = new WeakSet<Detector>();

async function nudge(detector: Detector): Promise<void> {
  if (nudged.has(detector)) return;
  nudged.add(detector);
  for (const { name } of detector.parameters()) {
    const values = await detector.readTensor(name);
    const moves = hashed(`${name} ${process.env.MIXPL_TEST_NUDGE}`, values.length);
    await detector.writeTensor(
      name,
      values.map((v, i) => v * (1 + moves[i]! * 2 ** -23)),
    );
  }
}

const { loss, predict } = Detector.prototype;
Detector.prototype.loss = async function (...inputs) {
  await nudge(this);
  return loss.apply(this, inputs);
};
Detector.prototype.predict = async function (
  this: Detector,
  ...inputs: Parameters<typeof predict>
) {
  await nudge(this);
  return predict.apply(this, inputs);
} as typeof predict;
