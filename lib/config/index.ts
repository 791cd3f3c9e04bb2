export { adviceFor } from './advice.js';
export {
  formatConfig,
  isPreset,
  type LoadOptions,
  loadConfig,
  missingData,
  parseConfig,
} from './load.js';
export { type ConfigOption, listOptions } from './option-list.js';
export { datasetSource, detectorOptions, optimizerOptions } from './parts.js';
export { listPresets, type Preset } from './presets.js';
export { configSchema, jsonSchema, type ResolvedConfig, type RunConfig } from './schema.js';
