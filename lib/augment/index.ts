export * from '../image/index.js';
export * from './mixing.js';
export * from './views.js';
