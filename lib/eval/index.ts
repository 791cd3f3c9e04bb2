export * from './boxes.js';
export * from './coco.js';
export * from './coco-files.js';
export {
  type Matches,
  matchObjects,
  type ObjectBoxes,
  type SizeName,
  sizeNames,
} from './matching.js';
export * from './report.js';
export * from './voc.js';
