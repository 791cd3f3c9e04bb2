import { drawScene } from '../../../lib/demo/scene.js';
import {
  type ComposeOptions,
  composeBatch,
  compositionOf,
  type ImageBatch,
  Random,
  type RetinaNetOptions,
  type Targets,
  testView,
} from '../../../lib/index.js';

/** Small enough for a test, with every part of the real thing. */
export const tinyDetector: RetinaNetOptions = {
  type: 'retinanet',
  numClasses: 6,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 16 },
  neck: { channels: 32 },
  head: { channels: 32, stackedConvs: 1, norm: 'gn' },
  anchors: { octaveBaseScale: 3 },
};

/** A batch of demo scenes with their boxes; dispose the batch. */
export async function sceneBatch(
  count: number,
  dtype: ComposeOptions['dtype'],
  {
    width = 128,
    height = 96,
    seed = 3,
    device = 'cpu',
    order = Array.from({ length: count }, (_, i) => i),
  } = {},
): Promise<{ batch: ImageBatch; targets: Targets[] }> {
  const random = new Random(seed);
  const scenes = order.map((i) => drawScene(random.fork(i), { width, height }));
  const batch = await composeBatch(
    scenes.map((scene) =>
      compositionOf(
        testView(scene, { long: Math.max(width, height), short: Math.min(width, height) }),
      ),
    ),
    {
      mean: [120, 115, 105],
      std: [58, 57, 57],
      channelOrder: 'rgb',
      padDivisor: 32,
      dtype,
      device,
      padTo: 'image',
    },
  );
  return {
    batch,
    targets: scenes.map(({ objects }) => ({
      boxes: Float32Array.from(objects.flatMap((o) => o.box)),
      labels: Int32Array.from(objects, (o) => o.label),
    })),
  };
}
