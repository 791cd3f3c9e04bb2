export * from './boxes.js';
export * from './coco.js';
export * from './coco-files.js';
export * from './report.js';
export * from './voc.js';
