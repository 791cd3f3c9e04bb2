// Grad-CAM and gradient densities of every detector on both devices.
import { describe, expect, test } from 'vitest';
import {
  createDetector,
  type Detector,
  type GradientDensity,
  gradCam,
  gradientDensity,
  native,
} from '../../../lib/index.js';
import { sceneBatch } from '../detector/scenes.js';
import { smallDetectors } from './small-detectors.js';

/** Relative to the norm of a map: f32 sums in another order, through some thirty layers. */
const tolerance = 1e-3;
const norm = (values: Float32Array) => Math.hypot(...values);

async function analysed(detector: Detector) {
  const { batch, targets: found } = await sceneBatch(2, 'f32', {
    ...{ width: 64, height: 64, device: detector.device },
  });
  const targets = found.map((t) => ({ ...t, labels: t.labels.map((l) => l % 3) }));
  const other = targets.map(({ boxes, labels }) => ({
    boxes: boxes.map((v, i) => v + (i % 2)),
    labels,
  }));
  const level = await gradCam(detector, batch, targets).then(([cam]) => cam!.level);
  const cams = await gradCam(detector, batch, targets, { level });
  const input = { truth: targets, pseudo: [other], bins: 10 };
  const density = await gradientDensity(detector, batch, input).catch(
    (error: { code: string }) => error.code,
  );
  batch.dispose();
  return { cams, density };
}

describe.skipIf(native.cudaReason() !== null)('on a GPU', () => {
  test.each(Object.entries(smallDetectors))(
    '%s is seen as on the CPU',
    async (_, options) => {
      const runtime = { dtype: 'fp32' as const, seed: 3 };
      await using cpu = await createDetector(options, { ...runtime, device: 'cpu' });
      await using gpu = await createDetector(options, { ...runtime, device: 'cuda' });
      const [want, got] = [await analysed(cpu), await analysed(gpu)];
      for (const [n, cam] of want.cams.entries()) {
        const { level, rows } = cam;
        expect(got.cams[n]).toMatchObject({ level, rows });
        expect(Math.abs(got.cams[n]!.score - cam.score)).toBeLessThanOrEqual(
          tolerance * Math.abs(cam.score),
        );
        const off = cam.cells.values.map((v, i) => v - got.cams[n]!.cells.values[i]!);
        expect(norm(off)).toBeLessThanOrEqual(tolerance * norm(cam.cells.values));
      }
      if (typeof want.density === 'string') {
        expect(want.density).toBe('ERR_CONFIG');
        expect(got.density).toBe('ERR_CONFIG');
        return;
      }
      // A norm at the edge of a bin may fall to either side of it.
      const of = (density: GradientDensity[][] | string) =>
        (density as GradientDensity[][])[0]!.map((image) => Object.values(image.counts));
      of(want.density).forEach((types, n) => {
        types.forEach((bins, t) => {
          const mine = of(got.density)[n]![t]!;
          expect(mine.reduce((a, b) => a + b, 0)).toBe(bins.reduce((a, b) => a + b, 0));
          const moved = bins.reduce((sum, count, b) => sum + Math.abs(count - mine[b]!), 0);
          expect(moved).toBeLessThanOrEqual(2e-3 * bins.reduce((a, b) => a + b, 0));
        });
      });
    },
    300_000,
  );
});
