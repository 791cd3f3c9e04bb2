/** Weights of other libraries in and out. */
import { type Command, Option } from 'commander';
import type { ResolvedConfig } from '../config/index.js';
import type { Detector } from '../detector/detector.js';
import { MixplError } from '../errors.js';
import type { LayoutName } from '../weights/layouts.js';
import { layoutNames } from '../weights/layouts.js';
import { setOption } from './config.js';
import { createOutput, type Output } from './output.js';

interface ImportFlags {
  layout?: LayoutName;
  out: string;
  config?: string;
  set: string[];
  checkpoint?: string;
  prefix?: string;
  strict: boolean;
  json?: boolean;
}

interface ExportFlags {
  checkpoint: string;
  layout: 'torchvision' | 'mmdetection';
  out: string;
  json?: boolean;
}

export function addWeightsCommands(program: Command): void {
  program
    .command('import')
    .description('weights of torchvision, mmdetection or timm (.pth, safetensors) for mixpl')
    .argument('<file>', 'the weights; nothing in a .pth is run')
    .addOption(
      new Option('--layout <name>', 'whose names it has (default: found out)').choices(layoutNames),
    )
    .requiredOption('--out <file>', 'the safetensors file')
    .option('--config <config>', 'the detector: YAML file or name of a preset')
    .addOption(setOption())
    .option('--checkpoint <path>', 'the detector: weights file, checkpoint or folder of a run')
    .option('--prefix <text>', 'before the names, e.g. student (default: teacher, if there is one)')
    .option('--no-strict', 'leave out names that are missing or unexpected')
    .option('--json', 'print { "file", "layout", "loaded", "missing", "unexpected", "note" }')
    .action(async (file: string, flags: ImportFlags, command: Command) => {
      if ((flags.config === undefined) === (flags.checkpoint === undefined))
        command.error(
          'error: import needs --config or --checkpoint, which say what detector it is',
        );
      if (flags.checkpoint !== undefined && flags.set.length > 0)
        command.error('error: --set goes with --config: a checkpoint has its options');
      await importWeights(file, flags, createOutput(flags));
    });

  program
    .command('export')
    .description("a detector's weights under another library's names")
    .requiredOption('--checkpoint <path>', 'weights file, checkpoint or folder of a run')
    .addOption(
      new Option('--layout <name>', 'whose names; torchvision has some of its own detectors alone')
        .choices(['torchvision', 'mmdetection'])
        .makeOptionMandatory(),
    )
    .requiredOption('--out <file>', 'the safetensors file')
    .option('--json', 'print { "file", "layout", "weights", "tensors" }')
    .action(exportWeights);
}

async function importWeights(file: string, flags: ImportFlags, output: Output): Promise<void> {
  const { layout, prefix, strict, out } = flags;
  const { detector, metadata } = await detectorFor(file, flags);
  try {
    const { note, ...result } = await detector.loadWeights(file, {
      strict: strict ? 'except-classes' : false,
      ...(layout ? { layout } : {}),
      ...(prefix === undefined ? {} : { prefix }),
    });
    await detector.save(out, metadata);
    if (note) output.warn(note);
    await output.result({ file: out, ...result, ...(note ? { note } : {}) }, () =>
      [
        `${out}: ${result.loaded.length} tensors of ${file} (layout ${result.layout})`,
        ...described('not in the file', result.missing),
        ...described('not used', result.unexpected),
      ].join('\n'),
    );
  } finally {
    detector.dispose();
  }
}

function described(what: string, names: readonly string[]): string[] {
  return names.length ? [`${what}: ${names.join(', ')}`] : [];
}

/** The detector that the weights are for, and what its file should say beside them. */
async function detectorFor(
  file: string,
  flags: ImportFlags,
): Promise<{ detector: Detector; metadata: Record<string, string> }> {
  if (flags.checkpoint !== undefined) {
    const { openDetector } = await import('../detector/open.js');
    const { findWeights } = await import('../train/index.js');
    const { headline } = await findWeights(flags.checkpoint);
    const { detector, categories } = await openDetector(headline, { device: 'cpu' });
    return { detector, metadata: { categories: JSON.stringify(categories) } };
  }
  const { loadConfig } = await import('../config/index.js');
  const { createRunDetector } = await import('../train/run.js');
  const config = await loadConfig(flags.config!, { overrides: flags.set, withoutData: true });
  const model = { ...config.model, weights: null };
  const classes = model.numClasses ?? (await classesIn(file, flags, model));
  const detector = await createRunDetector({ ...config, device: 'cpu', model }, classes);
  return { detector, metadata: {} };
}

/** @throws MixplError ERR_CONFIG when the file does not say */
async function classesIn(
  file: string,
  { layout, prefix, config }: ImportFlags,
  model: ResolvedConfig['model'],
): Promise<number> {
  const { openWeights } = await import('../weights/open.js');
  const { classCount, detectLayout } = await import('../weights/detect-layout.js');
  await using weights = await openWeights(file, { prefix });
  const rowsPerClass =
    model.type === 'retinanet' ? model.anchors.ratios.length * model.anchors.scalesPerOctave : 1;
  const classes = classCount(weights, {
    layout: layout ?? detectLayout(weights),
    type: model.type,
    rowsPerClass,
  });
  if (classes !== null) return classes;
  throw new MixplError(
    'ERR_CONFIG',
    `import: model.numClasses must be given, got none in ${config} and no class layer of ${rowsPerClass} rows a class in ${file}; try --set model.numClasses=N`,
  );
}

async function exportWeights({ checkpoint, layout, out, ...flags }: ExportFlags): Promise<void> {
  const { openDetector } = await import('../detector/open.js');
  const { findWeights } = await import('../train/index.js');
  const { headline } = await findWeights(checkpoint);
  const { detector } = await openDetector(headline, { device: 'cpu' });
  try {
    await detector.exportWeights(out, { layout });
    const tensors = detector.parameters().length;
    await createOutput(flags).result(
      { file: out, layout, weights: headline, tensors },
      () => `${out}: ${tensors} tensors of ${headline} (layout ${layout})`,
    );
  } finally {
    detector.dispose();
  }
}
