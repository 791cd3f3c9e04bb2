export * from './boxes.js';
export * from './compose.js';
export * from './composition.js';
export * from './view.js';
