// How long the event loop is held up while a detector trains: `node scripts/bench/event-loop.mjs [ITERATIONS]`.
// Trains MixPL on drawn scenes (the demo's data and network) and prints the delay of a 1 ms timer as JSON.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { makeDemoData } from '../../dist/demo/demo-data.js';
import { createDetector, loadCoco, trainSemiSupervised } from '../../dist/index.js';

const iterations = Number(process.argv[2] ?? 150);
const folder = await mkdtemp(join(tmpdir(), 'mixpl-event-loop-'));
try {
  const size = { width: 640, height: 480 };
  const files = await makeDemoData(folder, {
    ...{ labelled: 8, unlabelled: 24, test: 4, seed: 1, ...size },
  });
  const images = files.images;
  const labelled = await loadCoco(files.labelled, { images });
  const unlabelled = await loadCoco(files.unlabelled, { images, labelled: false });
  const detector = await createDetector(
    {
      type: 'retinanet',
      numClasses: labelled.categories.length,
      backbone: { depth: 18, style: 'pytorch', norm: 'gn', frozenStages: -1, baseWidth: 32 },
      neck: { channels: 64, numOutputs: 4 },
      head: { channels: 64, stackedConvs: 2, norm: 'gn' },
      anchors: { strides: [8, 16, 32, 64] },
    },
    { optimizer: { type: 'adamw' } },
  );
  const resize = { long: 400, short: [192, 300] };
  const delay = monitorEventLoopDelay({ resolution: 1 });
  let step_ms = 0;
  let steps = 0;
  for await (const event of trainSemiSupervised(detector, {
    data: { labelled, unlabelled },
    settings: {
      lr: 1e-3,
      augment: { labelled: { resize }, weak: { resize }, strong: { resize } },
      semi: { emptyImageRule: 'per-image', scoreThr: 0.2 },
      schedule: { iterations },
      batch: { labelled: 4, unlabelled: 4 },
    },
  })) {
    if (event.type !== 'step') continue;
    if (event.iteration === 10) delay.enable(); // after the first use of everything
    if (event.iteration > 10) {
      step_ms += 1000 * event.seconds;
      steps++;
    }
  }
  delay.disable();
  const ms = (nanoseconds) => Number((nanoseconds / 1e6 - 1).toFixed(2));
  console.log(
    JSON.stringify({
      steps,
      stepMs: Number((step_ms / steps).toFixed(1)),
      delayMs: {
        p50: ms(delay.percentile(50)),
        p99: ms(delay.percentile(99)),
        max: ms(delay.max),
      },
    }),
  );
  detector.dispose();
} finally {
  await rm(folder, { recursive: true });
}
