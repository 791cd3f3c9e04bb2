import { stat } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { MixplError } from '../errors.js';
import { CheckpointStore } from './checkpoint.js';

/** The weights files that a path on the command line means, by what they hold. */
export interface WeightsFiles {
  /** What to use: the best of a run, else the newest teacher, else the newest student. */
  headline: string;
  /** Both branches of a checkpoint, where there is one. */
  student: string | null;
  teacher: string | null;
}

/**
 * @param path a weights file, a checkpoint folder (`iteration-N`) or the folder of a run
 * @throws MixplError ERR_IO when there are no weights
 */
export async function findWeights(path: string): Promise<WeightsFiles> {
  const found = await stat(path).catch((cause: NodeJS.ErrnoException) => {
    const reason = cause.code === 'ENOENT' ? 'nothing' : cause.message;
    throw new MixplError(
      'ERR_IO',
      `${path}: must be weights, a checkpoint or a run, got ${reason}`,
      {
        cause,
      },
    );
  });
  if (!found.isDirectory()) return { headline: path, student: null, teacher: null };
  const existing = async (file: string) =>
    stat(file).then(
      () => file,
      () => null,
    );
  const folder = (await new CheckpointStore(join(path, 'checkpoints')).list())[0] ?? path;
  const [best, teacher, student] = await Promise.all([
    existing(join(path, 'best.safetensors')),
    existing(join(folder, 'teacher.safetensors')),
    existing(join(folder, 'student.safetensors')),
  ]);
  const headline = best ?? teacher ?? student;
  if (!headline)
    throw new MixplError(
      'ERR_IO',
      `${path}: must contain best.safetensors, checkpoints or the files of one, got none of them`,
    );
  return { headline, student, teacher };
}

/**
 * The checkpoints of a run, the oldest first.
 * @param path the folder of the run
 * @throws MixplError ERR_IO when there are none
 */
export async function findCheckpoints(path: string): Promise<string[]> {
  const folder = join(path, 'checkpoints');
  const found = (await new CheckpointStore(folder).list()).reverse();
  if (found.length > 0) return found;
  throw new MixplError(
    'ERR_IO',
    `${path}: must be the folder of a run, got none of ${folder}/iteration-N`,
  );
}

/**
 * The folder of the run that a weights file, a checkpoint or a run's folder is of: the one with its
 * config. Null for weights that stand alone.
 */
export async function findRunFolder(path: string): Promise<string | null> {
  const whole = resolve(path);
  const [, around] = /^(.*)[\\/]checkpoints[\\/]iteration-\d+([\\/][^\\/]+)?$/.exec(whole) ?? [];
  for (const folder of around === undefined ? [whole, dirname(whole)] : [around]) {
    const found = await stat(join(folder, 'config.yaml')).catch(() => null);
    if (found?.isFile()) return folder;
  }
  return null;
}
