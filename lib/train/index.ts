export * from './checkpoint.js';
export * from './evaluate.js';
export * from './events.js';
export { checkIdentity, type Difference, differencesOf, type RunIdentity } from './identity.js';
export type { TrainOptions } from './options.js';
export * from './run.js';
export * from './run-data.js';
export { learningRate, type RateSchedule } from './schedule.js';
export { resolveTrainSettings, type TrainSettings, type TrainSettingsInput } from './settings.js';
export { trainSemiSupervised } from './trainer.js';
export {
  type BatchAndRate,
  paperBatches,
  recipeFor,
  type TrainingWarning,
  type WarningCode,
  type WatchState,
} from './watch.js';
export { findWeights, type WeightsFiles } from './weights-file.js';
