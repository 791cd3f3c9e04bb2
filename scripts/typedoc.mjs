// `npm run docs`: reference pages of the public entry points in build/docs. Every warning is an error, so a
// link that leads nowhere, a type that cannot be imported and a symbol without a word break CI.
import { OptionDefaults } from 'typedoc';

/** @type {Partial<import('typedoc').TypeDocOptions>} */
export default {
  name: 'mixpl',
  entryPoints: ['../lib/index.ts', '../lib/kernels/index.ts'],
  tsconfig: '../tsconfig.json',
  out: '../build/docs',
  logLevel: 'Warn',
  readme: 'none',
  disableSources: true,
  sort: ['kind', 'instance-first', 'source-order'], // docstrings of options go on from those before
  excludeInternal: true,
  excludePrivate: true,
  blockTags: [...OptionDefaults.blockTags, '@source'],
  treatWarningsAsErrors: true,
  treatValidationWarningsAsErrors: true,
  validation: {
    notExported: true,
    invalidLink: true,
    invalidPath: true,
    rewrittenLink: true,
    notDocumented: true,
    unusedMergeModuleWith: true,
  },
  // Properties may speak for themselves (`width`); those with a unit, a range or a default have a word, too.
  requiredToBeDocumented: [
    'Namespace',
    'Variable',
    'Function',
    'Class',
    'Interface',
    'TypeAlias',
    'Constructor',
    'Method',
    'Accessor',
  ],
  // Schemas and lists from which exported types are inferred.
  intentionallyNotExported: [
    'configSchema',
    'settingsSchema',
    'lib/detector/probe.ts:sampleTypes',
    'lib/detector/torchvision.ts:entries',
    'lib/kernels/boxes.ts:iouKinds',
    'lib/semi/branch-group.ts:togethers',
  ],
};
