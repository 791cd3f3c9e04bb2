import { basename, join, parse } from 'node:path';
import { type Command, InvalidArgumentError } from 'commander';
import type { CamView, PictureCams } from '../../analysis/cam.js';
import type { ImageCache, ImageRecord } from '../../data/index.js';
import { MixplError } from '../../errors.js';
import { withInterrupt } from '../interrupt.js';
import { createOutput, type Output } from '../output.js';
import { createStatus } from '../status.js';
import { type Branches, openBranches, settingsOf } from './branches.js';
import { hiddenTruth, type SourceFlags, withChoiceOptions } from './source.js';

interface CamFlags extends SourceFlags {
  checkpoint: string;
  level: string;
  threshold?: number;
  out: string;
  json?: boolean;
}

/** What --json prints of a view. */
interface ViewSummary {
  /** Of the pyramid. */
  level: string;
  /** Anchors, points, regions or queries that were to find an object, and the sum of their logits. */
  rows: number;
  score: number;
  /** The largest heat, and what the image's brightest colour stands for. */
  hottest: number;
  brightest: number;
  /** Boxes of each colour. */
  found: number;
  missed: number;
  wrong: number;
  unjudged: number;
}

interface PictureSummary {
  file: string;
  png: string;
  views: Record<string, ViewSummary | null>;
}

const command = 'analyze cam';

export function addAnalyzeCam(analyze: Command): void {
  withChoiceOptions(
    analyze
      .command('cam')
      .description('draw where a student looks for objects in each of its views (Grad-CAM)')
      .argument(
        '[paths...]',
        "image files; or one COCO file or VOC folder (default: the run's own unlabelled images, if they are annotated)",
      ),
  )
    .requiredOption('--checkpoint <path>', 'weights file, checkpoint or folder of a run')
    .requiredOption(
      '--out <dir>',
      'folder for one PNG per image, which shows its weak, strong, mixup and mosaic views',
    )
    .option(
      '--level <name>',
      'pyramid level, e.g. P3; auto: the level with the largest gradient',
      'auto',
    )
    .option(
      '--threshold <score>',
      "score threshold of pseudo labels in [0, 1] (default: the run's semi.scoreThr)",
      share,
    )
    .option(
      '--json',
      'print { "student", "teacher", "legend", "images": [{ file, png, views: { weak: { level, rows, score, hottest, brightest, found, missed, wrong, unjudged }, … } }] }',
    )
    .action(async (paths: string[], flags: CamFlags) => {
      const output = createOutput(flags);
      const result = await draw(paths, flags, output);
      await output.result(result, () => result.images.map(describe).join('\n'));
    });
}

function share(text: string): number {
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (!(value >= 0 && value <= 1)) throw new InvalidArgumentError('It must be in [0, 1].');
  return value;
}

async function draw(paths: readonly string[], flags: CamFlags, output: Output) {
  const { camViews } = await import('../../analysis/cam.js');
  const { boxColors, brightest, writeCams } = await import('../../analysis/cam-picture.js');
  const { makeFolder } = await import('../../files.js');
  const { checkpoint, level, threshold, seed, out } = flags;
  const branches = await openBranches(checkpoint, flags, output);
  const status = createStatus();
  const images: PictureSummary[] = [];
  try {
    await withInterrupt(async (signal) => {
      const { student, teacher } = branches;
      const { pictures, ...source } = await sourceOf(paths, { flags, branches, signal, output });
      const cams = camViews(student, pictures, {
        ...{ teacher, level, threshold, seed, signal, ...source },
        onUnreadable: ({ message }) => output.warn(`${message}; it is not drawn`),
        onProgress: (done, total) => status.set(`${done}/${total} images`),
      });
      const nameOf = freeNames();
      for await (const found of cams) {
        await makeFolder(out);
        const png = join(out, nameOf(found.image.fileName));
        await writeCams(png, found);
        images.push({ file: found.image.path, png, views: summaries(found, brightest) });
      }
    });
  } finally {
    status.clear();
    branches.dispose();
  }
  const legend = Object.fromEntries(
    Object.entries(boxColors).map(([kind, { name, color }]) => [kind, { name, color }]),
  );
  return { ...branches.files, legend, images };
}

/** The images, and how they are read and shown. */
async function sourceOf(
  paths: readonly string[],
  of: { flags: CamFlags; branches: Branches; signal: AbortSignal; output: Output },
) {
  const { flags, branches, signal, output } = of;
  const { checkpoint, limit, seed } = flags;
  const { hasImageExtension } = await import('../../data/image-files.js');
  const files = paths.filter(hasImageExtension);
  if (files.length === 0 && paths.length <= 1) {
    const { annotatedImages } = await import('../../analysis/annotated-images.js');
    const { checkClassCount } = await import('../../analysis/view-walk.js');
    const { categories } = branches;
    const { config, dataset, cache, unreadable } = await hiddenTruth(paths[0], {
      ...{ command, flags, checkpoint, categories, signal, output },
    });
    checkClassCount(command, branches.student, dataset);
    const { images } = annotatedImages(dataset, { limit, seed });
    return { pictures: images, settings: settingsOf(config, output), cache, unreadable };
  }
  if (files.length < paths.length)
    throw new MixplError(
      'ERR_CONFIG',
      `${command}: paths must be image files or one data set, got ${paths.join(', ')}`,
    );
  const { runConfig } = await import('../checkpoint-dataset.js');
  const { decodeImage, ImageCache } = await import('../../data/index.js');
  const config = await runConfig(checkpoint, null);
  const damaged = config?.data.damagedImages ?? 'refuse';
  const cache = new ImageCache({ decode: (file) => decodeImage(file, { damaged }) });
  const pictures = await recordsOf(files.slice(0, limit), cache);
  return { pictures, settings: settingsOf(config, output), cache };
}

async function recordsOf(files: readonly string[], cache: ImageCache): Promise<ImageRecord[]> {
  const records: ImageRecord[] = [];
  for (const [id, path] of files.entries()) {
    const { width, height } = await cache.get(path);
    records.push({ id, fileName: basename(path), path, width, height, annotations: null });
  }
  return records;
}

/** Names of PNGs in one folder; of equal ones the later ones are numbered. */
function freeNames(): (fileName: string) => string {
  const taken = new Set<string>();
  return (fileName) => {
    const { name } = parse(fileName);
    let free = `${name}.png`;
    for (let n = 2; taken.has(free); n++) free = `${name}-${n}.png`;
    taken.add(free);
    return free;
  };
}

type Brightest = (heat: Float32Array) => number;

function summaries({ views }: PictureCams, brightest: Brightest): PictureSummary['views'] {
  return Object.fromEntries(
    Object.entries(views).map(([name, view]) => [name, view && summaryOf(view, brightest)]),
  );
}

function summaryOf(
  { cam, found, missed, wrong, unjudged }: CamView,
  brightest: Brightest,
): ViewSummary {
  return {
    ...{ level: cam.level, rows: cam.rows, score: cam.score },
    hottest: cam.heat.values.reduce((most, value) => Math.max(most, value), 0),
    brightest: brightest(cam.heat.values),
    ...{ found: found.labels.length, missed: missed.labels.length },
    ...{ wrong: wrong.labels.length, unjudged: unjudged.labels.length },
  };
}

function describe({ png, views }: PictureSummary): string {
  const parts = Object.entries(views).map(([name, view]) => {
    if (!view) return `${name}: nothing`;
    const { level, found, missed, wrong, unjudged } = view;
    const counts =
      unjudged > 0
        ? `${unjudged} pseudo labels`
        : `${found} found, ${missed} missed, ${wrong} wrong`;
    return `${name} at ${level}: ${counts}`;
  });
  return `${png}: ${parts.join('; ')}`;
}
