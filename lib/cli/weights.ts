/** Weights of other libraries in and out. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { ResolvedConfig } from '../config/index.js';
import type { Detector } from '../detector/detector.js';
import { MixplError } from '../errors.js';
import type { Size } from '../image/index.js';
import type { LayoutName } from '../weights/layouts.js';
import { layoutNames } from '../weights/layouts.js';
import { setOption } from './config.js';
import { createOutput, exitCodes, type Output } from './output.js';

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
  branch?: Branch;
  layout?: 'torchvision' | 'mmdetection';
  onnx?: Size;
  check?: string;
  out: string;
  json?: boolean;
}

const branches = ['teacher', 'student'] as const;
type Branch = (typeof branches)[number];

export function addWeightsCommands(program: Command): void {
  program
    .command('import')
    .description(
      'convert weights of torchvision, mmdetection or timm (.pth, safetensors) for mixpl',
    )
    .argument('<file>', 'weights to convert; nothing in a .pth is executed')
    .addOption(
      new Option(
        '--layout <name>',
        'whose parameter names the file has (default: recognised from them)',
      ).choices(layoutNames),
    )
    .requiredOption('--out <file>', 'safetensors file to write')
    .option('--config <config>', 'detector that the weights are for: YAML file or name of a preset')
    .addOption(setOption())
    .option(
      '--checkpoint <path>',
      'detector that the weights are for: weights file, checkpoint or folder of a run',
    )
    .option(
      '--prefix <text>',
      'take only names with this prefix, e.g. student (default: teacher, if the file has one)',
    )
    .option('--no-strict', 'accept missing and unexpected names')
    .option('--json', 'print { "file", "layout", "loaded", "missing", "unexpected", "note" }')
    .action(async (file: string, flags: ImportFlags, command: Command) => {
      if ((flags.config === undefined) === (flags.checkpoint === undefined))
        command.error(
          'error: import needs either --config or --checkpoint, which describe the detector',
        );
      if (flags.checkpoint !== undefined && flags.set.length > 0)
        command.error('error: --set needs --config: a checkpoint has its own options');
      await importWeights(file, flags, createOutput(flags));
    });

  program
    .command('export')
    .description(
      "write a detector's weights under another library's names, or the whole detector as an ONNX file",
    )
    .usage(
      '[options] --checkpoint <path> --layout <name> --out <file>\n       mixpl export [options] --checkpoint <path> --onnx <HxW> --out <file>',
    )
    .requiredOption('--checkpoint <path>', 'weights file, checkpoint or folder of a run')
    .addOption(
      new Option(
        '--branch <name>',
        "export this branch of the run's newest checkpoint (default: the run's best weights)",
      ).choices(branches),
    )
    .addOption(
      new Option(
        '--layout <name>',
        'whose parameter names to write; torchvision has names for its own detectors only',
      ).choices(['torchvision', 'mmdetection']),
    )
    .option(
      '--onnx <HxW>',
      'write an ONNX file, from pixels to detections, for images of this size in pixels, e.g. 480x640',
      sizeOption,
    )
    .option(
      '--check <image>',
      'with --onnx: run the file on this image with onnxruntime-node, and compare it with predict',
    )
    .requiredOption('--out <file>', 'safetensors or ONNX file to write')
    .option(
      '--json',
      'print { "file", "layout", "weights", "tensors" }; with --onnx { "file", "weights", "height", "width", "bytes", "nodes", "resize", "check" }',
    )
    .action(async (flags: ExportFlags, command: Command) => {
      if ((flags.layout === undefined) === (flags.onnx === undefined))
        command.error('error: export needs either --layout or --onnx, which say what to write');
      if (flags.check !== undefined && !flags.onnx) command.error('error: --check needs --onnx');
      await (flags.onnx ? exportAsOnnx(flags, flags.onnx) : exportWeights(flags));
    });
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
    `import: model.numClasses must be given, got none in ${config}, and no class layer with ${rowsPerClass} rows per class in ${file}; try --set model.numClasses=N`,
  );
}

/** @throws commander's error for anything but HEIGHTxWIDTH */
function sizeOption(text: string): Size {
  const [, height, width] = /^(\d+)[x×](\d+)$/.exec(text) ?? [];
  if (height === undefined || width === undefined)
    throw new InvalidArgumentError('It must be HEIGHTxWIDTH in pixels, e.g. 480x640.');
  return { height: Number(height), width: Number(width) };
}

/** @throws MixplError ERR_CONFIG for a branch that is not there */
async function weightsOf({ checkpoint, branch }: ExportFlags): Promise<string> {
  const { findWeights } = await import('../train/index.js');
  const files = await findWeights(checkpoint);
  const file = branch === undefined ? files.headline : files[branch];
  if (file) return file;
  throw new MixplError(
    'ERR_CONFIG',
    `export: --branch ${branch} must be a branch of ${checkpoint}, which does not have it`,
  );
}

async function exportWeights({ layout, out, ...flags }: ExportFlags): Promise<void> {
  const { openDetector } = await import('../detector/open.js');
  const weights = await weightsOf({ out, ...flags });
  const { detector } = await openDetector(weights, { device: 'cpu' });
  try {
    await detector.exportWeights(out, { layout: layout! });
    const tensors = detector.parameters().length;
    await createOutput(flags).result(
      { file: out, layout, weights, tensors },
      () => `${out}: ${tensors} tensors of ${weights} (layout ${layout})`,
    );
  } finally {
    detector.dispose();
  }
}

async function exportAsOnnx(flags: ExportFlags, size: Size): Promise<void> {
  const { out, check } = flags;
  const { openDetector } = await import('../detector/open.js');
  const { compareOnnx, exportOnnx, ofWeights } = await import('../onnx/index.js');
  const { testSize } = await import('../image/index.js');
  const weights = await weightsOf(flags);
  const opened = await openDetector(weights, { device: 'cpu', dtype: 'fp32' });
  const { detector } = opened;
  try {
    const written = await exportOnnx(detector, out, { ...size, ...ofWeights(opened) });
    const { resize } = detector.preprocess;
    const picture = check === undefined ? null : await pictureOf(check, size);
    const comparison = picture && (await compareOnnx(out, detector, { ...picture, ...size }));
    const scaled = testSize(picture?.original ?? size, resize);
    await createOutput(flags).result(
      { file: out, weights, ...size, ...written, resize, check: comparison },
      () =>
        [
          `${out}: ${weights} for images of ${sides(size)}, ${written.bytes} bytes`,
          ...(sides(scaled) === sides(size)
            ? []
            : [
                `predict would scale ${picture ? check : `an image of ${sides(size)}`} to ${sides(scaled)}; a file exported with --onnx ${scaled.height}x${scaled.width} would match that`,
              ]),
          ...(comparison
            ? [
                `${check}: ${comparison.matched} of ${comparison.detections} detections of predict agree, ${comparison.others} are in the file only;` +
                  ` largest differences: score ${comparison.score.toExponential(1)}, ${comparison.pixels.toExponential(1)} pixels`,
              ]
            : []),
        ].join('\n'),
    );
    if (comparison && (comparison.matched < comparison.detections || comparison.others > 0))
      process.exitCode = exitCodes.failed;
  } finally {
    detector.dispose();
  }
}

const sides = ({ height, width }: Size) => `${height}×${width}`;

/** An image file, stretched to a size, and what size it has. @throws MixplError ERR_IO, ERR_BAD_FILE */
async function pictureOf(
  path: string,
  { height, width }: Size,
): Promise<{ data: Uint8Array; original: Size }> {
  const { decodeImage } = await import('../data/index.js');
  const { default: sharp } = await import('sharp');
  const { data, ...raw } = await decodeImage(path);
  const pixels = sharp(data, { raw: { ...raw, channels: 3 } })
    .resize(width, height, { fit: 'fill' })
    .raw();
  return { data: await pixels.toBuffer(), original: raw };
}
