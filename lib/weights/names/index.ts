import type { DetectorType } from '../../detector/options.js';
import { atssNames } from './atss.js';
import { centernetNames } from './centernet.js';
import { dabDetrNames, deformableDetrNames, dinoNames } from './detr.js';
import { fcosNames } from './fcos.js';
import { gflNames } from './gfl.js';
import type { DetectorNames } from './names.js';
import { paaNames } from './paa.js';
import { retinanetNames } from './retinanet.js';
import { sparseRcnnNames } from './sparse-rcnn.js';
import { toodNames } from './tood.js';
import { cascadeRcnnNames, fasterRcnnNames } from './two-stage.js';

export type { DetectorNames } from './names.js';

/** One entry per detector. */
export const detectorNames: Record<DetectorType, DetectorNames> = {
  retinanet: retinanetNames,
  fcos: fcosNames,
  'faster-rcnn': fasterRcnnNames,
  'cascade-rcnn': cascadeRcnnNames,
  centernet: centernetNames,
  tood: toodNames,
  atss: atssNames,
  gfl: gflNames,
  paa: paaNames,
  'sparse-rcnn': sparseRcnnNames,
  'dab-detr': dabDetrNames,
  'deformable-detr': deformableDetrNames,
  dino: dinoNames,
};
