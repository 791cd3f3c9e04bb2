import { stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import type { Command } from 'commander';
import type { Detections } from '../detector/types.js';
import { MixplError } from '../errors.js';
import { drawingPaths, type NamedImage } from './drawing-paths.js';
import { withInterrupt } from './interrupt.js';
import { numberUpTo } from './numbers.js';
import { createOutput, exitCodes } from './output.js';
import { type RuntimeFlags, useRuntime, withRuntimeOptions } from './runtime-options.js';
import { createStatus } from './status.js';

interface PredictFlags extends RuntimeFlags {
  checkpoint: string;
  scoreThr: number;
  draw?: string;
  json?: boolean;
}

/** Of one file; an image, or a folder, that cannot be read has `error` alone. */
interface FilePrediction {
  file: string;
  width?: number;
  height?: number;
  detections?: { box: number[]; score: number; label: number; category: string }[];
  error?: { code: string; message: string };
}

export function addPredictCommand(program: Command): void {
  const command = program
    .command('predict')
    .description(
      'find objects in images; boxes are in pixels of the image as it is shown, with its EXIF orientation applied',
    )
    .argument('<image...>', 'image files, or folders of them')
    .requiredOption('--checkpoint <path>', 'weights file, checkpoint or folder of a run')
    .option(
      '--score-thr <number>',
      'lowest score of the detections to show, in [0, 1]',
      numberUpTo(1),
      0.3,
    )
    .option(
      '--draw <dir>',
      'also write every image with its boxes to this folder, as a PNG of the same name',
    );
  withRuntimeOptions(command)
    .option(
      '--json',
      'print { "images": [{ file, width, height, detections: [{ box: [x1, y1, x2, y2], score, label, category }] }] }',
    )
    .action(predict);
}

async function predict(paths: string[], flags: PredictFlags): Promise<void> {
  const output = createOutput(flags);
  const { openDetector } = await import('../detector/open.js');
  const { findWeights } = await import('../train/weights-file.js');
  const { files, unreadable } = await imageFiles(paths);
  const drawings = flags.draw === undefined ? null : await drawingPaths(flags.draw, files);
  const { headline } = await findWeights(flags.checkpoint);
  const { detector, categories } = await openDetector(headline, await useRuntime(flags));
  const status = createStatus();
  const nameOf = (label: number) => categories[label]?.name ?? String(label);
  const images: FilePrediction[] = [];
  try {
    const { decodeImage, prefetch } = await import('../data/index.js');
    await withInterrupt(async (signal) => {
      const decoded = prefetch(
        files,
        ({ file }) => decodeImage(file).catch((error: unknown) => refused(error)),
        { concurrency: 2, signal },
      );
      for await (const image of decoded) {
        const { file, name } = files[images.length]!;
        const drawing = drawings?.[images.length];
        status.set(`${images.length}/${files.length} ${file}`);
        if (image instanceof MixplError) {
          images.push({ file, error: { code: image.code, message: image.message } });
          continue;
        }
        const found = above((await detector.predict([image]))[0]!, flags.scoreThr);
        images.push({
          file,
          width: image.width,
          height: image.height,
          detections: Array.from(found.labels, (label, i) => ({
            box: [...found.boxes.subarray(4 * i, 4 * i + 4)],
            score: found.scores[i]!,
            label,
            category: nameOf(label),
          })),
        });
        if (drawing !== undefined)
          await draw(drawing, { name, image, found, names: categories.map((c) => c.name) });
      }
    });
  } finally {
    status.clear();
    detector.dispose();
  }
  images.push(...unreadable);
  for (const { error } of images) if (error) output.warn(error.message);
  if (images.some(({ error }) => error)) process.exitCode = exitCodes.failed;
  await output.result({ images }, () => images.flatMap(describe).join('\n'));
}

/** A file that cannot be used does not keep the others from being looked at. */
function refused(error: unknown): MixplError {
  if (error instanceof MixplError) return error;
  throw error;
}

/** What a folder has keeps its place in it. */
async function imageFiles(
  paths: readonly string[],
): Promise<{ files: NamedImage[]; unreadable: FilePrediction[] }> {
  const { listImages } = await import('../data/image-files.js');
  const files: NamedImage[] = [];
  const unreadable: FilePrediction[] = [];
  for (const path of paths) {
    const folder = await stat(path).then(
      (found) => found.isDirectory(),
      () => false,
    );
    if (!folder) files.push({ file: path, name: basename(path) });
    else {
      const before = unreadable.length;
      const found = await listImages(path, {
        ...{ recursive: true, operation: 'predict' },
        onProblem: ({ file, message }) =>
          unreadable.push({ file, error: { code: 'ERR_IO', message: `${file}: ${message}` } }),
      });
      if (found.length === 0 && unreadable.length === before)
        throw new MixplError('ERR_DATA', `${path}: must contain images, got a folder without any`);
      for (const name of found) files.push({ file: join(path, name), name });
    }
  }
  return { files, unreadable };
}

function above({ boxes, scores, labels }: Detections, threshold: number): Detections {
  const kept = scores.findIndex((score) => score < threshold);
  const n = kept < 0 ? scores.length : kept;
  return {
    boxes: boxes.subarray(0, 4 * n),
    scores: scores.subarray(0, n),
    labels: labels.subarray(0, n),
  };
}

async function draw(
  path: string,
  drawing: {
    name: string;
    image: { data: Uint8Array; width: number; height: number };
    found: Detections;
    names: readonly string[];
  },
): Promise<void> {
  const { writePanel } = await import('../report/pictures.js');
  const { makeFolder } = await import('../files.js');
  const { name, image, found, names } = drawing;
  await makeFolder(dirname(path));
  await writePanel(path, [[{ image, boxes: found, title: name }]], names);
}

function describe({ file, detections = [], error }: FilePrediction): string[] {
  if (error) return [];
  const rows = detections.map(
    ({ box, score, category }) =>
      `  ${score.toFixed(3)}  ${category}  [${box.map((v) => v.toFixed(1)).join(', ')}]`,
  );
  return [`${file}: ${rows.length} object${rows.length === 1 ? '' : 's'}`, ...rows];
}
