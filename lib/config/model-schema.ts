/** What is trained: the network and how its numbers come from pixels. */
import { z } from 'zod';
import { positive, positiveCount } from './fields.js';
import { atss } from './models/atss.js';
import { centernet } from './models/centernet.js';
import { dabDetr, deformableDetr, dino } from './models/detr.js';
import { fcos } from './models/fcos.js';
import { gfl } from './models/gfl.js';
import { paa } from './models/paa.js';
import { retinanet } from './models/retinanet.js';
import { sparseRcnn } from './models/sparse-rcnn.js';
import { tood } from './models/tood.js';
import { cascadeRcnn, fasterRcnn } from './models/two-stage.js';

/** One entry per detector; without a type it is the first. */
export const modelSchema = z.discriminatedUnion('type', [
  retinanet,
  fcos,
  centernet,
  atss,
  gfl,
  tood,
  fasterRcnn,
  cascadeRcnn,
  paa,
  sparseRcnn,
  dabDetr,
  deformableDetr,
  dino,
]);

const perChannel = (bound: z.ZodNumber) => z.tuple([bound, bound, bound]);

/** Defaults: the caffe-style statistics of the paper's RetinaNet. */
export const preprocessSchema = z.strictObject({
  mean: perChannel(z.number())
    .default([103.53, 116.28, 123.675])
    .describe('subtracted from each channel, of values 0 … 255'),
  std: perChannel(positive()).default([1, 1, 1]).describe('divisor of each channel after that'),
  channelOrder: z
    .enum(['rgb', 'bgr'])
    .default('bgr')
    .describe('order of the colour channels in mean, std and the network'),
  padDivisor: positiveCount()
    .max(4096)
    .default(32)
    .describe('height and width of batches are padded to a multiple of this'),
});
