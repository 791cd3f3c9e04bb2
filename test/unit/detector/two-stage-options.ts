import type { DetectorOptions } from '../../../lib/index.js';

// Everything is sampled: what a loss is does not depend on the draw.
export const parts = {
  numClasses: 6,
  backbone: { depth: 18, norm: 'gn', frozenStages: -1, baseWidth: 16 },
  neck: { channels: 32 },
  rpn: {
    ...{ channels: 32, sampleSize: 100_000, posFraction: 1, scales: [4] },
    ...{ trainNmsPre: 200, trainMaxPerImage: 60, testMaxPerImage: 100 },
  },
} satisfies Partial<DetectorOptions>;
export const roi = { fcChannels: 64, sampleSize: 5000, posFraction: 1 };
export const faster: DetectorOptions = { type: 'faster-rcnn', ...parts, roi };
export const cascade: DetectorOptions = { type: 'cascade-rcnn', ...parts, roi };
